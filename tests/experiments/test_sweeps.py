"""Sweeps: what is recorded is skipped, what fails is named, and a cluster gives what this machine gives."""

import dataclasses
from dataclasses import replace
from types import SimpleNamespace

import builders
import numpy as np
import pytest

from tlhelpers.experiments import recipes, records, runner, sweeps

TINY = {"train_image_size": 32, "test_image_size": 32, "head_epochs": 1, "epochs": 1}


def plan(seeds=(0, 1), strategy="frozen_linear"):
    recipe = replace(recipes.get_recipe(strategy), **TINY)
    return {(seed,): runner.Experiment("mobilenetv2_035", recipe, seed, profile="smoke") for seed in seeds}


@pytest.fixture
def trained(monkeypatch):
    """Stands in for the training: writes the record's file, fails for seed 3, and notes what it was asked."""
    asked = []

    def run(experiment, folder, *, threads=None):
        asked.append((experiment.seed, threads))
        if experiment.seed == 3:
            raise ValueError("no such fold")
        record = builders.make_record(seed=experiment.seed, network=experiment.network, strategy="frozen_linear")
        records.save_record(dataclasses.replace(record, details=experiment.asked), folder)

    monkeypatch.setattr(runner, "run_experiment", run)
    monkeypatch.setattr(sweeps, "prepare_images", lambda planned: None)
    return asked


def test_a_sweep_returns_the_records_in_the_order_of_its_plan(trained, tmp_path):
    found = sweeps.run_sweep(plan((2, 0, 1)), tmp_path, jobs=1)
    assert {cell: record.seed for cell, record in found.items()} == {(2,): 2, (0,): 0, (1,): 1}
    assert list(found) == [(2,), (0,), (1,)]
    assert trained == [(2, None), (0, None), (1, None)]


def test_what_is_recorded_is_skipped(trained, tmp_path, capsys):
    sweeps.run_sweep(plan((0,)), tmp_path, jobs=1)
    sweeps.run_sweep(plan((0, 1)), tmp_path, jobs=1)
    assert [seed for seed, _ in trained] == [0, 1]
    assert "2 experiments, 1 of them recorded before" in capsys.readouterr().out


def test_what_was_recorded_with_another_recipe_is_run_again(trained, tmp_path):
    sweeps.run_sweep(plan((0,)), tmp_path, jobs=1)
    experiment = plan((0,))[0,]
    changed = replace(experiment, recipe=replace(experiment.recipe, learning_rate=0.123456789))
    sweeps.run_sweep({(0,): changed}, tmp_path, jobs=1)
    sweeps.run_sweep({(0,): changed}, tmp_path, jobs=1)
    assert [seed for seed, _ in trained] == [0, 0]


def test_a_failure_is_named_and_the_others_are_run_all_the_same(trained, tmp_path):
    with pytest.raises(sweeps.SweepError, match=r"seed-3: ValueError: no such fold") as raised:
        sweeps.run_sweep(plan((3, 4)), tmp_path, jobs=1)
    assert "seed-4" not in str(raised.value)
    assert plan((4,))[4,].is_recorded(tmp_path)


def test_the_command_runs_the_part_that_is_asked_for(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sweeps.SWEEPS, "models", sweeps.Sweep(lambda: plan((0, 1)), "."))
    monkeypatch.setattr(sweeps.settings, "records_folder", lambda: tmp_path)
    assert sweeps.main(["models", "--jobs", "1", "--only", "seed-1"]) == 0
    assert [seed for seed, _ in trained] == [1]
    assert sorted(path.name for path in tmp_path.glob("flowers*")) == ["flowers.json", "flowers.npz"]
    assert plan()[1,].is_recorded(tmp_path)
    monkeypatch.setitem(sweeps.SWEEPS, "models", sweeps.Sweep(lambda: plan((3,)), "."))
    assert sweeps.main(["models", "--jobs", "1"]) == 1
    assert "no such fold" in capsys.readouterr().err


def test_a_part_of_no_name_is_an_error_that_lists_the_names_and_runs_nothing(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sweeps.SWEEPS, "models", sweeps.Sweep(lambda: plan((0, 1)), "."))
    monkeypatch.setattr(sweeps.settings, "records_folder", lambda: tmp_path)
    assert sweeps.main(["models", "--jobs", "1", "--only", "seeed-1"]) == 1
    shown = capsys.readouterr()
    name = plan()[0,].name.removesuffix("/seed-0")
    assert shown.err == (
        f"Stopped: --only is a part of the name of an experiment, one of [{name!r}]. Received: 'seeed-1'\n"
    )
    assert shown.out == ""
    assert trained == []


def test_the_committed_records_of_a_sweep_stand_under_their_cells_and_missing_ones_are_left_out(
    trained, tmp_path, monkeypatch
):
    monkeypatch.setitem(sweeps.SWEEPS, "depths", sweeps.Sweep(lambda: plan((0, 1)), "sweeps/depths"))
    monkeypatch.setattr(sweeps.settings, "records_folder", lambda: tmp_path)
    assert sweeps.load_sweep("depths") == {}
    sweeps.run_sweep(plan((1,)), tmp_path / "sweeps" / "depths", jobs=1)
    assert {cell: record.seed for cell, record in sweeps.load_sweep("depths").items()} == {(1,): 1}


def test_an_unknown_sweep_names_the_known_ones():
    with pytest.raises(ValueError, match=r"one of \['ablations', .*'sizes'\]. Received: name='breadths'"):
        sweeps.load_sweep("breadths")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_cluster_of_two_workers_gives_what_this_machine_gives(tmp_path):
    import distributed

    here = sweeps.run_sweep(plan(), tmp_path / "here", jobs=2)
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, local_directory=str(tmp_path)
    ) as cluster:
        there = sweeps.run_sweep(plan(), tmp_path / "there", cluster=cluster.scheduler_address)
    for cell, one in here.items():
        assert one.history == there[cell].history
        np.testing.assert_array_equal(one.y_prob, there[cell].y_prob)


def test_the_best_rate_of_each_depth_is_that_of_the_highest_mean_accuracy():
    accuracy = {("top", 0.1, 0): 0.5, ("top", 0.1, 1): 0.9, ("top", 1.0, 0): 0.8, ("all", 1.0): 0.6, ("all", 0.1): 0.6}
    runs = {cell: SimpleNamespace(metrics={"accuracy": value}) for cell, value in accuracy.items()}
    assert sweeps.best_rates(runs) == {"top": 1.0, "all": 0.1}
