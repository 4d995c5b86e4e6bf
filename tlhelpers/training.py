"""What a training run needs around `compile` and `fit`: interrupted runs resumed, models saved and loaded."""

import functools
import gc
import json
import os
import re
import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
import tensorflow as tf

from tlhelpers import answers, devices, files, identity, loaders
from tlhelpers import inputs as inputs_
from tlhelpers.keras_settings import keras

SUFFIX = ".keras"
MARK = b"written by tlhelpers.save_model"  # in the archive that a model is, so that it is known as ours
KEPT_EVERY_SECONDS = 30  # to keep the state takes a second, longer than many an epoch
STOPPING = ("wait", "best", "best_epoch", "stopped_epoch")  # what EarlyStopping remembers, beside the best weights


def predict_probabilities(model, inputs):
    """The class probabilities of a classifier, whether it ends in logits or in probabilities.

    Args:
        model: keras.Model of one input and one output: logits or a softmax of two or more classes, or one number.
        inputs: array or tf.data.Dataset, as for `predict_outputs`.

    Returns:
        float32 array `(n, classes)`; rows sum to one. A single output becomes two columns.

    Raises:
        ValueError: when the outputs are neither, or no finite numbers.
    """
    answers.count_classes(model)
    kind = answers.read_ending(model)
    return answers.to_probabilities(predict_outputs(model, inputs), kind)


def predict_outputs(model, inputs):
    """The outputs of a model for some inputs, batch by batch.

    As `model.predict`, which traces the model anew for every call and for a last batch that is smaller: with a
    MobileNetV2 and few images, that takes longer than the images.

    Args:
        model: keras.Model of one input and one output.
        inputs: array `(n, …)`, or tf.data.Dataset of batches, alone or first in a tuple.

    Returns:
        array `(n, …)` of the model's output type.
    """
    predict, dtype = _compile_prediction(model), model.inputs[0].dtype
    return np.concatenate([predict(tf.cast(batch, dtype)).numpy() for batch in _input_batches(inputs)])


@functools.lru_cache(maxsize=1)
def _compile_prediction(model):
    """A call that is traced once, for batches of any size; parts are predicted in turn by the same model."""
    signature = [tf.TensorSpec(model.input_shape, model.inputs[0].dtype)]
    return tf.function(lambda batch: model(batch, training=False), input_signature=signature)


def _input_batches(inputs):
    if isinstance(inputs, tf.data.Dataset):
        return (batch[0] if isinstance(batch, tuple) else batch for batch in inputs)
    size = devices.CPU_BATCH_SIZE
    return (inputs[start : start + size] for start in range(0, len(inputs), size))


