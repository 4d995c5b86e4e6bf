"""Eight pictures, their classes and what a model says of them, for figures to show."""

import numpy as np

NAMES = ("daisy", "rose", "tulip")
Y_TRUE = np.array([0, 0, 0, 0, 1, 1, 2, 2])
Y_PROB = np.array(
    [
        [0.9, 0.05, 0.05],
        [0.7, 0.2, 0.1],
        [0.2, 0.5, 0.3],
        [0.1, 0.1, 0.8],
        [0.1, 0.8, 0.1],
        [0.3, 0.6, 0.1],
        [0.6, 0.3, 0.1],
        [0.0, 0.1, 0.9],
    ]
)
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 3), dtype=np.uint8)
READABLE = 4.5  # contrast of text, by WCAG 2
# No heat map, a warm corner, nothing warm.
HEAT = [None, np.outer(np.linspace(0, 1, 6), np.linspace(0, 1, 6)), np.zeros((6, 6))]
