"""What a training run needs around `compile` and `fit`: features computed once, interrupted runs resumed."""

import json
import shutil
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tlhelpers import checkpoints, files, loaders, settings

EXTRACTION_BATCH = 32
KEPT_EVERY_SECONDS = 30  # to keep the state takes a second, longer than many an epoch


def extract_features(model, table, image_size, *, flipped=False, cache=True):
    """Runs images through a frozen network, once.

    The result is kept in the cache folder under a key made of the images, their size and the weights, so that
    further heads and seeds start at once.

    Args:
        model: keras.Model. From images in 0..255 to features.
        table: pandas.DataFrame with `path`, `sha256` and `target`, as from `split_manifest`.
        image_size: int. Side of the square images, pixels.
        flipped: bool. Whether the images are mirrored left to right.
        cache: bool. Whether to keep the features on disk and use those kept before.

    Returns:
        tuple of a float32 array `(len(table), …)`, row by row as `table`, and the wall-clock seconds its
        computation took, now or when it was kept.
    """
    path = _feature_path(model, table, image_size, flipped)
    cost = _read_cost(path)
    if cache and cost and path.is_file():
        return np.load(path, mmap_mode="r", allow_pickle=False), cost["seconds"]
    started, core_started = time.perf_counter(), time.process_time()
    dataset = loaders.load_dataset(table, image_size, batch_size=EXTRACTION_BATCH, flipped=flipped, cache="none")
    features = _predict(model, dataset, len(table))
    cost = {"seconds": time.perf_counter() - started, "core_seconds": time.process_time() - core_started}
    if cache:
        files.write_text(_note_path(path), json.dumps(cost))
        with files.atomic_file(path) as temporary:
            np.save(temporary, features, allow_pickle=False)
    return features, cost["seconds"]


def extraction_core_seconds(model, table, image_size, *, flipped=False):
    """The seconds that cores have worked on features which `extract_features` keeps.

    Args:
        model: keras.Model, as given to `extract_features`.
        table: pandas.DataFrame, as given to it.
        image_size: int, as given to it.
        flipped: bool, as given to it.

    Returns:
        float.

    Raises:
        ValueError: when no such features are kept.
    """
    cost = _read_cost(_feature_path(model, table, image_size, flipped))
    if not cost:
        raise ValueError(f"Core seconds are known of kept features. Received: image_size={image_size}, none kept")
    return cost["core_seconds"]


def predict_probabilities(model, inputs):
    """The class probabilities of a model that ends in logits.

    Args:
        model: keras.Model.
        inputs: array or tf.data.Dataset, as for `model.predict`.

    Returns:
        float32 array `(n, classes)`; rows sum to one.
    """
    logits = model.predict(inputs, verbose=0)
    return np.asarray(keras.ops.softmax(logits.astype("float32")))


def save_model(model, path, *, class_names=None):
    """Saves a model for predicting, whole or not at all; the state of its optimiser is left out.

    Args:
        model: keras.Model of one input and one output.
        path: Path, ending in `.keras`.
        class_names: list of str or None. What its outputs stand for; kept in a JSON file beside the model.
    """
    if class_names is not None:
        files.write_text(_note_path(path), json.dumps({"class_names": list(class_names)}, ensure_ascii=False) + "\n")
    with files.atomic_file(path) as temporary:
        keras.Model(model.inputs[0], model.outputs[0], name=model.name).save(temporary)


def load_model(path):
    """Loads a model that `save_model` left.

    Args:
        path: Path, ending in `.keras`. Files that would run code of their own are refused.

    Returns:
        keras.Model, not compiled.
    """
    return keras.saving.load_model(path, compile=False, safe_mode=True)


def saved_class_names(path):
    """The class names that were saved with a model, a list of str, or None."""
    names = _note_path(path)
    return json.loads(names.read_text(encoding="utf-8"))["class_names"] if names.is_file() else None


