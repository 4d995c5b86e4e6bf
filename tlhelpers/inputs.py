"""What comes from outside, checked at the door: labels, probabilities, images, sizes, names and models.

Each check returns its argument in the one form that the package works with, or raises an error that names the rule,
what is allowed, and what was received.
"""

from pathlib import Path

import numpy as np
import pandas as pd

ROUNDING = {2: 1e-2, 4: 1e-3, 8: 1e-3}  # by the bytes of a number: how far a row of probabilities may miss one
PIXEL_MAX = 255


class OldNames:
    """Tells chapters that ask for a field by the name it had in the first edition what it is called now.

    `OLD` is a dict from an old name to today's.
    """

    OLD = {}  # noqa: RUF012 - of the class, and never changed

    def __getattr__(self, name):
        if name in self.OLD:
            raise AttributeError(f"What the first edition called `{name}` is `{self.OLD[name]}` now")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def check_labels(y_true, *, classes=None, name="y_true"):
    """Labels in whatever unambiguous form, as indices.

    Args:
        y_true: `(n,)` or `(n, 1)` whole numbers of any dtype, or `(n, classes)` one-hot rows; at least one.
        classes: int or None. How many classes there are; None means that it is not known.
        name: str. What errors call them.

    Returns:
        int64 array `(n,)`, in `0..classes - 1`.

    Raises:
        ValueError: when they have another shape, are no numbers, or name no class.
    """
    array = as_array(y_true, name)
    rule = f"Labels are whole numbers from 0 on{'' if classes is None else f' to {classes - 1}'}, one per image"
    if array.dtype.kind not in "biuf" or array.size == 0:
        raise ValueError(f"{rule}, at least one. Received: {_describe(name, array)}")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    elif array.ndim == 2 and _is_one_hot(array) and classes in (None, array.shape[1]):
        array = array.argmax(axis=1)
    if array.ndim != 1:
        raise ValueError(f"{rule}, of shape (n,), (n, 1) or one-hot (n, classes). Received: {_describe(name, array)}")
    if not np.isfinite(array).all() or (array != np.round(array)).any():
        raise ValueError(f"{rule}. Received: {_describe(name, array)}, not all of them whole")
    array = array.astype(np.int64)
    if array.min() < 0 or (classes is not None and array.max() >= classes):
        raise ValueError(f"{rule}. Received: {_describe(name, array)}, {array.min()} to {array.max()}")
    return array


def check_probabilities(y_prob, *, count=None, classes=None, name="y_prob"):
    """Probabilities of classes, image by image.

    Args:
        y_prob: float array `(n, classes)`; rows sum to one.
        count: int or None. How many rows there have to be.
        classes: int or None. How many columns there have to be.
        name: str. What errors call them.

    Returns:
        float array `(n, classes)`, of its own dtype.

    Raises:
        ValueError: when the shape is another one, or when they are logits or no numbers.
    """
    array = as_array(y_prob, name)
    shape = ("n" if count is None else count, "classes" if classes is None else classes)
    rule = f"Probabilities have one row per image and one column per class, ({shape[0]}, {shape[1]})"
    fits = array.ndim == 2 and array.shape[0] > 0 and array.shape[1] > 1 and array.dtype.kind in "biuf"
    if not fits or count not in (None, len(array)) or classes not in (None, array.shape[1]):
        raise ValueError(f"{rule}; at least one row and two columns. Received: {_describe(name, array)}")
    array = array if array.dtype.kind == "f" else array.astype(float)
    if not np.isfinite(array).all():
        raise ValueError(f"{rule}, all of them finite. Received: {_describe(name, array)} with NaN or infinity")
    slack = ROUNDING.get(array.dtype.itemsize, 1e-3)
    sums = array.sum(axis=1, dtype=float)
    if array.min() < -slack or array.max() > 1 + slack or np.abs(sums - 1).max() > slack:
        raise ValueError(
            f"{rule}, in 0..1, and rows sum to one: logits go through a softmax first. Received: "
            f"{_describe(name, array)}, {array.min():g} to {array.max():g}, rows that sum to {sums.min():g} to "
            f"{sums.max():g}"
        )
    return array


