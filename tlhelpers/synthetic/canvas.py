"""What synthetic images share: frames that turn and tilt a shape, outlines, colours, backgrounds, and the camera.

An image is drawn larger than its final size; a simulated camera then adds light and its fall-off, a colour cast, blur
and noise.
"""

import colorsys
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SUPERSAMPLING = 2
ALONG = np.linspace(0, 1, 8)
THERE_AND_BACK = np.concatenate([ALONG, ALONG[::-1]])


@dataclass(frozen=True)
class Frame:
    """Where a thing stands and how it is turned: takes its own coordinates, in radii, to the canvas.

    Args:
        centre: float array `(2,)`. Pixels of the canvas.
        radius: float. One unit of the thing's own coordinates, pixels.
        turn: float. Radians.
        tilt: float in (0, 1]. How much the thing is foreshortened; 1 is seen from the front.
        towards: float. The direction in which it is foreshortened, radians.
    """

    centre: np.ndarray
    radius: float
    turn: float
    tilt: float
    towards: float

    @cached_property
    def _matrix(self):
        axes = rotation(self.towards)
        return self.radius * rotation(self.turn).T @ axes @ np.diag([1, self.tilt]) @ axes.T

    def points(self, points):
        """Points `(n, 2)` in the thing's coordinates, as `[x0, y0, x1, y1, …]` on the canvas."""
        return (points @ self._matrix + self.centre).ravel().tolist()


def begin(names, name, seed, index):
    """The random generator of one image: the same for a name, a seed and an index.

    Args:
        names: collection of str. What can be drawn.
        name: str.
        seed: int. Names a set of images.
        index: int. Names an image within it.

    Returns:
        numpy.random.Generator.

    Raises:
        ValueError: when the name is none of those that can be drawn.
    """
    if name not in names:
        raise ValueError(f"What is drawn here is one of {sorted(names)}. Received: name={name!r}")
    return np.random.default_rng([seed, index, *name.encode()])


def rotation(angle):
    """The matrix `(2, 2)` that turns points by an angle in radians."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, -sine], [sine, cosine]])


def petal_outline(length, width, tip, start=0.0):
    """The outline of a petal that points along x: widest at `tip` of its length."""
    half = 0.5 * width * length * np.sin(np.pi * ALONG ** (np.log(0.5) / np.log(min(max(tip, 0.2), 0.9)))) ** 0.8
    outline = np.empty((2 * len(ALONG), 2))
    outline[:, 0] = start + THERE_AND_BACK * (length - start)
    outline[: len(ALONG), 1] = half
    outline[len(ALONG) :, 1] = -half[::-1]
    return outline


def near_colour(rng, hue, *, value=1.0, spread=0.03, alpha=255):
    """An RGBA colour near a hue."""
    shift = (rng.standard_normal(3) * spread).tolist()
    hue, value = [float(part) for part in hue], float(value)  # with NumPy's numbers it takes three times as long
    h, s, v = (hue[0] + shift[0] / 3) % 1, hue[1] + shift[1], hue[2] * value + shift[2]
    rgb = colorsys.hsv_to_rgb(h, min(max(s, 0), 1), min(max(v, 0), 1))
    return (*(int(255 * channel) for channel in rgb), alpha)


def circle(radius, points=20):
    """The outline of a circle around the origin, float array `(points, 2)`."""
    angles = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return radius * np.stack([np.cos(angles), np.sin(angles)], 1)


def background(rng, full_side):
    """A ground out of doors, `full_side` pixels wide: soft patches of colour, then blades, leaves or specks."""
    side = full_side // SUPERSAMPLING
    base = np.array(colorsys.hsv_to_rgb(*_ground(rng)))
    coarse = int(rng.integers(3, 9))
    patches = (
        base + rng.normal(0, rng.uniform(0.03, 0.16), (coarse, coarse, 1)) + rng.normal(0, 0.04, (coarse, coarse, 3))
    )
    image = Image.fromarray((np.clip(patches, 0, 1) * 255).astype(np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    draw = ImageDraw.Draw(image, "RGBA")
    for _ in range(int(rng.integers(0, 28))):
        x, y = rng.uniform(0, side, 2)
        place = Frame(np.array([x, y]), side * rng.uniform(0.1, 0.5), rng.uniform(0, 2 * np.pi), 1.0, 0.0)
        hue = (rng.uniform(0.15, 0.42), rng.uniform(0.2, 0.8), rng.uniform(0.15, 0.7))
        draw.polygon(
            place.points(petal_outline(1, rng.uniform(0.04, 0.35), 0.5)),
            fill=near_colour(rng, hue, alpha=int(rng.integers(90, 230))),
        )
    for _ in range(int(rng.integers(0, 7))):
        x, y = rng.uniform(0, side, 2)
        dot = side * rng.uniform(0.01, 0.07)
        draw.ellipse(
            [x - dot, y - dot, x + dot, y + dot],
            fill=near_colour(rng, (rng.random(), rng.random(), rng.random()), alpha=150),
        )
    image = image.filter(ImageFilter.GaussianBlur(side * rng.uniform(0.0, 0.025)))
    return image.resize((full_side, full_side), Image.Resampling.BILINEAR)


def _ground(rng):
    """A ground's colour: mostly green, sometimes soil, sky, dark or pale."""
    kind = rng.choice(5, p=[0.5, 0.14, 0.12, 0.14, 0.1])
    low, high = (
        ((0.2, 0.25, 0.15), (0.4, 0.75, 0.55)),
        ((0.05, 0.25, 0.2), (0.1, 0.6, 0.5)),
        ((0.53, 0.15, 0.6), (0.62, 0.6, 0.95)),
        ((0.0, 0.0, 0.02), (1.0, 0.5, 0.2)),
        ((0.0, 0.0, 0.6), (1.0, 0.25, 0.95)),
    )[kind]
    return rng.uniform(low, high)


def occlude(canvas, rng, side):
    """Draws blades or leaves in front of the object, in some images."""
    draw = ImageDraw.Draw(canvas, "RGBA")
    for _ in range(int(rng.integers(1, 5)) if rng.random() < 0.3 else 0):
        place = Frame(rng.uniform(0, side, 2), side * rng.uniform(0.3, 0.8), rng.uniform(0, 2 * np.pi), 1.0, 0.0)
        hue = (rng.uniform(0.18, 0.4), rng.uniform(0.3, 0.8), rng.uniform(0.2, 0.6))
        draw.polygon(place.points(petal_outline(1, rng.uniform(0.04, 0.25), 0.5)), fill=near_colour(rng, hue))


def photograph(canvas, rng, size, light):
    """Adds blur, light and its fall-off, a colour cast and noise, and scales to the size asked for."""
    if rng.random() < 0.25:
        canvas = canvas.filter(ImageFilter.GaussianBlur(canvas.width * rng.uniform(0.004, 0.016)))
    if rng.random() < 0.5:
        canvas = canvas.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(canvas.reduce(SUPERSAMPLING), dtype=np.float32)
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    slope = rng.normal(0, 0.13, 2)
    shade = light + slope[0] * ramp[:, None] + slope[1] * ramp[None, :]
    cast = rng.normal(1, 0.07, 3).astype(np.float32)
    noise = rng.standard_normal((size, size, 1), dtype=np.float32) * rng.uniform(1, 11)
    contrast = rng.uniform(0.75, 1.15)
    pixels = (pixels * shade[:, :, None] * cast - 110) * contrast + 110 + noise
    return np.clip(pixels, 0, 255).astype(np.uint8)
