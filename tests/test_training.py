"""Around `fit`: features computed once and in order, interrupted runs that go on where they stopped."""

import contextlib

import keras
import numpy as np
import pytest
from builders import settle_statistics

from tlhelpers import loaders, models, settings, training

SIDE = 32


def build_network(seed=0, name="pooling"):
    """A tiny network with BatchNormalization whose statistics are not the initial ones."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    x = keras.layers.Conv2D(4, 3, strides=2)(x)
    x = keras.layers.BatchNormalization(momentum=0.5)(x)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D(name=name)(x))
    model(np.random.default_rng(seed).uniform(0, 255, (8, SIDE, SIDE, 3)), training=True)
    return model


@pytest.fixture
def network():
    return build_network()


@pytest.fixture
def small_batches(monkeypatch):
    """Fifteen rows make three full batches and a smaller one."""
    monkeypatch.setattr(training, "EXTRACTION_BATCH", 4)


def predict(model, table):
    return model.predict(loaders.read_images(table, SIDE).astype("float32"), verbose=0)


def forbid_reading(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("an image was read again")

    monkeypatch.setattr(loaders, "load_dataset", refuse)


@pytest.mark.usefixtures("small_batches")
def test_features_are_what_predict_gives_row_by_row(network, table):
    features, _ = training.extract_features(network, table, SIDE)
    assert features.shape == (15, 4)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, predict(network, table), rtol=0, atol=1e-4)
    assert np.ptp(features, axis=0).min() > 1e-2


def test_features_of_a_real_backbone_are_what_predict_gives(table):
    keras.utils.set_random_seed(0)
    backbone = models.build_backbone("mobilenetv2_035", 96, weights=None)
    images = loaders.read_images(table, 96).astype("float32")
    settle_statistics(backbone, images)
    extractor = models.pooled(models.freeze(backbone))
    features, _ = training.extract_features(extractor, table, 96)
    expected = extractor.predict(images, verbose=0)
    assert expected.std() > 0.1
    np.testing.assert_allclose(features, expected, rtol=0, atol=1e-4)


@pytest.mark.usefixtures("small_batches")
def test_rows_of_features_follow_the_table(network, table):
    order = np.random.default_rng(0).permutation(15)
    features, _ = training.extract_features(network, table, SIDE)
    shuffled, _ = training.extract_features(network, table.iloc[order], SIDE)
    np.testing.assert_allclose(shuffled, features[order], rtol=0, atol=1e-5)


@pytest.mark.usefixtures("small_batches")
def test_feature_maps_keep_their_shape(table):
    model = build_network()
    maps = keras.Model(model.input, model.layers[-2].output)
    features, _ = training.extract_features(maps, table, SIDE)
    assert features.shape == (15, 15, 15, 4)
    np.testing.assert_allclose(features, predict(maps, table), rtol=0, atol=1e-4)


def test_a_second_call_reads_the_cache(network, table, monkeypatch):
    first = np.array(training.extract_features(network, table, SIDE)[0])
    forbid_reading(monkeypatch)
    np.testing.assert_array_equal(training.extract_features(network, table, SIDE)[0], first)


def test_a_network_built_anew_with_equal_weights_reads_the_cache(network, table, monkeypatch):
    training.extract_features(network, table, SIDE)
    forbid_reading(monkeypatch)
    assert training.extract_features(build_network(), table, SIDE)[0].shape == (15, 4)


def change_weights(model, table):
    model.layers[2].bias.assign_add(np.ones(4))
    return model, table, SIDE


def change_statistics(model, table):
    model.layers[3].moving_mean.assign_add(np.ones(4))
    return model, table, SIDE


@pytest.mark.parametrize(
    "change",
    [
        change_weights,
        change_statistics,
        lambda model, table: (model, table.iloc[::-1], SIDE),
        lambda model, table: (model, table.iloc[:9], SIDE),
        lambda model, table: (keras.Model(model.input, model.layers[-2].output), table, SIDE),
    ],
    ids=["weights", "moving statistics", "order", "rows", "last layer"],
)
def test_whatever_changes_the_features_changes_the_key(network, table, monkeypatch, change):
    training.extract_features(network, table, SIDE)
    forbid_reading(monkeypatch)
    with pytest.raises(AssertionError, match="read again"):
        training.extract_features(*change(network, table))


def test_the_image_size_is_part_of_the_key(table, monkeypatch):
    model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D()])
    training.extract_features(model, table, 16)
    forbid_reading(monkeypatch)
    with pytest.raises(AssertionError, match="read again"):
        training.extract_features(model, table, 32)


def test_changed_weights_give_changed_features(network, table):
    first = np.array(training.extract_features(network, table, SIDE)[0])
    second, _ = training.extract_features(*change_statistics(network, table))
    assert np.abs(first - second).min() > 0.1


def test_without_the_cache_nothing_is_written_or_read(network, table, monkeypatch):
    features, _ = training.extract_features(network, table, SIDE, cache=False)
    assert not list(settings.home_folder().rglob("*"))
    np.testing.assert_array_equal(training.extract_features(network, table, SIDE)[0], features)
    forbid_reading(monkeypatch)
    with pytest.raises(AssertionError, match="read again"):
        training.extract_features(network, table, SIDE, cache=False)


def test_an_extraction_broken_off_leaves_no_cache(network, table):
    open(table["path"][14], "wb").close()
    with pytest.raises(Exception, match=r"[Ii]nput"):
        training.extract_features(network, table, SIDE)
    assert not list(settings.home_folder().rglob("*.npy"))


def test_pooling_averages_the_map():
    backbone = models.build_backbone("mobilenetv2_035", 64, weights=None)
    extractor = models.pooled(backbone)
    assert extractor.output_shape == (None, 1280)
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    expected = keras.ops.convert_to_numpy(backbone(images)).mean(axis=(1, 2))
    np.testing.assert_allclose(extractor(images), expected, rtol=1e-4, atol=1e-7)
    assert extractor.get_layer("Conv_1") is backbone.get_layer("Conv_1")


def test_probabilities_are_the_softmax_of_the_logits(table):
    model = models.baseline_cnn(SIDE, 5, seed=0)
    images = loaders.read_images(table, SIDE).astype("float32")
    probabilities = training.predict_probabilities(model, images)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), np.ones(15), atol=1e-6)
    logits = model.predict(images, verbose=0)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)


def test_probabilities_of_a_dataset_equal_those_of_its_array(table):
    model = models.baseline_cnn(SIDE, 5, seed=0)
    images = loaders.read_images(table, SIDE).astype("float32")
    dataset = loaders.load_dataset(table, SIDE, batch_size=4)
    first, second = (training.predict_probabilities(model, inputs) for inputs in (images, dataset))
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_large_logits_stay_probabilities():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Rescaling(1e4)])
    probabilities = training.predict_probabilities(model, np.array([[1.0, 2.0, -3.0]]))
    np.testing.assert_array_equal(probabilities, [[0, 1, 0]])


class StopAfter(keras.callbacks.Callback):
    """Breaks a fit off, as a kill would, when so many epochs are done."""

    def __init__(self, epochs):
        super().__init__()
        self.epochs = epochs

    def on_epoch_end(self, epoch, logs=None):
        """Raises at the end of the last epoch to be done."""
        if epoch + 1 == self.epochs:
            raise KeyboardInterrupt


def fit(folder, *, first_epoch=0, epochs=4, stop_after=None, every_seconds=0):
    """Fits a fresh model with a fresh callback; returns both."""
    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(0)
    inputs, targets = generator.normal(size=(12, 4)), np.arange(12) % 3
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"], run_eagerly=True)
    resume = training.Resume(folder, every_seconds=every_seconds)
    callbacks = [resume] if stop_after is None else [resume, StopAfter(stop_after)]
    options = {"batch_size": 4, "shuffle": False, "verbose": 0, "validation_data": (inputs, targets)}
    with contextlib.suppress(KeyboardInterrupt):
        model.fit(inputs, targets, initial_epoch=first_epoch, epochs=epochs, callbacks=callbacks, **options)
    return model, resume


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "state"
    model, resume = fit(folder)
    assert not folder.exists()
    return model, resume


def test_a_stopped_fit_goes_on_at_the_next_epoch_with_the_whole_history(tmp_path):
    _, stopped = fit(tmp_path / "state", stop_after=2)
    assert {len(values) for values in stopped.history.values()} == {2}
    model, resumed = fit(tmp_path / "state")
    assert model.history.epoch == [2, 3]
    assert {len(values) for values in resumed.history.values()} == {4}
    assert resumed.core_seconds > stopped.core_seconds > 0
    assert {name: values[:2] for name, values in resumed.history.items()} == stopped.history
    assert resumed.seconds > stopped.seconds > 0
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("stops", [[2], [1, 3], [4]])
def test_a_resumed_fit_ends_where_an_undisturbed_one_does(tmp_path, undisturbed, stops):
    for stop in stops:
        fit(tmp_path / "state", stop_after=stop)
    model, resumed = fit(tmp_path / "state")
    expected_model, expected = undisturbed
    assert resumed.history.keys() == expected.history.keys()
    for name, values in expected.history.items():
        np.testing.assert_allclose(resumed.history[name], values, rtol=1e-5)
    for one, other in zip(model.get_weights(), expected_model.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_quick_epochs_are_not_kept_one_by_one_and_a_stop_loses_them_alone(tmp_path, undisturbed):
    fit(tmp_path / "state", stop_after=3, every_seconds=3600)
    assert not list((tmp_path / "state").glob("*.json"))
    model, resumed = fit(tmp_path / "state", every_seconds=3600)
    assert model.history.epoch == [0, 1, 2, 3]
    assert resumed.history == undisturbed[1].history


@pytest.mark.parametrize(
    ("rate", "spoil", "cause"),
    [(1e30, 1.0, r"a learning rate that is too high \(1e\+30 at the moment\)"), (1e-3, np.nan, "pictures or targets")],
)
def test_a_loss_that_is_no_number_stops_the_training_and_names_the_likely_causes(tmp_path, rate, spoil, cause):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile(keras.optimizers.SGD(rate), keras.losses.MeanSquaredError())
    resume = training.Resume(tmp_path / "state", every_seconds=0)
    with pytest.raises(ValueError, match=rf"loss of epoch \d+ is (nan|inf).*{cause}"):
        model.fit(np.full((8, 4), spoil), np.ones((8, 3)), epochs=9, verbose=0, callbacks=[resume])
    assert not (tmp_path / "state" / "latest.weights.h5").exists()  # nothing to go on from


def test_an_undisturbed_fit_has_the_history_keras_keeps(undisturbed):
    model, resume = undisturbed
    assert set(resume.history) == {"accuracy", "loss", "val_accuracy", "val_loss"}
    assert resume.history == model.history.history
    assert resume.seconds > 0


def test_a_fit_killed_between_the_history_and_the_state_repeats_that_epoch_once(tmp_path, undisturbed, monkeypatch):
    folder = tmp_path / "state"
    fit(folder, stop_after=2)
    metadata = folder / "training_metadata.json"
    older_metadata, older_weights = metadata.read_bytes(), (folder / "latest.weights.h5").read_bytes()
    fit(folder, stop_after=3)
    metadata.write_bytes(older_metadata)
    (folder / "latest.weights.h5").write_bytes(older_weights)
    _, resumed = fit(folder)
    np.testing.assert_allclose(resumed.history["loss"], undisturbed[1].history["loss"], rtol=1e-5)


@pytest.mark.parametrize("repeated", [3, 5], ids=["its first epoch", "a later one"])
def test_a_fit_that_starts_later_and_repeats_an_epoch_keeps_the_right_history(tmp_path, undisturbed, repeated):
    folder = tmp_path / "state"
    state = [folder / "training_metadata.json", folder / "latest.weights.h5"]
    older = []
    if repeated > 3:
        fit(folder, first_epoch=2, epochs=6, stop_after=repeated - 1)
        older = [path.read_bytes() for path in state]
    fit(folder, first_epoch=2, epochs=6, stop_after=repeated)
    for path in state:  # killed when the history was written and the state was not
        path.unlink()
    for path, content in zip(state, older, strict=False):
        path.write_bytes(content)
    model, resumed = fit(folder, first_epoch=2, epochs=6)
    assert model.history.epoch == list(range(repeated - 1, 6))
    np.testing.assert_allclose(resumed.history["loss"], undisturbed[1].history["loss"], rtol=1e-5)
    assert {len(values) for values in resumed.history.values()} == {4}


def test_a_folder_used_again_starts_anew(tmp_path):
    fit(tmp_path / "state", epochs=2)
    model, resumed = fit(tmp_path / "state", epochs=2)
    assert model.history.epoch == [0, 1]
    assert len(resumed.history["loss"]) == 2


def test_the_seconds_of_the_first_computation_are_kept_with_the_features(network, table):
    _, seconds = training.extract_features(network, table, SIDE)
    assert seconds > 0
    assert training.extract_features(network, table, SIDE)[1] == seconds


def test_the_core_seconds_of_the_first_computation_are_kept_with_the_features(network, table):
    training.extract_features(network, table, SIDE)
    spent = training.extraction_core_seconds(network, table, SIDE)
    assert spent > 0
    training.extract_features(network, table, SIDE)
    assert training.extraction_core_seconds(network, table, SIDE) == spent


def test_features_that_were_not_kept_have_no_core_seconds(network, table):
    training.extract_features(network, table, SIDE, cache=False)
    with pytest.raises(ValueError, match=r"Received: image_size=.*none kept"):
        training.extraction_core_seconds(network, table, SIDE)


def test_features_kept_without_their_core_seconds_are_computed_again(network, table):
    training.extract_features(network, table, SIDE)
    [note] = (settings.home_folder() / "features").glob("*.json")
    note.write_text("12.5")
    assert training.extract_features(network, table, SIDE)[1] != 12.5
    assert training.extraction_core_seconds(network, table, SIDE) > 0


@pytest.mark.parametrize(
    ("rate", "dropout", "epochs"), [(0.01, 0.2, [2, 3]), (0.02, 0.2, [0, 1, 2, 3]), (0.01, 0.4, [0, 1, 2, 3])]
)
def test_an_interrupted_state_is_taken_up_only_by_the_same_model_and_optimiser(tmp_path, rate, dropout, epochs):
    def build(rate, dropout):
        layers = [keras.Input((3,)), keras.layers.Dropout(dropout), keras.layers.Dense(2)]
        model = keras.Sequential(layers)
        model.compile(keras.optimizers.Adam(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    inputs, targets, state = np.ones((8, 3), "float32"), np.zeros(8, int), tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        build(0.01, 0.2).fit(
            inputs, targets, epochs=4, verbose=0, callbacks=[training.Resume(state, every_seconds=0), Stop()]
        )
    resume = training.Resume(state)
    run = build(rate, dropout).fit(inputs, targets, epochs=4, verbose=0, callbacks=[resume])
    assert run.epoch == epochs
    assert len(resume.history["loss"]) == 4


def test_a_saved_model_takes_plain_arrays_without_a_warning(tmp_path, recwarn):
    inputs = keras.Input((4,), name="image")
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    training.save_model(model, tmp_path / "model.keras")
    loaded = training.load_model(tmp_path / "model.keras")
    values = np.ones((3, 4), np.float32)
    np.testing.assert_allclose(loaded(values), model(values))
    assert [str(warning.message) for warning in recwarn if "structure" in str(warning.message)] == []
