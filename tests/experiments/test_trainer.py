"""Following a recipe: what moves, what stays, and what a trained network remembers of its start."""

from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from builders import draw_flower, encode

from tlhelpers import features, loaders, models
from tlhelpers.experiments import recipes, trainer

TINY = {"train_image_size": 32, "test_image_size": 64, "head_epochs": 1, "epochs": 1}
NETWORK = "mobilenetv2_035"


@pytest.fixture
def split_table(tmp_path):
    """Thirty written pictures, six of each class, split four to one to one."""
    rows = []
    for target, label in enumerate(("daisy", "dandelion", "rose", "sunflower", "tulip")):
        for index in range(6):
            path = tmp_path / f"{label}-{index}.jpg"
            path.write_bytes(encode(draw_flower(label, index)))
            split = "train" if index < 4 else ("validation", "test")[index - 4]
            rows.append({"path": str(path), "label": label, "target": target, "split": split, "sha256": path.name})
    return pd.DataFrame(rows)


def follow(strategy, table, *, network=NETWORK, **changes):
    recipe = replace(recipes.get_recipe(strategy), **(TINY | changes))
    return recipe, trainer.fit_recipe(recipe, network, table, 5, weights="pocket", batch_size=8)


def follow_baseline(table, **changes):
    """As `follow`, with the network that is quickest to trace."""
    return follow("scratch_augmented", table, network="baseline_cnn", **({"test_image_size": 32} | changes))


def weights_by_path(backbone):
    return {weight.path: weight.numpy() for weight in backbone.weights}


@pytest.fixture(scope="module")
def pocket_weights():
    return weights_by_path(models.build_backbone(NETWORK, 64, weights="pocket"))


def moved(model, before):
    """The paths of the backbone's weights that are not what they were."""
    after = {weight.path: weight.numpy() for weight in model.weights}
    return {path for path, value in before.items() if not np.array_equal(after[path], value)}


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "first"), [("full", "Conv1"), ("partial", "block_7_expand")])
def test_a_pretrained_backbone_moves_where_the_recipe_says_and_keeps_its_statistics(
    strategy, first, split_table, pocket_weights
):
    _, fitted = follow(strategy, split_table)
    changed = moved(fitted.model, pocket_weights)
    layers = [path.split("/")[0] for path in pocket_weights]
    assert min(layers.index(path.split("/")[0]) for path in changed) == layers.index(first)
    assert {path.split("/")[1] for path in changed} == {"kernel"}
    assert fitted.model.input_shape == (None, 64, 64, 3)
    assert set(fitted.seconds) == {"features", "head", "training"}
    assert 0 < fitted.details["weight_distance"] < 1
    assert fitted.details["old_head_accuracy"] in (0, 0.2, 0.4, 0.6, 0.8, 1)
    assert len(fitted.history["val_loss"]) == 1


@pytest.mark.slow
def test_a_frozen_recipe_trains_the_head_alone(split_table, pocket_weights):
    _, fitted = follow("frozen_linear", split_table, head_epochs=3)
    assert moved(fitted.model, pocket_weights) == set()
    assert len(fitted.history["loss"]) == 3
    assert fitted.history["loss"][2] < fitted.history["loss"][0]
    assert set(fitted.details) == {"batch_size", "core_seconds"}
    assert fitted.parameters["trainable"] == 1280 * 5 + 5


@pytest.mark.slow
def test_steps_of_a_head_at_once_are_those_of_one_after_the_other(split_table, monkeypatch):
    together = follow("frozen_linear", split_table, head_epochs=3)[1].history
    monkeypatch.setattr(trainer, "STEPS_AT_ONCE", 1)
    alone = follow("frozen_linear", split_table, head_epochs=3)[1].history
    assert together.keys() == alone.keys()
    for name in alone:
        np.testing.assert_allclose(together[name], alone[name], rtol=1e-5)


@pytest.mark.slow
def test_a_network_from_scratch_updates_its_statistics_quickly(split_table, pocket_weights):
    _, fitted = follow("scratch", split_table)
    changed = moved(fitted.model, pocket_weights)
    assert "Conv1/kernel" in changed
    norm = next(layer for layer in fitted.model.layers if layer.name == "bn_Conv1")
    assert np.abs(norm.moving_mean.numpy()).max() > 0
    assert "weight_distance" not in fitted.details


@pytest.mark.slow
def test_two_looks_are_averaged_and_a_mirror_image_gets_the_same_answer(split_table, tmp_path):
    recipe, fitted = follow("frozen_linear", split_table)
    plain = trainer.predict(replace(recipe, flips=False), fitted, split_table, "test")
    both = trainer.predict(recipe, fitted, split_table, "test")
    test = split_table[split_table["split"] == "test"]
    mirrored, _ = features.extract_features(fitted.model, test, 64, flipped=True, cache=False)
    expected = (plain + keras.ops.convert_to_numpy(keras.ops.softmax(mirrored))) / 2
    np.testing.assert_allclose(both, expected, rtol=1e-5)
    np.testing.assert_allclose(both.sum(axis=1), 1, rtol=1e-5)
    assert np.abs(both - plain).max() > 1e-4


@pytest.mark.slow
def test_a_frozen_network_that_has_seen_the_pictures_is_not_asked_again(split_table, monkeypatch):
    recipe, fitted = follow("frozen_linear", split_table, train_image_size=64)
    expected = trainer.predict(recipe, replace(fitted, extractor=None), split_table, "validation")
    monkeypatch.setattr(loaders, "load_dataset", lambda *_, **__: pytest.fail("looked at a picture"))
    np.testing.assert_allclose(trainer.predict(recipe, fitted, split_table, "validation"), expected, atol=1e-5)


