"""The whole book, executed once with the profile `smoke` for all tests that look at it."""

import contextlib
import os

import nbformat
import pytest

from tlhelpers import settings
from tlhelpers.book import build, schedule, staging, toc
from tlhelpers.book.colab import CHECK_PARAMETERS as PARAMETERS

CHAPTERS = toc.list_chapters()
REPOSITORY = "owner/name"  # so that the pages are those that would be published
PLACES = ("HOME", "BUILD", "RUNS", "MODELS", "EXPORTS")
CELL_SECONDS = 600


def environment_of(folder):
    """What the environment says while the chapters are executed below a folder."""
    places = {f"TLHELPERS_{name}": str(folder / name.lower()) for name in PLACES}
    return places | {"TLHELPERS_PROFILE": PARAMETERS["PROFILE"]}


@contextlib.contextmanager
def without_pytest():
    """Lets what starts inside of the block have a user's environment: nothing in it tells of a test."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("PYTEST_")}
    try:
        yield
    finally:
        os.environ.update(hidden)


@contextlib.contextmanager
def surroundings_of(folder):
    """Lets the build work below a folder, with an empty cache: all there is are the drawings and the embedded
    backbone.
    """
    with without_pytest(), pytest.MonkeyPatch.context() as patch:
        for name, value in environment_of(folder).items():
            patch.setenv(name, value)
        yield


def execute_chapters(folder):
    """All chapters, executed as `make book` does: a dict from chapter to the executed notebook."""
    with surroundings_of(folder):
        cache_keys = build.make_cache_keys(CHAPTERS, PARAMETERS, drawn=True)
        changes = build.list_changes(CHAPTERS, cache_keys)
        limits = {"jobs": schedule.choose_jobs(), "time_limit": CELL_SECONDS}
        failures = build.execute_chapters(changes, PARAMETERS, cache_keys, profile=PARAMETERS["PROFILE"], **limits)
        assert not failures, build.describe_failures(failures, len(changes))
        return {chapter: nbformat.read(staging.staged(chapter), as_version=4) for chapter in CHAPTERS}


def build_pages(folder):
    """The site of executed chapters, built once: the path of its first page."""
    with surroundings_of(folder):
        first = settings.build_folder() / "html" / "index.html"
        if not first.exists():
            staging.stage_source(CHAPTERS, repository=REPOSITORY)
            staging.build_site()
        return first
