"""Drawn clothes: the same for a seed and an index, light on black, and as easy and as hard to tell apart as planned."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from tlhelpers.datasets import studies
from tlhelpers.synthetic import clothes

NAMES = studies.CLOTHES


def draw(name, seed, count):
    """Some pictures of a garment, one channel: float array `(count, 28, 28)`."""
    return np.stack([clothes.draw_garment(name, seed, index)[:, :, 0] for index in range(count)]).astype(float)


def test_what_can_be_drawn_are_the_classes_of_the_study():
    assert sorted(NAMES) == sorted((*clothes.TOPS, *clothes.SHOES, *clothes.OTHERS))


@pytest.mark.parametrize("size", [28, 56])
def test_pictures_are_grey_and_of_the_size_asked_for(size):
    picture = clothes.draw_garment("coat", 0, 0, size)
    assert picture.shape == (size, size, 3)
    assert (picture == picture[:, :, :1]).all()


@pytest.mark.parametrize("name", NAMES)
def test_garments_are_light_on_a_black_ground(name):
    pictures = draw(name, 0, 20)
    corners = pictures[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners < 8).mean() > 0.9
    assert (pictures > 40).mean() > 0.04
    assert pictures.max(axis=(1, 2)).min() > 60


@pytest.mark.slow
def test_a_linear_classifier_finds_trousers_easily_and_shirts_hardly():
    train, test = (np.concatenate([draw(name, seed, 60) for name in NAMES]).reshape(600, -1) for seed in (0, 1))
    y = np.repeat(np.arange(10), 60)
    predicted = LogisticRegression(C=0.1, max_iter=200).fit(train / 255, y).predict(test / 255)
    recall = {name: (predicted[y == k] == k).mean() for k, name in enumerate(NAMES)}
    assert 0.6 < np.mean(list(recall.values())) < 0.92
    assert recall["trouser"] > 0.85
    assert recall["shirt"] < 0.5
