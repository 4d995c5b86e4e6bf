"""The long lane: the package is installed as a reader installs it, and each chapter runs alone, on a fresh machine.

Everything else that a chapter imports is taken from where these tests run: `make colab-check` installs all of it anew.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tlhelpers import settings
from tlhelpers.book import toc

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]
OURS = ("PYTEST", "PYTHON", "TLHELPERS", "KERAS", "TF_", "MPL", "VIRTUAL_ENV")
LARGEST_WHEEL = 20_000_000  # bytes: what a notebook service fetches for each chapter


def run(*command, folder):
    """Runs a command as a user would who has never seen the checkout; returns what it prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    environment |= {"HOME": str(folder), "TLHELPERS_QUIET": "1"}
    command = [str(part) for part in command]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 0, f"{done.stdout[-5000:]}{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The Python of an environment that holds the wheel, and no way back to the checkout."""
    folder = tmp_path_factory.mktemp("installed")
    run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "-w",
        folder,
        settings.PROJECT_FOLDER,
        folder=folder,
    )
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", folder=folder)
    python = folder / "venv" / "bin" / "python"
    code = "import json, sysconfig; print(json.dumps(sysconfig.get_path('purelib')))"
    packages = Path(json.loads(run(python, "-c", code, folder=folder)))
    (wheel,) = folder.glob("*.whl")
    assert wheel.stat().st_size <= LARGEST_WHEEL
    shutil.unpack_archive(wheel, packages, "zip")
    # A path file below another one is not read, so that the editable package of the checkout is not found.
    (packages / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return python


def test_the_package_of_the_wheel_is_the_one_that_is_imported(python, tmp_path):
    found = run(python, "-P", "-c", "import tlhelpers; print(tlhelpers.__file__)", folder=tmp_path).strip()
    assert Path(found).is_relative_to(python.parent.parent)


def test_what_builds_the_book_stays_out_of_the_wheel(python, tmp_path):
    code = "import importlib.util; print(importlib.util.find_spec('tlhelpers.book'))"
    assert run(python, "-P", "-c", code, folder=tmp_path) == "None\n"


@pytest.mark.parametrize("chapter", toc.list_chapters())
def test_a_chapter_runs_alone_on_a_fresh_machine(python, tmp_path, chapter):
    command = ["-m", "tlhelpers.book.colab", "check", "--python", python, "--only", Path(chapter).stem]
    said = run(sys.executable, *command, folder=tmp_path)
    assert said.endswith("0 chapters failed: none\n")
