"""Synthetic images of cartoon faces, 48 grey pixels a side: the same for a seed and an index, and nobody's.

An expression is a row of ranges for brows, eyes and mouth. How faces differ from each other in shape, shade, hair,
glasses, turn and light is more than how expressions do.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from tlhelpers.synthetic import canvas

SUPERSAMPLING = 4


@dataclass(frozen=True)
class Expression:
    """What faces with one expression have in common, in units of half a face; pairs are ranges.

    Args:
        brow: pair of float. How far the brows are raised.
        slant: pair of float. How far their inner ends hang below the outer ones; negative: stand above.
        eye: pair of float. How far the eyes are open.
        width: pair of float. Half the mouth's width.
        curve: pair of float. How far the corners of the mouth stand above its middle; negative: below.
        open: pair of float. How far the mouth is open.
        wrinkle: float. How often the nose is wrinkled.
    """

    brow: tuple
    slant: tuple
    eye: tuple
    width: tuple
    curve: tuple
    open: tuple
    wrinkle: float = 0.0


EXPRESSIONS = {
    "angry": Expression((-0.08, 0.02), (0.1, 0.2), (0.06, 0.12), (0.2, 0.34), (-0.12, -0.02), (0.0, 0.12), 0.2),
    "disgust": Expression((-0.06, 0.04), (0.04, 0.14), (0.04, 0.1), (0.18, 0.3), (-0.16, -0.05), (0.0, 0.1), 0.8),
    "fear": Expression((0.08, 0.18), (-0.14, -0.04), (0.14, 0.22), (0.18, 0.3), (-0.1, 0.0), (0.06, 0.2)),
    "happy": Expression((0.0, 0.1), (-0.05, 0.03), (0.05, 0.12), (0.28, 0.42), (0.1, 0.24), (0.0, 0.2)),
    "neutral": Expression((-0.02, 0.06), (-0.03, 0.04), (0.08, 0.14), (0.2, 0.32), (-0.04, 0.04), (0.0, 0.03)),
    "sad": Expression((0.0, 0.1), (-0.16, -0.05), (0.05, 0.12), (0.18, 0.3), (-0.16, -0.04), (0.0, 0.05)),
    "surprise": Expression((0.1, 0.22), (-0.06, 0.03), (0.15, 0.24), (0.12, 0.22), (-0.04, 0.04), (0.14, 0.32)),
}


def draw_face(name, seed, index, size=48):
    """Draws one synthetic image of a face with an expression.

    Args:
        name: str. A key of `EXPRESSIONS`.
        seed, index, size: int. As for `flowers.draw_flower`.

    Returns:
        uint8 array `(size, size, 3)` in 0..255; the channels are equal.
    """
    rng = canvas.begin(EXPRESSIONS, name, seed, index)
    side = size * SUPERSAMPLING
    picture = Image.new("L", (side, side), int(rng.uniform(20, 200)))
    centre = side * (0.5 + rng.normal(0, 0.04, 2))
    place = canvas.Frame(centre, side * rng.uniform(0.38, 0.48), rng.normal(0, 0.12), 1.0, 0.0)
    pencil = _Pencil(picture, rng, place)
    _draw_head(pencil)
    _draw_eyes(pencil, EXPRESSIONS[name])
    _draw_mouth(pencil, EXPRESSIONS[name])
    _draw_extras(pencil)
    return _photograph(picture, rng, size)


class _Pencil:
    """Draws shapes, given in the face's own coordinates, in shades of grey."""

    def __init__(self, picture, rng, place):
        self.draw, self.rng, self.place = ImageDraw.Draw(picture), rng, place
        self.skin, self.hair = rng.uniform(90, 225), rng.uniform(15, 200)
        self.length = rng.uniform(1.05, 1.3)

    def between(self, low, high):
        return self.rng.uniform(low, high)

    def chance(self, share):
        return self.rng.random() < share

    def oval(self, centre, width, height, shade):
        self.shape(canvas.circle(1.0) * [width, height] + centre, shade)

    def shape(self, points, shade):
        self.draw.polygon(self.place.points(np.asarray(points)), fill=int(np.clip(shade, 0, 255)))

    def line(self, points, shade, width):
        pixels = max(1, round(width * self.place.radius))
        points = self.place.points(np.asarray(points))
        self.draw.line(points, fill=int(np.clip(shade, 0, 255)), width=pixels, joint="curve")


