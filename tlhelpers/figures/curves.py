"""What a training leaves behind: curves by epoch, whatever the metric is called."""

import re

# As Keras calls it: `accuracy`, `acc`, `sparse_categorical_accuracy`, with a number where there are several. That of
# the first few answers is another thing.
ACCURACY = re.compile(r"(?!(.*_)?top)(.*_)?acc(uracy)?(_\d+)?")


def read_curves(history):
    """The curves of a training.

    Args:
        history: keras.callbacks.History as `fit` returns it, or its dict of lists, one value per epoch.

    Returns:
        dict from a name to a list of float.

    Raises:
        ValueError: when it is something else.
    """
    curves = getattr(history, "history", history)
    if not isinstance(curves, dict):
        raise ValueError(
            "A history is what `fit` returns, or its dict of lists with one value per epoch. "
            f"Received: history of type {type(history).__name__}"
        )
    return {str(name): list(values) for name, values in curves.items()}


def find_accuracy(curves):
    """The name of the accuracy among the curves of a training.

    Args:
        curves: dict, as from `read_curves`.

    Returns:
        str or None: the plainest name of an accuracy of the training images, or of the validation's alone.
    """
    names = dict.fromkeys(name.removeprefix("val_") for name in curves)
    found = [name for name in names if ACCURACY.fullmatch(name)]
    return min(found, key=lambda name: (name != "accuracy", len(name)), default=None)
