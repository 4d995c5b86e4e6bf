"""In which order chapters are executed, which of them side by side, and what is said about it meanwhile."""

import contextlib
import gc
import graphlib
import importlib
import json
import multiprocessing
import os
import sys
import threading
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing import forkserver, resource_tracker

import psutil
import threadpoolctl

from tlhelpers import devices, settings, terminal

# Chapters that read what others have left in the same build.
_FLOWER_MODELS = ("book/03_baseline_cnn.ipynb", "book/04_frozen_backbone.ipynb", "book/05_fine_tuning.ipynb")
FOLLOWS = {
    "book/06_comparison.ipynb": _FLOWER_MODELS,
    "book/07_looking_inside.ipynb": _FLOWER_MODELS,
    "book/13_fashion_strategies.ipynb": ("book/12_fashion_from_scratch.ipynb",),
    "book/17_synthesis.ipynb": (
        *_FLOWER_MODELS,
        "book/12_fashion_from_scratch.ipynb",
        "book/13_fashion_strategies.ipynb",
        "book/14_cats_vs_dogs.ipynb",
        "book/15_deepweeds.ipynb",
        "book/16_fer2013.ipynb",
    ),
    "book/18_in_the_browser.ipynb": _FLOWER_MODELS,
}
MOST_JOBS, MEMORY_OF_A_CHAPTER = 4, 4 << 30  # bytes
# What executing a chapter needs, and what every chapter loads. It takes ten seconds, once for all of them.
COMMON = ("tlhelpers.book.execution", "ipykernel.kernelapp", "tlhelpers.chapters")
TYPICAL = "seconds.json"
PROFILE = "tlhelpers_profile"  # where an executed copy's metadata say what it was executed under


def run_all(works, follows, *, jobs, seconds):
    """Runs pieces of work side by side, each after those it follows; says how far it has come.

    Of those that could begin, the one does whose end, with all that follows it, is farthest; where nothing is known of
    them the first. A piece that fails stops those that follow it, and no other.

    Args:
        works: dict from a name to a function without arguments that can be sent to another process; it returns how
            many seconds it took.
        follows: dict from a name to the names of those it follows; names that are not in `works` count as done.
        jobs: int. How many run at once.
        seconds: dict from a name to how long it usually takes; names may be missing.

    Returns:
        dict from a name that failed, or was not begun, to the reason, str.
    """
    graph = {name: set(follows.get(name, ())) & set(works) for name in works}
    sorter = graphlib.TopologicalSorter(graph)
    sorter.prepare()
    failures, ready, running, estimate = {}, [], {}, Estimate(works, seconds, jobs)
    farthest = times_to_the_end(graph, estimate.usual)
    shares = share_cores(jobs)
    with start_pool(jobs) as pool, ended_together():
        while sorter.is_active():
            ready = sorted([*ready, *sorter.get_ready()], key=farthest.get, reverse=True)
            if not ready and not running:
                break  # all that is left follows what has failed
            while ready and len(running) < jobs:
                name = ready.pop(0)
                print(f"{name}: started", flush=True)
                share = shares.pop()
                running[pool.submit(run_on, share, dict(os.environ), works[name])] = name, share
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name, share = running.pop(future)
                shares.append(share)
                try:
                    took = future.result()
                    sorter.done(name)
                    print(f"{name}: {took:.0f} s {estimate.finish(name, took)}", flush=True)
                except Exception as error:
                    failures[name] = str(error)
                    print(f"{name}: failed {estimate.finish(name)}", flush=True)
    behind = {name: f"{name}: not executed, because of {sorted(failures)}" for name in estimate.left}
    return failures | behind


