"""Sweeps: what is recorded is skipped, what fails is named, and a cluster gives what this machine gives."""

import dataclasses
from dataclasses import replace

import builders
import numpy as np
import pytest

from tlhelpers import experiments, manifest, recipes, records, sweeps

TINY = {"train_size": 32, "test_size": 32, "head_epochs": 1, "epochs": 1}


def plan(seeds=(0, 1), strategy="frozen_linear"):
    recipe = replace(recipes.get_recipe(strategy), **TINY)
    return [experiments.Experiment("mobilenetv2_035", recipe, seed, profile="smoke") for seed in seeds]


@pytest.fixture
def trained(monkeypatch):
    """Stands in for the training: writes the record's file, fails for seed 3, and notes what it was asked."""
    asked = []

    def run(experiment, folder, *, threads=None):
        asked.append((experiment.seed, threads))
        if experiment.seed == 3:
            raise ValueError("no such fold")
        record = builders.make_record(seed=experiment.seed, network=experiment.network, strategy="frozen_linear")
        return records.save_record(dataclasses.replace(record, details=experiment.asked), folder)

    monkeypatch.setattr(experiments, "run_experiment", run)
    monkeypatch.setattr(sweeps, "prepare_images", lambda planned: None)
    return asked


def test_a_sweep_returns_the_records_in_the_order_of_its_plan(trained, tmp_path):
    found = sweeps.run_sweep(plan((2, 0, 1)), tmp_path, jobs=1)
    assert [record.seed for record in found] == [2, 0, 1]
    assert trained == [(2, None), (0, None), (1, None)]


def test_what_is_recorded_is_skipped(trained, tmp_path, capsys):
    sweeps.run_sweep(plan((0,)), tmp_path, jobs=1)
    sweeps.run_sweep(plan((0, 1)), tmp_path, jobs=1)
    assert [seed for seed, _ in trained] == [0, 1]
    assert "2 experiments, 1 of them recorded before" in capsys.readouterr().out


def test_what_was_recorded_with_another_recipe_is_run_again(trained, tmp_path):
    sweeps.run_sweep(plan((0,)), tmp_path, jobs=1)
    [experiment] = plan((0,))
    changed = replace(experiment, recipe=replace(experiment.recipe, rate=0.123456789))
    sweeps.run_sweep([changed], tmp_path, jobs=1)
    sweeps.run_sweep([changed], tmp_path, jobs=1)
    assert [seed for seed, _ in trained] == [0, 0]


def test_a_failure_is_named_and_the_others_are_run_all_the_same(trained, tmp_path):
    with pytest.raises(sweeps.SweepError, match=r"seed-3: ValueError: no such fold") as raised:
        sweeps.run_sweep(plan((3, 4)), tmp_path, jobs=1)
    assert "seed-4" not in str(raised.value)
    assert plan((4,))[0].path(tmp_path).is_file()


def test_the_command_runs_the_part_that_is_asked_for(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sweeps.SWEEPS, "models", (lambda: plan((0, 1)), "."))
    monkeypatch.setattr(sweeps.settings, "records_folder", lambda: tmp_path)
    assert sweeps.main(["models", "--jobs", "1", "--only", "seed-1"]) == 0
    assert [seed for seed, _ in trained] == [1]
    monkeypatch.setitem(sweeps.SWEEPS, "models", (lambda: plan((3,)), "."))
    assert sweeps.main(["models", "--jobs", "1"]) == 1
    assert "no such fold" in capsys.readouterr().err


def test_the_recorded_models_are_those_of_the_careful_study():
    planned = sweeps.list_models()
    assert len({experiment.name for experiment in planned}) == len(planned)
    folds = {}
    for experiment in planned:
        assert (experiment.protocol, experiment.profile, experiment.evaluated_on) == ("careful", "full", "test")
        folds.setdefault(experiment.network + "-" + experiment.recipe.strategy, []).append(experiment.seed)
    few = {"efficientnetv2b0-full": [0, 1, 2], "mobilenetv2_100-scratch": [0, 1, 2]}
    assert folds == {model: list(range(manifest.FOLDS)) for model in folds} | few


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_cluster_of_two_workers_gives_what_this_machine_gives(tmp_path):
    import distributed

    here = sweeps.run_sweep(plan(), tmp_path / "here", jobs=2)
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, local_directory=str(tmp_path)
    ) as cluster:
        there = sweeps.run_sweep(plan(), tmp_path / "there", cluster=cluster.scheduler_address)
    for one, other in zip(here, there, strict=True):
        assert one.history == other.history
        np.testing.assert_array_equal(one.y_prob, other.y_prob)
