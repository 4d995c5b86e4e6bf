"""The whole book, executed once with the profile `smoke` for all tests that look at it."""

import contextlib

import nbformat
import pytest

from tlhelpers import build, settings

CHAPTERS = build.list_chapters()
REPOSITORY = "owner/name"  # so that the pages are those that would be published
PARAMETERS = {"PROFILE": "smoke", "PROTOCOL": "careful", "SEED": 0}


def environment_of(folder):
    """What the environment says while the chapters are executed below a folder."""
    places = {f"TLHELPERS_{name}": str(folder / name.lower()) for name in ("HOME", "RUNS", "MODELS", "EXPORTS")}
    return places | {"TLHELPERS_PROFILE": PARAMETERS["PROFILE"]}


@contextlib.contextmanager
def surroundings_of(folder):
    """Lets the build work below a folder, with an empty cache: all there is are the drawings and the embedded
    backbone.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment_of(folder).items():
            patch.setenv(name, value)
        patch.setattr(build, "BUILD_FOLDER", folder / "_build")
        patch.setattr(build, "STAGING_FOLDER", folder / "_build" / "source")
        patch.setattr(build, "OUTPUT_FOLDER", folder)
        yield


def execute_chapters(folder):
    """All chapters, executed in order: a dict from chapter to the executed notebook."""
    notebooks = {}
    with surroundings_of(folder):
        for chapter in CHAPTERS:
            destination = build.STAGING_FOLDER / chapter
            build.execute_chapter(settings.PROJECT_FOLDER / chapter, destination, PARAMETERS)
            notebooks[chapter] = nbformat.read(destination, as_version=4)
    return notebooks


def build_pages(folder):
    """The site of executed chapters: the path of its first page."""
    with surroundings_of(folder):
        build.stage_source(CHAPTERS, repository=REPOSITORY)
        return build.build_site()
