"""Finds images that are the same, to the byte or nearly so to the eye, and says when that cannot be told."""

from pathlib import Path
from typing import NamedTuple

import imagehash
import numpy as np
import pandas as pd
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from tlhelpers import images, parallel
from tlhelpers.datasets import studies

COMPARED_AT_ONCE = 4096  # perceptual hashes; a square of theirs is 64 MiB

# How much two downscaled images may differ, once their brightness and contrast are matched: of 255, or as a share.
SMALL_SIDE = 16
LARGEST_SHIFT = 24  # of the mean of a colour
CONTRAST = (0.75, 4 / 3)
LARGEST_SHARE = 0.25  # RMS of the difference, as a share of the smaller standard deviation
LARGEST_DIFFERENCE = 48  # of one pixel
LEAST_STRUCTURE, FLAT_DIFFERENCE = 8, 2  # below this standard deviation hardly a value may differ
PAIRS_AT_ONCE, MOST_PAIRS = 2048, 2_000_000

# Above these shares of all images, the method is doubted and not the images.
DOUBTED_CANDIDATES, DOUBTED_SHARE, DOUBTED_GROUP = 0.1, 1 / 3, 1 / 2


class Found(NamedTuple):
    """The duplicates among some files.

    Args:
        group: int array `(n,)`. Files that are exact or near duplicates of each other share it.
        two_classes: bool array `(n,)`. Whether a file is the same as one of another class.
        doubt: str. Why near duplicates were left out, or an empty string.
    """

    group: np.ndarray
    two_classes: np.ndarray
    doubt: str = ""


def perceptual_hash(image):
    """The pHash and the dHash of an image, bool array `(2, 64)`."""
    return np.stack([imagehash.phash(image).hash.ravel(), imagehash.dhash(image).hash.ravel()])


def group_duplicates(sha256, hashes, *, near_duplicate_bits=studies.NEAR_DUPLICATE_BITS):
    """Groups files that are the same to the byte or whose perceptual hashes are nearly the same.

    Two images are near duplicates when both their pHash and their dHash differ in at most
    `near_duplicate_bits` of 64 bits; groups are the connected components.

    Args:
        sha256: sequence of str.
        hashes: sequence of bool arrays `(2, 64)`, None for a file that is no image.
        near_duplicate_bits: int or None. None groups identical files alone.

    Returns:
        int array `(n,)`. The group of each file.
    """
    pairs = [_exact_pairs(sha256), _near_pairs(hashes, near_duplicate_bits)]
    return _components(np.concatenate(pairs, axis=1), len(sha256))


def find_duplicates(table, hashes, *, near_duplicate_bits, mode):
    """Finds the duplicates among images that nobody has reviewed.

    Images with similar hashes are compared once more: near duplicates also have nearly the same pixels when they are
    downscaled. An image is of two classes when it is itself the same as one of another class, and not through others.

    Args:
        table: pandas.DataFrame with `path`, `label` and `sha256`.
        hashes: sequence of bool arrays `(2, 64)`, None for a file that is no image.
        near_duplicate_bits: int or None. See `group_duplicates`.
        mode: str. One of `studies.NEAR_DUPLICATES`. `"auto"` leaves near duplicates out where they are so many that
            the method is doubted.

    Returns:
        Found.
    """
    label, content = (pd.factorize(table[column])[0] for column in ("label", "sha256"))
    exact = _exact_pairs(content)
    readable = np.array([image_hash is not None for image_hash in hashes], dtype=bool)
    candidates = _near_pairs(hashes, None if mode == "off" else near_duplicate_bits)
    if mode == "auto" and candidates.shape[1] > MOST_PAIRS:
        return _found(exact, label, content, f"{candidates.shape[1]:,} pairs of pictures have alike perceptual hashes")
    near = candidates[:, _show_the_same(table["path"], candidates)]
    doubt = _why_doubted(candidates, near, label, content, readable) if mode == "auto" else ""
    return _found(exact if doubt else np.concatenate([exact, near], axis=1), label, content, doubt)


def _found(pairs, label, content, doubt):
    return Found(_components(pairs, len(label)), _across(pairs, label, content), doubt)


def _why_doubted(candidates, near, label, content, readable):
    """Why the method cannot be trusted on these images, or an empty string."""
    if not candidates.size:
        return ""
    count = readable.sum()
    alike = pd.Series(label).groupby(_components(candidates, len(label))).transform("nunique").to_numpy() > 1
    alike, same = ((marked & readable).sum() / count for marked in (alike, _across(near, label, content)))
    largest = np.bincount(_components(near, len(label))[readable]).max() / count
    if same > DOUBTED_SHARE:
        return f"{same:.0%} of the pictures look the same as one of another class"
    if alike > DOUBTED_CANDIDATES and same < alike / 2:
        return f"{alike:.0%} of the pictures are linked by alike perceptual hashes to one of another class"
    if largest > DOUBTED_GROUP:
        return f"{largest:.0%} of the pictures look the same"
    return ""


