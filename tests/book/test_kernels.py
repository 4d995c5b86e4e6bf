"""Chapters in kernels that are copies of a process which has loaded everything."""

import signal
import subprocess
import sys
from functools import partial

import nbformat
import psutil
import pytest
from builders import wait_for, write_notebook

from tlhelpers.book import execution, kernels, schedule

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere processes are not copied")

LOADED = "import sys\nprint('tensorflow' in sys.modules)"
STARTING = "import multiprocessing\nprint(multiprocessing.get_start_method())"
TRAINING = """
import keras, numpy as np
keras.utils.set_random_seed(SEED)
model = keras.Sequential([keras.layers.Dense(3, activation="relu"), keras.layers.Dense(1)])
model.compile(keras.optimizers.Adam(0.01), "mse")
x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
print(model.fit(x, x[:, :1], epochs=3, verbose=0).history["loss"])
"""
FIGURE = "import matplotlib.pyplot as plt\nplt.plot([1, 2]);"
SPEAKING = "import os\nos.system('echo careful >&2')"
WAITING = "import os, pathlib, time\npathlib.Path(PLACE).write_text(str(os.getpid()))\ntime.sleep(600)"


def execute(folder, *cells, copied=True, **options):
    """Executes cells as a build does: the notebook, or the reason why there is none."""
    source = write_notebook(folder / "source.ipynb", *cells)
    work = partial(execution.execute_chapter, source, folder / "copy.ipynb", {}, copied=copied, **options)
    failures = schedule.run_all({"chapter": work}, {}, jobs=1, seconds={})
    return failures.get("chapter") or nbformat.read(folder / "copy.ipynb", as_version=4)


@pytest.fixture(autouse=True)
def build_folder(tmp_path, monkeypatch):
    """Where a build leaves what its kernels say."""
    monkeypatch.setenv("TLHELPERS_BUILD", str(tmp_path / "build"))


def texts(notebook):
    return [output.text for cell in notebook.cells for output in cell.get("outputs", []) if "text" in output]


@pytest.mark.slow
def test_a_copied_kernel_has_loaded_what_others_load_and_computes_the_same(tmp_path):
    cells = LOADED, STARTING, f"SEED = 3{TRAINING}"
    copied, ordinary = (texts(execute(tmp_path, *cells, copied=copied)) for copied in (True, False))
    assert (copied[0], ordinary[0]) == ("True\n", "False\n")
    assert copied[1:] == ordinary[1:]


@pytest.mark.slow
def test_a_copied_kernel_keeps_few_of_the_calls_that_its_process_was_busy_with(tmp_path):
    cell = "import traceback\nprint([entry.name for entry in traceback.extract_stack()])"
    (calls,) = texts(execute(tmp_path, cell))
    assert "execute_chapter" in calls
    assert "execute_notebook" not in calls


def test_a_copy_that_nobody_asks_for_ends():
    with kernels.copying_manager() as manager:
        assert psutil.pid_exists(manager.copy.pid)
    assert manager.copy.wait() == 0


@pytest.mark.slow
def test_figures_of_a_copied_kernel_stand_in_the_notebook(tmp_path):
    figure = execute(tmp_path, FIGURE).cells[-1].outputs[0]
    assert "image/png" in figure.data


@pytest.mark.slow
def test_what_a_program_of_a_copied_kernel_says_on_stderr_is_heard(tmp_path):
    warnings = execute(tmp_path, SPEAKING).metadata[execution.WARNINGS]
    assert [warning["text"] for warning in warnings] == ["careful\n"]
    assert "wrote an error to stderr: ERROR: no" in execute(tmp_path, SPEAKING.replace("careful", "ERROR: no"))


@pytest.mark.slow
def test_a_copied_kernel_that_hangs_is_stopped_and_one_that_dies_is_reported(tmp_path):
    place = tmp_path / "kernel"
    assert "a cell took longer than 1 s and was stopped" in execute(
        tmp_path, WAITING.replace("PLACE", repr(str(place))), time_limit=1
    )
    assert has_ended(int(place.read_text()))
    assert "its process died" in execute(tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")


BUILD = """
import sys
from functools import partial
from pathlib import Path
from tlhelpers.book import execution, schedule

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    work = partial(execution.execute_chapter, folder / "source.ipynb", folder / "copy.ipynb", {}, copied=True)
    schedule.run_all({"chapter": work}, {}, jobs=1, seconds={})
"""


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL], ids=lambda ending: ending.name)
def test_a_copied_kernel_ends_with_the_build(tmp_path, ending):
    place = tmp_path / "kernel"
    write_notebook(tmp_path / "source.ipynb", WAITING.replace("PLACE", repr(str(place))))
    (tmp_path / "script.py").write_text(BUILD)
    build = subprocess.Popen([sys.executable, str(tmp_path / "script.py"), str(tmp_path)], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: place.is_file() and place.read_text())
        build.send_signal(ending)
        build.wait(timeout=300)
        assert has_ended(int(place.read_text()))
    finally:
        build.kill()


def has_ended(process):
    """Whether a process ends soon."""

    def is_gone():
        try:
            return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    return wait_for(is_gone)