def times_to_the_end(graph, usual):
    """How long each piece takes, together with the longest chain of those that follow it one after the other.

    Args:
        graph: dict from a name to the names of those it follows, a set of keys of the same dict.
        usual: callable from a name to float. Seconds that a piece takes alone.

    Returns:
        dict from a name to float, seconds.
    """
    times = dict.fromkeys(graph, 0.0)
    for name in reversed([*graphlib.TopologicalSorter(graph).static_order()]):  # what follows a piece stands before it
        times[name] += usual(name)
        for earlier in graph[name]:
            times[earlier] = max(times[earlier], times[name])
    return times


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

    Python then leaves it out when it looks for rubbish: it stays as long as a process does.
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


def run_on(cores, surroundings, work):
    """Runs a piece of work, and all that it starts, on some cores alone where the system has a way to say so.

    Args:
        cores: set of int.
        surroundings: dict. The environment variables of the process that shares out the work: a copied process has
            those of the day it was copied from.
        work: callable without arguments.

    Returns:
        What the work returns.
    """
    for name in set(os.environ) - set(surroundings):
        del os.environ[name]
    os.environ.update(surroundings)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
        threadpoolctl.threadpool_limits(len(cores))  # what is loaded already has counted all cores
    return work()


class Estimate:
    """How long the rest will take, by what each piece usually takes and how this machine has compared so far.

    Args:
        names: iterable of str. All that is to be done.
        seconds: dict from a name to float; for a name that is missing, the mean of the others is taken.
        jobs: int. How many run at once.
    """

    def __init__(self, names, seconds, jobs):
        known = {name: seconds[name] for name in names if name in seconds}
        mean = sum(known.values()) / len(known) if known else None
        self.left = {name: known.get(name, mean) for name in names}
        self.total, self.jobs = len(self.left), jobs
        self.spent, self.expected = 0.0, 0.0

    def usual(self, name):
        """The seconds a piece usually takes; 0 when nothing is known."""
        return self.left.get(name) or 0.0

    def finish(self, name, seconds=None):
        """Notes that a piece has ended, and after how many seconds; says what is left, as a str to print."""
        usual = self.left.pop(name)
        if seconds is not None and usual:
            self.spent, self.expected = self.spent + seconds, self.expected + usual
        return f"({self.total - len(self.left)} of {self.total}{self.describe()})"

    def describe(self):
        """How much longer it takes, as a str such as `", about 7 min left"`; empty when nothing is known of it."""
        if not self.left or None in self.left.values():
            return ""
        pace = self.spent / self.expected if self.expected else 1.0
        seconds = max(sum(self.left.values()) / self.jobs, *self.left.values()) * pace
        return f", about {describe_seconds(seconds)} left"


def describe_seconds(seconds):
    """A duration in words: seconds up to a minute and a half, else minutes."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def choose_jobs(jobs=None):
    """How many chapters run side by side.

    Args:
        jobs: int or None. None means as many as cores and memory allow, one alone where a GPU is shared.

    Returns:
        int.

    Raises:
        ValueError: when it is below 1.
    """
    if jobs is not None:
        if jobs < 1:
            raise ValueError(f"At least one chapter runs at a time. Received: jobs={jobs}")
        return jobs
    if devices.list_gpus():
        return 1
    room = psutil.virtual_memory().available // MEMORY_OF_A_CHAPTER
    return max(1, min(MOST_JOBS, devices.available_cores(), room))


def usual_seconds(profile, earlier):
    """How long chapters usually take: their last run under this profile, or else what is committed for two cores.

    Args:
        profile: str. The profile's name.
        earlier: dict from a chapter to the metadata of its executed copy, a dict.

    Returns:
        dict from a chapter to float.
    """
    known = {}
    if not devices.list_gpus():
        with contextlib.suppress(FileNotFoundError):
            known = json.loads((settings.data_folder() / TYPICAL).read_text(encoding="utf-8"))["seconds"]
            known = known.get(profile, {})
    same = {chapter: metadata for chapter, metadata in earlier.items() if metadata.get(PROFILE) == profile}
    durations = {chapter: metadata.get("papermill", {}).get("duration") for chapter, metadata in same.items()}
    return known | {chapter: duration for chapter, duration in durations.items() if duration}
