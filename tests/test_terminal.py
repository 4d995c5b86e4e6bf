"""What libraries say while they load stays off the terminal; everything else reaches it."""

import os
import subprocess
import sys

import pytest

from tlhelpers import terminal

STARTING = "I0000 00:00:1796105234.231481   17254 cudart_stub.cc:31] Could not find cuda drivers on your machine."


SPEAKING = """
import os, sys
from tlhelpers import terminal

with terminal.without_startup_messages():
    os.write(2, (sys.argv[1] + os.linesep + "loss is NaN" + os.linesep).encode())
    print("careful", file=sys.stderr)
os.write(2, b"afterwards")
"""


def test_startup_messages_are_dropped_and_all_else_passes():
    done = subprocess.run([sys.executable, "-c", SPEAKING, STARTING], capture_output=True, text=True, check=True)
    assert done.stderr == "loss is NaN\ncareful\nafterwards"


@pytest.mark.slow
def test_a_command_that_loads_tensorflow_says_nothing_of_it(tmp_path):
    command = [sys.executable, "-m", "tlhelpers", "predict", str(tmp_path / "none.keras"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if not line.startswith("Stopped: ")] == []
    assert len(done.stderr.splitlines()) == 1


def test_stderr_goes_to_a_file_and_comes_back(tmp_path, capfd):
    with terminal.stderr_aside(tmp_path / "messages.txt"):
        os.write(2, b"aside\n")
    os.write(2, b"here\n")
    assert (tmp_path / "messages.txt").read_text() == "aside\n"
    assert capfd.readouterr().err == "here\n"