def save_model(model, path, *, class_names=None, learned_from=None):
    """Saves a model for predicting, whole or not at all; the state of its optimiser is left out.

    A model that was saved here before is replaced; a file of another origin never is.

    Args:
        model: keras.Model of one input and one output.
        path: Path, ending in `.keras`.
        class_names: list of str or None. What its outputs stand for; kept in a JSON file beside the model.
        learned_from: str or None. What the model's backbone has learned from, for those who use it; kept with the
            class names.

    Raises:
        ValueError: when the model has several inputs or outputs, or there is not one name for each class.
        FileExistsError: when the model, or the file of its class names, would replace a file of another origin.
    """
    path, model = _check_suffix(path), inputs_.check_model(model)
    if learned_from is not None and class_names is None:
        raise ValueError(
            f"What a model has learned from is kept with its class names. Received: {learned_from=}, class_names=None"
        )
    note = files.note_path(path)
    if class_names is not None:
        class_names = inputs_.check_class_names(class_names, count=answers.count_classes(model))
        _check_ours(note, _read_note(note) is not None)
    _check_ours(path, _has_mark(path) or _read_note(note) is not None)
    with files.atomic_file(path) as temporary:
        keras.Model(model.inputs[0], model.outputs[0], name=model.name).save(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.comment = MARK
        if class_names is not None:
            content = {"class_names": class_names} | ({"learned_from": learned_from} if learned_from else {})
            files.write_text(note, json.dumps(content) + "\n")
        elif _read_note(note) is not None:
            note.unlink()  # the names of the model before


def load_model(path):
    """Loads a model that `save_model` left.

    Args:
        path: Path, ending in `.keras`. Files that would run code of their own are refused.

    Returns:
        keras.Model, not compiled.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is damaged, no model, or would run code of its own.
    """
    path = _check_suffix(path)
    if not path.is_file():
        raise FileNotFoundError(f"A saved model is a file that ends in {SUFFIX}. Received: {files.shown_name(path)!r}")
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(f"{damaged} is damaged")
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except PermissionError:
        raise
    except Exception as error:  # Keras and the libraries below it raise what they like
        raise ValueError(f"{_why_not_loaded(error)} Received: {files.shown_name(path)!r}") from error


def saved_class_names(path):
    """The class names that were saved with a model, a list of str, or None.

    Raises:
        ValueError: when the JSON file beside the model is of another kind.
    """
    note = files.note_path(path)
    if not note.is_file():
        return None
    content = _read_note(note)
    if content is None:
        raise ValueError(
            'Class names stand beside a model in a JSON file of the form {"class_names": ["…", "…"]}; name the classes '
            f"yourself, or move the file. Received: {files.shown_name(note)!r}, a file of another kind"
        )
    return content["class_names"]


def saved_origin(path):
    """What the backbone of a saved model has learned from, a str, or None where that was not saved with it."""
    return (_read_note(files.note_path(path)) or {}).get("learned_from")


def _check_suffix(path):
    path = Path(path).expanduser()
    if path.suffix != SUFFIX:
        raise ValueError(
            f"Models are kept in files that end in {SUFFIX}; load others with Keras, and save them with `save_model`. "
            f"Received: {files.shown_name(path)!r}"
        )
    return path


def _check_ours(path, ours):
    if os.path.lexists(path) and not ours:
        raise FileExistsError(
            "A model replaces one that `save_model` has written, and no other file; choose another name, or move the "
            f"file. Received: {files.shown_name(path)!r}, a file of another origin"
        )


def _has_mark(path):
    """Whether `save_model` has written a file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.comment == MARK
    except (OSError, zipfile.BadZipFile):
        return False


def _read_note(note):
    """What `save_model` has written beside a model, a dict, or None where the file is of another kind."""
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
        inputs_.check_class_names(content["class_names"])
        ours = set(content) <= {"class_names", "learned_from"} and isinstance(content.get("learned_from", ""), str)
        return content if ours else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _why_not_loaded(error):
    text = " ".join(str(error).split())
    if "safe_mode" in text or "Lambda" in text:
        return "Models that would run code of their own, such as that of a Lambda layer, are refused (safe_mode)."
    if "Could not locate" in text or "Unknown layer" in text:
        found = re.search(r"(?:Could not locate (?:class|function)|Unknown layer:?) '?([\w>.]+)'?", text)
        return f"A model is made of layers that Keras knows; {found[1] if found else 'one of them'!r} is none of these."
    return f"A model is a whole file as Keras writes it; this one is damaged or no model ({text[:100]})."


def make_variables(model):
    """Makes the variables that the first training step would make: `fit` traces a step twice that makes some.

    To trace a step of a large network takes as long as some epochs of a small set.

    Args:
        model: keras.Model, compiled. Metrics are left to the first step where the loss does not tell what its targets
            look like: which accuracy Keras takes depends on them.
    """
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    examples = _make_examples(model)
    if examples:
        targets, predictions = examples
        model.compute_loss(None, targets, predictions)  # of several losses, each is a metric
        model.compute_metrics(None, targets, predictions)
        model.reset_metrics()


def _make_examples(model):
    """Targets and predictions of one image, where every loss tells what its targets look like."""
    if not isinstance(model.loss, dict):
        return _make_example(model.loss, model.output_shape)
    outputs = dict(zip(model.output_names, model.outputs, strict=True))
    pairs = {name: _make_example(model.loss.get(name), output.shape) for name, output in outputs.items()}
    return [{name: pair[part] for name, pair in pairs.items()} for part in range(2)] if all(pairs.values()) else None


def _make_example(loss, shape):
    sparse = isinstance(loss, keras.losses.SparseCategoricalCrossentropy)
    if not (sparse or isinstance(loss, keras.losses.CategoricalCrossentropy)):
        return None
    prediction = keras.ops.zeros((1, *shape[1:]))
    return keras.ops.zeros(1) if sparse else prediction, prediction


def fit_in_memory(fit, batch_size):
    """Trains with batches half as large, and half again, until they fit into the memory of the device.

    A GPU says when its memory is full, and so do TensorFlow's own kernels on a CPU; those of oneDNN end the process.

    Args:
        fit: callable of an int, the images of a batch. Builds and trains a model.
        batch_size: int, at least 1. What is tried first.

    Returns:
        What `fit` returns.

    Raises:
        tf.errors.ResourceExhaustedError: when not even one image at a time fits.
    """
    while True:
        try:
            return fit(batch_size)
        except tf.errors.ResourceExhaustedError:
            if batch_size == 1:
                raise
        print(f"Out of memory with {batch_size} images in a batch; on with {batch_size // 2}", flush=True)
        batch_size //= 2
        gc.collect()  # what the broken run holds


class TraceOnce(keras.callbacks.Callback):
    """Lets the first step of `fit` come soon: for a large network it takes as long as some epochs of a small set.

    What has to be traced is traced once, see `make_variables`. On a CPU TensorFlow does not rewrite the graph
    either while `fit` lasts: that took half of the first step and made no later one faster. Inference gains from it,
    see `features.compile_frozen`, and so do GPUs. After a `fit` that breaks it stays off until the next one ends.
    """

    def on_train_begin(self, logs=None):
        """Makes all variables, and on a CPU puts the rewriting off."""
        make_variables(self.model)
        _rewrite_graphs(bool(devices.list_gpus()))

    def on_train_end(self, logs=None):
        """Takes the rewriting up again."""
        _rewrite_graphs(True)


def _rewrite_graphs(wanted):
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": not wanted})


class Resume(TraceOnce):
    """Lets a killed `fit` go on where it was, with the whole history: at most half a minute and one epoch are lost.

    A state is kept whole or not at all. One that another network, other data, another batch size or another way to
    train has left is not taken up: this training then begins anew, and says so.
    Pass it as the last callback; after `fit`, `history` holds every epoch, those before the interruption too,
    `seconds` the time spent in all of them, and `core_seconds` how long cores have worked on them. The first step
    comes soon, see `TraceOnce`.

    Args:
        folder: Path. Where the state is kept while training runs; it is gone when training has finished.
        data: tf.data.Dataset, ViewBatches, tuple of arrays or None. What is trained on, so that a resumed `fit` goes
            on with the order and the views that come next, and ends where an undisturbed one does; and that a training
            on other data is not taken for this one. None where neither matters.
        early_stopping: keras.callbacks.EarlyStopping or None. Another callback of this `fit`, whose memory is kept too.
        every_seconds: float. After an epoch the state is kept when this long has passed since the last time.
    """

    def __init__(self, folder, *, data=None, early_stopping=None, every_seconds=KEPT_EVERY_SECONDS):
        super().__init__()
        self.folder, self.data, self.early_stopping = Path(folder), data, early_stopping
        self.history = {}
        self.seconds = self.core_seconds = 0.0
        self.every_seconds = every_seconds
        self._first_epoch = None
        self._state_path = self.folder / "state.json"

    def on_train_begin(self, logs=None):
        """Makes all variables, and takes up what an interrupted run left in them."""
        super().on_train_begin(logs)
        self._made_from = _describe_training(self.model, self.data, self.params)
        state = self._read_state()
        if state and not (others := _list_differences(state["made_from"], self._made_from)):
            self._restore(state)
        elif self.folder.exists():
            if state:
                print(f"A training with another {' and '.join(others)} was interrupted here; this one begins anew")
            shutil.rmtree(self.folder)
        self._started, self._core_started = time.perf_counter(), time.process_time()
        self._kept = self._started

    def on_epoch_end(self, epoch, logs=None):
        """Adds to the history, and keeps the state when the last time is long enough ago.

        Raises:
            ValueError: when the loss is not a finite number: what follows would be none either.
        """
        self._check_loss(epoch, (logs or {}).get("loss", 0.0))
        if self._first_epoch is None:
            self._first_epoch = epoch
        for name, value in (logs or {}).items():
            self.history[name] = [*self.history.get(name, []), float(value)]
        now, core_now = time.perf_counter(), time.process_time()
        self.seconds += now - self._started
        self.core_seconds += core_now - self._core_started
        self._started, self._core_started = now, core_now
        if now - self._kept >= self.every_seconds:
            self._keep(epoch + 1)
            self._kept = now

    def on_train_end(self, logs=None):
        """Forgets the interruption."""
        super().on_train_end(logs)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read_state(self):
        """What an interrupted training has left, a dict; empty where it is nothing, or of an earlier version."""
        state = json.loads(self._state_path.read_text(encoding="utf-8")) if self._state_path.is_file() else {}
        return state if isinstance(state.get("made_from"), dict) else {}

    def _check_loss(self, epoch, loss):
        if not np.isfinite(loss):
            shutil.rmtree(self.folder, ignore_errors=True)
            rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
            raise ValueError(
                f"The loss of epoch {epoch + 1} is {loss}, so training stops. Likely causes: a learning rate that "
                f"is too high ({rate:g} at the moment), or images or targets that are no finite numbers"
            )

    def _keep(self, epoch):
        """Writes weights under the name of their epoch, then the state that says which epoch counts."""
        with files.atomic_file(self._weights_path(epoch)) as temporary:
            self.model.save_weights(temporary)
        state = {
            "epoch": epoch,
            "history": self.history,
            "seconds": self.seconds,
            "core_seconds": self.core_seconds,
            "first_epoch": self._first_epoch,
            "made_from": self._made_from,
            "chance": [variable.numpy().tolist() for variable in _chance(self.model)],
            "early_stopping": self._keep_early_stopping(epoch),
        }
        files.write_text(self._state_path, json.dumps(state))
        for path in self.folder.iterdir():
            if not path.name.startswith((f"epoch-{epoch}.", self._state_path.name)):
                path.unlink()

    def _keep_early_stopping(self, epoch):
        stop = self.early_stopping
        if stop is None:
            return None
        if stop.best_weights is not None:
            with files.atomic_file(self._best_path(epoch)) as temporary:
                np.savez(temporary, *stop.best_weights)
        return {name: getattr(stop, name) for name in STOPPING}

    def _restore(self, state):
        self.model.load_weights(self._weights_path(state["epoch"]))
        for variable, value in zip(_chance(self.model), state["chance"], strict=True):
            variable.assign(value)
        self.history, self._first_epoch = state["history"], state["first_epoch"]
        self.seconds, self.core_seconds = state["seconds"], state["core_seconds"]
        if self.early_stopping is not None and state["early_stopping"]:
            self._restore_early_stopping(state)
        stopped = self.early_stopping is not None and self.early_stopping.stopped_epoch
        # as Keras' own BackupAndRestore does; of a training that had stopped early nothing is left to do
        self.model._initial_epoch = self.params["epochs"] if stopped else state["epoch"]
        if hasattr(self.data, "on_epoch_end") or isinstance(self.data, tf.data.Dataset):
            loaders.skip_epochs(self.data, state["epoch"] - state["first_epoch"])

    def _restore_early_stopping(self, state):
        best = self._best_path(state["epoch"])
        if best.is_file():
            with np.load(best, allow_pickle=False) as arrays:
                self.early_stopping.best_weights = [arrays[name] for name in arrays.files]
        for name, value in state["early_stopping"].items():
            setattr(self.early_stopping, name, value)

    def _weights_path(self, epoch):
        return self.folder / f"epoch-{epoch}.weights.h5"

    def _best_path(self, epoch):
        return self.folder / f"epoch-{epoch}.best.npz"


def _chance(model):
    """The variables from which dropout draws, which no weights file holds."""
    return [variable for variable in model.non_trainable_variables if variable.path.endswith("seed_generator_state")]


def _describe_training(model, data, params):
    """What a training is recognised by: a dict from what may differ, in words, to a digest of it."""
    return {
        "network": identity.digest_of(identity.describe_network(model)),
        "weights of frozen layers": identity.digest_of_frozen_weights(model),
        "way to train": identity.digest_of(_without_names(model.get_compile_config())),
        "data or batch size": identity.digest_of(identity.digest_of_data(data), params.get("steps")),
    }


def _list_differences(before, now):
    return [name for name in now if before.get(name) != now[name]]


def _without_names(config):
    if isinstance(config, dict):
        return {key: _without_names(value) for key, value in config.items() if key != "name"}
    return [_without_names(value) for value in config] if isinstance(config, list | tuple) else config
