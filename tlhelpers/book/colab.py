"""Chapters for notebook services: copies that install the helpers first, and a check with such a service's versions.

python -m tlhelpers.book.colab stamp OWNER/NAME --ref main
python -m tlhelpers.book.colab check --python ENVIRONMENT/bin/python --only 07 18
"""

import contextlib
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbformat import v4

from tlhelpers import files, settings, terminal
from tlhelpers.book import execution, staging, toc
from tlhelpers.datasets import sources

REFERENCE = re.compile(r"[A-Za-z0-9._/-]+")
INSTALL = """\
# Installs the helpers of the book. What the service brings, TensorFlow above all, stays as it is.
%pip install --quiet "tlhelpers{extras} @ git+https://github.com/{repository}@{reference}"
"""
KEPT = ("TLHELPERS_MIRROR", "TLHELPERS_QUIET")
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
    extras = {row.path: f"[{','.join(row.extras)}]" for row in toc.CHAPTERS if row.extras}
    copies = []
    for chapter in toc.list_chapters():
        asked = {"repository": repository, "reference": reference, "extras": extras.get(chapter, "")}
        notebook = nbformat.read(settings.PROJECT_FOLDER / chapter, as_version=4)
        notebook.cells.insert(0, v4.new_code_cell(INSTALL.format(**asked).rstrip(), id="install"))
        copies.append(folder / chapter)
        files.write_text(copies[-1], nbformat.writes(notebook) + "\n")
    return copies


def check_chapters(python, only=None, *, folder=None):
    """Executes chapters with the smallest budget as a service does: each alone, on a machine that knows no other.

    Args:
        python: Path. The Python of an environment as that service has it, with the wheel installed.
        only: list of str or None. Beginnings of chapter names, such as `["07"]`; None means all.
        folder: Path or None. The project's root, from which the chapters are read; None means this checkout.

    Returns:
        dict from a chapter that failed to the reason, str.

    Raises:
        ValueError: when no chapter's name begins so.
    """
    folder, failures = Path(folder or settings.PROJECT_FOLDER), {}
    for chapter in toc.select(toc.list_chapters(folder), only):
        with fresh_machine() as scratch:
            try:
                executed = scratch / "executed" / Path(chapter).name
                work = scratch / "work"
                work.mkdir()
                source = folder / chapter
                options = {"folder": work, "python": python}
                seconds = execution.execute_chapter(source, executed, CHECK_PARAMETERS, **options)
                print(f"{chapter}: {seconds:.0f} s", flush=True)
            except (execution.ChapterError, sources.MissingDataError) as error:
                failures[chapter] = str(error)
                print(f"{chapter}: {error}", flush=True)
    return failures


@contextlib.contextmanager
def fresh_machine():
    """Yields a folder, a Path, of which the cache and the build are part while the block runs; then it is gone.

    Of the book's own settings none is left but where archives and weights may be had, and no path to the checkout.
    """
    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as scratch:
        for name in before:
            if name.startswith(("TLHELPERS_", "PYTHON")) and name not in KEPT:
                del os.environ[name]
        os.environ |= {f"TLHELPERS_{name}": str(Path(scratch, name.lower())) for name in ("HOME", "BUILD")}
        try:
            yield Path(scratch)
        finally:
            os.environ.clear()
            os.environ.update(before)


def main(arguments=None):
    """The command line."""
    parser = terminal.make_parser("tlhelpers.book.colab", __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    stamp = commands.add_parser("stamp", help="write copies that install the helpers")
    stamp.add_argument("repository", help="owner/name on GitHub")
    stamp.add_argument("--ref", default="main", help="branch, tag or commit to install from")
    check = commands.add_parser("check", help="execute each chapter alone, smallest budget, in an environment")
    check.add_argument("--python", type=Path, required=True, help="the Python of that environment")
    check.add_argument("--only", nargs="*", help="beginnings of chapter names, such as 07")
    options = parser.parse_args(arguments)
    try:
        if options.command == "check":
            failures = check_chapters(options.python, options.only)
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
