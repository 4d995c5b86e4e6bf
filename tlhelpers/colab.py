"""Chapters for notebook services: copies that install the helpers first, and a check with such a service's versions.

python -m tlhelpers.colab stamp OWNER/NAME --ref main
python -m tlhelpers.colab check
"""

import argparse
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbformat import v4

from tlhelpers import build, execution, files, settings, staging

REFERENCE = re.compile(r"[A-Za-z0-9._/-]+")
INSTALL = """\
# Installs the helpers of the book. What the service brings, TensorFlow above all, stays as it is.
%pip install --quiet "tlhelpers @ git+https://github.com/{repository}@{reference}"
"""
CHECK_PARAMETERS = {"PROFILE": "smoke", "PROTOCOL": "careful", "SEED": 0}


def stamp_chapters(repository, reference="main", *, folder=None):
    """Writes a copy of each chapter that begins by installing the helpers from a repository.

    Args:
        repository: str. `owner/name` on GitHub.
        reference: str. The branch, tag or commit to install from.
        folder: Path or None. Where the copies go, under the chapters' names; None means `_build/colab`.

    Returns:
        list of Path. The copies.

    Raises:
        ValueError: when the repository or the reference is not of that form.
    """
    staging.check_repository(repository)
    if not REFERENCE.fullmatch(reference):
        raise ValueError(f"A reference is a branch, a tag or a commit. Received: {reference!r}")
    folder = Path(folder or settings.build_folder() / "colab")
    source = INSTALL.format(repository=repository, reference=reference).rstrip()
    copies = []
    for chapter in build.list_chapters():
        notebook = nbformat.read(settings.PROJECT_FOLDER / chapter, as_version=4)
        notebook.cells.insert(0, v4.new_code_cell(source, id="install"))
        copies.append(folder / chapter)
        files.write_text(copies[-1], nbformat.writes(notebook) + "\n")
    return copies


def check_chapters(folder):
    """Executes every chapter with the smallest budget, in order, as in a service: from an installed package, somewhere.

    Args:
        folder: Path. The project's root, from which the chapters are read.

    Returns:
        dict from a chapter that failed to the reason, str.
    """
    failures = {}
    with tempfile.TemporaryDirectory() as scratch:
        for chapter in build.list_chapters(folder):
            try:
                executed = Path(scratch) / "executed" / Path(chapter).name
                seconds = execution.execute_chapter(Path(folder) / chapter, executed, CHECK_PARAMETERS, folder=scratch)
                print(f"{chapter}: {seconds:.0f} s", flush=True)
            except execution.ChapterError as error:
                failures[chapter] = str(error)
                print(f"{chapter}: {error}", flush=True)
    return failures


def main(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tlhelpers.colab", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    stamp = commands.add_parser("stamp", help="write copies that install the helpers")
    stamp.add_argument("repository", help="owner/name on GitHub")
    stamp.add_argument("--ref", default="main", help="branch, tag or commit to install from")
    commands.add_parser("check", help="execute the chapters below this folder with the smallest budget")
    options = parser.parse_args(arguments)
    try:
        if options.command == "check":
            failures = check_chapters(Path.cwd())
            print(f"{len(failures)} chapters failed: {', '.join(failures) or 'none'}")
            return 1 if failures else 0
        copies = stamp_chapters(options.repository, options.ref)
    except ValueError as error:
        print(f"Stopped: {error}", file=sys.stderr)
        return 1
    print(f"{len(copies)} chapters in {copies[0].parent}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