class Resume(keras.callbacks.BackupAndRestore):
    """Lets a killed `fit` go on where it was, with the whole history: at most half a minute and one epoch are lost.

    A state that another model or optimiser left is not taken up.
    Pass it as a callback; after `fit`, `history` holds every epoch, those before the interruption too, `seconds` the
    time spent in all of them, and `core_seconds` how long cores have worked on them.

    Args:
        folder: Path. Where the state is kept while training runs; it is gone when training has finished.
        every_seconds: float. After an epoch the state is kept when this long has passed since the last time.
    """

    def __init__(self, folder, *, every_seconds=KEPT_EVERY_SECONDS):
        self.folder = Path(folder)
        super().__init__(str(self.folder))
        self.history = {}
        self.seconds = self.core_seconds = 0.0
        self.every_seconds = every_seconds
        self._first_epoch = 0
        self._log_path = self.folder / "history.json"

    def on_train_begin(self, logs=None):
        """Reads what an interrupted run left."""
        self._fingerprint = _fingerprint(self.model)
        state = json.loads(self._log_path.read_text(encoding="utf-8")) if self._log_path.is_file() else {}
        if state.get("fingerprint") == self._fingerprint:
            self.history, self._first_epoch = state["history"], state["first_epoch"]
            self.seconds, self.core_seconds = state["seconds"], state.get("core_seconds", 0.0)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
        super().on_train_begin(logs)
        self._started, self._core_started = time.perf_counter(), time.process_time()
        self._kept = self._started

    def on_epoch_end(self, epoch, logs=None):
        """Adds to the history, and keeps the state when the last time is long enough ago.

        Raises:
            ValueError: when the loss is not a finite number: what follows would be none either.
        """
        self._check_loss(epoch, (logs or {}).get("loss", 0.0))
        if not self.history:
            self._first_epoch = epoch
        for name, value in (logs or {}).items():
            self.history[name] = [*self.history.get(name, [])[: epoch - self._first_epoch], float(value)]
        now, core_now = time.perf_counter(), time.process_time()
        self.seconds += now - self._started
        self.core_seconds += core_now - self._core_started
        self._started, self._core_started = now, core_now
        if now - self._kept >= self.every_seconds:
            self._keep(epoch, logs)
            self._kept = now

    def _check_loss(self, epoch, loss):
        if not np.isfinite(loss):
            shutil.rmtree(self.folder, ignore_errors=True)
            rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
            raise ValueError(
                f"The loss of epoch {epoch + 1} is {loss}, so training stops. Likely causes: a learning rate that "
                f"is too high ({rate:g} at the moment), or pictures or targets that are no finite numbers"
            )

    def _keep(self, epoch, logs):
        """Writes the history down, then the weights."""
        state = {
            "history": self.history,
            "seconds": self.seconds,
            "core_seconds": self.core_seconds,
            "first_epoch": self._first_epoch,
            "fingerprint": self._fingerprint,
        }
        files.write_text(self._log_path, json.dumps(state))
        super().on_epoch_end(epoch, logs)

    def on_train_end(self, logs=None):
        """Forgets the interruption."""
        super().on_train_end(logs)
        shutil.rmtree(self.folder, ignore_errors=True)


def compile_frozen(model):
    """A compiled inference call with the weights as constants.

    What is constant TensorFlow folds: normalisation into convolutions. On two cores this is a third faster than
    `model.predict`. It is traced once, whatever the size of a batch.

    Args:
        model: keras.Model of one input and one output.

    Returns:
        callable from a float32 batch, as the model takes it, to a tensor of its outputs.
    """
    trainable = [variable.numpy() for variable in model.trainable_variables]
    non_trainable = [variable.numpy() for variable in model.non_trainable_variables]

    @tf.function(input_signature=[tf.TensorSpec(model.input_shape, tf.float32)])
    def call(images):
        constants = [[tf.constant(value) for value in values] for values in (trainable, non_trainable)]
        outputs, _ = model.stateless_call(*constants, images, training=False)
        return outputs

    return call.get_concrete_function()


def _predict(model, dataset, count):
    """Fills one array batch by batch, so that the features are never in memory twice."""
    features = np.empty((count, *model.output_shape[1:]), dtype=np.float32)
    call = compile_frozen(model)
    start = 0
    total = -(-count // EXTRACTION_BATCH)
    for images, _ in files.progress(dataset, description="Extracting features", total=total, unit="batch"):
        batch = call(images).numpy()
        features[start : start + len(batch)] = batch
        start += len(batch)
    return features


def _fingerprint(model):
    """Names a model and how it is trained: layers, settings, optimiser; not the names Keras makes up."""
    facts = [_facts_of_layer(model), _without_name(model.optimizer.get_config())]
    return files.sha256_of_text(json.dumps(facts, default=str, sort_keys=True))


def _facts_of_layer(layer):
    inner = [_facts_of_layer(part) for part in getattr(layer, "layers", [])]
    config = {} if inner else _without_name(layer.get_config())
    return [type(layer).__name__, layer.trainable, config, inner]


def _without_name(config):
    return {key: value for key, value in config.items() if key != "name"}


def _feature_path(model, table, image_size, flipped):
    key = _feature_key(model, table, f"{image_size} flipped" if flipped else image_size)
    return settings.home_folder() / "features" / f"{key}.npy"


def _note_path(path):
    """What is said about a file, in JSON beside it."""
    return Path(path).with_suffix(".json")


def _read_cost(path):
    """What features have cost; None where nothing says so, as in a cache of an earlier version."""
    note = _note_path(path)
    cost = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else None
    return cost if isinstance(cost, dict) else None


def _feature_key(model, table, view):
    facts = [checkpoints.digest_of_weights(model), model.layers[-1].name, str(view), *table["sha256"]]
    return files.sha256_of_text("\n".join(facts))[:16]
