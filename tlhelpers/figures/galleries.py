"""Figures made of images: in a grid, with predictions, with heat maps."""

import matplotlib.pyplot as plt
import numpy as np

from tlhelpers import inputs
from tlhelpers.figures.lettering import LONGEST_NAME, as_label, lettered
from tlhelpers.figures.plotting import PALETTE, WIDTH

# Colours of text on white; the palette's vermilion is too light for that, so it is darkened.
RIGHT_COLOUR, WRONG_COLOUR = PALETTE[0], "#b84f00"
SHADE, HALF_HEAT = 0.65, 0.5
BESIDE_NAME = 8  # characters that a title has beside a class's name


@lettered
def plot_image_grid(images, titles, *, columns=6, colours=None):
    """Images in a grid, each under its title.

    Args:
        images: sequence of arrays `(height, width, 3)`, or grey ones `(height, width)` or `(height, width, 1)`, in
            0..255; real numbers that stay within 0..1 are shown as that.
        titles: sequence of str, one per image.
        columns: int, at least 1.
        colours: sequence of colours or None. The titles' colours, one per image.

    Returns:
        array of Axes, one per image.

    Raises:
        ValueError: when something is no image, or there is not one title and colour for each.
    """
    columns = inputs.check_whole(columns, name="columns", low=1)
    images = [inputs.as_shown(image, name=f"images[{index}]") for index, image in enumerate(images)]
    if len(titles) != len(images) or (colours is not None and len(colours) != len(images)):
        raise ValueError(
            f"Each image has one title and one colour. Received: {len(images)} images, {len(titles)} titles, "
            f"{'no' if colours is None else len(colours)} colours"
        )
    rows = max(1, -(-len(images) // columns))
    height = WIDTH / columns + (0.35 if any(titles) else 0.05)
    _, axes = plt.subplots(rows, columns, figsize=(WIDTH, height * rows), squeeze=False)
    colours = colours or ["0.15"] * len(images)
    for axis in axes.flat:
        axis.set_axis_off()
    if len(images) == 0:
        axes.flat[0].text(0, 0.5, "nothing to show", transform=axes.flat[0].transAxes)
    for axis, image, title, colour in zip(axes.flat, images, titles, colours, strict=False):  # axes are left over
        axis.imshow(image)
        axis.set_title(
            as_label(title, longest=LONGEST_NAME + BESIDE_NAME), color=colour, fontsize=8, fontweight="normal"
        )
    return axes.ravel()[: len(images)]


def plot_prediction_grid(images, y_true, y_prob, class_names, *, columns=6):
    """Images with their predicted and true class; wrong ones say so in words and colour.

    Args:
        images: sequence of uint8 arrays `(height, width, 3)` in 0..255.
        y_true: int array `(n,)`.
        y_prob: float array `(n, classes)`.
        class_names: sequence of str.
        columns: int.

    Returns:
        array of Axes, one per image.

    Raises:
        ValueError: when labels, probabilities and names do not fit each other.
    """
    class_names = inputs.check_class_names(class_names)
    if len(images):
        y_prob = inputs.check_probabilities(y_prob, count=len(images), classes=len(class_names))
        y_true = inputs.check_labels(y_true, classes=len(class_names))
    titles, colours = [], []
    for target, row in zip(y_true, y_prob, strict=True):
        predicted = row.argmax()
        right = predicted == target
        line = f"{class_names[predicted]} {row[predicted]:.0%}"
        titles.append(f"✓ {line}\n" if right else f"✗ {line}\ntrue: {class_names[target]}")
        colours.append(RIGHT_COLOUR if right else WRONG_COLOUR)
    return plot_image_grid(images, titles, columns=columns, colours=colours)


def plot_heat_maps(images, maps, titles, *, columns=6, colours=None):
    """Images in a grid, darkened where their heat map is cold, with a line around what is at least half as hot.

    Args:
        images: sequence of uint8 arrays `(height, width, 3)` in 0..255.
        maps: sequence of float arrays `(height, width)` in 0..1, as from `grad_cam`; None leaves an image bare.
        titles: sequence of str.
        columns: int.
        colours: sequence of colours or None. The titles' colours.

    Returns:
        array of Axes, one per image.
    """
    axes = plot_image_grid(images, titles, columns=columns, colours=colours)
    for axis, heat in zip(axes, maps, strict=True):
        if heat is not None:
            axis.imshow(np.zeros_like(heat), cmap="gray", vmin=0, vmax=1, alpha=SHADE * (1 - heat))
            if heat.max() > HALF_HEAT > heat.min():
                axis.contour(heat, levels=[HALF_HEAT], colors=[PALETTE[8]], linewidths=1)
    return axes
