"""Synthetic images of flowers, generated on the fly: the same for a seed and an index.

A species is a row of ranges. An image samples its flower from these ranges, then everything that makes photographs
hard: background, clutter, scale, position, turn and tilt, several blooms, occlusion, light, colour cast, blur, noise.
"""

from dataclasses import dataclass

import numpy as np
from PIL import ImageDraw

from tlhelpers.synthetic import canvas

JPEG_QUALITY = 88
UNTURNED = np.eye(2)
GOLDEN_ANGLE = np.pi * (3 - np.sqrt(5))


# The ranges from which species are made up, by form. Nobody makes up a clock: only the dandelion has one.
FORM_RANGES = {
    "rays": {"petals": (4, 36), "rings": (1, 4), "width": (0.07, 0.6), "disc": (0.0, 0.6)},
    "rosette": {"petals": (3, 9), "rings": (2, 6), "width": (0.6, 1.2), "disc": (0.0, 0.5)},
    "cup": {"petals": (3, 7), "rings": (1, 3), "width": (0.35, 0.9), "disc": (0.0, 0.1)},
}


@dataclass(frozen=True)
class Species:
    """What the flowers of one kind have in common. A pair of numbers is the range a single flower is drawn from.

    Args:
        name: str.
        forms: dict from a form (rays, rosette, cup or clock) to how often it occurs; the shares need not sum to one.
        hues: tuple of triples `(hue, saturation, value)` in 0..1: the petals' colour varieties.
        petals: pair of int. Petals of one ring.
        rings: pair of int. Rings of petals, one inside the other.
        width: pair of float. A petal's width as a share of its length.
        tip: pair of float. Where a petal is widest, as a share of its length: below 0.5 pointed, above it blunt.
        disc: pair of float. The radius of the disc as a share of the flower's.
        disc_hue: triple of float in 0..1. The disc's colour.
        leaf: pair of float. A leaf's width as a share of its length.
    """

    name: str
    forms: dict
    hues: tuple
    petals: tuple
    rings: tuple
    width: tuple
    tip: tuple
    disc: tuple
    disc_hue: tuple
    leaf: tuple


TARGETS = {
    "daisy": Species(
        "daisy",
        {"rays": 1},
        ((0.12, 0.04, 0.97), (0.12, 0.02, 0.92), (0.92, 0.18, 0.96)),
        (13, 24),
        (1, 2),
        (0.16, 0.28),
        (0.55, 0.75),
        (0.2, 0.32),
        (0.13, 0.85, 0.95),
        (0.25, 0.4),
    ),
    "dandelion": Species(
        "dandelion",
        {"rays": 0.6, "clock": 0.4},
        ((0.14, 0.9, 0.97), (0.155, 0.85, 0.95)),
        (26, 40),
        (3, 4),
        (0.07, 0.12),
        (0.7, 0.9),
        (0.0, 0.08),
        (0.13, 0.9, 0.85),
        (0.15, 0.3),
    ),
    "rose": Species(
        "rose",
        {"rosette": 0.8, "cup": 0.2},
        ((0.98, 0.85, 0.75), (0.95, 0.45, 0.92), (0.12, 0.25, 0.95), (0.13, 0.7, 0.95), (0.05, 0.55, 0.95)),
        (4, 6),
        (4, 6),
        (0.85, 1.2),
        (0.6, 0.8),
        (0.0, 0.06),
        (0.1, 0.5, 0.6),
        (0.45, 0.6),
    ),
    "sunflower": Species(
        "sunflower",
        {"rays": 1},
        ((0.13, 0.92, 0.98), (0.115, 0.95, 0.95), (0.09, 0.95, 0.85)),
        (18, 30),
        (1, 3),
        (0.2, 0.32),
        (0.35, 0.5),
        (0.36, 0.55),
        (0.07, 0.7, 0.3),
        (0.55, 0.75),
    ),
    "tulip": Species(
        "tulip",
        {"cup": 0.8, "rosette": 0.2},
        (
            (0.98, 0.88, 0.82),
            (0.93, 0.5, 0.95),
            (0.14, 0.8, 0.97),
            (0.78, 0.55, 0.65),
            (0.06, 0.8, 0.95),
            (0.1, 0.06, 0.97),
        ),
        (3, 5),
        (2, 3),
        (0.5, 0.75),
        (0.45, 0.6),
        (0.0, 0.1),
        (0.2, 0.4, 0.3),
        (0.12, 0.22),
    ),
}


