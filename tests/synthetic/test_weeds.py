"""Drawn weeds: the same for a seed and an index, each class its own, and a field without any of them."""

import numpy as np
import pytest

from tlhelpers.synthetic import weeds

NAMES = [*weeds.WEEDS, weeds.NEGATIVE]


def test_field_without_a_weed_draws_none_of_the_eight(monkeypatch):
    drawn = []
    original = weeds._draw_plant
    monkeypatch.setattr(
        weeds, "_draw_plant", lambda draw, rng, weed, *rest: drawn.append(weed) or original(draw, rng, weed, *rest)
    )
    for index in range(20):
        weeds.draw_weed(weeds.NEGATIVE, 0, index, 32)
    assert drawn
    assert not any(weed in weeds.WEEDS.values() for weed in drawn)
    count = len(drawn)
    weeds.draw_weed("lantana", 0, 0, 32)
    assert set(map(id, drawn[count:])) == {id(weeds.WEEDS["lantana"])}


def pinkness(name):
    """How much of some pictures is nearer to pink than to green: float array `(20,)`."""
    pictures = np.stack([weeds.draw_weed(name, 1, index, 48) for index in range(20)]).astype(float)
    return (pictures[..., 0] > pictures[..., 1] + 40).mean(axis=(1, 2))


def test_lantana_flowers_in_pink_and_snake_weed_does_not():
    assert np.median(pinkness("lantana")) > np.median(pinkness("snake_weed")) + 0.005


@pytest.mark.parametrize(("one", "other"), [("parkinsonia", "prickly_acacia"), ("siam_weed", "snake_weed")])
def test_classes_that_are_meant_to_be_confused_have_leaves_of_overlapping_form(one, other):
    one, other = weeds.WEEDS[one], weeds.WEEDS[other]
    for name in ("pairs", "angle"):
        first, second = getattr(one, name), getattr(other, name)
        assert max(first[0], second[0]) < min(first[1], second[1])
