"""Synthetic images of weeds, from above, in the clutter of a field: the same for a seed and an index.

Eight weeds are rows of ranges; the ninth class shows a field with other plants and none of the eight. Parkinsonia and
prickly acacia share their feathery leaves, Siam weed and snake weed their outline.
"""

from dataclasses import dataclass

import numpy as np
from PIL import ImageDraw

from tlhelpers.synthetic import canvas


@dataclass(frozen=True)
class Weed:
    """What weeds of one kind have in common; a pair of numbers is the range a single plant is drawn from.

    Args:
        pairs: pair of int. Leaves, or leaflets, along one side of a shoot.
        leaf: pair of float. A leaf's length as a share of the shoot's.
        width: pair of float. A leaf's width as a share of its length.
        tip: pair of float. Where a leaf is widest, as a share of its length.
        angle: pair of float. Between leaf and shoot, radians.
        hue: triple of float in 0..1. The leaves' colour.
        flower: triple of float in 0..1. The flowers' colour.
        flowering: float. How often flowers show.
        heads: pair of int. Flowers of one plant.
        size: pair of float. A flower's radius as a share of the shoot's length.
    """

    pairs: tuple
    leaf: tuple
    width: tuple
    tip: tuple
    angle: tuple
    hue: tuple
    flower: tuple
    flowering: float
    heads: tuple
    size: tuple


WEEDS = {
    "chinee_apple": Weed(
        (4, 6),
        (0.28, 0.36),
        (0.65, 0.8),
        (0.45, 0.55),
        (0.9, 1.3),
        (0.27, 0.6, 0.5),
        (0.1, 0.8, 0.7),
        0.35,
        (2, 5),
        (0.06, 0.1),
    ),
    "lantana": Weed(
        (4, 6),
        (0.35, 0.45),
        (0.5, 0.65),
        (0.35, 0.45),
        (0.9, 1.2),
        (0.3, 0.55, 0.4),
        (0.95, 0.6, 0.95),
        0.9,
        (2, 5),
        (0.12, 0.18),
    ),
    "parkinsonia": Weed(
        (13, 18),
        (0.06, 0.1),
        (0.4, 0.6),
        (0.5, 0.6),
        (1.2, 1.5),
        (0.22, 0.6, 0.65),
        (0.15, 0.85, 0.98),
        0.85,
        (2, 6),
        (0.08, 0.12),
    ),
    "parthenium": Weed(
        (5, 7),
        (0.3, 0.42),
        (0.22, 0.34),
        (0.6, 0.75),
        (0.6, 0.9),
        (0.26, 0.35, 0.6),
        (0.12, 0.03, 0.98),
        0.9,
        (8, 18),
        (0.03, 0.05),
    ),
    "prickly_acacia": Weed(
        (14, 20),
        (0.1, 0.16),
        (0.25, 0.4),
        (0.5, 0.6),
        (1.1, 1.4),
        (0.28, 0.6, 0.45),
        (0.15, 0.8, 0.95),
        0.5,
        (2, 6),
        (0.05, 0.08),
    ),
    "rubber_vine": Weed(
        (4, 6),
        (0.38, 0.5),
        (0.4, 0.5),
        (0.5, 0.6),
        (1.1, 1.4),
        (0.33, 0.75, 0.4),
        (0.9, 0.2, 0.95),
        0.8,
        (1, 3),
        (0.14, 0.2),
    ),
    "siam_weed": Weed(
        (4, 6),
        (0.36, 0.46),
        (0.38, 0.5),
        (0.3, 0.4),
        (0.8, 1.1),
        (0.24, 0.6, 0.55),
        (0.85, 0.15, 0.95),
        0.7,
        (4, 9),
        (0.05, 0.08),
    ),
    "snake_weed": Weed(
        (5, 7),
        (0.32, 0.42),
        (0.38, 0.5),
        (0.35, 0.5),
        (0.8, 1.1),
        (0.3, 0.5, 0.5),
        (0.7, 0.55, 0.85),
        0.75,
        (3, 7),
        (0.03, 0.06),
    ),
}
NEGATIVE = "negative"