def draw_flower(species, seed, index, size=96):
    """Draws one synthetic image of a species.

    Args:
        species: Species, or the name of one of `TARGETS`.
        seed: int. Names a set of images.
        index: int. Names an image within it; the same seed and index give the same image.
        size: int. Side of the square image, pixels.

    Returns:
        uint8 array `(size, size, 3)` in 0..255.

    Raises:
        ValueError: when there is no such target.
    """
    if isinstance(species, str):
        if species not in TARGETS:
            raise ValueError(f"A target is one of {sorted(TARGETS)}. Received: species={species!r}")
        species = TARGETS[species]
    rng = np.random.default_rng([seed, index, *species.name.encode()])
    side = size * canvas.SUPERSAMPLING
    scene = canvas.background(rng, side)
    light = rng.uniform(0.55, 1.15)
    blooms = 1 + int(rng.random() < 0.3) * int(rng.integers(1, 4))
    radius = side * rng.uniform(0.2, 0.46) / blooms**0.35
    hue = species.hues[rng.integers(len(species.hues))]
    for _ in range(blooms):
        spread = 0.12 if blooms == 1 else 0.33
        centre = side * (0.5 + rng.uniform(-spread, spread, 2))
        _draw_bloom(scene, rng, species, hue, centre, radius * rng.uniform(0.8, 1.1))
    canvas.occlude(scene, rng, side)
    return canvas.photograph(scene, rng, size, light)


def draw_species(seed, index):
    """Makes up a species that is none of `TARGETS` and shaped like none of them, for pretraining.

    Args:
        seed: int.
        index: int. The same seed and index give the same species.

    Returns:
        Species. It has one form, one of `FORM_RANGES`, and one colour.
    """
    rng = np.random.default_rng([seed, index])
    while True:
        species = _make_up(rng, f"species-{seed}-{index}")
        if not any(resembles(species, target) for target in TARGETS.values()):
            return species


def resembles(species, target):
    """Whether two species share a form and every range of petals, rings, widths and discs overlaps."""
    ranges = ("petals", "rings", "width", "disc")
    overlaps = (
        max(one[0], other[0]) <= min(one[1], other[1])
        for one, other in ((getattr(species, name), getattr(target, name)) for name in ranges)
    )
    return bool(species.forms.keys() & target.forms.keys()) and all(overlaps)


