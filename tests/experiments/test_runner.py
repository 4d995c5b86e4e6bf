"""Experiments: one trained network from its question to a record that can be checked."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from tlhelpers import interpret, loaders, models, settings
from tlhelpers.datasets import splits, studies
from tlhelpers.experiments import recipes, records, runner, trainer
from tlhelpers.synthetic import collection

TINY = {"train_image_size": 32, "test_image_size": 64, "head_epochs": 1, "epochs": 1}


@pytest.fixture(autouse=True)
def _small_garden(monkeypatch):
    monkeypatch.setattr(collection, "FILES_PER_CLASS", 30)


def experiment(strategy="frozen_linear", **options):
    recipe = replace(recipes.get_recipe(strategy), **TINY)
    return runner.Experiment("mobilenetv2_035", recipe, **({"seed": 0, "profile": "smoke"} | options))


def table_of(**options):
    return runner.table_of(experiment(**options), studies.get_study("flowers", drawn=True))


def test_an_experiment_stands_where_its_record_does(tmp_path):
    path = records.record_path(tmp_path, experiment(seed=3).name)
    assert path == tmp_path / "flowers/careful/mobilenetv2_035-frozen_linear/seed-3.json"


@pytest.mark.slow
def test_a_smaller_training_set_is_part_of_a_larger_and_the_rest_stays():
    everything, few, fewer = table_of(), table_of(per_class=4), table_of(per_class=2)
    train = [set(table.loc[table["split"] == "train", "path"]) for table in (everything, few, fewer)]
    assert [len(paths) for paths in train[1:]] == [20, 10]
    assert train[0] > train[1] > train[2]
    rest = [set(table.loc[table["split"] != "train", "path"]) for table in (everything, few, fewer)]
    assert rest[0] == rest[1] == rest[2]
    assert few.loc[few["split"] == "train", "label"].value_counts().unique().tolist() == [4]


@pytest.mark.slow
def test_another_seed_chooses_other_images():
    first, second = (table_of(per_class=2, seed=seed) for seed in (0, 1))
    assert set(first.loc[first["split"] == "train", "path"]) != set(second.loc[second["split"] == "train", "path"])


@pytest.mark.slow
@pytest.mark.parametrize("per_class", [0, 1000])
def test_more_images_than_a_class_has_are_an_error(per_class):
    with pytest.raises(ValueError, match=rf"between 1 and \d+ training images here. Received: per_class={per_class}"):
        table_of(per_class=per_class)


@pytest.mark.slow
def test_what_is_still_being_chosen_never_sees_a_test_image():
    whole, chosen = table_of(), table_of(evaluated_on="validation")
    test = set(whole.loc[whole["split"] == "test", "path"])
    validation = set(whole.loc[whole["split"] == "validation", "path"])
    assert set(chosen["path"]).isdisjoint(test)
    assert set(splits.rows_of(chosen, "test")["path"]) == validation


def test_an_unknown_part_is_an_error():
    with pytest.raises(ValueError, match=r"'test' or 'validation'. Received: evaluated_on='train'"):
        table_of(evaluated_on="train")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A trained and recorded experiment: itself, and the folder of its records and models."""
    folder = tmp_path_factory.mktemp("experiments")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLHELPERS_HOME", str(folder / "home"))
        patch.setenv("TLHELPERS_MODELS", str(folder / "models"))
        patch.setattr(collection, "FILES_PER_CLASS", 30)
        done = experiment("full")
        runner.run_experiment(done, folder / "records")
    return done, folder


@pytest.fixture
def finished(trained, tmp_path, monkeypatch):
    """A finished experiment and its record, which the test may change."""
    done, folder = trained
    shutil.copytree(folder / "records", tmp_path / "records")
    monkeypatch.setenv("TLHELPERS_MODELS", str(folder / "models"))
    return done, records.record_path(tmp_path / "records", done.name)


@pytest.mark.slow
def test_a_record_says_what_was_asked_and_what_it_took(finished):
    done, path = finished
    record = records.load_record(path)
    assert (record.model, record.profile, record.image_size) == ("mobilenetv2_035-full", "smoke", 64)
    assert record.details["recipe"]["learning_rate"] == done.recipe.learning_rate
    assert record.details["evaluated_on"] == "test"
    assert record.details["core_seconds"] > 0
    assert "domain_distance" not in record.details
    assert set(record.seconds) == {"features", "head", "training"}
    assert record.y_prob.shape == (record.counts["test"], 5)
    assert record.validation_prob.shape == (record.counts["validation"], 5)
    json.dumps(record.details)