def draw_weed(name, seed, index, size=128):
    """Draws one synthetic image of a weed, or of a field without one.

    Args:
        name: str. A key of `WEEDS`, or `"negative"`.
        seed, index, size: int. As for `flowers.draw_flower`.

    Returns:
        uint8 array `(size, size, 3)` in 0..255.
    """
    rng = canvas.begin((*WEEDS, NEGATIVE), name, seed, index)
    side = size * canvas.SUPERSAMPLING
    picture = canvas.background(rng, side)
    draw = ImageDraw.Draw(picture, "RGBA")
    _draw_grass(draw, rng, side, int(rng.integers(3, 15)))
    for _ in range(int(rng.integers(2, 5)) if name != NEGATIVE else int(rng.integers(0, 3))):
        plant = WEEDS[name] if name != NEGATIVE else _made_up(rng)
        _draw_plant(draw, rng, plant, side * rng.uniform(0.15, 0.85, 2), side * rng.uniform(0.3, 0.55))
    _draw_grass(draw, rng, side, int(rng.integers(0, 4)))
    canvas.occlude(picture, rng, side)
    return canvas.photograph(picture, rng, size, rng.uniform(0.55, 1.2))


def _made_up(rng):
    """A plant that is none of the eight: broad leaves in a few pairs, or blades."""
    width = rng.uniform(0.08, 0.18) if rng.random() < 0.5 else rng.uniform(0.85, 1.1)
    hue = (rng.uniform(0.15, 0.4), rng.uniform(0.2, 0.8), rng.uniform(0.3, 0.7))
    colour = (rng.random(), rng.uniform(0.2, 0.9), 0.9)
    return Weed((2, 4), (0.3, 0.55), (width, width), (0.4, 0.8), (0.4, 1.4), hue, colour, 0.2, (1, 4), (0.05, 0.15))


def _draw_grass(draw, rng, side, count):
    dry = rng.uniform(0.08, 0.3)
    for _ in range(count):
        place = canvas.Frame(rng.uniform(0, side, 2), side * rng.uniform(0.2, 0.6), rng.uniform(0, 2 * np.pi), 1.0, 0.0)
        hue = (dry + rng.normal(0, 0.03), rng.uniform(0.2, 0.6), rng.uniform(0.3, 0.8))
        draw.polygon(
            place.points(canvas.petal_outline(1, rng.uniform(0.02, 0.06), 0.4)), fill=canvas.near_colour(rng, hue)
        )


def _draw_plant(draw, rng, weed, centre, length):
    """A few shoots from one foot, then the flowers."""
    start = rng.uniform(0, 2 * np.pi)
    shoots = int(rng.integers(2, 5))
    hue = rng.normal(weed.hue, (0.015, 0.06, 0.06))
    for shoot in range(shoots):
        turn = start + 2 * np.pi * shoot / shoots + rng.normal(0, 0.25)
        _draw_shoot(draw, rng, weed, canvas.Frame(centre, length * rng.uniform(0.7, 1.1), turn, 1.0, 0.0), hue)
    if rng.random() < weed.flowering:
        for _ in range(int(rng.integers(weed.heads[0], weed.heads[1] + 1))):
            radius = length * rng.uniform(*weed.size)
            place = canvas.Frame(centre + rng.normal(0, 0.35 * length, 2), radius, 0.0, rng.uniform(0.7, 1.0), 0.0)
            draw.polygon(place.points(canvas.circle(1.0, 9)), fill=canvas.near_colour(rng, weed.flower))


def _draw_shoot(draw, rng, weed, place, hue):
    count = int(rng.integers(weed.pairs[0], weed.pairs[1] + 1))
    stalk = canvas.near_colour(rng, hue, value=0.7)
    draw.line(place.points(np.array([[0.0, 0.0], [1.0, 0.0]])), fill=stalk, width=max(1, int(0.02 * place.radius)))
    angle, leaf = rng.uniform(*weed.angle), rng.uniform(*weed.leaf)
    sides = [canvas.rotation(side * angle).T for side in (-1, 1)]
    for at in np.linspace(0.12, 1.0, count):
        for turn in sides:
            outline = canvas.petal_outline(leaf * (1.1 - 0.3 * at), rng.uniform(*weed.width), rng.uniform(*weed.tip))
            turned = outline @ turn + np.array([at, 0.0])
            draw.polygon(place.points(turned), fill=canvas.near_colour(rng, hue, value=rng.uniform(0.8, 1.1)))
