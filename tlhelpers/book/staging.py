"""Lays out what jupyter-book reads, beside the executed chapters, and builds the site from it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import yaml

from tlhelpers import files, settings
from tlhelpers.book import api_reference, execution, execution_report, programs

STAGING, NEXT, OLDER = "source", "next", "html.old"  # below the build folder
SITE_MARK = "site.sha256"
REPOSITORY = re.compile(r"[A-Za-z0-9-]+/[A-Za-z0-9._-]+")


def staged(chapter):
    """The Path at which the executed copy of a chapter stands, its path below the project's root being a str."""
    return settings.build_folder() / STAGING / chapter


def read_metadata(chapter):
    """The metadata of the executed copy of a chapter, a dict; empty when there is none that can be read."""
    try:
        return nbformat.read(staged(chapter), as_version=4).metadata
    except (FileNotFoundError, nbformat.reader.NotJSONError):
        return {}


def stage_source(chapters, *, executed=None, repository=None):
    """Lays out what jupyter-book reads, beside the executed chapters.

    The foot of every page, with or without code, says what the first chapter was run on.

    Args:
        chapters: list of str. Notebooks, which are not copied: their executed copies take their place.
        executed: list of str or None. The chapters that this build has run; None means all.
        repository: str or None. `owner/name` on GitHub, whose branch `notebooks` holds copies of the chapters for
            notebook services; the pages then lead to them.
    """
    staging = settings.build_folder() / STAGING
    _copy(settings.PROJECT_FOLDER / "_toc.yml", staging / "_toc.yml")
    config = yaml.safe_load((settings.PROJECT_FOLDER / "_config.yml").read_text(encoding="utf-8"))
    notebooks = {chapter: nbformat.read(staging / chapter, as_version=4) for chapter in chapters}
    config["html"]["extra_footer"] = execution_report.read_badge(notebooks[chapters[0]])
    if repository:
        add_publishing(config, repository)
    files.write_text(staging / "_config.yml", yaml.safe_dump(config, sort_keys=False))
    _remove_others(staging / "book", {staging / chapter for chapter in chapters})
    for path in sorted((settings.PROJECT_FOLDER / "book").rglob("*")):
        relative = path.relative_to(settings.PROJECT_FOLDER)
        hidden = any(part.startswith(".") for part in relative.parts)
        if path.is_file() and not hidden and str(relative) not in chapters:
            _copy(path, staging / relative)
    programs.copy_programs(staging / "book" / "_static")
    exported = staging / "book" / "_static" / "exported"
    if settings.exports_folder().is_dir():
        shutil.copytree(settings.exports_folder(), exported, dirs_exist_ok=True)
    from tlhelpers.book import frontpage  # here, because what draws takes a second to load

    frontpage.write_result(staging / "book")
    api_reference.write_reference(staging / "book")
    execution_report.write_report(staging / "book", notebooks, chapters if executed is None else executed)


def add_publishing(config, repository):
    """Adds to a configuration what pages need that many will read: links to notebook services, a map of the site, and
    cards for those who pass a link on.

    Args:
        config: dict. The contents of `_config.yml`, changed in place.
        repository: str. `owner/name` on GitHub, whose pages the site is published on.
    """
    check_repository(repository)
    owner, name = repository.split("/")
    address = f"https://{owner.lower()}.github.io/{name}/"
    config["html"]["baseurl"] = address
    sphinx = config["sphinx"]
    sphinx["extra_extensions"] = [*sphinx["extra_extensions"], "sphinx_sitemap", "sphinxext.opengraph"]
    sphinx["config"] |= {
        "notebook_repository": repository,
        "sitemap_url_scheme": "{link}",
        "ogp_site_url": address,
        "ogp_site_name": config["title"],
        "ogp_social_cards": dict.fromkeys(("image", "image_mini"), "book/_static/logo.png"),
    }


def check_repository(repository):
    """Raises a ValueError when a repository is not written `owner/name`."""
    if not REPOSITORY.fullmatch(repository):
        raise ValueError(f"A repository is written owner/name. Received: {repository!r}")


def restore_site():
    """Takes the last good site back when a build was killed just before the newer one stood in its place."""
    site, older = settings.site_folder(), settings.build_folder() / OLDER
    if older.is_dir() and not site.exists():
        older.rename(site)


def build_site():
    """Builds the staged book into `_build/html`, warnings being errors; a site that is up to date is kept.

    The site there is stays in its place until the new one is whole.

    Returns:
        Path. The site's first page.

    Raises:
        ChapterError: when jupyter-book warns or fails.
    """
    folder = settings.build_folder()
    site, mark = settings.site_folder(), folder / SITE_MARK
    digest = _digest_of_staged()
    if not ((site / "index.html").is_file() and mark.is_file() and mark.read_text(encoding="utf-8") == digest):
        mark.unlink(missing_ok=True)
        _replace(site, _run_jupyter_book(folder))
        files.write_text(mark, digest)
    return site / "index.html"


def _digest_of_staged():
    """What the site is made from: the staged files but the report of the build, this package, whose docstrings are a
    page, and the versions of the builders.
    """
    staging = settings.build_folder() / STAGING
    read = [path for path in sorted(staging.rglob("*")) if path.name != execution_report.TEXT]
    others = [*sorted(settings.PACKAGE_FOLDER.rglob("*.py")), settings.lock_file()]
    return files.sha256_of_text("\n".join([files.sha256_of_files(read, staging), *map(files.sha256_of, others)]))


def _run_jupyter_book(folder):
    """Builds the staged book beside the site there is: the Path of the new one."""
    print("Building the site", flush=True)
    output = folder / NEXT
    shutil.rmtree(output, ignore_errors=True)
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(folder / STAGING)]
    options = ["--path-output", str(output), "--all", "--quiet", "-W", "--keep-going"]
    finished = subprocess.run([*command, *options], check=False, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    if finished.returncode:
        raise execution.ChapterError(
            f"jupyter-book ended with exit status {finished.returncode}; its messages stand above"
        )
    return output / "_build" / "html"


def _replace(site, newer):
    older = settings.build_folder() / OLDER
    if site.exists():
        shutil.rmtree(older, ignore_errors=True)
        site.rename(older)
    newer.rename(site)
    shutil.rmtree(older, ignore_errors=True)


def _remove_others(folder, kept):
    """Removes what an earlier build has laid out, but for the executed chapters: what is gone from the book is gone."""
    for path in folder.rglob("*"):
        if path.is_file() and path not in kept:
            path.unlink()


def _copy(source, destination):
    destination.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, destination)