def check_images(images, *, name="images", size=None, channels=3):
    """Images as the book's models take them.

    Args:
        images: array `(n, height, width, channels)`, whole or real numbers in 0..255; at least one.
        name: str. What errors call them.
        size: int, pair of int or None. Height and width, pixels; None means any.
        channels: int.

    Returns:
        array `(n, height, width, channels)`, of its own dtype.

    Raises:
        ValueError: when the shape or the range is another one.
    """
    array = as_array(images, name)
    sides = ("height", "width") if size is None else (size, size) if isinstance(size, int) else tuple(size)
    rule = f"Images have the shape (n, {sides[0]}, {sides[1]}, {channels}) and values in 0..{PIXEL_MAX}"
    if array.ndim == 3:
        raise ValueError(
            f"{rule}; a single image gets a first axis with `image[None]`. Received: {_describe(name, array)}"
        )
    fits = array.ndim == 4 and array.shape[0] > 0 and array.shape[-1] == channels and array.dtype.kind in "uif"
    if not fits or (size is not None and array.shape[1:3] != sides):
        raise ValueError(f"{rule}, at least one. Received: {_describe(name, array)}")
    low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all() or low < 0 or high > PIXEL_MAX:
        raise ValueError(f"{rule}. Received: {_describe(name, array)}, {low:g} to {high:g}")
    if array.dtype.kind == "f" and 0 < high <= 1:
        raise ValueError(f"{rule}; these look like 0..1. Received: {_describe(name, array)}, {low:g} to {high:g}")
    return array


def as_shown(image, *, name="image"):
    """One image as figures show it.

    Args:
        image: array `(height, width, 3)`, or grey `(height, width)` or `(height, width, 1)`: in 0..255, or real numbers
            that stay within 0..1.
        name: str. What errors call it.

    Returns:
        array `(height, width, 3)`: uint8, or float in 0..1.

    Raises:
        ValueError: when the shape or the range is another one.
    """
    array = as_array(image, name)
    rule = f"An image has the shape (height, width, 3), or grey (height, width), and values in 0..{PIXEL_MAX} or 0..1"
    grey = array.ndim == 2 or (array.ndim == 3 and array.shape[-1] == 1)
    fits = array.size and array.dtype.kind in "buif" and (grey or (array.ndim == 3 and array.shape[-1] == 3))
    if not fits or not 0 <= array.min() <= array.max() <= PIXEL_MAX:
        raise ValueError(f"{rule}. Received: {_describe(name, array)}")
    array = np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=-1) if grey else array
    return array.astype(float if array.dtype.kind in "bf" and array.max() <= 1 else np.uint8)


def check_image_size(image_size, *, name="image_size"):
    """The side of square images.

    Args:
        image_size: int, or a pair of the same int as Keras writes it, such as `(224, 224)`. Pixels.
        name: str. What errors call it.

    Returns:
        int, at least 1.

    Raises:
        ValueError: when it is something else.
    """
    sides = tuple(image_size) if isinstance(image_size, list | tuple) else (image_size,)
    whole = all(isinstance(side, int | np.integer) and not isinstance(side, bool) and side >= 1 for side in sides)
    if not whole or len(sides) not in (1, 2) or len(set(sides)) != 1:
        raise ValueError(
            f"{name} is the side of square images, a whole number of pixels from 1 on, or twice the same such as "
            f"(224, 224). Received: {name}={image_size!r}"
        )
    return int(sides[0])


def check_table(table, *, columns=("path",), on_disk=True, name="table"):
    """A table of images, one row each.

    Args:
        table: pandas.DataFrame with `columns` and at least one row. Every `path` leads to a file, every `target` is a
            whole number from 0 on.
        columns: sequence of str. The columns that are needed.
        on_disk: bool. Whether the files have to be there.
        name: str. What errors call it.

    Returns:
        pandas.DataFrame.

    Raises:
        ValueError: when it is something else.
        FileNotFoundError: when a file is not there.
    """
    rule = f"{name} is a pandas.DataFrame with at least one row and the columns {list(columns)}"
    if not isinstance(table, pd.DataFrame):
        raise ValueError(f"{rule}. Received: {name} of type {type(table).__name__}")
    missing = [column for column in columns if column not in table]
    if missing:
        raise ValueError(f"{rule}. Received: {name} without {missing}, with {list(table)}")
    if not len(table):
        raise ValueError(f"{rule}. Received: an empty table")
    if "target" in columns:
        check_labels(table["target"], name="target")
    gone = [path for path in table["path"] if on_disk and "://" not in str(path) and not Path(path).is_file()]
    if gone:
        raise FileNotFoundError(f"Every path of {name} leads to a file. Received: {len(gone)} that do not, {gone[0]!s}")
    return table


