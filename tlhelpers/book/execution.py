"""Runs one chapter in a kernel of its own, and makes of it what a page is built from."""

import base64
import contextlib
import io
import re
import shutil
import sys
import time

import nbformat
import numpy as np
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError
from PIL import Image

from tlhelpers import files, settings, terminal
from tlhelpers.book import execution_report, kernels
from tlhelpers.datasets.downloads import MissingDataError
from tlhelpers.synthetic import collection

KERNEL = "python3"
ENGINE = "saving_at_the_end"
TIME_LIMIT_SECONDS = 3600  # for one cell
JPEG_QUALITY, WORTH_IT = 90, 0.5  # percent; the share of a PNG's bytes below which a JPEG takes its place
TRACEBACK_LINES = 12
COLOURS = re.compile(r"\x1b\[[0-9;]*m")

# What on stderr is an error. Everything else there is a warning, of which libraries may have one for a single image.
ERROR_MESSAGE = re.compile(
    r"^\s*(ERROR|CRITICAL|FATAL)\b|^[EF]\d{4} \d|^Traceback \(most recent call last\)|^Exception (ignored )?in\b"
    r"|^Fatal Python error",
    re.MULTILINE,
)
WARNINGS = "tlhelpers_warnings"  # where an executed copy's metadata hold what libraries warned of
WARNING_CHARACTERS = 2000  # of what one cell said; thousands of images may say the same


class _SavingAtTheEnd(NBClientEngine):
    """Saves a run when it has ended, well or not, where papermill saves it before and after each cell."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, **options):
        destination, nb_man.output_path = nb_man.output_path, None
        try:
            super().execute_managed_notebook(nb_man, kernel_name, **options)
        finally:
            nb_man.output_path = destination


papermill_engines.register(ENGINE, _SavingAtTheEnd)


class ChapterError(RuntimeError):
    """A chapter did not run as it should; the message names the chapter, the cell and the reason."""


def execute_chapter(
    source,
    destination,
    parameters,
    *,
    folder=settings.PROJECT_FOLDER,
    metadata=None,
    time_limit=TIME_LIMIT_SECONDS,
    copied=False,
    python=None,
):
    """Executes one notebook in a kernel of its own.

    Args:
        source: Path. The notebook; it stays as it is.
        destination: Path. The executed copy, written when the run has ended without an error.
        parameters: dict. Values for names in the notebook's parameters cell.
        folder: Path. Where the kernel works.
        metadata: dict or None. What the copy's metadata are to hold beside the run's own, such as `cache.CACHE_KEY`.
        time_limit: float or None. Seconds after which a cell is stopped and the chapter fails; None means never.
        copied: bool. Whether the kernel begins as a copy of this process, see `kernels.copying_manager`.
        python: Path or None. The Python whose kernel executes it, which has ipykernel; None means this one.

    Returns:
        float. Wall-clock seconds.

    Raises:
        MissingDataError: when a cell fails because no source has its images or weights.
        ChapterError: when a parameter is unknown, a cell fails, takes too long or writes an error to stderr, or the
            kernel dies. The run up to there is kept in `_build/failed`.
    """
    known = papermill.inspect_notebook(str(source))
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise ChapterError(f"{source.name} has the parameters {sorted(known)}. Received: {unknown}")
    started = time.perf_counter()
    copy = kernels.copying_manager() if copied else contextlib.nullcontext(kernels.manager_of(python))
    with copy as manager, kernels.environment(), files.atomic_file(destination) as temporary:
        try:
            with execution_report.watch_memory() as memory:
                papermill.execute_notebook(
                    str(source),
                    str(temporary),
                    parameters=parameters,
                    engine_name=ENGINE,
                    kernel_name=KERNEL,
                    cwd=str(folder),
                    execution_timeout=time_limit,
                    progress_bar=sys.stderr.isatty(),
                    kernel_manager_class=manager,
                )
        except (PapermillExecutionError, CellTimeoutError, DeadKernelError) as error:
            if getattr(error, "ename", None) == MissingDataError.__name__:
                raise MissingDataError(error.evalue) from None
            raise ChapterError(
                f"{describe_failure(source.name, error, time_limit)}{_keep(temporary, source.name)}"
            ) from None
        notebook = nbformat.read(temporary, as_version=4)
        drop_startup_messages(notebook)
        check_outputs(notebook, source.name)
        notebook.metadata[WARNINGS] = take_warnings(notebook)
        hide_injected_parameters(notebook)
        shrink_pictures(notebook)
        notebook.metadata.update(memory | (metadata or {}))
        nbformat.write(notebook, temporary)
    return time.perf_counter() - started


def describe_failure(name, error, time_limit):
    """Says in words what stopped a chapter.

    Args:
        name: str. The notebook's file name.
        error: Exception. What papermill raised.
        time_limit: float or None. Seconds that a cell was given.

    Returns:
        str. One line, or with the end of the traceback below it.
    """
    if isinstance(error, CellTimeoutError):
        return f"{name}: a cell took longer than {time_limit:.0f} s and was stopped; TIME_LIMIT gives it more"
    if isinstance(error, DeadKernelError):
        reason = "the system ends processes that ask for more memory than there is"
        return f"{name}: its process died; {reason}. In a build, its last words are in {settings.messages_file()}"
    lines = COLOURS.sub("", "\n".join(error.traceback)).splitlines()[-TRACEBACK_LINES:]
    return "\n    ".join([f"{name}, cell {error.exec_count}: {error.ename}: {error.evalue}", *lines])


def drop_startup_messages(notebook):
    """Removes what TensorFlow says while it loads or converts, on whichever stream; everything else stays."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                lines = output.text.splitlines(keepends=True)
                output.text = "".join(line for line in lines if not terminal.STARTUP_MESSAGE.match(line))
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if output.get("text", "-")]


