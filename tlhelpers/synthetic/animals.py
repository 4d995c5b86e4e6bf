"""Synthetic images of the heads of cats and dogs out of doors: the same for a seed and an index.

Both share coats, patterns, poses and light. What differs is the ears, the muzzle, the nose and the eyes, and even the
ears overlap: some dogs prick them up, some cats fold them.
"""

from dataclasses import dataclass

import numpy as np
from PIL import ImageDraw

from tlhelpers.synthetic import canvas

COATS = (
    (0.07, 0.6, 0.75), (0.09, 0.35, 0.9), (0.06, 0.55, 0.4), (0.1, 0.1, 0.92), (0.6, 0.08, 0.45), (0.05, 0.3, 0.2),
)  # fmt: skip
EYES = ((0.12, 0.8, 0.8), (0.25, 0.6, 0.7), (0.08, 0.7, 0.4), (0.55, 0.4, 0.8))
PATTERNS = ("plain", "patch", "stripes", "mask")


@dataclass(frozen=True)
class Animal:
    """What heads of one kind have in common, in units of half a head; pairs are ranges.

    Args:
        height: pair of float. The head's height as a share of its width.
        pricked: float. How often the ears stand upright.
        ear: pair of float. An ear's length.
        ear_width: pair of float. Half the width of an ear's foot.
        muzzle: pair of float. Half the width of the muzzle.
        nose: pair of float. Half the width of the nose.
        eye: pair of float. Half the width of an eye.
        slit: float. How often the pupil is a slit.
        tongue: float. How often the tongue shows.
        whiskers: float. How often whiskers show.
    """

    height: tuple
    pricked: float
    ear: tuple
    ear_width: tuple
    muzzle: tuple
    nose: tuple
    eye: tuple
    slit: float
    tongue: float
    whiskers: float


ANIMALS = {
    "cats": Animal(
        (0.78, 0.92), 0.97, (0.65, 0.95), (0.28, 0.38), (0.3, 0.42), (0.08, 0.13), (0.17, 0.25), 0.7, 0.05, 0.8
    ),
    "dogs": Animal((0.98, 1.2), 0.1, (0.6, 1.1), (0.24, 0.4), (0.42, 0.6), (0.17, 0.26), (0.11, 0.18), 0.0, 0.35, 0.1),
}


def draw_animal(name, seed, index, size=128):
    """Draws one synthetic image of a cat or a dog.

    Args:
        name: str. A key of `ANIMALS`.
        seed, index, size: int. As for `flowers.draw_flower`.

    Returns:
        uint8 array `(size, size, 3)` in 0..255.
    """
    rng = canvas.begin(ANIMALS, name, seed, index)
    side = size * canvas.SUPERSAMPLING
    picture = canvas.background(rng, side)
    centre = side * (0.5 + rng.uniform(-0.1, 0.1, 2))
    place = canvas.Frame(centre, side * rng.uniform(0.26, 0.38), rng.normal(0, 0.18), rng.uniform(0.85, 1.0), 0.0)
    _draw_head(_Brush(picture, rng, place), ANIMALS[name])
    canvas.occlude(picture, rng, side)
    return canvas.photograph(picture, rng, size, rng.uniform(0.6, 1.15))


class _Brush:
    """Draws shapes, given in the head's own coordinates, in colours near a coat's."""

    def __init__(self, picture, rng, place):
        self.draw, self.rng, self.place = ImageDraw.Draw(picture, "RGBA"), rng, place
        self.coat = COATS[rng.integers(len(COATS))]

    def between(self, low, high):
        return self.rng.uniform(low, high)

    def chance(self, share):
        return self.rng.random() < share

    def shape(self, points, hue=None, *, value=1.0, alpha=255):
        colour = canvas.near_colour(self.rng, hue or self.coat, value=value, spread=0.015, alpha=alpha)
        self.draw.polygon(self.place.points(np.asarray(points)), fill=colour)

    def oval(self, centre, width, height, hue=None, **options):
        self.shape(canvas.circle(1.0) * [width, height] + centre, hue, **options)

    def line(self, points, value):
        colour = canvas.near_colour(self.rng, (0, 0, value), alpha=170)
        self.draw.line(self.place.points(np.asarray(points)), fill=colour, width=max(1, int(0.03 * self.place.radius)))


