"""Many experiments at once: on the cores of this machine, or on a Dask cluster with one flag.

python -m tlhelpers.sweeps models                                the recorded models of the careful protocol
python -m tlhelpers.sweeps models --cluster tcp://host:8786      the same on a cluster

Every experiment leaves a record, and one that has left its record is skipped: a sweep can be stopped and started
again. The workers of a cluster need the project's folder at the same place.
"""

import argparse
import contextlib
import os
import sys
import time

import joblib

from tlhelpers import devices, experiments, files, manifest, profiles, recipes, records, settings, studies

FEWER_SEEDS = range(3)
SEEDS = range(manifest.FOLDS)


def list_models():
    """The models of the careful study on photographs, the quick ones first, fold by fold."""
    plan = [
        ("mobilenetv2_100", "full", SEEDS),
        ("mobilenetv2_100", "frozen_depths", SEEDS),
        ("mobilenetv2_100", "frozen_linear", SEEDS),
        ("mobilenetv2_035", "frozen_linear", SEEDS),
        ("efficientnetv2b0", "frozen_linear", SEEDS),
        ("mobilenetv2_100", "partial", SEEDS),
        ("mobilenetv2_035", "full", SEEDS),
        ("mobilenetv2_035", "partial", SEEDS),
        ("efficientnetv2b0", "full", FEWER_SEEDS),
        ("baseline_cnn", "scratch_augmented", SEEDS),
        ("mobilenetv2_100", "scratch", FEWER_SEEDS),
    ]
    return [
        experiments.Experiment(network, recipes.get_recipe(strategy), seed)
        for network, strategy, seeds in plan
        for seed in seeds
    ]


# What each sweep runs, and where below the committed records its own stand.
SWEEPS = {"models": (list_models, ".")}


class SweepError(RuntimeError):
    """Some experiments of a sweep failed; the message names them and why. The others have left their records."""


def run_sweep(planned, folder, *, jobs=None, cluster=None):
    """Runs experiments side by side and skips those that have left their record.

    Args:
        planned: list of Experiment.
        folder: Path. Where the records go.
        jobs: int or None. How many run at once on this machine; None means one per core. With more than one, each
            has its share of the cores.
        cluster: str or None. The address of a Dask scheduler: its workers run the experiments instead.

    Returns:
        list of Record, in the order of `planned`.

    Raises:
        SweepError: when some experiments fail; the others are run all the same.
    """
    waiting = [experiment for experiment in planned if not experiment.is_recorded(folder)]
    cores = devices.available_cores()
    jobs = jobs or cores
    threads = None if cluster or jobs == 1 else max(1, cores // jobs)
    print(f"{len(planned)} experiments, {len(planned) - len(waiting)} of them recorded before", flush=True)
    prepare_images(waiting)
    failures = []
    with _workers(jobs, cluster):
        tasks = (joblib.delayed(_attempt)(experiment, folder, threads) for experiment in waiting)
        outcomes = joblib.Parallel(return_as="generator_unordered")(tasks)
        for name, seconds, error in files.progress(outcomes, description="Experiments", total=len(waiting)):
            print(f"{name}: {error or f'{seconds:.0f} s'}", flush=True)
            failures += [f"{name}: {error}"] if error else []
    if failures:
        raise SweepError("Every experiment of a sweep ends with a record. Received:\n  " + "\n  ".join(failures))
    return [records.load_record(experiment.path(folder)) for experiment in planned]


def prepare_images(planned):
    """Finds, or draws, and reads the images of some experiments once, before many processes want them."""
    for study, profile in sorted({(experiment.study, experiment.profile) for experiment in planned}):
        manifest.load_manifest(studies.get_study(study, drawn=profiles.choose_profile(profile).drawn))


@contextlib.contextmanager
def _workers(jobs, cluster):
    """Sends what joblib runs to local processes, or to a cluster while its client is open."""
    if cluster is None:
        with joblib.parallel_config(backend="loky", n_jobs=jobs):
            yield
        return
    import distributed

    with distributed.Client(cluster), joblib.parallel_config(backend="dask", n_jobs=-1):
        yield


def _attempt(experiment, folder, threads):
    """Runs one experiment; returns its name, its seconds and, where it failed, the reason."""
    started = time.perf_counter()
    try:
        experiments.run_experiment(experiment, folder, threads=threads)
    except Exception as error:
        return experiment.name, 0.0, f"{type(error).__name__}: {error}"
    return experiment.name, time.perf_counter() - started, None


def main(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tlhelpers.sweeps", description=__doc__.splitlines()[0])
    parser.add_argument("sweep", choices=sorted(SWEEPS))
    parser.add_argument("--jobs", type=int, help="experiments at once on this machine (default: one per core)")
    parser.add_argument("--cluster", help="address of a Dask scheduler, such as tcp://host:8786")
    parser.add_argument("--only", default="", help="a part of the names, such as mobilenetv2_100-full")
    options = parser.parse_args(arguments)
    os.environ["TLHELPERS_QUIET"] = "1"
    list_experiments, place = SWEEPS[options.sweep]
    planned = [experiment for experiment in list_experiments() if options.only in experiment.name]
    try:
        run_sweep(planned, settings.records_folder() / place, jobs=options.jobs, cluster=options.cluster)
    except SweepError as error:
        print(f"Stopped: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
