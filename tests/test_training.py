"""Around `fit`: interrupted runs that go on where they stopped, batches that fit, models saved and loaded."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from tlhelpers import devices, loaders, models, training

SIDE = 32


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


def test_a_model_is_traced_once_for_all_parts_it_predicts_and_as_its_weights_are_now():
    class Traced(keras.layers.Dense):
        traces = 0

        def call(self, inputs):
            self.traces += 1
            return super().call(inputs)

    layer = Traced(2, kernel_initializer="ones")
    model = keras.Sequential([keras.Input((3,)), layer])
    layer.traces = 0
    inputs = np.arange(210.0).reshape(70, 3)  # two whole batches and a part of one
    batches = tf.data.Dataset.from_tensor_slices(inputs.astype("float32")).batch(30)
    for part in (inputs, inputs[:33], inputs.astype("uint8"), batches):
        outputs = training.predict_outputs(model, part)
        np.testing.assert_allclose(outputs, np.repeat(inputs.sum(axis=1)[: len(outputs), None], 2, axis=1))
    model.set_weights([np.zeros((3, 2)), np.ones(2)])
    np.testing.assert_array_equal(training.predict_outputs(model, inputs), np.ones((70, 2)))
    assert layer.traces == 1


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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_quick_epochs_are_not_kept_one_by_one_and_a_stop_loses_them_alone(tmp_path, undisturbed):
    fit(tmp_path / "state", stop_after=3, every_seconds=3600)
    assert not list((tmp_path / "state").glob("*.json"))
    model, resumed = fit(tmp_path / "state", every_seconds=3600)
    assert model.history.epoch == [0, 1, 2, 3]
    assert resumed.history == undisturbed[1].history


@pytest.mark.parametrize(
    ("rate", "spoil", "cause"),
    [(1e30, 1.0, r"a learning rate that is too high \(1e\+30 at the moment\)"), (1e-3, np.nan, "images or targets")],
)
def test_a_loss_that_is_no_number_stops_the_training_and_names_the_likely_causes(tmp_path, rate, spoil, cause):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile(keras.optimizers.SGD(rate), keras.losses.MeanSquaredError())
    resume = training.Resume(tmp_path / "state", every_seconds=0)
    with pytest.raises(ValueError, match=rf"loss of epoch \d+ is (nan|inf).*{cause}"):
        model.fit(np.full((8, 4), spoil), np.ones((8, 3)), epochs=9, verbose=0, callbacks=[resume])
    assert not (tmp_path / "state").exists()  # nothing to go on from


class Counted(keras.layers.Layer):
    """Passes its input on, and counts how often it is traced for training."""

    traces = 0

    def call(self, inputs, training=None):
        """Counts."""
        self.traces += bool(training)
        return inputs


@pytest.mark.parametrize("sparse", [True, False])
def test_a_step_is_traced_once(tmp_path, sparse):
    counted = Counted()
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), counted])
    kind = keras.losses.SparseCategoricalCrossentropy if sparse else keras.losses.CategoricalCrossentropy
    model.compile("adam", kind(from_logits=True), metrics=["accuracy"])
    targets = np.arange(12) % 3
    inputs = np.eye(4, dtype="float32")[targets]
    told = targets if sparse else np.eye(3)[targets]
    history = model.fit(inputs, told, epochs=3, verbose=0, callbacks=[training.Resume(tmp_path / "state")]).history
    assert counted.traces == 1
    accuracy = (training.predict_probabilities(model, inputs).argmax(axis=1) == targets).mean()
    again = model.evaluate(inputs, told, verbose=0, return_dict=True)["accuracy"]
    assert again == pytest.approx(accuracy)  # the right kind of accuracy, of these examples alone
    assert len(history["accuracy"]) == 3


def test_a_step_with_a_loss_for_each_of_several_outputs_is_traced_once(tmp_path):
    inputs = keras.Input((4,))
    counted = Counted()
    hidden = counted(inputs)
    names = ("one", "other")
    model = keras.Model(inputs, {name: keras.layers.Dense(3, name=name)(hidden) for name in names})
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    model.compile("adam", dict.fromkeys(names, loss))
    targets = dict.fromkeys(names, np.array([0, 1, 2, -1]))
    resume = training.Resume(tmp_path / "state")
    model.fit(np.eye(4), targets, batch_size=4, epochs=2, verbose=0, callbacks=[resume])
    assert counted.traces == 1
    assert set(resume.history) == {"loss", "one_loss", "other_loss"}


@pytest.mark.parametrize("gpus", [[], [{"name": "a GPU", "compute_capability": (8, 0)}]])
def test_on_a_cpu_graphs_are_not_rewritten_while_training_lasts(tmp_path, monkeypatch, gpus):
    def look(*_, **__):
        seen.append(bool(tf.config.optimizer.get_experimental_options().get("disable_meta_optimizer")))

    seen = []
    monkeypatch.setattr(devices, "list_gpus", lambda: gpus)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    data = np.eye(4), np.arange(4) % 3
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=look)
    model.fit(*data, validation_data=data, verbose=0, callbacks=[training.Resume(tmp_path / "state"), watch])
    look()
    assert seen == [not gpus, False]


@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", keras.losses.sparse_categorical_crossentropy])
def test_accuracy_is_of_the_kind_of_the_targets_whatever_the_loss_is_called(tmp_path, loss):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Softmax()])
    model.compile("sgd", loss, metrics=["accuracy"])
    targets = np.arange(12) % 3
    resume = training.Resume(tmp_path / "state")
    model.fit(9 * np.eye(3)[targets], targets, verbose=0, callbacks=[resume])
    assert resume.history["accuracy"] == [1.0]


def test_a_network_with_several_outputs_is_trained_all_the_same(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, {name: keras.layers.Dense(1, name=name)(inputs) for name in ("one", "other")})
    model.compile("adam", {"one": "mse", "other": "mse"})
    resume = training.Resume(tmp_path / "state")
    model.fit(np.eye(4), {"one": np.ones(4), "other": np.zeros(4)}, verbose=0, callbacks=[resume])
    assert np.isfinite(resume.history["loss"]).all()


def test_an_undisturbed_fit_has_the_history_keras_keeps(undisturbed):
    model, resume = undisturbed
    assert set(resume.history) == {"accuracy", "loss", "val_accuracy", "val_loss"}
    assert resume.history == model.history.history
    assert resume.seconds > 0


@pytest.mark.slow
def test_a_fit_killed_while_its_state_is_written_goes_on_from_the_state_before(tmp_path, undisturbed, monkeypatch):
    folder = tmp_path / "state"
    fit(folder, stop_after=2)
    monkeypatch.setattr(training.files, "write_text", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    fit(folder)
    assert len(list(folder.glob("*.weights.h5"))) == 2  # those of the third epoch are there, and nothing names them
    monkeypatch.undo()
    model, resumed = fit(folder)
    assert model.history.epoch == [2, 3]
    np.testing.assert_allclose(resumed.history["loss"], undisturbed[1].history["loss"], rtol=1e-5)


def test_a_state_leaves_no_older_one_behind(tmp_path):
    folder = tmp_path / "state"
    fit(folder, stop_after=3)
    assert sorted(path.name for path in folder.iterdir()) == ["epoch-3.weights.h5", "state.json"]


def test_a_fit_that_starts_later_keeps_the_right_history(tmp_path, undisturbed):
    fit(tmp_path / "state", first_epoch=2, epochs=6, stop_after=4)
    model, resumed = fit(tmp_path / "state", first_epoch=2, epochs=6)
    assert model.history.epoch == [4, 5]
    np.testing.assert_allclose(resumed.history["loss"], undisturbed[1].history["loss"], rtol=1e-5)
    assert {len(values) for values in resumed.history.values()} == {4}


def fit_in_batches(folder, *, inputs=None, batch_size=4, rate=1e-3, frozen=0.0, stop_after=None):
    """Fits a network with a frozen layer to batches of arrays; returns the callback."""
    keras.utils.set_random_seed(0)
    inputs = np.eye(12, 4) if inputs is None else inputs
    first = keras.layers.Dense(8, trainable=False, kernel_initializer=keras.initializers.Constant(frozen))
    model = keras.Sequential([keras.Input((4,)), first, keras.layers.Dense(3)])
    model.compile(keras.optimizers.Adam(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    data = loaders.load_arrays(inputs, np.arange(12) % 3, batch_size=batch_size)
    resume = training.Resume(folder, data=data, every_seconds=0)
    callbacks = [resume] + [StopAfter(stop_after)] * bool(stop_after)
    with contextlib.suppress(KeyboardInterrupt):
        model.fit(data, epochs=3, shuffle=False, verbose=0, callbacks=callbacks)
    return model.history.epoch


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"inputs": np.eye(12, 4) * 2}, "with another data or batch size was"),
        ({"batch_size": 5}, "with another data or batch size was"),
        ({"rate": 1e-2}, "with another way to train was"),
        ({"frozen": 1.0}, "weights of frozen layers"),
    ],
)
def test_an_interrupted_training_on_something_else_is_not_taken_up_and_that_is_said(tmp_path, capsys, change, said):
    fit_in_batches(tmp_path / "state", stop_after=2)
    assert fit_in_batches(tmp_path / "state", **change) == [0, 1, 2]
    assert said in capsys.readouterr().out


def test_an_interrupted_training_on_the_same_data_goes_on_without_a_word(tmp_path, capsys):
    fit_in_batches(tmp_path / "state", stop_after=2)
    assert fit_in_batches(tmp_path / "state") == [2]
    assert capsys.readouterr().out == ""


def fit_images(table, folder, *, stop_after=None, patience=None):
    """Fits a network with dropout on shuffled, augmented images; returns its weights and the callback."""
    keras.utils.set_random_seed(0)
    model = models.baseline_cnn(SIDE, 5, seed=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    train = loaders.load_dataset(table, SIDE, batch_size=8, shuffle=True, augment="strong", seed=1)
    validation = loaders.load_dataset(table, SIDE, batch_size=8)
    stop = patience and keras.callbacks.EarlyStopping("loss", mode="max", patience=patience, restore_best_weights=True)
    resume = training.Resume(folder, data=train, early_stopping=stop, every_seconds=0)
    callbacks = [stop] * bool(stop) + [resume] + [StopAfter(stop_after)] * bool(stop_after)
    with contextlib.suppress(KeyboardInterrupt):
        model.fit(train, validation_data=validation, epochs=5, shuffle=False, callbacks=callbacks, verbose=0)
    return model.get_weights(), resume


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [1, 3])
def test_order_views_and_dropout_go_on_where_they_were(table, tmp_path, stop_after):
    expected, undisturbed = fit_images(table, tmp_path / "undisturbed")
    fit_images(table, tmp_path / "state", stop_after=stop_after)
    weights, resumed = fit_images(table, tmp_path / "state")
    np.testing.assert_allclose(resumed.history["loss"], undisturbed.history["loss"], rtol=1e-4)
    for one, other in zip(weights, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [1, 3, 4])
def test_early_stopping_remembers_what_it_has_seen_before_an_interruption(table, tmp_path, stop_after):
    # the highest loss counts as the best here, so that patience ends early
    expected, undisturbed = fit_images(table, tmp_path / "undisturbed", patience=2)
    assert len(undisturbed.history["loss"]) == 4
    fit_images(table, tmp_path / "state", stop_after=stop_after, patience=2)
    weights, resumed = fit_images(table, tmp_path / "state", patience=2)
    assert resumed.history["loss"] == pytest.approx(undisturbed.history["loss"], rel=1e-4)
    for one, other in zip(weights, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("room", "tried"), [(8, [32, 16, 8]), (32, [32]), (1, [32, 16, 8, 4, 2, 1])])
def test_a_batch_that_memory_cannot_hold_is_halved_and_said_so(capsys, room, tried):
    asked = []

    def fit(batch_size):
        asked.append(batch_size)
        if batch_size > room:
            raise tf.errors.ResourceExhaustedError(None, None, "no room")
        return "trained"

    assert training.fit_in_memory(fit, 32) == "trained"
    assert asked == tried
    said = [f"Out of memory with {size} images in a batch; on with {size // 2}" for size in tried[:-1]]
    assert capsys.readouterr().out.splitlines() == said


@pytest.mark.slow
def test_a_single_image_that_memory_cannot_hold_is_an_error():
    def fit(batch_size):
        raise tf.errors.ResourceExhaustedError(None, None, "no room")

    with pytest.raises(tf.errors.ResourceExhaustedError):
        training.fit_in_memory(fit, 4)


@pytest.mark.slow
def test_a_folder_used_again_starts_anew(tmp_path):
    fit(tmp_path / "state", epochs=2)
    model, resumed = fit(tmp_path / "state", epochs=2)
    assert model.history.epoch == [0, 1]
    assert len(resumed.history["loss"]) == 2


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


def build_classifier(units=2):
    images = keras.Input((4,))
    return keras.Model(images, keras.layers.Dense(units)(images))


@pytest.mark.parametrize("other", ["model.json", "model.keras"])
@pytest.mark.parametrize("content", ["{}", '{"a": 1}', '["a", "b"]', "mine"])
def test_saving_never_replaces_a_file_of_another_origin(tmp_path, other, content):
    (tmp_path / other).write_text(content)
    with pytest.raises(FileExistsError, match=rf"no other file.*Received: '.*{other}'"):
        training.save_model(build_classifier(), tmp_path / "model.keras", class_names=["a", "b"])
    assert [(path.name, path.read_text()) for path in tmp_path.glob("model*")] == [(other, content)]


def test_saving_never_replaces_a_model_that_keras_has_saved(tmp_path):
    build_classifier(3).save(tmp_path / "model.keras")
    with pytest.raises(FileExistsError, match="another origin"):
        training.save_model(build_classifier(), tmp_path / "model.keras")
    assert training.load_model(tmp_path / "model.keras").output_shape == (None, 3)


def test_saving_replaces_what_was_saved_here_and_no_old_names_are_left(tmp_path):
    path = tmp_path / "model.keras"
    training.save_model(build_classifier(), path, class_names=["花", "b\udcfc"])
    assert training.saved_class_names(path) == ["花", "b\udcfc"]
    training.save_model(build_classifier(3), path)
    assert training.saved_class_names(path) is None
    training.save_model(build_classifier(), path, class_names=["a", "b"])
    assert training.load_model(path).output_shape == (None, 2)


def test_a_file_of_another_origin_that_is_not_written_stays(tmp_path):
    (tmp_path / "model.json").write_text("mine")
    training.save_model(build_classifier(), tmp_path / "model.keras")
    assert (tmp_path / "model.json").read_text() == "mine"


@pytest.mark.parametrize("name", ["model", "model.h5", "model.weights"])
def test_models_are_kept_under_names_that_keras_takes(tmp_path, name):
    with pytest.raises(ValueError, match=rf"end in \.keras.* Received: '.*{name}'"):
        training.save_model(build_classifier(), tmp_path / name, class_names=["a", "b"])
    assert list(tmp_path.glob("model.*")) == []


def test_what_is_saved_has_one_input_and_a_name_for_each_class(tmp_path):
    two = keras.Input((4,)), keras.Input((4,))
    with pytest.raises(ValueError, match="2 inputs"):
        training.save_model(keras.Model(two, keras.layers.Add()(two)), tmp_path / "model.keras")
    with pytest.raises(ValueError, match="2 different texts"):
        training.save_model(build_classifier(), tmp_path / "model.keras", class_names=["a", "a"])
    with pytest.raises(ValueError, match="2 different texts"):
        training.save_model(build_classifier(1), tmp_path / "model.keras", class_names=["a"])
    assert list(tmp_path.glob("model.*")) == []