def check_whole(value, *, name, low=None, high=None):
    """A whole number in a range.

    Args:
        value: int.
        name: str. What errors call it.
        low: int or None. The smallest that is allowed.
        high: int or None. The largest that is allowed.

    Returns:
        int.

    Raises:
        ValueError: when it is something else.
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or (low is not None and value < low) or (high is not None and value > high):
        bounds = [f"at least {low}"] * (low is not None) + [f"at most {high}"] * (high is not None)
        raise ValueError(f"{name} is a whole number{', '.join(['', *bounds])}. Received: {name}={value!r}")
    return int(value)


def check_class_names(class_names, *, count=None):
    """The names of classes, in the order of their indices.

    Args:
        class_names: sequence of str, all different.
        count: int or None. How many there have to be.

    Returns:
        list of str.

    Raises:
        ValueError: when they are no text, not different, or too few or too many.
    """
    names = [class_names] if isinstance(class_names, str) else list(class_names)
    wrong = isinstance(class_names, str) or not all(isinstance(name, str) for name in names)
    if wrong or len(set(names)) != len(names) or count not in (None, len(names)):
        number = "" if count is None else f" {count}"
        raise ValueError(f"Class names are{number} different texts. Received: class_names={class_names!r}")
    return names


def check_model(model, *, name="model"):
    """A model that is built, with one input and one output.

    Args:
        model: keras.Model.
        name: str. What errors call it.

    Returns:
        keras.Model.

    Raises:
        ValueError: when it is something else.
    """
    import keras  # here, because it takes seconds to load

    rule = f"{name} is a Keras model that is built, with one input and one output"
    if not isinstance(model, keras.Model):
        raise ValueError(f"{rule}. Received: {name} of type {type(model).__name__}")
    inputs, outputs = (getattr(model, side, None) for side in ("inputs", "outputs"))
    if not inputs or not outputs:
        raise ValueError(f"{rule}; call `keras.Input` first. Received: {model.name!r}, which has no inputs yet")
    if len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(f"{rule}. Received: {model.name!r} with {len(inputs)} inputs and {len(outputs)} outputs")
    return model


def check_confidences(correct, confidence):
    """Answers that are graded already: whether each is right and how sure it is.

    Args:
        correct: `(n,)` truth values, or 0 and 1.
        confidence: float array `(n,)` in 0..1.

    Returns:
        tuple of a bool array `(n,)` and a float64 array `(n,)`.

    Raises:
        ValueError: when they are not as many, at least one, or something else.
    """
    correct, confidence = as_array(correct, "correct"), as_array(confidence, "confidence")
    fits = correct.ndim == 1 and correct.shape == confidence.shape and len(correct) and confidence.dtype.kind in "biuf"
    if not fits or not np.isin(correct, (0, 1)).all() or not (abs(confidence - 0.5) <= 0.5 + ROUNDING[4]).all():
        raise ValueError(
            "Of each answer, at least one, there is whether it is right, True or False, and how sure it is, in 0..1. "
            f"Received: {_describe('correct', correct)}, {_describe('confidence', confidence)}"
        )
    return correct.astype(bool), confidence.astype(float)


def as_array(values, name):
    """Values as an array; those that are no array, such as rows of several lengths, are a ValueError."""
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ValueError(
            f"{name} is one array, with rows of one length. Received: {name} of type {type(values).__name__}"
        ) from error


def _is_one_hot(array):
    return bool(np.isin(array, (0, 1)).all() and (array.sum(axis=1) == 1).all())


def _describe(name, array):
    return f"{name} of shape {array.shape} and dtype {array.dtype}"
