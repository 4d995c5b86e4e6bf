"""What the outputs of a classifier stand for: logits or probabilities, of two or more classes."""

import numpy as np
from scipy.special import expit, softmax

from tlhelpers import inputs
from tlhelpers.keras_settings import keras

LOGITS, PROBABILITIES, UNKNOWN = "logits", "probabilities", "unknown"
# By the function that a network ends in.
KINDS = {"linear": LOGITS, "log_softmax": LOGITS, "softmax": PROBABILITIES, "sigmoid": PROBABILITIES}
# Layers that hand on what they are given when a network predicts.
PASSING = ("Dropout", "Flatten", "Reshape", "Identity", "Cast")
SLACK = 1e-3  # how far a row of probabilities may miss one: half precision rounds


def count_classes(model):
    """How many classes a classifier tells apart.

    Args:
        model: keras.Model of one input and one output.

    Returns:
        int, at least 2: the number of its outputs, or two where it has a single one.

    Raises:
        ValueError: when its output is no row of numbers.
    """
    shape = inputs.check_model(model).output_shape
    if len(shape) != 2 or not shape[1]:
        raise ValueError(f"A classifier gives one row of outputs per image, (n, classes). Received: {shape}")
    return max(shape[1], 2)


def read_ending(model):
    """What a network's last layers say about its outputs.

    Args:
        model: keras.Model of one output.

    Returns:
        str. `LOGITS`, `PROBABILITIES`, or `UNKNOWN` where the network ends in something else than a function of its
        outputs.

    Raises:
        ValueError: when it ends in a function that gives neither, such as a ReLU or several sigmoids.
    """
    name = _last_function(model.outputs[0])
    several = model.output_shape[-1] != 1
    if name is None:
        return UNKNOWN
    if name not in KINDS or (name == "sigmoid" and several) or (name in ("softmax", "log_softmax") and not several):
        raise ValueError(
            "A classifier ends in logits, in a softmax over two or more classes, or in a single sigmoid. "
            f"Received: {model.name!r}, which ends in {model.output_shape[-1]} outputs of {name!r}"
        )
    return KINDS[name]


def to_probabilities(outputs, kind=UNKNOWN):
    """Outputs of a classifier as probabilities.

    Args:
        outputs: float array `(n, classes)`, or `(n, 1)` for the second of two classes.
        kind: str. As from `read_ending`. Unknown ones are probabilities when all rows sum to one.

    Returns:
        float32 array `(n, classes)`, at least two columns; rows sum to one.

    Raises:
        ValueError: when an output is no finite number, or a single output may be either.
    """
    outputs = np.asarray(outputs, dtype=np.float32)
    if not np.isfinite(outputs).all():
        raise ValueError(f"Outputs of a classifier are finite numbers. Received: {describe_garbage(outputs)}")
    if kind == UNKNOWN:
        kind = guess_kind(outputs)
    if outputs.shape[1] == 1:
        second = outputs[:, 0] if kind == PROBABILITIES else expit(outputs[:, 0])
        return np.stack([1 - second, second], axis=1)
    return outputs if kind == PROBABILITIES else softmax(outputs, axis=1)


def guess_kind(outputs):
    """Whether outputs are probabilities, by their values.

    Args:
        outputs: float array `(n, outputs)`, finite.

    Returns:
        str. `LOGITS` or `PROBABILITIES`.

    Raises:
        ValueError: when single outputs may be either.
    """
    between = bool((outputs >= -SLACK).all() and (outputs <= 1 + SLACK).all())
    if outputs.shape[1] == 1 and between:
        raise ValueError(
            "Whether a single output is a logit or a probability shows in the layer it comes from: end the network in "
            "a Dense or an Activation layer. Received: outputs in 0..1 of another layer"
        )
    sums = outputs.sum(axis=1, dtype=np.float64)
    return PROBABILITIES if between and bool((np.abs(sums - 1) <= SLACK).all()) else LOGITS


def describe_garbage(outputs):
    """Outputs that are no numbers, in words."""
    bad = ~np.isfinite(outputs)
    kind = "NaN" if np.isnan(outputs).any() else "infinity"
    return f"{kind} in {int(bad.any(axis=1).sum())} of {len(outputs)} rows"


def _last_function(tensor):
    """The name of the function that an output comes from, or None where that does not show."""
    operation, _, index = tensor._keras_history
    if isinstance(operation, keras.Model):
        nested = getattr(operation, "outputs", None)
        return _last_function(nested[index]) if nested else None
    kind = type(operation).__name__
    if kind in ("Softmax", "Sigmoid", "LogSoftmax"):  # as a layer, or called as a function
        return {"Softmax": "softmax", "Sigmoid": "sigmoid", "LogSoftmax": "log_softmax"}[kind]
    activation = getattr(operation, "activation", None)
    name = getattr(activation, "__name__", None) or (activation and type(activation).__name__.lower())
    passing = kind in PASSING or (kind == "Activation" and name == "linear")
    before = operation.input if passing else None
    if passing and hasattr(before, "_keras_history") and type(before._keras_history.operation).__name__ != "InputLayer":
        return _last_function(before)
    return name