def _make_up(rng, name):
    form = str(rng.choice(list(FORM_RANGES)))
    ranges = FORM_RANGES[form]
    petals, rings = (int(rng.integers(low, high + 1)) for low, high in (ranges["petals"], ranges["rings"]))
    width, disc = rng.uniform(*ranges["width"]), rng.uniform(*ranges["disc"])
    tip, leaf = rng.uniform(0.3, 0.85), rng.uniform(0.1, 0.8)
    return Species(
        name,
        {form: 1},
        ((rng.random(), rng.beta(1, 0.8), rng.uniform(0.5, 1)),),
        (petals, petals + petals // 5),
        (rings, rings),
        (width * 0.9, width * 1.1),
        (tip - 0.03, tip + 0.03),
        (disc * 0.9, disc * 1.1),
        (rng.random(), rng.uniform(0.2, 1), rng.uniform(0.15, 0.95)),
        (leaf * 0.85, leaf * 1.15),
    )


def _draw_bloom(scene, rng, species, hue, centre, radius):
    """One flower with its stem and leaves."""
    shares = np.array(list(species.forms.values()))
    form = list(species.forms)[rng.choice(len(shares), p=shares / shares.sum())]
    draw = ImageDraw.Draw(scene, "RGBA")
    _stem(draw, rng, species, centre, radius, upright=form == "cup")
    tilt = rng.uniform(0.45, 1.0) if form != "cup" else 1.0
    place = canvas.Frame(centre, radius, rng.uniform(0, 2 * np.pi), tilt, rng.uniform(0, np.pi))
    {"rays": _rays, "rosette": _rosette, "cup": _cup, "clock": _clock}[form](draw, rng, species, hue, place)


def _draw_petal(draw, rng, hue, place, outline, shade, turn=UNTURNED):
    """A petal with a darker rim and a lighter middle."""
    red, green, blue, _ = colour = canvas.near_colour(rng, hue, value=shade)
    rim = (int(red * 0.72), int(green * 0.72), int(blue * 0.72), 255)
    draw.polygon(place.points(outline @ turn), fill=colour, outline=rim)
    middle = (min(255, red + 18), min(255, green + 18), min(255, blue + 18), 150)
    draw.polygon(place.points(outline * [0.92, 0.45] @ turn), fill=middle)


def _rays(draw, rng, species, hue, place):
    count = int(rng.integers(species.petals[0], species.petals[1] + 1))
    rings = int(rng.integers(species.rings[0], species.rings[1] + 1))
    width, tip = rng.uniform(*species.width), rng.uniform(*species.tip)
    disc = rng.uniform(*species.disc)
    for ring in range(rings):
        length = 1 - 0.22 * ring
        for k in range(count):
            angle = 2 * np.pi * (k + 0.5 * ring) / count + rng.normal(0, 0.04)
            outline = canvas.petal_outline(length * rng.uniform(0.88, 1.05), width, tip, start=disc * 0.6)
            shade = 0.86 + 0.07 * ring + rng.uniform(-0.05, 0.05)
            _draw_petal(draw, rng, hue, place, outline, shade, canvas.rotation(angle).T)
    _disc(draw, rng, species.disc_hue, place, disc)


def _disc(draw, rng, hue, place, radius):
    if radius < 0.03:
        return
    draw.polygon(place.points(canvas.circle(radius)), fill=canvas.near_colour(rng, hue, value=0.85))
    k = np.arange(1, 40)
    seeds = (radius * np.sqrt(k / 40))[:, None] * np.stack([np.cos(k * GOLDEN_ANGLE), np.sin(k * GOLDEN_ANGLE)], 1)
    dot = max(1.0, place.radius * radius * 0.07)
    places = place.points(seeds)
    for x, y in zip(places[::2], places[1::2], strict=True):
        draw.ellipse(
            [x - dot, y - dot, x + dot, y + dot], fill=canvas.near_colour(rng, hue, value=rng.uniform(0.55, 1.25))
        )


def _rosette(draw, rng, species, hue, place):
    """Wide petals wound around a centre, each ring smaller and darker."""
    rings = int(rng.integers(species.rings[0], species.rings[1] + 1))
    count = int(rng.integers(species.petals[0], species.petals[1] + 1))
    start = rng.uniform(0, 2 * np.pi)
    for ring in range(rings):
        radius = 1 - ring / (rings + 0.3)
        for k in range(count):
            angle = start + 2 * np.pi * k / count + ring * GOLDEN_ANGLE + rng.normal(0, 0.1)
            width = rng.uniform(*species.width)
            outline = canvas.petal_outline(radius * rng.uniform(0.9, 1.05), width * 1.1, 0.68)
            shade = 0.98 - 0.3 * ring / rings + rng.uniform(-0.08, 0.08)
            _draw_petal(draw, rng, hue, place, outline, shade, canvas.rotation(angle).T)
    _disc(draw, rng, (hue[0], hue[1], hue[2] * 0.6), place, rng.uniform(*species.disc) * 0.5)


def _cup(draw, rng, species, hue, place):
    """A flower seen from the side: petals that rise from one point, the ones in front last."""
    rings = int(rng.integers(species.rings[0], species.rings[1] + 1))
    count = int(rng.integers(species.petals[0], species.petals[1] + 1))
    upright = canvas.Frame(
        place.centre + np.array([0, place.radius * 0.55]), place.radius * 1.35, rng.normal(0, 0.25), 1.0, 0.0
    )
    opening = rng.uniform(0.25, 0.75)
    for ring in range(rings):
        fan = np.linspace(-opening, opening, count) * (1 - 0.35 * ring)
        for angle in fan[np.argsort(-np.abs(fan))]:
            outline = canvas.petal_outline(
                rng.uniform(0.9, 1.05), rng.uniform(*species.width), rng.uniform(*species.tip)
            )
            shade = 0.78 + 0.11 * ring + rng.uniform(-0.06, 0.06)
            _draw_petal(draw, rng, hue, upright, outline, shade, canvas.rotation(angle - np.pi / 2).T)


def _clock(draw, rng, species, hue, place):
    """A seed head: thin rays that end in a tuft."""
    rays = int(rng.integers(60, 90))
    for k in range(rays):
        length = np.sqrt((k + 1) / rays) * rng.uniform(0.92, 1.0)
        end = length * np.array([np.cos(k * GOLDEN_ANGLE), np.sin(k * GOLDEN_ANGLE)])
        x0, y0, x1, y1 = place.points(np.stack([end * 0.2, end]))
        draw.line([x0, y0, x1, y1], fill=(235, 235, 225, 110))
        tuft = place.radius * 0.07
        draw.ellipse([x1 - tuft, y1 - tuft, x1 + tuft, y1 + tuft], fill=(245, 245, 240, 95))
    _disc(draw, rng, (0.09, 0.4, 0.45), place, 0.12)


def _stem(draw, rng, species, centre, radius, *, upright):
    if not upright and rng.random() < 0.35:
        return
    foot = centre + radius * np.array([rng.normal(0, 0.25), rng.uniform(2.0, 3.5)])
    green = (rng.uniform(0.22, 0.36), rng.uniform(0.4, 0.75), rng.uniform(0.3, 0.6))
    draw.line(
        [*centre, *foot], fill=canvas.near_colour(rng, green), width=max(2, int(radius * rng.uniform(0.08, 0.14)))
    )
    for _ in range(int(rng.integers(1, 4))):
        origin = centre + (foot - centre) * rng.uniform(0.35, 0.9)
        place = canvas.Frame(
            origin, radius * rng.uniform(0.8, 1.6), -np.pi / 2 + rng.choice([-1, 1]) * rng.uniform(0.3, 1.2), 1.0, 0.0
        )
        _draw_petal(
            draw, rng, green, place, canvas.petal_outline(1, rng.uniform(*species.leaf), 0.45), rng.uniform(0.8, 1.1)
        )
