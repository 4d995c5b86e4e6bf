"""Synthetic images of clothes: light garments on black, 28 pixels a side, the same for a seed and an index.

A garment is a row of ranges. Shirts share their ranges with T-shirts, pullovers and coats on purpose.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from tlhelpers.synthetic import canvas

SUPERSAMPLING = 4
NONE, SHORT, LONG = (0.0, 0.0), (0.25, 0.5), (0.8, 1.0)


@dataclass(frozen=True)
class Top:
    """What upper garments of one kind have in common, in units of half the image.

    Args:
        length: pair of float. From shoulder to hem.
        width: pair of float. Half the width at the chest.
        waist: pair of float. The waist's share of the chest's width.
        hem: pair of float. The hem's share of the chest's width.
        sleeves: tuple of pairs of float. The lengths that occur, as shares of an arm.
        open: float. How often it opens in front.
        collar: float. How often it has a collar.
        buttons: float. How often it has buttons.
    """

    length: tuple
    width: tuple
    waist: tuple
    hem: tuple
    sleeves: tuple
    open: float = 0.0
    collar: float = 0.0
    buttons: float = 0.0


@dataclass(frozen=True)
class Shoe:
    """What shoes of one kind have in common: the height of the shaft and the heel, and how often straps show."""

    shaft: tuple
    heel: tuple
    straps: float


TOPS = {
    "t_shirt": Top((1.4, 1.7), (0.42, 0.56), (0.9, 1.0), (0.95, 1.05), (SHORT,), buttons=0.08),
    "pullover": Top((1.4, 1.7), (0.42, 0.56), (0.92, 1.0), (0.9, 1.0), (LONG,), open=0.06, collar=0.15),
    "dress": Top((1.75, 1.9), (0.26, 0.42), (0.65, 0.9), (1.0, 1.7), (NONE, NONE, SHORT, LONG), collar=0.1),
    "coat": Top((1.5, 1.85), (0.42, 0.58), (0.88, 1.0), (0.95, 1.15), (LONG,), open=0.85, collar=0.6, buttons=0.4),
    "shirt": Top((1.4, 1.75), (0.4, 0.56), (0.85, 1.0), (0.92, 1.05), (SHORT, LONG, LONG), 0.3, 0.5, 0.45),
}
SHOES = {
    "sandal": Shoe((0.05, 0.3), (0.0, 0.5), 0.85),
    "sneaker": Shoe((0.1, 0.4), (0.0, 0.08), 0.03),
    "ankle_boot": Shoe((0.35, 0.95), (0.0, 0.4), 0.0),
}
OTHERS = ("trouser", "bag")


def draw_garment(name, seed, index, size=28):
    """Draws one synthetic image of a garment.

    Args:
        name: str. A key of `TOPS` or `SHOES`, `"trouser"` or `"bag"`.
        seed, index, size: int. As for `flowers.draw_flower`.

    Returns:
        uint8 array `(size, size, 3)` in 0..255; the channels are equal.
    """
    rng = canvas.begin((*TOPS, *SHOES, *OTHERS), name, seed, index)
    outline = Image.new("L", (size * SUPERSAMPLING,) * 2)
    pen = _Pen(outline, rng)
    if name in TOPS:
        _draw_top(pen, TOPS[name])
    elif name in SHOES:
        _draw_shoe(pen, SHOES[name])
    else:
        {"trouser": _draw_trouser, "bag": _draw_bag}[name](pen)
    return _photograph(outline, rng, size)


class _Pen:
    """Draws shapes, given from -1 to 1 across the image, in one shade and its darker lines."""

    def __init__(self, image, rng):
        self.draw, self.rng, self.half = ImageDraw.Draw(image), rng, image.width / 2
        self.shade = int(rng.uniform(90, 250))
        self.shift = rng.normal(0, 0.03, 2)
        self.turn = rng.normal(0, 0.04)

    def between(self, low, high):
        return self.rng.uniform(low, high)

    def chance(self, share):
        return self.rng.random() < share

    def points(self, points):
        turn = np.array([[1, self.turn], [-self.turn, 1]])
        return ((np.asarray(points) @ turn + self.shift + 1) * self.half).ravel().tolist()

    def fill(self, points, *, light=1.0):
        self.draw.polygon(self.points(points), fill=int(min(255, self.shade * light)))

    def line(self, points, *, light=0.55, width=0.05):
        shade = int(min(255, self.shade * light))
        self.draw.line(self.points(points), fill=shade, width=max(1, round(width * self.half)))

    def dot(self, point, radius, light=0.45):
        x, y = self.points([point])
        radius *= self.half
        self.draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=int(self.shade * light))


def _draw_top(pen, top):
    """Sleeves, body, neck, then what tells the kinds apart."""
    length, width = pen.between(*top.length), pen.between(*top.width)
    waist, hem = width * pen.between(*top.waist), width * pen.between(*top.hem)
    neck, start = pen.between(0.14, 0.24), -length / 2
    arm = pen.between(*top.sleeves[pen.rng.integers(len(top.sleeves))])
    for side in (-1, 1):
        _draw_sleeve(pen, side, width, start, arm)
    right = [(neck, start), (width, start + 0.12), (waist, start + 0.55 * length), (hem, start + length)]
    pen.fill([*right, *((-x, y) for x, y in reversed(right))])
    _draw_pattern(pen, width, start, length)
    depth = pen.between(0.06, 0.3)
    pen.draw.polygon(pen.points([(-neck, start - 0.02), (neck, start - 0.02), (0, start + depth)]), fill=0)
    if pen.chance(top.collar):
        for side in (-1, 1):
            pen.fill([(side * neck, start), (side * neck * 0.4, start + 0.22), (0, start + depth)], light=1.25)
    if pen.chance(top.open):
        pen.line([(0, start + depth), (pen.between(-0.05, 0.05), start + length)], light=0.3)
    if pen.chance(top.buttons):
        for share in np.arange(0.25, 0.9, 0.18):
            pen.dot((0.02, start + share * length), 0.03)


def _draw_sleeve(pen, side, width, start, arm):
    if not arm:
        return
    spread, thick = pen.between(0.1, 0.45), pen.between(0.2, 0.3)
    elbow = np.array([side * (width + spread * arm), start + 0.1 + 1.25 * arm])
    shoulder, armpit = (side * width * 0.85, start + 0.04), (side * width * 0.95, start + 0.2 + thick)
    pen.fill([shoulder, elbow, elbow - [side * thick * 0.9, -0.05], armpit], light=0.88)


def _draw_pattern(pen, width, start, length):
    """Stripes, a print, or nothing."""
    kind = pen.rng.integers(5)
    if kind == 0:
        for share in np.arange(0.2, 0.95, pen.between(0.1, 0.25)):
            pen.line([(-0.8 * width, start + share * length), (0.8 * width, start + share * length)], light=0.75)
    elif kind == 1:
        pen.dot((0, start + 0.4 * length), pen.between(0.1, 0.22), light=pen.between(0.4, 1.1))


def _draw_trouser(pen):
    waist, hem, length = pen.between(0.22, 0.36), pen.between(0.1, 0.2), pen.between(1.7, 1.9)
    gap, crotch, top = pen.between(0.02, 0.2), pen.between(0.3, 0.55), -length / 2
    for side in (-1, 1):
        foot = side * (gap + hem)
        inner = [(side * gap, -top), (0, top + crotch), (0, top)]
        pen.fill([(side * waist, top), (foot + side * hem, -top), *inner], light=1 - 0.08 * side)


def _draw_shoe(pen, shoe):
    """Seen from the side, the toe to the left: sole, upper, shaft, heel."""
    shaft, heel, toe = pen.between(*shoe.shaft), pen.between(*shoe.heel), pen.between(0.12, 0.25)
    floor = 0.35 + 0.4 * shaft
    ankle, back = pen.between(0.15, 0.35), 0.85
    top = floor - heel - 0.4 - shaft
    upper = [(-0.9, floor - 0.05), (-0.85, floor - toe), (-0.2, floor - 0.3 - 0.5 * heel), (ankle, top)]
    upper += [(back, top + pen.between(-0.05, 0.08)), (back, floor - 0.05 - heel), (0.1, floor - 0.04 - 0.4 * heel)]
    pen.fill(upper)
    if pen.chance(shoe.straps):
        for x in np.arange(-0.65, 0.7, pen.between(0.25, 0.4)):
            slant = pen.between(-0.15, 0.15)
            hole = [(x, floor - 0.14), (x + 0.16, floor - 0.14), (x + 0.16 + slant, -0.9), (x + slant, -0.9)]
            pen.draw.polygon(pen.points(hole), fill=0)
    sole = [(-0.92, floor - 0.06), (0.1, floor - 0.05 - 0.4 * heel), (back, floor - 0.06 - heel)]
    pen.line(sole, light=pen.between(0.5, 1.5), width=0.1)
    if heel:
        pen.fill([(back, floor - heel - 0.05), (back, floor), (back - 0.2, floor), (back - 0.28, floor - heel)])


def _draw_bag(pen):
    width, height, flare = pen.between(0.55, 0.9), pen.between(0.6, 1.2), pen.between(0.8, 1.1)
    top = pen.between(-0.35, 0.05)
    pen.fill([(-width * flare, top), (width * flare, top), (width, top + height), (-width, top + height)])
    reach, drop = pen.between(0.2, 0.6), pen.between(0.25, 0.55)
    handle = [(-reach, top), (-0.8 * reach, top - drop), (0.8 * reach, top - drop), (reach, top)]
    pen.line(handle, light=0.8, width=0.08)
    if pen.chance(0.6):
        pen.line([(-0.9 * width, top + 0.35 * height), (0.9 * width, top + 0.35 * height)], light=0.6)


def _photograph(outline, rng, size):
    """Folds, a light from one side, blur and noise; only the garment is lit, the ground stays black."""
    outline = outline.filter(ImageFilter.GaussianBlur(outline.width * rng.uniform(0.004, 0.012)))
    if rng.random() < 0.5:
        outline = outline.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(outline.reduce(SUPERSAMPLING), dtype=np.float32)
    coarse = Image.fromarray(rng.normal(1, 0.16, (6, 6)).astype(np.float32))
    folds = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))
    slope = 1 + rng.normal(0, 0.12) * np.linspace(-1, 1, size)
    noise = rng.standard_normal((size, size)) * rng.uniform(2, 14) * (pixels > 8)
    return np.repeat(np.clip(pixels * folds * slope + noise, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