@pytest.mark.slow
def test_the_baseline_follows_a_recipe_too(split_table):
    _, fitted = follow_baseline(split_table)
    assert fitted.model.name == "baseline_cnn"
    assert (len(fitted.history["loss"]), fitted.seconds["training"] > 0) == (1, True)


def test_early_stopping_ends_a_training_that_gets_no_better(split_table):
    _, fitted = follow_baseline(split_table, epochs=6, patience=1, learning_rate=0.0, augment=None)
    assert len(fitted.history["loss"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["frozen_linear", "partial"])
@pytest.mark.parametrize("views", [0, 2])
def test_pictures_that_are_evaluated_in_the_end_are_not_looked_at_on_the_way(split_table, strategy, views):
    _, fitted = follow(strategy, split_table[split_table["split"] != "validation"], views=views)
    assert set(fitted.history) == {"loss", "accuracy"}


@pytest.mark.slow
def test_features_of_several_depths_are_standardised_and_stay_with_the_model(split_table, pocket_weights):
    recipe, fitted = follow("frozen_depths", split_table)
    head = fitted.model.layers[-1]
    train = split_table[split_table["split"] == "train"]
    extractor = models.pooled(
        models.build_backbone(NETWORK, recipe.train_image_size, weights="pocket"), models.BACKBONES[NETWORK]["depths"]
    )
    looks = [features.extract_features(extractor, train, 32, flipped=flipped, cache=False)[0] for flipped in (0, 1)]
    mean = head.get_layer("standardization").mean.numpy().ravel()
    np.testing.assert_allclose(mean, np.concatenate(looks).mean(axis=0), rtol=1e-4, atol=1e-5)
    assert len(mean) > 1280
    assert moved(fitted.model, pocket_weights) == set()


@pytest.mark.slow
def test_training_images_are_read_at_the_recipes_size_and_cropped_to_the_training_size(split_table, monkeypatch):
    asked = []

    load_dataset = loaders.load_dataset

    def load(rows, image_size, **options):
        asked.append((rows["split"].iloc[0], image_size, options.get("read_size")))
        return load_dataset(rows, image_size, **options)

    monkeypatch.setattr(loaders, "load_dataset", load)
    follow_baseline(split_table, read_size=48)
    assert ("train", 32, 48) in asked
    assert ("validation", 32, None) in asked


@pytest.mark.slow
def test_an_epoch_shows_every_training_image_as_often_as_the_recipe_says(split_table, monkeypatch):
    shown = []
    load_dataset = loaders.load_dataset
    monkeypatch.setattr(
        loaders,
        "load_dataset",
        lambda rows, *sizes, **options: shown.append(rows) or load_dataset(rows, *sizes, **options),
    )
    follow_baseline(split_table, passes=3)
    [train] = [rows for rows in shown if set(rows["split"]) == {"train"}]
    assert set(train["path"].value_counts()) == {3}


@pytest.mark.slow
def test_no_step_is_traced_twice(split_table, monkeypatch):
    traced = []
    train_step = keras.Model.train_step

    def step(model, data):
        traced.append(model.name)
        return train_step(model, data)

    monkeypatch.setattr(keras.Model, "train_step", step)
    follow_baseline(split_table)
    assert len(traced) == 1


@pytest.mark.slow
def test_kept_views_train_the_moving_part_and_leave_the_beginning_alone(split_table, pocket_weights):
    _, fitted = follow("partial", split_table, views=2, epochs=3)
    changed = moved(fitted.model, pocket_weights)
    layers = [path.split("/")[0] for path in pocket_weights]
    assert min(layers.index(path.split("/")[0]) for path in changed) == layers.index("block_7_expand")
    assert {path.split("/")[1] for path in changed} == {"kernel"}
    assert fitted.model.input_shape == (None, 64, 64, 3)
    assert set(fitted.seconds) == {"features", "head", "views", "training"}
    assert len(fitted.history["val_loss"]) == 3


@pytest.mark.slow
def test_one_plain_view_trains_as_the_whole_network_does_on_plain_images(split_table):
    changes = {"augment": None, "epochs": 2, "dropout": 0.0}
    (recipe, whole), (_, behind) = (follow("partial", split_table, views=views, **changes) for views in (0, 1))
    assert behind.history["val_loss"] == pytest.approx(whole.history["val_loss"], rel=0.1)
    one, other = (trainer.predict(recipe, fitted, split_table, "test") for fitted in (whole, behind))
    np.testing.assert_allclose(one, other, atol=0.1)


@pytest.mark.slow
def test_a_recipe_goes_on_with_half_a_batch_where_memory_ends(split_table, monkeypatch, capsys):
    fit = keras.Model.fit

    def fit_small(model, *arguments, **options):
        if options.get("callbacks") is not None and arguments[0].element_spec[0].shape[0] is None:
            batch = next(iter(arguments[0]))[0].shape[0]
            if batch > 4:
                raise tf.errors.ResourceExhaustedError(None, None, "no room")
        return fit(model, *arguments, **options)

    monkeypatch.setattr(keras.Model, "fit", fit_small)
    _, fitted = follow_baseline(split_table)
    assert fitted.details["batch_size"] == 4
    assert "Out of memory with 8 images in a batch; on with 4" in capsys.readouterr().out
