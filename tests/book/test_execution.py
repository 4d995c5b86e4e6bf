"""Executing one chapter: what its copy holds, and what happens when something is not as it should be."""

import base64
import io
import json
import os
import sys

import nbformat
import numpy as np
import pytest
from builders import executed_cell, stream, write_notebook
from nbformat import v4
from PIL import Image

from tlhelpers.book import execution
from tlhelpers.datasets.downloads import MissingDataError


def test_parameters_reach_the_executed_copy_and_the_source_stays(tmp_path):
    source = write_notebook(tmp_path / "source.ipynb", "print(COUNT + 1)")
    before = source.read_bytes()
    seconds = execution.execute_chapter(source, tmp_path / "out" / "copy.ipynb", {"COUNT": 41})
    executed = nbformat.read(tmp_path / "out" / "copy.ipynb", as_version=4)
    assert executed.cells[-1].outputs[0].text == "42\n"
    assert source.read_bytes() == before
    assert seconds > 0
    injected = next(c for c in executed.cells if "injected-parameters" in c.metadata.get("tags", []))
    assert "remove-cell" in injected.metadata["tags"]


def test_unknown_parameter_is_refused_before_anything_runs(tmp_path):
    source = write_notebook(tmp_path / "source.ipynb", "open('ran', 'w')")
    with pytest.raises(execution.ChapterError, match=r"has the parameters \['COUNT'\]\. Received: \['COUNTS'\]"):
        execution.execute_chapter(source, tmp_path / "copy.ipynb", {"COUNTS": 2})
    assert not (tmp_path / "copy.ipynb").exists()


@pytest.fixture
def failed(tmp_path, monkeypatch):
    """The folder in which interrupted runs are kept."""
    monkeypatch.setenv("TLHELPERS_BUILD", str(tmp_path / "build"))
    return tmp_path / "build" / "failed"


def test_failing_cell_is_named_and_the_last_good_copy_stays(tmp_path, failed):
    copy = write_notebook(tmp_path / "copy.ipynb", "'the last good one'")
    source = write_notebook(tmp_path / "source.ipynb", "raise ValueError('no such petal')")
    with pytest.raises(execution.ChapterError, match=r"source\.ipynb, cell 2: ValueError: no such petal"):
        execution.execute_chapter(source, copy, {})
    assert "the last good one" in copy.read_text()
    assert "no such petal" in (failed / "source.ipynb").read_text()


def test_a_failure_shows_the_end_of_its_traceback_without_colours(tmp_path, failed):
    source = write_notebook(tmp_path / "source.ipynb", "def bloom(petal):\n    return 1 / petal", "bloom(0)")
    with pytest.raises(execution.ChapterError) as failure:
        execution.execute_chapter(source, tmp_path / "copy.ipynb", {})
    assert "return 1 / petal" in str(failure.value)
    assert "\x1b" not in str(failure.value)
    assert str(failure.value).endswith(f"The run up to there is in {failed / 'source.ipynb'}")


@pytest.mark.slow
def test_a_cell_that_hangs_is_stopped_at_the_time_limit(tmp_path, failed):
    source = write_notebook(tmp_path / "source.ipynb", "print('done')", "import time\ntime.sleep(600)")
    with pytest.raises(execution.ChapterError, match=r"source\.ipynb: a cell took longer than 1 s and was stopped"):
        execution.execute_chapter(source, tmp_path / "copy.ipynb", {}, time_limit=1)
    assert not (tmp_path / "copy.ipynb").exists()
    assert "done\\n" in (failed / "source.ipynb").read_text()  # what has run before it is kept


