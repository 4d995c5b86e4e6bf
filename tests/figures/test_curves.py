"""What a training leaves behind is read whatever the metric is called, and what is missing is said."""

import keras
import numpy as np
import pytest

from tlhelpers.figures import curves, plotting


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["loss", "accuracy", "val_accuracy"], "accuracy"),
        (["loss", "acc"], "acc"),
        (["sparse_categorical_accuracy_1", "loss"], "sparse_categorical_accuracy_1"),
        (["val_accuracy"], "accuracy"),
        (["top_k_categorical_accuracy", "loss"], None),
        (["loss"], None),
    ],
)
def test_an_accuracy_is_found_under_its_other_names(names, found):
    assert curves.find_accuracy({key: [1.0] for key in names}) == found


@pytest.mark.parametrize("stranger", [None, "history", [1, 2]])
def test_what_is_no_history_is_refused(stranger):
    with pytest.raises(ValueError, match=r"A history is what `fit` returns.*Received: history of type"):
        curves.read_curves(stranger)


def test_learning_curves_draw_what_there_is_and_say_what_there_is_not():
    history = keras.callbacks.History()
    history.history = {"loss": [2.0, 1.0]}
    accuracy, loss = plotting.plot_learning_curves(history)
    assert [line.get_label() for line in loss.lines] == ["training"]
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), [2.0, 1.0])
    assert not accuracy.lines
    assert "no accuracy in this history" in {text.get_text() for text in accuracy.texts}
    with pytest.raises(ValueError, match=r"a list of `loss` or of an accuracy.*Received: history with \['auc'\]"):
        plotting.plot_learning_curves({"auc": [0.5]})
