"""Drawn faces: the same for a seed and an index, grey, and more different from each other than expressions are."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from tlhelpers.synthetic import faces

NAMES = list(faces.EXPRESSIONS)


def draw(name, seed, count, size=48):
    return np.stack([faces.draw_face(name, seed, index, size)[:, :, 0] for index in range(count)]).astype(float)


def test_individuals_differ_more_than_the_means_of_expressions():
    pictures = np.stack([draw(name, 0, 40, 24) for name in NAMES])
    within = pictures.std(axis=1).mean()
    between = pictures.mean(axis=1).std(axis=0).mean()
    assert within > 3 * between


def test_pixels_alone_say_little_about_the_expression():
    train, test = (
        np.concatenate([draw(name, seed, 60, 24) for name in NAMES]).reshape(420, -1) / 255 for seed in (1, 2)
    )
    y = np.repeat(np.arange(7), 60)
    score = LogisticRegression(C=0.01, max_iter=200).fit(train, y).score(test, y)
    assert score < 0.4


@pytest.mark.parametrize(
    ("one", "other", "feature"),
    [
        ("fear", "surprise", "eye"),
        ("angry", "disgust", "curve"),
        ("sad", "neutral", "eye"),
        ("fear", "surprise", "brow"),
    ],
)
def test_expressions_that_are_meant_to_be_confused_overlap(one, other, feature):
    first, second = (getattr(faces.EXPRESSIONS[name], feature) for name in (one, other))
    assert max(first[0], second[0]) < min(first[1], second[1])


def test_smiles_turn_up_and_sad_mouths_down():
    assert faces.EXPRESSIONS["happy"].curve[0] > 0 > faces.EXPRESSIONS["sad"].curve[1]
    assert faces.EXPRESSIONS["surprise"].open[0] > faces.EXPRESSIONS["neutral"].open[1]
