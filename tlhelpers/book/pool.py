"""The processes that pieces of work run in: copies of one that has loaded what they need, with cores of their own."""

import contextlib
import gc
import importlib
import multiprocessing
import os
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import forkserver, resource_tracker

import psutil
import threadpoolctl

from tlhelpers import devices, settings, terminal

# What executing a chapter needs, and what every chapter loads. It takes ten seconds, once for all of them.
COMMON = ("tlhelpers.book.execution", "ipykernel.kernelapp", "tlhelpers.chapters")


def start_pool(jobs):
    """Processes that run one piece of work each: what one leaves behind in memory never reaches the next.

    Where that is safe, they are copies of one that has loaded what all of them need.
    """
    context = multiprocessing.get_context("forkserver" if copies_are_safe() else "spawn")
    options = {"initializer": begin_process, "initargs": (_prepare_copies(),), "max_tasks_per_child": 1}
    return ProcessPoolExecutor(jobs, mp_context=context, **options)


def load_ahead():
    """Lets the process that others are copied from load while this one goes on, where copies are safe."""
    if copies_are_safe():
        _prepare_copies()
        forkserver.ensure_running()


def _prepare_copies():
    """Says what is loaded before a process is copied; returns the Path of the file that takes its messages."""
    multiprocessing.set_forkserver_preload(["tlhelpers.book.preload"])
    messages = settings.messages_file()
    messages.parent.mkdir(parents=True, exist_ok=True)
    messages.write_text("", encoding="utf-8")
    with terminal.stderr_aside(messages):  # it speaks when all is over, of what copied processes have left
        resource_tracker.ensure_running()
    return messages


def copies_are_safe():
    """Whether a process that has loaded TensorFlow can be copied: on Linux alone, and not where it finds a GPU."""
    return sys.platform == "linux" and not devices.list_gpus()


def begin_process(messages):
    """Prepares a process of the pool: it ends with its parent, and what it starts leaves the terminal to the build.

    Args:
        messages: Path. The file that takes what a kernel, or whatever else the process starts, writes to stderr.
    """
    end_with_parent()
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)  # Python's own, such as progress bars, stays
    terminal.send_stderr_to(messages)


def preload():
    """Loads what is common to all pieces of work, without a word of it on the terminal.

    Python then leaves it out when it looks for garbage: it stays as long as a process does.
    """
    gc.disable()
    try:
        with terminal.stderr_aside(settings.messages_file()):
            for name in COMMON:
                importlib.import_module(name)
        gc.freeze()
    finally:
        gc.enable()


@contextlib.contextmanager
def ended_together():
    """Ends all processes that this one has started when the block is left by an error or an interruption."""
    try:
        yield
    except BaseException:
        end_children()
        raise


def end_with_parent():
    """Lets this process, and what it has started, end as soon as the one that has started it is gone."""

    def watch():
        multiprocessing.parent_process().join()
        end_children()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def end_children():
    """Ends all processes that this one has started, and those that they have started."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def share_cores(jobs):
    """The cores of this machine in as many parts as jobs: a list of sets of int.

    Programs that compute take every core they see. Two of them on the same cores wait for each other.
    """
    cores = devices.list_cores()
    return [set(cores[job::jobs]) or set(cores) for job in range(jobs)]


def run_on(cores, environment, work):
    """Runs a piece of work, and all that it starts, on some cores alone where the system has a way to say so.

    Args:
        cores: set of int.
        environment: dict. The environment variables of the process that shares out the work: a copied process has
            those of the day it was copied from.
        work: callable without arguments.

    Returns:
        What the work returns.
    """
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
        threadpoolctl.threadpool_limits(len(cores))  # what is loaded already has counted all cores
    return work()
