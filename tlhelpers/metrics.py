"""How good a model is, how sure, and how far the number would move on other images."""

import numpy as np
from scipy import stats
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

CALIBRATION_BINS = 15
CONFIDENCE_LEVEL = 0.95
BOOTSTRAP_SAMPLES = 2000
TOP_CONFUSIONS = 3


def evaluate(y_true, y_prob, class_names):
    """The metrics every record holds.

    Args:
        y_true: int array `(n,)`, indices of `class_names`.
        y_prob: float array `(n, classes)`; rows sum to one.
        class_names: sequence of str.

    Returns:
        dict with `accuracy`, `macro_precision`, `macro_recall`, `macro_f1`, `ece` (floats in 0..1) and `per_class`,
        which maps a class to its `precision`, `recall`, `f1` and `support`.

    Raises:
        ValueError: when the shapes do not fit each other.
    """
    y_true, y_prob = np.asarray(y_true), np.asarray(y_prob)
    if y_prob.shape != (len(y_true), len(class_names)):
        raise ValueError(
            f"y_prob has one row per image and one column per class: {(len(y_true), len(class_names))}. "
            f"Received: y_prob.shape={y_prob.shape}"
        )
    y_pred = y_prob.argmax(axis=1)
    indices = np.arange(len(class_names))
    columns = precision_recall_fscore_support(y_true, y_pred, labels=indices, zero_division=0)
    per_class = {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
        for name, p, r, f, n in zip(class_names, *columns, strict=True)
    }
    precision, recall, f1 = (float(np.mean(column)) for column in columns[:3])
    return {
        "accuracy": float(accuracy_score(y_true, y_pred)),
        "macro_precision": precision,
        "macro_recall": recall,
        "macro_f1": f1,
        "ece": expected_calibration_error(y_true, y_prob),
        "per_class": per_class,
    }


def expected_calibration_error(y_true, y_prob, *, bins=CALIBRATION_BINS):
    """The mean gap between how sure a model is and how often it is right.

    Args:
        y_true: int array `(n,)`.
        y_prob: float array `(n, classes)`.
        bins: int. Equally wide bins of confidence.

    Returns:
        float in 0..1; 0 is perfectly calibrated.

    Source:
        Guo et al. 2017, https://arxiv.org/abs/1706.04599.
    """
    table = reliability_table(y_true, y_prob, bins=bins)
    return float(np.sum(table["share"] * np.abs(table["accuracy"] - table["confidence"])))


def reliability_table(y_true, y_prob, *, bins=CALIBRATION_BINS):
    """Confidence against accuracy in equally wide bins of confidence.

    Args:
        y_true: int array `(n,)`.
        y_prob: float array `(n, classes)`.
        bins: int.

    Returns:
        dict of float arrays, one entry per bin that holds an image: `confidence`, `accuracy`, `share` (of images).
    """
    y_true, y_prob = np.asarray(y_true), np.asarray(y_prob, dtype=float)
    confidence = y_prob.max(axis=1)
    correct = (y_prob.argmax(axis=1) == y_true).astype(float)
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    counts = np.bincount(index, minlength=bins)
    filled = counts > 0
    return {
        "confidence": np.bincount(index, confidence, bins)[filled] / counts[filled],
        "accuracy": np.bincount(index, correct, bins)[filled] / counts[filled],
        "share": counts[filled] / len(y_true),
    }


def bootstrap_interval(y_true, y_prob, *, seed=0, samples=BOOTSTRAP_SAMPLES):
    """A 95 % interval of the accuracy over other draws of test images.

    Args:
        y_true: int array `(n,)`.
        y_prob: float array `(n, classes)`.
        seed: int.
        samples: int. Resamples.

    Returns:
        tuple of two floats in 0..1.
    """
    correct = np.asarray(y_prob).argmax(axis=1) == np.asarray(y_true)
    draws = np.random.default_rng(seed).binomial(len(correct), correct.mean(), size=samples)
    tail = (1 - CONFIDENCE_LEVEL) / 2
    low, high = np.quantile(draws / len(correct), [tail, 1 - tail])
    return float(low), float(high)


def mean_interval(values):
    """The mean over seeds and the half-width of its 95 % Student interval.

    Args:
        values: sequence of float, one per seed.

    Returns:
        tuple of two floats; the half-width is NaN for fewer than two values.
    """
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return float(values.mean()), float("nan")
    half_width = stats.t.ppf((1 + CONFIDENCE_LEVEL) / 2, len(values) - 1) * stats.sem(values)
    return float(values.mean()), float(half_width)


def compare_paired(y_true, y_prob_a, y_prob_b):
    """The exact McNemar test: do two models err on the same images equally often?

    Args:
        y_true: int array `(n,)`.
        y_prob_a: float array `(n, classes)`.
        y_prob_b: float array `(n, classes)`, on the same images in the same order.

    Returns:
        dict with `only_a` and `only_b` (images that only one model gets right) and `p_value`.

    Source:
        McNemar 1947, https://doi.org/10.1007/BF02295996.
    """
    y_true = np.asarray(y_true)
    right_a = np.asarray(y_prob_a).argmax(axis=1) == y_true
    right_b = np.asarray(y_prob_b).argmax(axis=1) == y_true
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    if only_a + only_b == 0:
        return {"only_a": 0, "only_b": 0, "p_value": 1.0}
    p_value = stats.binomtest(only_a, only_a + only_b).pvalue
    return {"only_a": only_a, "only_b": only_b, "p_value": float(p_value)}


def top_confusions(y_true, y_prob, class_names, *, count=TOP_CONFUSIONS):
    """The most frequent confusions.

    Args:
        y_true: int array `(n,)`.
        y_prob: float array `(n, classes)`.
        class_names: sequence of str.
        count: int. How many to return at most; what never happens is no confusion.

    Returns:
        list of tuples (true class, predicted class, images), most frequent first, equal ones in class order.
    """
    indices = np.arange(len(class_names))
    matrix = confusion_matrix(y_true, np.asarray(y_prob).argmax(axis=1), labels=indices)
    pairs = np.argwhere(~np.eye(len(indices), dtype=bool))
    order = np.argsort(-matrix[tuple(pairs.T)], kind="stable")[:count]
    return [(class_names[t], class_names[p], int(matrix[t, p])) for t, p in pairs[order] if matrix[t, p]]