def _exact_pairs(sha256):
    """Pairs of files that are the same to the byte, in a chain for each content: int array `(2, pairs)`."""
    codes = pd.factorize(np.asarray(sha256))[0]
    order = np.argsort(codes, kind="stable")
    same = np.flatnonzero(np.diff(codes[order]) == 0)
    return np.stack([order[same], order[same + 1]])


def _near_pairs(hashes, bits):
    """Pairs of images whose hashes are near: int array `(2, pairs)`."""
    readable = np.array([i for i, image_hash in enumerate(hashes) if image_hash is not None], dtype=int)
    if bits is None or not len(readable):
        return np.empty((2, 0), dtype=int)
    signs = np.stack([hashes[i] for i in readable]).astype(np.float32) * 2 - 1
    length, found = signs.shape[2], []
    for start in range(0, len(signs), COMPARED_AT_ONCE):
        block, rest = signs[start : start + COMPARED_AT_ONCE], signs[start:]
        near = np.ones((len(block), len(rest)), dtype=bool)
        for kind in range(signs.shape[1]):
            near &= (length - block[:, kind] @ rest[:, kind].T) / 2 <= bits
        found.append(readable[np.stack(np.nonzero(np.triu(near, 1))) + start])
    return np.concatenate(found, axis=1)


def _components(pairs, count):
    graph = coo_matrix((np.ones(pairs.shape[1]), tuple(pairs)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def _across(pairs, label, content):
    """Which files are the same as one of another class: in a pair with it, or to the byte; bool array."""
    marked = np.zeros(len(label), dtype=bool)
    marked[pairs[:, label[pairs[0]] != label[pairs[1]]]] = True
    marked |= pd.Series(label).groupby(content).transform("nunique").to_numpy() > 1
    return pd.Series(marked).groupby(content).transform("any").to_numpy()


def _show_the_same(paths, pairs):
    """Which pairs show nearly the same pixels, too: bool array `(pairs,)`."""
    needed = np.unique(pairs)
    if not len(needed):
        return np.zeros(0, dtype=bool)
    looked = parallel.map_over_cores(small_picture, list(paths.iloc[needed]), description="Comparing images")
    small = np.stack(list(looked))
    first, second = np.searchsorted(needed, pairs)
    same = [
        are_the_same(small[first[start : start + PAIRS_AT_ONCE]], small[second[start : start + PAIRS_AT_ONCE]])
        for start in range(0, len(first), PAIRS_AT_ONCE)
    ]
    return np.concatenate(same)


def small_picture(path):
    """A downscaled image: uint8 array `(SMALL_SIDE, SMALL_SIDE, 3)`; black where it can no longer be read."""
    _, _, image = images.open_image(Path(path))
    if image is None:
        return np.zeros((SMALL_SIDE, SMALL_SIDE, 3), np.uint8)
    return np.asarray(image.resize((SMALL_SIDE, SMALL_SIDE), Image.Resampling.BOX))


def are_the_same(first, second):
    """Whether downscaled images are the same except for brightness, contrast and the effects of re-encoding.

    Args:
        first: uint8 array `(n, side, side, 3)`.
        second: uint8 array of the same shape.

    Returns:
        bool array `(n,)`.
    """
    flat = [small.reshape(len(small), -1, 3).astype(np.float32) for small in (first, second)]
    means = [values.mean(axis=1, keepdims=True) for values in flat]
    first, second = (values - mean for values, mean in zip(flat, means, strict=True))
    shift = np.abs(means[0] - means[1]).max(axis=(1, 2))
    power = (second**2).sum(axis=(1, 2))
    gain = np.clip((first * second).sum(axis=(1, 2)) / np.maximum(power, 1e-6), *CONTRAST)
    rest = first - gain[:, None, None] * second
    structure = np.sqrt(np.minimum((first**2).mean(axis=(1, 2)), (second**2).mean(axis=(1, 2))))
    amount = np.sqrt((rest**2).mean(axis=(1, 2)))
    largest = np.abs(rest).mean(axis=2).max(axis=1)
    plain = structure < LEAST_STRUCTURE
    alike = (shift <= LARGEST_SHIFT) & (amount <= LARGEST_SHARE * structure) & (largest <= LARGEST_DIFFERENCE)
    return np.where(plain, (shift <= FLAT_DIFFERENCE) & (amount <= FLAT_DIFFERENCE), alike)
