"""The execution report: what each chapter of a site took and what it ran on, collected when the site is laid out."""

import contextlib
import html
import importlib.metadata
import platform
import re
import threading

import psutil

from tlhelpers import devices, files
from tlhelpers.experiments import records

TEXT = "execution_report.md"
SAMPLING_SECONDS = 2  # to look at the processes of a system takes tens of milliseconds
MEBIBYTE, GIBIBYTE = 1 << 20, 1 << 30
FACT = re.compile("<dt>(.*?)</dt><dd>(.*?)</dd>")
# What builds the pages, beside what the numbers depend on.
BUILDERS = ("jupyter-book", "papermill", "ipywidgets", "matplotlib", "seaborn", "pandas")


@contextlib.contextmanager
def watch_memory():
    """Watches how much memory the processes take that this one has started.

    Yields:
        dict whose `peak_bytes` (int) is the most they had in memory together, looked at every other second.
    """
    found, over = {"peak_bytes": 0}, threading.Event()

    def watch():
        while not over.wait(SAMPLING_SECONDS):
            found["peak_bytes"] = max(found["peak_bytes"], _memory_of_children())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()


def write_report(folder, notebooks, executed):
    """Writes what the page about the build includes: a table of the chapters, and one of the versions.

    Args:
        folder: Path. Where that page lies.
        notebooks: dict from a chapter's path, str, to its executed copy, NotebookNode.
        executed: collection of str. The chapters that this build has run; the others were kept from an earlier one.
    """
    rows = [_describe_chapter(path, notebook, path in executed) for path, notebook in notebooks.items()]
    head = ("chapter", "seconds", "memory, MiB", "profile", "device", "finished (UTC)", "in this build")
    files.write_text(folder / TEXT, f"{_tabulate(head, rows)}\n\n{_tabulate(('what', 'version'), _list_versions())}\n")


def read_badge(notebook):
    """The badge among the outputs of an executed chapter, as HTML; empty when it has none."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            text = output.get("data", {}).get("text/html", "")
            if "run-badge" in text:
                return text
    return ""


def _memory_of_children():
    total = 0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it may have ended meanwhile
            total += process.memory_info().rss
    return total


def _describe_chapter(path, notebook, ran):
    facts = {html.unescape(name): html.unescape(value) for name, value in FACT.findall(read_badge(notebook))}
    run, peak = notebook.metadata.get("papermill", {}), notebook.metadata.get("peak_bytes")
    return (
        f"{{doc}}`/{path.removesuffix('.ipynb')}`",
        f"{run['duration']:.0f}" if run.get("duration") is not None else "",
        f"{peak / MEBIBYTE:,.0f}" if peak else "",
        facts.get("profile", "").partition(" ")[0],
        facts.get("device", ""),
        (run.get("end_time") or "")[:16].replace("T", " "),
        "run" if ran else "kept",
    )


def _list_versions():
    memory = psutil.virtual_memory().total / GIBIBYTE
    yield "processor", f"{devices.cpu_name()}, {devices.available_cores()} cores, {memory:.1f} GiB"
    yield "system", f"{platform.system()} {platform.machine()}"
    yield from records.package_versions().items()
    for name in BUILDERS:
        yield name, importlib.metadata.version(name)
    yield "commit", records.git_commit() or "unknown"


def _tabulate(head, rows):
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