def _draw_head(pencil):
    width = pencil.between(0.72, 0.88)
    pencil.oval((0, -0.15), width * pencil.between(1.0, 1.2), pencil.length * pencil.between(0.95, 1.1), pencil.hair)
    pencil.oval((0, 0), width, 0.85 * pencil.length, pencil.skin)
    fringe = pencil.between(-0.75, -0.5)
    pencil.shape(
        [(-width, fringe), (0, -1.1 * pencil.length), (width, fringe + pencil.between(-0.2, 0.1))], pencil.hair
    )


def _draw_eyes(pencil, expression):
    """Whites, pupils that look somewhere, and brows."""
    spread, height = pencil.between(0.28, 0.38), pencil.between(-0.22, -0.1)
    eye, look = pencil.between(*expression.eye), pencil.rng.normal(0, 0.03, 2)
    brow, slant = pencil.between(*expression.brow), pencil.between(*expression.slant)
    thick = pencil.between(0.03, 0.09)
    for side in (-1, 1):
        at = np.array([side * spread, height])
        pencil.oval(at, 0.16, eye, 235)
        pencil.oval(at + look, 0.07, min(0.08, eye), pencil.hair * 0.3)
        inner, outer = np.array([(-side * 0.17, slant - brow - 0.2), (side * 0.2, -brow - 0.2)]) + at
        pencil.line([inner, outer], min(pencil.hair, 0.6 * pencil.skin), thick)


def _draw_mouth(pencil, expression):
    """The nose, then the mouth as an open shape or a line."""
    pencil.line([(0, -0.05), (pencil.between(-0.1, 0.1), 0.2)], 0.7 * pencil.skin, 0.05)
    if pencil.chance(expression.wrinkle):
        for height in (0.0, 0.07):
            pencil.line([(-0.1, height - 0.03), (0, height), (0.1, height - 0.03)], 0.6 * pencil.skin, 0.03)
    width, curve = pencil.between(*expression.width), pencil.between(*expression.curve)
    gap, level = pencil.between(*expression.open), pencil.between(0.42, 0.52)
    x = np.linspace(-1, 1, 9)
    upper = np.stack([width * x, level + curve * (0.5 - x**2) - 0.5 * gap * (1 - x**2)], 1)
    lower = np.stack([width * x, level + curve * (0.5 - x**2) + 0.5 * gap * (1 - x**2)], 1)
    if gap > 0.05:
        pencil.shape([*upper, *lower[::-1]], 0.3 * pencil.skin)
        if pencil.chance(0.5):
            pencil.line(np.add(upper[2:-2], (0, 0.03)), 230, 0.05)
    pencil.line(upper, 0.45 * pencil.skin, 0.045)
    pencil.line(lower, 0.45 * pencil.skin, 0.045)


def _draw_extras(pencil):
    """Glasses, a moustache, freckles, in some faces."""
    if pencil.chance(0.2):
        for side in (-1, 1):
            pencil.line(canvas.circle(0.24)[[*range(20), 0]] + [side * 0.33, -0.15], 30, 0.03)
    if pencil.chance(0.15):
        pencil.oval((0, 0.3), pencil.between(0.2, 0.35), 0.06, pencil.hair)
    if pencil.chance(0.15):
        for _ in range(8):
            pencil.oval(pencil.rng.uniform((-0.5, -0.4), (0.5, 0.6)), 0.02, 0.02, 0.7 * pencil.skin)


def _photograph(picture, rng, size):
    """Blur, a light from one side, contrast and noise."""
    picture = picture.filter(ImageFilter.GaussianBlur(picture.width * rng.uniform(0.003, 0.014)))
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(picture.reduce(SUPERSAMPLING), dtype=np.float32)
    ramp = np.linspace(-1, 1, size)
    slope = rng.normal(0, 0.18, 2)
    shade = rng.uniform(0.6, 1.15) + slope[0] * ramp[:, None] + slope[1] * ramp[None, :]
    noise = rng.standard_normal((size, size)) * rng.uniform(2, 12)
    return np.repeat(np.clip(pixels * shade + noise, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
