"""Many experiments at once: on the cores of this machine, or on a Dask cluster with one flag.

python -m tlhelpers.experiments.sweeps models                                the recorded models of the careful protocol
python -m tlhelpers.experiments.sweeps models --cluster tcp://host:8786      the same on a cluster

Every experiment leaves a record, and one that has left its record is skipped: a sweep can be stopped and started
again. The workers of a cluster need the project's folder at the same place.
"""

import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import joblib

from tlhelpers import files, parallel, profiles, settings, terminal
from tlhelpers.datasets import manifest, studies
from tlhelpers.experiments import grids, records, runner


class Sweep(NamedTuple):
    """The function that plans a sweep, and where below the committed records its own stand.

    What is shown of some sweeps needs no predictions: they are not read, and the wheel leaves them out.
    """

    plan: Callable
    place: str
    predictions: bool = True


SWEEPS = {
    "models": Sweep(grids.plan_models, "."),
    "cases": Sweep(grids.plan_cases, "."),
    "depths": Sweep(partial(grids.over_folds, grids.plan_depths), "sweeps/depths"),
    "sizes": Sweep(partial(grids.over_folds, grids.plan_sizes), "sweeps/sizes"),
    "domains": Sweep(partial(grids.over_folds, grids.plan_domains), "sweeps/domains", predictions=False),
    "ablations": Sweep(grids.plan_ablations, "sweeps/ablations"),
}


class SweepError(RuntimeError):
    """Some experiments of a sweep failed; the message names them and why. The others have left their records."""


def run_sweep(planned, folder, *, jobs=None, cluster=None):
    """Runs experiments side by side and skips those that have left their record.

    Args:
        planned: dict from a cell to its Experiment, see `grids`.
        folder: Path. Where the records go.
        jobs: int or None. How many run at once on this machine; None means one per core. With more than one, each
            has its share of the cores.
        cluster: str or None. The address of a Dask scheduler: its workers run the experiments instead.

    Returns:
        dict from a cell to its Record, in the order of `planned`.

    Raises:
        SweepError: when some experiments fail; the others are run all the same.
    """
    waiting = [experiment for experiment in planned.values() if not experiment.is_recorded(folder)]
    print(f"{len(planned)} experiments, {len(planned) - len(waiting)} of them recorded before", flush=True)
    prepare_images(waiting)
    failures = []
    with parallel.share_out(jobs, cluster) as threads:
        tasks = (joblib.delayed(_attempt)(experiment, folder, threads) for experiment in waiting)
        outcomes = joblib.Parallel(return_as="generator_unordered")(tasks)
        for name, seconds, error in files.progress(outcomes, description="Experiments", total=len(waiting)):
            print(f"{name}: {error or f'{seconds:.0f} s'}", flush=True)
            failures += [f"{name}: {error}"] if error else []
    if failures:
        raise SweepError("Every experiment of a sweep ends with a record. Received:\n  " + "\n  ".join(failures))
    found = records.find_records([experiment.name for experiment in planned.values()], folder)
    return {cell: found[experiment.name] for cell, experiment in planned.items()}


def load_sweep(name):
    """The committed records of a sweep.

    Args:
        name: str. A key of `SWEEPS`.

    Returns:
        dict from a cell to its Record, of `domains` without predictions; what has not been recorded is left out.

    Raises:
        ValueError: when there is no such sweep.
    """
    if name not in SWEEPS:
        raise ValueError(f"A sweep is one of {sorted(SWEEPS)}. Received: name={name!r}")
    plan, place, predictions = SWEEPS[name]
    planned = plan()
    names = [experiment.name for experiment in planned.values()]
    found = records.find_records(names, settings.records_folder() / place, predictions=predictions)
    return {
        cell: found[experiment.name]
        for cell, experiment in planned.items()
        if experiment.name in found and experiment.is_answered_by(found[experiment.name])
    }


def best_rates(runs):
    """The book's rule for the learning rate: for each depth of the grid `depths`, the rate of the highest accuracy.

    Args:
        runs: dict from a depth in words, a rate and, where there are several, a seed to a Record, as from
            `load_sweep("depths")` or `Chapter.run_grid`.

    Returns:
        dict from a depth in words to a float, the rate of the highest mean validation accuracy over seeds; of equal
        ones the lowest.
    """
    found = {}
    for (depth, rate, *_), run in runs.items():
        found.setdefault(depth, {}).setdefault(rate, []).append(run.metrics["accuracy"])
    return {
        depth: max(sorted(accuracies), key=lambda rate: sum(accuracies[rate]) / len(accuracies[rate]))
        for depth, accuracies in found.items()
    }


def prepare_images(planned):
    """Finds, or draws, and reads the images of some experiments once, before many processes want them."""
    for study, profile in sorted({(experiment.study, experiment.profile) for experiment in planned}):
        manifest.load_manifest(studies.get_study(study, drawn=profiles.choose_profile(profile).drawn))


def _attempt(experiment, folder, threads):
    """Runs one experiment; returns its name, its seconds and, where it failed, the reason."""
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")  # many models in one process: the advice against tracing many is not for them
    started = time.perf_counter()
    try:
        runner.run_experiment(experiment, folder, threads=threads)
    except Exception as error:
        return experiment.name, 0.0, f"{type(error).__name__}: {error}"
    return experiment.name, time.perf_counter() - started, None


def _list_names(names):
    """Names of experiments without their seeds, so that they fit a screen."""
    return sorted({name.rpartition("/")[0] for name in names})


def main(arguments=None):
    """The command line."""
    parser = terminal.make_parser("tlhelpers.experiments.sweeps", __doc__)
    parser.add_argument("sweep", choices=sorted(SWEEPS))
    parser.add_argument("--jobs", type=int, help="experiments at once on this machine (default: one per core)")
    parser.add_argument("--cluster", help="address of a Dask scheduler, such as tcp://host:8786")
    parser.add_argument("--only", default="", help="a part of the names, such as mobilenetv2_100-full")
    options = parser.parse_args(arguments)
    os.environ["TLHELPERS_QUIET"] = "1"
    plan, place, _ = SWEEPS[options.sweep]
    folder = settings.records_folder() / place
    planned = {cell: experiment for cell, experiment in plan().items() if options.only in experiment.name}
    try:
        if not planned:
            names = _list_names(experiment.name for experiment in plan().values())
            raise ValueError(
                f"--only is a part of the name of an experiment, one of {names}. Received: {options.only!r}"
            )
        try:
            run_sweep(planned, folder, jobs=options.jobs, cluster=options.cluster)
        finally:
            records.pack_records(folder)
    except (SweepError, OSError, ValueError) as error:
        print(f"Stopped: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