@pytest.mark.slow
def test_a_finished_experiment_is_left_as_it_is(finished, monkeypatch):
    done, path = finished
    before = path.read_bytes()
    monkeypatch.setattr(trainer, "fit_recipe", lambda *_, **__: pytest.fail("trained again"))
    assert runner.run_experiment(done, path.parents[3]).name == done.name
    assert path.read_bytes() == before


@pytest.mark.slow
def test_a_recipe_recorded_before_a_field_existed_has_its_default(finished, tmp_path):
    done, path = finished
    facts = json.loads(path.read_text(encoding="utf-8"))
    del facts["details"]["recipe"]["several_depths"]
    path.write_text(json.dumps(facts), encoding="utf-8")
    assert done.is_recorded(tmp_path / "records")
    facts["details"]["recipe"]["retired"] = 1
    path.write_text(json.dumps(facts), encoding="utf-8")
    assert not done.is_recorded(tmp_path / "records")


STANDALONE = """
import sys
import keras, numpy as np, tensorflow as tf
model = keras.saving.load_model(sys.argv[1], compile=False)
sides = model.input_shape[1:3]
paths = open(sys.argv[2]).read().split("\\n")
files = [tf.io.decode_image(tf.io.read_file(path), 3, expand_animations=False) for path in paths]
images = np.round([tf.image.resize(image, sides) for image in files])
looks = [keras.ops.softmax(model.predict(x, verbose=0)) for x in (images, images[:, :, ::-1])]
np.save(sys.argv[3], (looks[0] + looks[1]) / 2)
"""


@pytest.mark.slow
def test_the_saved_model_gives_the_recorded_predictions_in_a_new_process(finished, tmp_path):
    done, path = finished
    record = records.load_record(path)
    paths = splits.rows_of(table_of(), "test")["path"]
    (tmp_path / "paths").write_text("\n".join(paths))
    model = settings.models_folder(done.profile) / f"{done.name}.keras"
    command = [sys.executable, "-c", STANDALONE, str(model), str(tmp_path / "paths"), str(tmp_path / "prob.npy")]
    subprocess.run(command, check=True, capture_output=True)
    y_prob = np.load(tmp_path / "prob.npy")
    np.testing.assert_array_equal(y_prob.argmax(axis=1), record.y_prob.argmax(axis=1))
    np.testing.assert_allclose(y_prob, record.y_prob, atol=1e-3)


@pytest.mark.slow
def test_the_model_of_what_is_still_being_chosen_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("TLHELPERS_MODELS", str(tmp_path / "models"))
    chosen = experiment(evaluated_on="validation")
    assert runner.run_experiment(chosen, tmp_path / "records").details["evaluated_on"] == "validation"
    assert chosen.is_recorded(tmp_path / "records")
    assert not list(tmp_path.rglob("*.keras"))


@pytest.mark.slow
def test_two_runs_of_an_experiment_agree_to_the_last_bit(finished, tmp_path):
    done, path = finished
    again = runner.run_experiment(done, tmp_path / "again")
    first = records.load_record(path)
    assert again.history == first.history
    np.testing.assert_array_equal(again.y_prob, first.y_prob)


@pytest.mark.slow
def test_a_record_says_how_far_its_training_images_are_from_the_pretraining_where_that_is_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("TLHELPERS_MODELS", str(tmp_path / "models"))
    asked = replace(experiment(evaluated_on="validation", per_class=4, measures_distance=True), seed=1)
    record = runner.run_experiment(asked, tmp_path / "records")
    table = runner.table_of(asked, studies.get_study("flowers", drawn=True))
    images = loaders.read_images(table[table["split"] == "train"], 64)
    expected = interpret.domain_distance(models.build_backbone("mobilenetv2_035", 64, weights="pocket"), images).mean()
    assert record.details["domain_distance"] == pytest.approx(expected, rel=1e-4)
    assert "measures_distance" not in record.details


def test_the_digest_names_the_state_of_the_code(tmp_path, monkeypatch):
    (tmp_path / "one.py").write_text("A = 1")
    monkeypatch.setattr(settings, "PACKAGE_FOLDER", tmp_path)
    before = runner.digest_of_code()
    assert runner.digest_of_code() == before
    (tmp_path / "one.py").write_text("A = 2")
    changed = runner.digest_of_code()
    assert changed != before
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "two.py").write_text("B = 1")
    assert runner.digest_of_code() not in (before, changed)
    assert len(before) == 8
