"""How good a model is, how sure, and how far the number would move on other images."""

import numpy as np
from scipy import optimize, special, stats
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

CALIBRATION_BINS = 15
CONFIDENCE_LEVEL = 0.95
BOOTSTRAP_SAMPLES = 2000
PERMUTATIONS = 999
TOP_CONFUSIONS = 3
TEMPERATURE_BOUNDS = (0.05, 20.0)
TEMPERATURE_TOLERANCE = 1e-4  # of the logarithm of the temperature
SMALLEST_PROBABILITY = float(np.finfo(np.float32).tiny)


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


def class_weights(y):
    """Weights that give every class the same say in a loss: the rarer a class, the more each of its images counts.

    Args:
        y: int array `(n,)`. Every class from 0 on occurs.

    Returns:
        dict from a class to a float, as `fit` takes it; over all images the weights average one.
    """
    classes, counts = np.unique(np.asarray(y), return_counts=True)
    return {int(k): float(len(y) / (len(classes) * n)) for k, n in zip(classes, counts, strict=True)}


def pareto_front(cost, accuracy):
    """Which models no other beats: none is at least as cheap and at least as accurate, and better in one of them.

    Args:
        cost: float array `(n,)`.
        accuracy: float array `(n,)`.

    Returns:
        bool array `(n,)`.
    """
    cost, accuracy = np.asarray(cost), np.asarray(accuracy)
    no_worse = (cost[None] <= cost[:, None]) & (accuracy[None] >= accuracy[:, None])
    better = (cost[None] < cost[:, None]) | (accuracy[None] > accuracy[:, None])
    return ~(no_worse & better).any(axis=1)


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
    return calibration_gap(*grade(y_true, y_prob), bins=bins)


def calibration_gap(correct, confidence, *, bins=CALIBRATION_BINS):
    """The same of answers that are graded already.

    Args:
        correct: bool array `(n,)`. Whether each answer is right.
        confidence: float array `(n,)` in 0..1.
        bins: int.

    Returns:
        float in 0..1.
    """
    table = _reliability(correct, confidence, bins)
    return float(np.sum(table["share"] * np.abs(table["accuracy"] - table["confidence"])))


def grade(y_true, y_prob):
    """Whether each answer is right, and how sure it is.

    Args:
        y_true: int array `(n,)`.
        y_prob: float array `(n, classes)`.

    Returns:
        tuple of a bool array `(n,)` and a float64 array `(n,)`, the probability of the class that is answered.
    """
    y_true, y_prob = np.asarray(y_true), np.asarray(y_prob, dtype=float)
    return y_prob.argmax(axis=1) == y_true, y_prob.max(axis=1)


def reliability_table(y_true, y_prob, *, bins=CALIBRATION_BINS):
    """Confidence against accuracy in equally wide bins of confidence.

    Args:
        y_true: int array `(n,)`.
        y_prob: float array `(n, classes)`.
        bins: int.

    Returns:
        dict of float arrays, one entry per bin that holds an image: `confidence`, `accuracy`, `share` (of images).
    """
    return _reliability(*grade(y_true, y_prob), bins)


def _reliability(correct, confidence, bins):
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    counts = np.bincount(index, minlength=bins)
    filled = counts > 0
    return {
        "confidence": np.bincount(index, confidence, bins)[filled] / counts[filled],
        "accuracy": np.bincount(index, correct, bins)[filled] / counts[filled],
        "share": counts[filled] / len(correct),
    }


def bootstrap_interval(y_true, y_prob, *, metric="accuracy", seed=0, samples=BOOTSTRAP_SAMPLES):
    """A 95 % interval of a metric over other draws of test images.

    Args:
        y_true: int array `(n,)`.
        y_prob: float array `(n, classes)`.
        metric: str. A key of `PAIRED_METRICS`.
        seed: int.
        samples: int. Resamples.

    Returns:
        tuple of two floats in 0..1.
    """
    look, measure = PAIRED_METRICS[metric]
    seen, generator = look(np.asarray(y_true), np.asarray(y_prob)), np.random.default_rng(seed)
    count = len(seen)
    if metric == "accuracy":  # a resample's count of right answers, drawn at once
        draws = generator.binomial(count, measure(seen), size=samples) / count
    else:
        draws = [measure(seen[generator.integers(0, count, count)]) for _ in range(samples)]
    tail = (1 - CONFIDENCE_LEVEL) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
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


def bootstrap_difference(y_true, y_prob_a, y_prob_b, *, metric="accuracy", seed=0, samples=BOOTSTRAP_SAMPLES):
    """The paired bootstrap: how far a difference of two models would move on other test images.

    Each resample draws images once and takes them from both models. Resampling scatters the bins of `ece` further,
    which raises the error of each model; in the difference most of that cancels.

    Args:
        y_true: int array `(n,)`.
        y_prob_a: float array `(n, classes)`.
        y_prob_b: float array `(n, classes)`, on the same images in the same order.
        metric: str. `"accuracy"`, `"macro_f1"` or `"ece"`.
        seed: int.
        samples: int. Resamples.

    Returns:
        dict with `difference` (of the metric, b minus a, in -1..1), and `low` and `high`, its 95 % interval.

    Raises:
        ValueError: when the metric is unknown or the models do not stand on the same images.

    Source:
        Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
    """
    models, measure = _paired(y_true, y_prob_a, y_prob_b, metric)

    def difference(rows):
        before, after = (measure(seen[rows]) for seen in models)
        return after - before

    count = models.shape[1]
    generator = np.random.default_rng(seed)
    differences = [difference(generator.integers(0, count, count)) for _ in range(samples)]
    tail = (1 - CONFIDENCE_LEVEL) / 2
    low, high = np.quantile(differences, [tail, 1 - tail])
    return {"difference": difference(slice(None)), "low": float(low), "high": float(high)}


