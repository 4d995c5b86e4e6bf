"""Identity: keys change with whatever their contents were computed from, and with nothing else."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from tlhelpers import features, identity, images, loaders, models

SIDE = 32


def build(*, scale=1 / 255, pooling=keras.layers.GlobalAveragePooling2D, activation="relu", filters=4, nested=False):
    """A small network: seeded, so that only what is asked for differs."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Rescaling(scale)(inputs)
    part = keras.Sequential([keras.Input((SIDE, SIDE, 3)), keras.layers.Conv2D(filters, 3, activation=activation)])
    x = part(x) if nested else part.layers[0](x)
    return keras.Model(inputs, pooling(name="last")(x))


@pytest.mark.parametrize(
    "change",
    [
        {"scale": 1.0},
        {"pooling": keras.layers.GlobalMaxPooling2D},
        {"activation": "tanh"},
        {"filters": 5},
        {"nested": True},
    ],
)
def test_networks_that_compute_something_else_have_different_digests(change):
    assert identity.digest_of_network(build(**change)) != identity.digest_of_network(build())


def test_other_weights_of_the_same_network_have_another_digest():
    model = build()
    before = identity.digest_of_network(model)
    model.set_weights([2 * array for array in model.get_weights()])
    assert identity.digest_of_network(model) != before


def test_names_that_keras_makes_up_freezing_and_saving_leave_the_digest_alone(tmp_path):
    model, again = build(nested=True), build(nested=True)
    assert [layer.name for layer in model.layers] != [layer.name for layer in again.layers]
    expected = identity.digest_of_network(model)
    assert identity.digest_of_network(models.freeze(again)) == expected
    model.compile("sgd", "mse")
    model.save(tmp_path / "model.keras")
    assert identity.digest_of_network(keras.saving.load_model(tmp_path / "model.keras")) == expected


@pytest.mark.slow
def test_the_digest_of_a_network_is_the_same_in_another_process():
    code = "import test_identity as t; print(t.identity.digest_of_network(t.build(nested=True)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=here())
    assert done.stdout.strip() == identity.digest_of_network(build(nested=True))


def here():
    """The folder of this file, as a str."""
    return __file__.rpartition("/")[0]


@pytest.mark.parametrize("change", [{"scale": 1.0}, {"pooling": keras.layers.GlobalMaxPooling2D}])
def test_features_of_one_network_are_never_returned_for_another_with_its_weights(table, change):
    model, other = build(), build(**change)
    other.set_weights(model.get_weights())
    features.extract_features(model, table, SIDE)
    found, _ = features.extract_features(other, table, SIDE)
    expected = other.predict(loaders.read_images(table, SIDE).astype("float32"), verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_another_reader_has_features_of_its_own(table, monkeypatch):
    features.extract_features(build(), table, SIDE)
    monkeypatch.setattr(identity, "digest_of_reader", lambda: "another reader")
    monkeypatch.setattr(images, "decode", lambda path: np.zeros((8, 8, 3), np.uint8))
    found, _ = features.extract_features(build(), table, SIDE)
    assert np.ptp(found, axis=0).max() == 0


def test_code_of_own_layers_counts():
    class Own(keras.layers.Layer):
        """Adds one."""

        def call(self, x):
            return x + 1

    first = Own

    class Own(keras.layers.Layer):
        """Adds two."""

        def call(self, x):
            return x + 2

    digests = {
        identity.digest_of_network(keras.Sequential([keras.Input((3,)), kind(name="own")])) for kind in (first, Own)
    }
    assert len(digests) == 2


@pytest.mark.parametrize(
    "change", [{"batch_size": 4}, {"shuffle": True}, {"augment": "light"}, {"flipped": True}, {"seed": 1}]
)
def test_data_that_are_shown_differently_have_another_digest(table, change):
    digests = [identity.digest_of_data(loaders.load_dataset(table, SIDE, **options)) for options in ({}, {}, change)]
    assert digests[0] == digests[1] != digests[2]


def test_other_images_or_targets_have_another_digest(table):
    changed = table.assign(sha256=table["sha256"] + "x"), table.assign(target=table["target"][::-1].to_numpy())
    digests = {identity.digest_of_data(loaders.load_dataset(rows, SIDE)) for rows in (table, *changed)}
    assert len(digests) == 3


def test_arrays_are_told_apart_by_values_shapes_and_dtypes():
    zeros = np.zeros((2, 3))
    others = [zeros.reshape(3, 2), zeros.astype("float32"), zeros + 1]
    assert len({identity.digest_of_arrays(array) for array in (zeros, *others)}) == 4


def test_a_run_is_named_by_its_network_its_frozen_weights_its_images_and_their_split(table):
    rows = table.assign(split="train")
    digests = [identity.digest_of_run(build(), rows), identity.digest_of_run(build(), rows)]
    assert digests[0] == digests[1]
    others = [
        identity.digest_of_run(build(activation="tanh"), rows),
        identity.digest_of_run(build(), rows.assign(split="test")),
        identity.digest_of_run(build(), rows.assign(sha256=rows["sha256"] + "x")),
        identity.digest_of_run(models.freeze(build()), rows),
    ]
    assert len({digests[0], *others}) == 5
