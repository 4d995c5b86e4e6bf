"""The cheat sheet: its code runs as it stands, and its BatchNormalization is truly frozen."""

import importlib.util
import re

import keras
import numpy as np
import pytest

from tlhelpers import models, settings
from tlhelpers.experiments import sweeps
from tlhelpers.results import backing

FILE = settings.PROJECT_FOLDER / "book" / "snippets" / "cheat_sheet.py"
SIZE, CLASSES = 32, 3
SMALL = {"image_size": SIZE, "weights": None}


@pytest.fixture(scope="module")
def snippet():
    """The file that the page includes, as a module."""
    spec = importlib.util.spec_from_file_location("cheat_sheet", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return rng.uniform(0, 255, (8, SIZE, SIZE, 3)).astype("float32"), rng.integers(0, CLASSES, 8)


def statistics(backbone):
    return {w.path: w.numpy().copy() for w in backbone.non_trainable_weights if "moving" in w.path}


def changed(before, after):
    return [path for path, values in before.items() if not np.array_equal(values, after[path])]


@pytest.mark.slow
def test_batch_normalization_of_the_nested_backbone_stays_frozen_under_fit_to_the_last_bit(snippet, images):
    keras.utils.set_random_seed(0)
    model, backbone = snippet.build_model(CLASSES, **SMALL)
    assert backbone in model.layers  # nested, as every guide builds it
    snippet.unfreeze(backbone)
    snippet.compile_model(model, snippet.FINE_TUNING_LEARNING_RATE)
    before, weights = statistics(backbone), [weight.numpy() for weight in backbone.trainable_weights]
    model.fit(*images, batch_size=4, verbose=0)
    assert len(before) == 2 * sum(isinstance(layer, keras.layers.BatchNormalization) for layer in backbone.layers)
    assert changed(before, statistics(backbone)) == []
    moved = [not np.array_equal(old, new.numpy()) for old, new in zip(weights, backbone.trainable_weights, strict=True)]
    assert any(moved)


@pytest.mark.slow
def test_calling_the_backbone_with_training_false_does_not_protect_batch_normalization_under_fit(snippet, images):
    keras.utils.set_random_seed(0)
    backbone = keras.applications.MobileNetV2(
        input_shape=(SIZE, SIZE, 3), include_top=False, weights=None, pooling="avg"
    )
    inputs = keras.Input((SIZE, SIZE, 3))
    model = keras.Model(inputs, keras.layers.Dense(CLASSES)(backbone(inputs, training=False)))
    snippet.compile_model(model, snippet.FINE_TUNING_LEARNING_RATE)
    before = {w.path: w.numpy().copy() for w in backbone.weights if "moving" in w.path}
    model.fit(*images, batch_size=4, verbose=0)
    assert changed(before, {w.path: w.numpy() for w in backbone.weights})


def test_a_frozen_backbone_trains_its_head_alone(snippet):
    model, _ = snippet.build_model(CLASSES, **SMALL)
    assert [tuple(weight.shape) for weight in model.trainable_weights] == [(1280, CLASSES), (CLASSES,)]


@pytest.mark.slow
def test_the_same_layers_are_unfrozen_as_by_the_books_partial_fine_tuning(snippet):
    _, backbone = snippet.build_model(CLASSES, **SMALL)
    snippet.unfreeze(backbone)
    ours = models.build_backbone("mobilenetv2_100", SIZE, weights=None)
    models.unfreeze(ours, from_block=models.partial_block("mobilenetv2_100"))
    found = [sum(int(np.prod(weight.shape)) for weight in network.trainable_weights) for network in (backbone, ours)]
    assert found[0] == found[1]


@pytest.mark.slow
def test_the_whole_recipe_runs_as_it_stands(snippet, images):
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices(images).batch(4)
    model = snippet.train(data, data, CLASSES, epochs=(1, 1), **SMALL)
    assert model.predict(images[0], verbose=0).shape == (8, CLASSES)


def test_its_rate_is_the_one_of_the_recorded_grid(snippet):
    best = sweeps.best_rates(sweeps.load_sweep("depths"))
    assert (
        snippet.FINE_TUNING_LEARNING_RATE
        == best["from the middle on"]
        == best["everything"]
        == backing.RATES["partial"]
    )
    assert best["last 6 layers"] == backing.RATES[6] == snippet.HEAD_LEARNING_RATE


def test_the_page_shows_every_function_of_the_file_and_types_no_code():
    page = (settings.PROJECT_FOLDER / "book" / "cheat_sheet.md").read_text(encoding="utf-8")
    shown = re.findall(r"```\{literalinclude\} snippets/cheat_sheet\.py\n((?::.*\n)*)", page)
    functions = re.findall(r"^def (\w+)", FILE.read_text(encoding="utf-8"), re.MULTILINE)
    assert re.findall(r":pyobject: (\w+)", "".join(shown)) == functions
    assert "```python" not in page
    assert all((FILE.parent.parent / name).is_file() for name in re.findall(r"literalinclude\} (\S+)", page))
