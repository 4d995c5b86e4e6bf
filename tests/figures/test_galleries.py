"""Figures made of pictures: every image under its own title, in readable colours."""

import io

import numpy as np
import pytest
from eight_pictures import HEAT, IMAGES, NAMES, READABLE, Y_PROB, Y_TRUE

from tlhelpers.figures import galleries, plotting


@pytest.mark.parametrize("colour", [galleries.RIGHT_COLOUR, galleries.WRONG_COLOUR])
def test_colours_of_titles_are_readable_on_white(colour):
    assert plotting.contrast_ratio(colour, "white") >= READABLE


@pytest.mark.parametrize(("count", "columns", "rows"), [(8, 6, 2), (6, 6, 1), (3, 6, 1), (8, 3, 3)])
def test_a_grid_has_a_title_over_each_image_and_empty_places_blank(count, columns, rows):
    titles = [f"image {index}" for index in range(count)]
    axes = galleries.plot_image_grid(IMAGES[:count], titles, columns=columns)
    assert [ax.get_title() for ax in axes] == titles
    for ax, image in zip(axes, IMAGES, strict=False):
        np.testing.assert_array_equal(ax.images[0].get_array(), image)
    every_place = axes[0].figure.axes
    assert len(every_place) == rows * columns
    assert not any(ax.axison for ax in every_place)
    assert not any(ax.images for ax in every_place[count:])


def test_titles_of_a_grid_take_the_given_colours():
    axes = galleries.plot_image_grid(IMAGES[:2], ["a", "b"], colours=["#112233", "#445566"])
    assert [ax.title.get_color() for ax in axes] == ["#112233", "#445566"]


GREY = np.arange(12).reshape(3, 4) * 20


@pytest.mark.parametrize(
    ("image", "shown"),
    [
        (GREY, np.stack([GREY] * 3, axis=-1)),
        (GREY[..., None].astype("float32"), np.stack([GREY] * 3, axis=-1)),
        (IMAGES[0].astype("float64"), IMAGES[0]),
        (IMAGES[0] / 255, IMAGES[0] / 255),
        (GREY > 100, np.stack([GREY > 100] * 3, axis=-1)),
    ],
)
def test_an_image_is_shown_right_in_every_form(image, shown):
    (ax,) = galleries.plot_image_grid([image], [""])
    np.testing.assert_array_equal(ax.images[0].get_array(), shown)


@pytest.mark.parametrize("image", [GREY[0], np.zeros((3, 4, 2)), GREY - 1, GREY * 2, GREY + np.nan, "abc"])
def test_what_is_no_image_is_not_shown(image):
    with pytest.raises(ValueError, match=r"An image has the shape.*Received: images\[1\] of shape"):
        galleries.plot_image_grid([GREY, image], ["", ""])


def test_an_image_without_a_title_or_a_colour_is_an_error():
    with pytest.raises(ValueError, match="Received: 2 images, 1 titles, no colours"):
        galleries.plot_image_grid(IMAGES[:2], ["a"])
    with pytest.raises(ValueError, match="Received: 2 images, 2 titles, 1 colours"):
        galleries.plot_image_grid(IMAGES[:2], ["a", "b"], colours=["red"])


def test_predictions_are_ticked_or_crossed_in_words_and_colour():
    axes = galleries.plot_prediction_grid(IMAGES, Y_TRUE, Y_PROB, NAMES)
    assert axes[0].get_title() == "✓ daisy 90%\n"
    assert axes[2].get_title() == "✗ rose 50%\ntrue: daisy"
    assert axes[6].get_title() == "✗ daisy 60%\ntrue: tulip"
    right = [ax.get_title().startswith("✓") for ax in axes]
    assert right == [True, True, False, False, True, True, False, True]
    colours = {True: galleries.RIGHT_COLOUR, False: galleries.WRONG_COLOUR}
    assert [ax.title.get_color() for ax in axes] == [colours[value] for value in right]
    assert galleries.RIGHT_COLOUR != galleries.WRONG_COLOUR


@pytest.mark.filterwarnings("error:Glyph")
def test_the_font_has_a_tick_and_a_cross():
    galleries.plot_prediction_grid(IMAGES, Y_TRUE, Y_PROB, NAMES)[0].figure.canvas.draw()


def test_every_prediction_needs_its_target():
    with pytest.raises(ValueError, match="zip"):
        galleries.plot_prediction_grid(IMAGES, Y_TRUE[:-1], Y_PROB, NAMES)


def test_heat_maps_darken_what_is_cold_and_draw_a_line_around_what_is_hot():
    bare, warm, cold = galleries.plot_heat_maps(IMAGES[:3], HEAT, list("abc"), columns=3)
    assert [ax.get_title() for ax in (bare, warm, cold)] == ["a", "b", "c"]
    for ax, image in zip((bare, warm, cold), IMAGES, strict=False):
        np.testing.assert_array_equal(ax.images[0].get_array(), image)
    assert [len(ax.images) for ax in (bare, warm, cold)] == [1, 2, 2]
    np.testing.assert_allclose(warm.images[1].get_alpha(), galleries.SHADE * (1 - HEAT[1]))
    np.testing.assert_allclose(cold.images[1].get_alpha(), galleries.SHADE)
    assert not warm.images[1].get_array().any()
    assert [len(ax.collections) for ax in (bare, warm, cold)] == [0, 1, 0]
    assert warm.collections[0].levels.tolist() == [galleries.HALF_HEAT]


def test_every_heat_map_needs_its_image():
    with pytest.raises(ValueError, match="zip"):
        galleries.plot_heat_maps(IMAGES[:3], HEAT[:2], list("abc"))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "names", [["$5", "$10", "$a_"], ["_a", "{0}", "b\\c"], ["猫", "قطة", "q" * 200], [" ", "%s", "x^y"]]
)
def test_pictures_are_shown_under_names_of_any_kind(names):
    images = np.zeros((3, 8, 8, 3), np.uint8)
    axes = galleries.plot_prediction_grid(images, [0, 1, 2], np.eye(3)[[1, 0, 2]], names)
    axes[0].figure.savefig(io.BytesIO(), format="png")
    assert all(axis.get_title() for axis in axes)
    assert max(len(line) for axis in axes for line in axis.get_title().splitlines()) < 60
