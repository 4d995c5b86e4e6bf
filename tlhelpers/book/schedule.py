"""In which order chapters are executed, which of them side by side, and what is said about it meanwhile."""

import graphlib
import os
from concurrent.futures import FIRST_COMPLETED, wait

import psutil

from tlhelpers import devices
from tlhelpers.book import pool, toc

MOST_JOBS, MEMORY_OF_A_CHAPTER = 4, 4 << 30  # bytes
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
    shares = pool.share_cores(jobs)
    with pool.start_pool(jobs) as processes, pool.ended_together():
        while sorter.is_active():
            ready = sorted([*ready, *sorter.get_ready()], key=farthest.get, reverse=True)
            if not ready and not running:
                break  # all that is left follows what has failed
            while ready and len(running) < jobs:
                name = ready.pop(0)
                print(f"{name}: started", flush=True)
                share = shares.pop()
                running[processes.submit(pool.run_on, share, dict(os.environ), works[name])] = name, share
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
    """How long chapters usually take: their last run under this profile, or else what `toc` says for two cores.

    Args:
        profile: str. The profile's name.
        earlier: dict from a chapter to the metadata of its executed copy, a dict.

    Returns:
        dict from a chapter to float.
    """
    known = {} if devices.list_gpus() else toc.usual_seconds(profile)
    same = {chapter: metadata for chapter, metadata in earlier.items() if metadata.get(PROFILE) == profile}
    durations = {chapter: metadata.get("papermill", {}).get("duration") for chapter, metadata in same.items()}
    return known | {chapter: duration for chapter, duration in durations.items() if duration}
