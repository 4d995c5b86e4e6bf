"""What reaches a reader's terminal: what this package says, and not what libraries say while they load."""

import argparse
import contextlib
import os
import re
import sys
import threading

# What TensorFlow and LiteRT say while they load or convert, before any setting can silence it; and their advice on
# functions that are traced often, as where many small heads are trained in turn.
STARTUP_MESSAGE = re.compile(
    r"WARNING: All log messages before absl::InitializeLog|I\d{4} \d|W0000 .*tf_tfl_flatbuffer_helpers|INFO:"
    r"|WARNING:tensorflow:\d+ out of the last \d+ calls to"
    r"|[EW]0000 .*(Unable to register cu|computation placer already registered)"
)


def make_parser(module, doc):
    """A parser of a command line that says in a line what the module does.

    Args:
        module: str. What stands after `python -m`.
        doc: str or None. The module's docstring, which Python drops when it optimises twice.

    Returns:
        argparse.ArgumentParser.
    """
    return argparse.ArgumentParser(prog=f"python -m {module}", description=(doc or "").partition("\n")[0])


@contextlib.contextmanager
def without_startup_messages():
    """Keeps the messages of libraries that load off stderr while the block runs; everything else passes, line by line.

    They come from compiled code, which writes to the file that is open as number 2 and asks no Python.
    """
    sys.stderr.flush()
    kept, (reading, writing) = os.dup(2), os.pipe()
    os.dup2(writing, 2)
    os.close(writing)
    passing = threading.Thread(target=_pass_on, args=(reading, kept))
    passing.start()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)  # closes the pipe, unless a process that was started in the block still has it
        passing.join(timeout=1)
        os.close(kept)


@contextlib.contextmanager
def stderr_aside(path):
    """Lets what libraries and programs write to stderr go to a file, a Path, while the block runs."""
    terminal = os.dup(2)
    send_stderr_to(path)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


def send_stderr_to(path):
    """Lets what libraries and programs write to stderr go to a file, a Path, and no longer to the terminal."""
    with path.open("ab") as file:
        os.dup2(file.fileno(), 2)


def _pass_on(reading, destination):
    with os.fdopen(reading, "rb") as lines:
        for line in lines:
            if not STARTUP_MESSAGE.match(line.decode(errors="replace")):
                with contextlib.suppress(OSError):  # the block has ended, or the terminal is closed
                    os.write(destination, line)
