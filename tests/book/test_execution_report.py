"""The execution report: what a chapter took, and on what it ran."""

import subprocess
import sys

import pytest
from nbformat import v4

from tlhelpers import widgets
from tlhelpers.book import execution_report

ENDED = {"duration": 61.7, "end_time": "2026-11-27T15:29:33.451564+00:00"}
WATCHES = """
import subprocess, sys
from tlhelpers.book import execution_report
seconds = 2 * execution_report.SAMPLING_SECONDS
EATS = f"held = bytearray(200 << 20); held[::4096] = b'1' * len(held[::4096]); import time; time.sleep({seconds})"
with execution_report.watch_memory() as memory:
    subprocess.run([sys.executable, "-c", EATS], check=True)
print(memory["peak_bytes"])
subprocess.run([sys.executable, "-c", "pass"], check=True)
print(memory["peak_bytes"])
"""


def notebook(**metadata):
    """An executed chapter that shows a badge."""
    badge = widgets.list_facts({"profile": "pocket (no GPU is visible)", "device": "A & B, 2 cores"})
    output = v4.new_output("display_data", data={"text/html": badge})
    return v4.new_notebook(
        cells=[v4.new_markdown_cell("…"), v4.new_code_cell("1", outputs=[output])], metadata=metadata
    )


def rows_of(tmp_path, notebooks, executed=()):
    execution_report.write_report(tmp_path, notebooks, executed)
    chapters, versions = (tmp_path / execution_report.TEXT).read_text(encoding="utf-8").split("\n\n")
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in chapters.splitlines()], versions


def test_a_row_says_what_a_chapter_took_and_whether_this_build_has_run_it(tmp_path):
    taken = notebook(papermill=ENDED, peak_bytes=3 << 30)
    (head, _, first, second), _ = rows_of(tmp_path, {"book/01.ipynb": taken, "book/02.ipynb": taken}, ["book/02.ipynb"])
    ended = ["pocket", "A & B, 2 cores", "2026-11-27 15:29"]
    assert first == ["{doc}`/book/01`", "62", "3,072", *ended, "kept"]
    assert second == ["{doc}`/book/02`", "62", "3,072", *ended, "run"]
    assert len(head) == len(first)


def test_a_chapter_that_says_nothing_of_its_run_has_a_row_too(tmp_path):
    rows, _ = rows_of(tmp_path, {"book/01.ipynb": v4.new_notebook()})
    assert rows[-1] == ["{doc}`/book/01`", "", "", "", "", "", "kept"]


@pytest.mark.parametrize("name", ["python", "tensorflow", "keras", "jupyter-book", "processor", "commit"])
def test_versions_are_listed(tmp_path, name):
    _, versions = rows_of(tmp_path, {})
    (row,) = [line for line in versions.splitlines() if line.startswith(f"| {name} |")]
    assert row.split("|")[2].strip()


@pytest.mark.slow
def test_memory_of_started_processes_is_seen_and_watching_ends():
    command = [sys.executable, "-c", WATCHES]  # this process may have started others
    peak, later = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert 200 << 20 <= peak < 600 << 20
    assert later == peak


def test_a_notebook_without_a_badge_has_none_to_read():
    text = v4.new_output("stream", text="run-badge")
    table = v4.new_output("display_data", data={"text/html": "<table></table>"})
    assert execution_report.read_badge(v4.new_notebook(cells=[v4.new_code_cell("1", outputs=[text, table])])) == ""