@pytest.mark.slow
def test_a_process_that_is_killed_is_reported_with_the_likely_cause(tmp_path, failed):
    source = write_notebook(tmp_path / "source.ipynb", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(execution.ChapterError, match="its process died; the system ends processes that ask for more"):
        execution.execute_chapter(source, tmp_path / "copy.ipynb", {})
    assert not (tmp_path / "copy.ipynb").exists()


@pytest.mark.parametrize(
    "said",
    [
        "Traceback (most recent call last):\n  ...\nKeyError: 3",
        "Exception in thread Thread-5:\n",
        "Exception ignored in: <function f>",
        "ERROR:tensorflow:no\n",
        "careful\nE0000 00:00:17 kernel.cc:1] failed\n",
        "F0000 00:00:17 kernel.cc:1] died\n",
    ],
)
def test_an_error_on_stderr_fails_the_chapter(said):
    with pytest.raises(execution.ChapterError, match="chapter, cell 0 wrote an error to stderr: "):
        execution.check_outputs(executed_cell(stream("stderr", said)), "chapter")


WARNING = "/x.py:3: UserWarning: Corrupt EXIF data in roses/3.jpg\n  warnings.warn(message)\n"


def test_a_warning_leaves_the_page_and_is_kept_with_chapter_cell_and_file(tmp_path):
    source = write_notebook(
        tmp_path / "source.ipynb",
        "import os, sys\nprint('result')",
        "import warnings\nwarnings.warn('Corrupt EXIF data in roses/3.jpg')\n_ = os.system('echo Corrupt JPEG >&2')",
    )
    execution.execute_chapter(source, tmp_path / "copy.ipynb", {})
    notebook = nbformat.read(tmp_path / "copy.ipynb", as_version=4)
    assert [output.text for cell in notebook.cells for output in cell.outputs] == ["result\n"]
    lines = execution.describe_warnings({"book/19.ipynb": notebook.metadata[execution.WARNINGS]})
    assert any(
        line.startswith("book/19.ipynb, cell 2, warned: ") and "Corrupt EXIF data in roses/3.jpg" in line
        for line in lines
    )
    assert "book/19.ipynb, cell 2, warned: Corrupt JPEG" in lines


def test_what_a_cell_warns_of_many_times_is_said_once():
    notebook = executed_cell(stream("stderr", WARNING * 3), stream("stdout", "1"))
    assert execution.describe_warnings({"a": execution.take_warnings(notebook)}) == [
        "a, cell 0, warned: /x.py:3: UserWarning: Corrupt EXIF data in roses/3.jpg",
        "a, cell 0, warned: warnings.warn(message)",
    ]


@pytest.mark.slow
def test_a_kernel_that_a_test_starts_has_a_users_environment(tmp_path):
    source = write_notebook(tmp_path / "source.ipynb", "import os\nprint([n for n in os.environ if 'PYTEST' in n])")
    execution.execute_chapter(source, tmp_path / "copy.ipynb", {})
    assert nbformat.read(tmp_path / "copy.ipynb", as_version=4).cells[-1].outputs[0].text == "[]\n"


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["Agg", "TkAgg"])
def test_figures_stand_on_the_page_whatever_backend_the_environment_names(tmp_path, monkeypatch, backend):
    monkeypatch.setenv("MPLBACKEND", backend)
    source = write_notebook(tmp_path / "source.ipynb", "import matplotlib.pyplot as plt\nplt.plot([1, 2]);")
    execution.execute_chapter(source, tmp_path / "copy.ipynb", {})
    (output,) = nbformat.read(tmp_path / "copy.ipynb", as_version=4).cells[-1].outputs
    assert "image/png" in output.data
    assert os.environ["MPLBACKEND"] == backend


def test_another_kernel_called_python3_is_not_started(tmp_path, monkeypatch):
    spec = {"argv": ["/bin/false"], "display_name": "other", "language": "python"}
    other = tmp_path / "jupyter" / "kernels" / "python3"
    other.mkdir(parents=True)
    (other / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    source = write_notebook(tmp_path / "source.ipynb", "import sys\nprint(sys.executable)")
    execution.execute_chapter(source, tmp_path / "copy.ipynb", {})
    assert nbformat.read(tmp_path / "copy.ipynb", as_version=4).cells[-1].outputs[0].text == f"{sys.executable}\n"


@pytest.mark.slow
def test_missing_data_are_told_from_other_failures(tmp_path, failed):
    raising = "from tlhelpers.datasets.downloads import MissingDataError\nraise MissingDataError('no source has it')"
    source = write_notebook(tmp_path / "source.ipynb", raising)
    with pytest.raises(MissingDataError, match="no source has it"):
        execution.execute_chapter(source, tmp_path / "copy.ipynb", {})


def test_error_output_fails_the_chapter():
    error = v4.new_output("error", ename="KeyError", evalue="'rose'", traceback=[])
    with pytest.raises(execution.ChapterError, match="chapter, cell 0: KeyError: 'rose'"):
        execution.check_outputs(executed_cell(error), "chapter")


def test_only_tensorflows_startup_messages_are_dropped():
    startup = "WARNING: All log messages before absl::InitializeLog() is called\nI0000 00:00:17 port.cc:153] oneDNN\n"
    notebook = executed_cell(
        stream("stderr", startup),
        stream("stderr", startup + "loss is NaN\n"),
        stream("stdout", "INFO:tensorflow:Assets written to: /tmp/x\n"),
        stream("stdout", "1"),
    )
    execution.drop_startup_messages(notebook)
    assert [output.text for output in notebook.cells[0].outputs] == ["loss is NaN\n", "1"]


def picture_output(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return v4.new_output("display_data", data={"image/png": base64.b64encode(stream.getvalue()).decode()})


def test_pictures_become_small_and_drawn_lines_stay_exact():
    soft = np.sin(np.linspace(0, 6, 128))[:, None, None] * 90 + np.random.default_rng(0).normal(128, 4, (128, 128, 3))
    lines = np.full((64, 64, 3), 255, np.uint8)
    lines[::8] = 0
    notebook = executed_cell(picture_output(soft.astype(np.uint8)), picture_output(lines), stream("stdout", "1"))
    before = len(notebook.cells[0].outputs[0].data["image/png"])
    execution.shrink_pictures(notebook)
    picture, drawing, _ = notebook.cells[0].outputs
    assert list(picture.data) == ["image/jpeg"]
    assert len(picture.data["image/jpeg"]) < before / 2
    assert list(drawing.data) == ["image/png"]