def permutation_test(y_true, y_prob_a, y_prob_b, *, metric="macro_f1", seed=0, samples=PERMUTATIONS):
    """The paired permutation test, for a metric that is no count of images: exchanges the models image by image.

    For accuracy it asks what McNemar's test asks.

    Args:
        y_true: int array `(n,)`.
        y_prob_a: float array `(n, classes)`.
        y_prob_b: float array `(n, classes)`, on the same images in the same order.
        metric: str. `"accuracy"`, `"macro_f1"` or `"ece"`.
        seed: int.
        samples: int. Permutations; all of them, so that the test is exact, where there are no more than that.

    Returns:
        dict with `difference` (of the metric, b minus a) and `p_value` (two-sided; at least `2 / (samples + 1)`
        unless the test is exact).

    Raises:
        ValueError: when the metric is unknown or the models do not stand on the same images.
    """
    models, measure = _paired(y_true, y_prob_a, y_prob_b, metric)
    rows = np.arange(models.shape[1])

    def difference(first, second):
        before, after = (measure(models[which, rows]) for which in (first, second))
        return after - before

    result = stats.permutation_test(
        (np.zeros_like(rows), np.ones_like(rows)),
        difference,
        permutation_type="samples",
        vectorized=False,
        n_resamples=samples,
        random_state=np.random.default_rng(seed),  # called `rng` from SciPy 1.15 on, and still understood
    )
    return {"difference": float(result.statistic), "p_value": float(result.pvalue)}


def fit_temperature(y_true, y_prob):
    """The temperature under which validation predictions are most likely.

    Args:
        y_true: int array `(n,)`. Of images that neither trained the model nor test it.
        y_prob: float array `(n, classes)`; rows sum to one.

    Returns:
        float in 0.05..20: above one, the model is over-confident; below one, it is not confident enough.

    Raises:
        ValueError: when there is no image.

    Source:
        Guo et al. 2017, https://arxiv.org/abs/1706.04599.
    """
    y_true, logits = np.asarray(y_true, dtype=int), _as_logits(y_prob)
    if not len(y_true):
        raise ValueError("A temperature is fitted on at least one validation image. Received: none")

    def negative_log_likelihood(log_temperature):
        scaled = special.log_softmax(logits / np.exp(log_temperature), axis=1)
        return -scaled[np.arange(len(y_true)), y_true].mean()

    result = optimize.minimize_scalar(
        negative_log_likelihood,
        bounds=np.log(TEMPERATURE_BOUNDS),
        method="bounded",
        options={"xatol": TEMPERATURE_TOLERANCE},
    )
    return float(np.exp(result.x))


def apply_temperature(y_prob, temperature):
    """Probabilities after their logits are divided by a temperature; the predicted classes stay.

    Args:
        y_prob: float array `(n, classes)`; rows sum to one.
        temperature: float above 0, as from `fit_temperature`.

    Returns:
        float64 array `(n, classes)`; rows sum to one.

    Raises:
        ValueError: when the temperature is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"A temperature is above 0. Received: temperature={temperature!r}")
    return special.softmax(_as_logits(y_prob) / temperature, axis=1)


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


def _macro_f1(seen):
    target, answer, classes = seen[:, 0], seen[:, 1], seen[0, 2]
    hits = np.bincount(target[target == answer], minlength=classes)
    named = np.bincount(target, minlength=classes) + np.bincount(answer, minlength=classes)
    return float((2 * hits / np.maximum(named, 1)).mean())


def _see_answers(y_true, y_prob):
    """Of each image: its class, the one that is answered, and how many there are."""
    return np.stack([y_true, y_prob.argmax(axis=1), np.full(len(y_true), y_prob.shape[1])], axis=1)


# What is seen of each image once, and what a metric makes of any choice of images: resampling takes thousands.
PAIRED_METRICS = {
    "accuracy": (lambda y_true, y_prob: y_prob.argmax(axis=1) == y_true, lambda right: float(right.mean())),
    "macro_f1": (_see_answers, _macro_f1),
    "ece": (lambda *predictions: np.stack(grade(*predictions), axis=1), lambda graded: calibration_gap(*graded.T)),
}


def _paired(y_true, y_prob_a, y_prob_b, metric):
    """What a metric sees of two models' predictions, an array `(2, n, …)`, and what it makes of it."""
    if metric not in PAIRED_METRICS:
        raise ValueError(f"A metric is one of {list(PAIRED_METRICS)}. Received: metric={metric!r}")
    y_true, y_prob_a, y_prob_b = (np.asarray(values) for values in (y_true, y_prob_a, y_prob_b))
    if y_prob_a.shape != y_prob_b.shape or len(y_prob_a) != len(y_true) or not len(y_true):
        raise ValueError(
            "A paired comparison needs both models' predictions on the same images, at least one. "
            f"Received: {len(y_true)} images, y_prob_a.shape={y_prob_a.shape}, y_prob_b.shape={y_prob_b.shape}"
        )
    look, measure = PAIRED_METRICS[metric]
    return np.stack([look(y_true, y_prob) for y_prob in (y_prob_a, y_prob_b)]), measure


def _as_logits(y_prob):
    return np.log(np.clip(np.asarray(y_prob, dtype=float), SMALLEST_PROBABILITY, 1))
