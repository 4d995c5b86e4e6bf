"""Synthetic editions: what takes the place of a chapter whose photographs or weights no source has."""

import nbformat

from tlhelpers import files
from tlhelpers.book import execution
from tlhelpers.datasets.downloads import MissingDataError

EDITION = "tlhelpers_edition"  # where an executed copy's metadata say why it is a synthetic edition
PROFILE = "pocket"
BOX = """:::{{warning}}
**Synthetic edition.** When this site was built, no source had what this chapter needs: {reason}
What is computed on this page therefore comes from synthetic images and the pocket backbone. What is called recorded
comes from photographs all the same.
:::"""


def execute_chapter(source, destination, parameters, *, metadata=None, **options):
    """Executes a chapter, or, where no source has its images or weights, its synthetic edition.

    Args:
        source: Path. As all others, as for `execution.execute_chapter`.
        destination: Path.
        parameters: dict.
        metadata: dict or None.
        **options: the others.

    Returns:
        float. Wall-clock seconds.

    Raises:
        ChapterError: as `execution.execute_chapter`.
    """
    try:
        return execution.execute_chapter(source, destination, parameters, metadata=metadata, **options)
    except MissingDataError as error:
        reason = str(error).partition("\n")[0]
    metadata = (metadata or {}) | {EDITION: reason}
    parameters = parameters | {"PROFILE": PROFILE}
    seconds = execution.execute_chapter(source, destination, parameters, metadata=metadata, **options)
    _put_box(destination, reason)
    return seconds


def describe(executed):
    """Which chapters are synthetic editions, and why, in lines for a terminal.

    Args:
        executed: dict from a chapter to the metadata of its executed copy.

    Returns:
        list of str.
    """
    found = {chapter: metadata[EDITION] for chapter, metadata in executed.items() if EDITION in metadata}
    lines = [f"{chapter} is a synthetic edition: {reason}" for chapter, reason in found.items()]
    return [*lines, "STRICT=1 makes that an error."] if lines else []


def _put_box(path, reason):
    """Puts the box below the title of an executed chapter."""
    notebook = nbformat.read(path, as_version=4)
    title, *rest = notebook.cells[0].source.split("\n\n", 1)
    notebook.cells[0].source = "\n\n".join([title, BOX.format(reason=reason), *rest])
    with files.atomic_file(path) as temporary:
        nbformat.write(notebook, temporary)
