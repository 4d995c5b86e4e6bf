"""What something was computed from, as a digest: the one place where keys of what is kept are made.

A cache, a saved model and an interrupted run are recognised by everything that their contents follow from: the whole
configuration of a network and its weights, the images, how they are read and shown, and by which reader.
"""

import functools
import hashlib
import inspect
import json

import numpy as np
import tensorflow as tf

from tlhelpers import files, images, weights
from tlhelpers.keras_settings import keras

# Of a network's configuration: what says nothing of what it computes, and what matters to training alone.
APART, OF_TRAINING = ("name", "build_config", "compile_config"), ("trainable",)


def digest_of(*facts):
    """The SHA-256 of some facts.

    Args:
        *facts: what JSON can hold; anything else counts by its text.

    Returns:
        str, 64 hexadecimal digits.
    """
    return files.sha256_of_text(json.dumps(facts, default=str, sort_keys=True, ensure_ascii=False))


def digest_of_network(model):
    """Names a network by what it returns for an image: its whole configuration and its weights.

    Names of layers do not count, nor whether they are frozen: neither changes what inference returns.

    Args:
        model: keras.Model.

    Returns:
        str, 64 hexadecimal digits.
    """
    return digest_of(describe_network(model, without=APART + OF_TRAINING), weights.digest_of_weights(model))


def describe_network(model, *, without=APART):
    """A network's whole configuration, with positions in place of names.

    Args:
        model: keras.Model.
        without: tuple of str. Keys of configurations that are left out.

    Returns:
        What JSON can hold.
    """
    return _plain(keras.saving.serialize_keras_object(model), {}, without), _code_of(model)


def digest_of_frozen_weights(model):
    """Names the weights that no training changes: those that are trained begin anew with each start, or go on.

    Args:
        model: keras.Model.

    Returns:
        str, 64 hexadecimal digits.
    """
    return digest_of_arrays(*_frozen_arrays(model))


def digest_of_run(model, table):
    """Names what a trained network's record follows from: its configuration, what was frozen in it, and its images.

    Args:
        model: keras.Model.
        table: pandas.DataFrame, as from `split_manifest`.

    Returns:
        str, 64 hexadecimal digits.
    """
    rows = table[["sha256", "split", "target"]].to_csv(index=False)
    return digest_of(describe_network(model), digest_of_frozen_weights(model), digest_of_reader(), rows)


@functools.cache
def digest_of_reader():
    """Names the reader of images: the code that decodes, resizes and augments them, and TensorFlow's version.

    Returns:
        str, 64 hexadecimal digits.
    """
    from tlhelpers import loaders  # here, because it asks this module about its own data sets

    return digest_of(inspect.getsource(loaders), inspect.getsource(images.decode), tf.__version__)


def digest_of_arrays(*arrays):
    """The SHA-256 over some arrays, their shapes and dtypes included.

    Args:
        *arrays: arrays of numbers or of text.

    Returns:
        str, 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for array in map(np.asarray, arrays):
        digest.update(f"{array.dtype.str} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def note_data(data, *facts):
    """Notes what data were made from, for `digest_of_data`; returns them.

    Args:
        data: tf.data.Dataset, or whatever else batches come from.
        *facts: see `digest_of`.
    """
    data.made_from = digest_of(*facts)
    return data


def digest_of_data(data):
    """Names what a network is trained on.

    Args:
        data: tf.data.Dataset, ViewBatches, tuple of arrays or None. Of a data set that is not this package's own, the
            shapes and the number of batches have to do: to look at its contents would change their order.

    Returns:
        str, 64 hexadecimal digits.
    """
    if isinstance(data, list | tuple):
        return digest_of_arrays(*data)
    if made_from := getattr(data, "made_from", None):
        return made_from
    if isinstance(data, tf.data.Dataset):
        return digest_of(str(data.element_spec), int(data.cardinality()))
    return digest_of(type(data).__name__)


def _plain(config, position, without):
    """A configuration with positions in place of layers' names, which Keras counts up.

    Args:
        config: part of a configuration.
        position: dict from a layer's name to its position in the network around it.
        without: tuple of str. Keys that are left out.
    """
    if isinstance(config, dict):
        if isinstance(config.get("layers"), list):
            names = [layer.get("config", {}).get("name") for layer in config["layers"]]
            position = {name: f"layer {index}" for index, name in enumerate(names)}
        return {key: _plain(value, position, without) for key, value in config.items() if key not in without}
    if isinstance(config, list | tuple):
        return [_plain(value, position, without) for value in config]
    return position.get(config, config) if isinstance(config, str) else config


def _frozen_arrays(layer):
    inner = getattr(layer, "layers", None)
    if inner:
        return [array for part in inner for array in _frozen_arrays(part)]
    return [] if layer.trainable else layer.get_weights()


def _code_of(layer):
    """The source of the layers that are not Keras' own: their configuration does not say what they compute."""
    own = [] if type(layer).__module__.startswith("keras.") else [_source_of(type(layer))]
    return sorted({*own, *(code for part in getattr(layer, "layers", []) for code in _code_of(part))})


def _source_of(kind):
    functions = [part for part in vars(kind).values() if inspect.isfunction(part)]
    try:
        return "\n".join([kind.__qualname__, *map(inspect.getsource, functions)])
    except OSError:  # typed in at a prompt
        return f"{kind.__module__}.{kind.__qualname__}"