def check_outputs(notebook, name):
    """Raises a ChapterError when an executed notebook holds an error, among its outputs or in words on stderr."""
    for index, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                raise ChapterError(f"{name}, cell {index}: {output.ename}: {output.evalue}")
            if _is_stderr(output) and ERROR_MESSAGE.search(output.text):
                raise ChapterError(f"{name}, cell {index} wrote an error to stderr: {output.text[:500]}")


def take_warnings(notebook):
    """Takes what cells have written to stderr off the page.

    Args:
        notebook: NotebookNode, executed. Changed in place.

    Returns:
        list of dict with `cell` (int, its number) and `text` (str): what libraries warned of.
    """
    taken = []
    for index, cell in enumerate(notebook.cells):
        said = "".join(output.text for output in cell.get("outputs", []) if _is_stderr(output))
        if said.strip():
            taken.append({"cell": index, "text": said[:WARNING_CHARACTERS]})
            cell.outputs = [output for output in cell.outputs if not _is_stderr(output)]
    return taken


def describe_warnings(taken):
    """What the chapters of a build have warned of, in lines for a terminal.

    Args:
        taken: dict from a chapter to a list as from `take_warnings`.

    Returns:
        list of str; empty when nothing was said. What a cell has said several times stands once.
    """
    return [
        f"{chapter}, cell {warning['cell']}, warned: {line}"
        for chapter, warnings in taken.items()
        for warning in warnings
        for line in dict.fromkeys(line.strip() for line in warning["text"].splitlines())
        if line
    ]


def _is_stderr(output):
    return output.output_type == "stream" and output.name == "stderr"


def shrink_pictures(notebook):
    """Turns figures that are mostly images into JPEG, which takes a fraction of their bytes."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                exact = base64.b64decode(output.data["image/png"])
                with Image.open(io.BytesIO(exact)) as image:
                    pixels = np.asarray(image.convert("RGB"))
                small = collection.encode(pixels, quality=JPEG_QUALITY, subsampling=0, optimize=True)
                if len(small) < WORTH_IT * len(exact):
                    output.data["image/jpeg"] = base64.b64encode(small).decode()
                    del output.data["image/png"]


def hide_injected_parameters(notebook):
    """Keeps the cell that papermill adds off the page; what was chosen stands in the badge."""
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "injected-parameters" in tags:
            cell.metadata["tags"] = [*tags, "remove-cell"]


def _keep(partial, name):
    """Keeps what an interrupted run has written, and says where."""
    kept = settings.build_folder() / "failed" / name
    if not partial.stat().st_size:
        return ""
    kept.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(partial, kept)
    return f"\n    The run up to there is in {kept}"