def _draw_head(brush, animal):
    """Body, ears behind, head, pattern, ears in front, face."""
    height = brush.between(*animal.height)
    brush.oval((0, 1.6), brush.between(0.8, 1.1), 1.1, value=0.85)
    pricked = brush.chance(animal.pricked)
    ear, foot = brush.between(*animal.ear), brush.between(*animal.ear_width)
    if pricked:
        _draw_pricked_ears(brush, height, ear, foot)
    brush.oval((0, 0), 1.0, height)
    _draw_pattern(brush, height)
    if not pricked:
        _draw_hanging_ears(brush, height, ear, foot)
    _draw_face(brush, animal, height)


def _draw_pricked_ears(brush, height, ear, foot):
    spread = brush.between(0.5, 0.7)
    for side in (-1, 1):
        tip = np.array([side * (spread + 0.15), -0.75 * height - ear])
        base = [(side * (spread - foot), -0.7 * height), (side * (spread + foot), -0.55 * height)]
        brush.shape([base[0], tip, base[1]], value=0.9)
        brush.shape(0.6 * np.array([base[0], tip, base[1]]) + 0.4 * np.mean([*base, tip], axis=0), (0.98, 0.3, 0.75))


def _draw_hanging_ears(brush, height, ear, foot):
    drop = brush.between(-0.2, 0.35)
    for side in (-1, 1):
        outline = canvas.petal_outline(1.3 * ear, 1.3 * foot / ear, 0.65) @ canvas.rotation(np.pi / 2 - side * drop).T
        brush.shape(outline + np.array([side * 0.8, -0.6 * height]), value=0.75)


def _draw_pattern(brush, height):
    kind = PATTERNS[brush.rng.integers(len(PATTERNS))]
    if kind == "patch":
        side = brush.rng.choice([-1, 1])
        brush.oval((side * 0.45, -0.3 * height), 0.45, 0.5 * height, COATS[brush.rng.integers(len(COATS))])
    elif kind == "stripes":
        for x in (-0.3, -0.1, 0.1, 0.3):
            brush.shape([(x - 0.05, -0.95 * height), (x + 0.05, -0.95 * height), (0.7 * x, -0.45 * height)], value=0.55)
    elif kind == "mask":
        brush.oval((0, 0.35 * height), 0.55, 0.6 * height, (0.1, 0.06, 0.93))


def _draw_face(brush, animal, height):
    muzzle, nose, eye = (brush.between(*span) for span in (animal.muzzle, animal.nose, animal.eye))
    spread, hue = brush.between(0.36, 0.48), EYES[brush.rng.integers(len(EYES))]
    for side in (-1, 1):
        at = (side * spread, -0.15 * height)
        brush.oval(at, eye, eye * brush.between(0.7, 1.0), hue)
        brush.oval(at, eye * (0.25 if brush.chance(animal.slit) else 0.6), eye * 0.75, (0, 0, 0.05))
    low = 0.42 * height
    brush.oval((0, low), muzzle, 0.8 * muzzle, value=1.15)
    brush.oval((0, low - 0.4 * muzzle), nose, 0.75 * nose, (0.98, brush.between(0, 0.4), brush.between(0.05, 0.5)))
    brush.line([(0, low - 0.3 * muzzle), (0, low + 0.25 * muzzle)], 0.1)
    if brush.chance(animal.tongue):
        brush.oval((0.05, low + 0.75 * muzzle), 0.3 * muzzle, 0.45 * muzzle, (0.97, 0.55, 0.85))
    if brush.chance(animal.whiskers):
        for side in (-1, 1):
            for rise in (-0.15, 0.0, 0.15):
                brush.line([(side * 0.2, low), (side * 1.15, low + rise)], 0.95)
