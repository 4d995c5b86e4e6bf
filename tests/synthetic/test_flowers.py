"""Drawn flowers: the same for a seed and an index, different for any other, and what their species says."""

import dataclasses

import numpy as np
import pytest

from tlhelpers.synthetic import flowers

NAMES = sorted(flowers.TARGETS)


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_and_index_draw_the_same_picture(name):
    first, again = (flowers.draw_flower(name, 3, 7) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first.shape, first.dtype) == ((96, 96, 3), np.uint8)


@pytest.mark.parametrize(("seed", "index"), [(3, 8), (4, 7)])
def test_another_seed_or_index_draws_another_picture(seed, index):
    assert not np.array_equal(flowers.draw_flower("rose", 3, 7), flowers.draw_flower("rose", seed, index))


def test_species_do_not_share_pictures():
    pictures = [flowers.draw_flower(name, 0, 0) for name in NAMES]
    assert len({picture.tobytes() for picture in pictures}) == len(NAMES)


@pytest.mark.parametrize("size", [28, 64, 160])
def test_picture_has_the_size_asked_for(size):
    assert flowers.draw_flower("tulip", 0, 0, size).shape == (size, size, 3)


def test_pictures_vary_in_light_and_colour():
    pictures = np.stack([flowers.draw_flower("daisy", 0, index, 32) for index in range(40)])
    assert pictures.mean(axis=(1, 2, 3)).std() > 15
    assert pictures.mean(axis=(1, 2)).std(axis=0).min() > 10


@pytest.mark.parametrize(
    ("name", "brighter", "darker"), [("sunflower", 0, 2), ("dandelion", 1, 2)], ids=["red over blue", "green over blue"]
)
def test_yellow_flowers_are_yellow_at_their_brightest(name, brighter, darker):
    flower = dataclasses.replace(flowers.TARGETS[name], forms={"rays": 1})
    pictures = np.stack([flowers.draw_flower(flower, 0, index, 48) for index in range(30)]).astype(float)
    yellow = (pictures[..., 0] + pictures[..., 1]) / 2 - pictures[..., 2]
    brightest = pictures.reshape(30, -1, 3)[np.arange(30), yellow.reshape(30, -1).argmax(axis=1)]
    assert (brightest[:, brighter] > brightest[:, darker] + 40).mean() > 0.9


def test_made_up_species_are_the_same_for_a_seed_and_an_index():
    species = [flowers.draw_species(0, index) for index in range(200)]
    assert species == [flowers.draw_species(0, index) for index in range(200)]
    assert len({one.name for one in species}) == 200
    assert not {one.name for one in species} & set(NAMES)
    shapes = {dataclasses.replace(one, name="", forms=tuple(one.forms)) for one in species}
    other_seed = dataclasses.replace(flowers.draw_species(1, 0), name="", forms=tuple(flowers.draw_species(1, 0).forms))
    assert len(shapes | {other_seed}) == 201


def test_made_up_species_have_one_form_and_one_colour_and_resemble_no_target():
    species = [flowers.draw_species(0, index) for index in range(500)]
    assert {len(one.forms) for one in species} == {len(one.hues) for one in species} == {1}
    assert {form for one in species for form in one.forms} == set(flowers.FORM_RANGES)
    assert "clock" not in flowers.FORM_RANGES
    assert [(one, name) for one in species for name in NAMES if flowers.resembles(one, flowers.TARGETS[name])] == []


def test_made_up_species_that_resemble_a_target_are_thrown_away(monkeypatch):
    original = flowers.resembles
    verdicts = []

    def resembles(species, target):
        verdicts.append(original(species, target))
        return verdicts[-1]

    monkeypatch.setattr(flowers, "resembles", resembles)
    for index in range(200):
        flowers.draw_species(0, index)
    assert 0 < sum(verdicts) < 200


@pytest.mark.parametrize("name", NAMES)
def test_a_target_resembles_itself_and_whatever_overlaps_it(name):
    target = flowers.TARGETS[name]
    assert flowers.resembles(target, target)
    touching = dataclasses.replace(target, petals=(target.petals[1], target.petals[1] + 9))
    assert flowers.resembles(touching, target)
    assert flowers.resembles(target, touching)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("changed", ["petals", "rings", "width", "disc", "forms"])
def test_one_disjoint_range_or_no_common_form_ends_the_resemblance(name, changed):
    target = flowers.TARGETS[name]
    other = {"none": 1} if changed == "forms" else tuple(end + 100 for end in getattr(target, changed))
    assert not flowers.resembles(dataclasses.replace(target, **{changed: other}), target)


def test_every_made_up_species_can_be_drawn():
    for index in range(40):
        picture = flowers.draw_flower(flowers.draw_species(1, index), 0, index, 32)
        assert picture.std() > 2


def test_unknown_target_names_the_known_ones():
    with pytest.raises(ValueError, match=r"one of \['daisy', .*Received: species='orchid'"):
        flowers.draw_flower("orchid", 0, 0)
