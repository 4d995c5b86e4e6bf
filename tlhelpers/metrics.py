"""How good a model is, how sure, and how far the number would move on other images."""

import numpy as np
from scipy import optimize, special, stats
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support
from sklearn.utils.class_weight import compute_class_weight

from tlhelpers import inputs

CALIBRATION_BINS = 15
CONFIDENCE_LEVEL = 0.95
BOOTSTRAP_SAMPLES = 2000
RESAMPLES_AT_ONCE = 100  # bounds the memory
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
        ValueError: when labels, probabilities and names do not fit each other, see `inputs`.
    """
    class_names = inputs.check_class_names(class_names)
    y_true, y_prob = _check_predictions(y_true, y_prob, classes=len(class_names))
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
        "ece": graded_gap(*_grade(y_true, y_prob)),
        "per_class": per_class,
    }


def class_weights(y):
    """Weights that give every class the same say in a loss: the rarer a class, the more each of its images counts.

    Args:
        y: int array `(n,)`. Every class from 0 on occurs.

    Returns:
        dict from a class to a float, as `fit` takes it; over all images the weights average one.

    Raises:
        ValueError: when these are no labels, or a class has no image.
    """
    y = inputs.check_labels(y, name="y")
    classes = np.arange(y.max() + 1)
    missing = sorted({*classes.tolist()} - {*y.tolist()})
    if missing:
        raise ValueError(f"Every class from 0 to {classes[-1]} has an image. Received: y without the classes {missing}")
    weights = compute_class_weight("balanced", classes=classes, y=y)
    return dict(zip(classes.tolist(), weights.tolist(), strict=True))


def pareto_front(cost, accuracy):
    """Which models no other beats: none is at least as cheap and at least as accurate, and better in one of them.

    Args:
        cost: float array `(n,)`.
        accuracy: float array `(n,)`.

    Returns:
        bool array `(n,)`.

    Raises:
        ValueError: when they are not as many finite numbers.
    """
    cost, accuracy = (np.asarray(values, dtype=float) for values in (cost, accuracy))
    if cost.ndim != 1 or cost.shape != accuracy.shape or not np.isfinite([cost, accuracy]).all():
        raise ValueError(
            "Cost and accuracy are finite numbers, one of each per model. "
            f"Received: cost of shape {cost.shape}, accuracy of shape {accuracy.shape}"
        )
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

    Raises:
        ValueError: when labels and probabilities do not fit each other: logits have no calibration error.

    Source:
        Guo et al. 2017, https://arxiv.org/abs/1706.04599.
    """
    return graded_gap(*grade(y_true, y_prob), inputs.check_whole(bins, name="bins", low=1))


def calibration_gap(correct, confidence, *, bins=CALIBRATION_BINS):
    """The same of answers that are graded already.

    Args:
        correct: bool array `(n,)`. Whether each answer is right.
        confidence: float array `(n,)` in 0..1.
        bins: int.

    Returns:
        float in 0..1.

    Raises:
        ValueError: when they are not as many, or not what they have to be.
    """
    bins = inputs.check_whole(bins, name="bins", low=1)
    return graded_gap(*inputs.check_confidences(correct, confidence), bins)


def grade(y_true, y_prob):
    """Whether each answer is right, and how sure it is.

    Args:
        y_true: int array `(n,)`.
        y_prob: float array `(n, classes)`.

    Returns:
        tuple of a bool array `(n,)` and a float64 array `(n,)`, the probability of the class that is answered.

    Raises:
        ValueError: when labels and probabilities do not fit each other.
    """
    return _grade(*_check_predictions(y_true, y_prob))


def reliability_table(y_true, y_prob, *, bins=CALIBRATION_BINS):
    """Confidence against accuracy in equally wide bins of confidence.

    Args:
        y_true: int array `(n,)`.
        y_prob: float array `(n, classes)`.
        bins: int.

    Returns:
        dict of float arrays, one entry per bin that holds an image: `confidence`, `accuracy`, `share` (of images).
    """
    return _reliability(*grade(y_true, y_prob), inputs.check_whole(bins, name="bins", low=1))


def _grade(y_true, y_prob):
    return y_prob.argmax(axis=1) == y_true, y_prob.max(axis=1).astype(float)


def graded_gap(correct, confidence, bins=CALIBRATION_BINS):
    """The same as `calibration_gap`, unchecked: for resampling, which asks it thousands of times of checked answers."""
    table = _reliability(correct, confidence, bins)
    return float(np.sum(table["share"] * np.abs(table["accuracy"] - table["confidence"])))


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
    """A 95 % interval of one model's metric over other draws of test images.

    Of an accuracy it is Wilson's, which holds for few images and near 0 and 1 too, where every resample of a bootstrap
    may look alike. Of other metrics it is the bootstrap's.

    Args:
        y_true: int array `(n,)`.
        y_prob: float array `(n, classes)`; rows sum to one.
        metric: str. A key of `PAIRED_METRICS`.
        seed: int. Seeds the resamples.
        samples: int. Resamples.

    Returns:
        tuple of two floats in 0..1.

    Raises:
        ValueError: when the metric is unknown, or labels and probabilities do not fit each other.

    Source:
        Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953.
    """
    look, measure = _get_metric(metric)
    samples = inputs.check_whole(samples, name="samples", low=1)
    seen = look(*_check_predictions(y_true, y_prob))
    if metric == "accuracy":
        return wilson_interval(int(seen.sum()), len(seen))
    return _resample(len(seen), lambda rows: measure(seen[rows]), seed, samples)


def _resample(count, statistic, seed, samples):
    """The percentile bootstrap of a statistic of the rows of `count` images: two floats."""
    if count == 1:  # all resamples are the same one
        return (float(statistic(np.zeros(1, dtype=int))),) * 2
    options = {"vectorized": False, "method": "percentile", "batch": RESAMPLES_AT_ONCE}
    found = stats.bootstrap(
        (np.arange(count),),
        statistic,
        n_resamples=samples,
        confidence_level=CONFIDENCE_LEVEL,
        rng=np.random.default_rng(seed),
        **options,
    )
    return tuple(map(float, found.confidence_interval))


def wilson_interval(right, count):
    """Wilson's 95 % interval of a share, such as of right answers.

    Args:
        right: int in `0..count`.
        count: int, at least 1.

    Returns:
        tuple of two floats in 0..1.

    Raises:
        ValueError: when there is no image, or more are right than there are.

    Source:
        Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953.
    """
    count = inputs.check_whole(count, name="count", low=1)
    right = inputs.check_whole(right, name="right", low=0, high=count)
    interval = stats.binomtest(right, count).proportion_ci(CONFIDENCE_LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def mean_interval(values):
    """The mean over seeds and the half-width of its 95 % Student interval.

    Args:
        values: sequence of float, one per seed.

    Returns:
        tuple of two floats; the half-width is NaN for fewer than two values.

    Raises:
        ValueError: when there is no value, or one is no finite number.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"A mean is over at least one finite number. Received: values={values.tolist()}")
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

    Raises:
        ValueError: when the models do not stand on the same images.

    Source:
        McNemar 1947, https://doi.org/10.1007/BF02295996.
    """
    right_a, right_b = _paired(y_true, y_prob_a, y_prob_b, "accuracy")[0]
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
    samples = inputs.check_whole(samples, name="samples", low=1)

    def difference(rows):
        before, after = (measure(seen[rows]) for seen in models)
        return after - before

    low, high = _resample(models.shape[1], difference, seed, samples)
    return {"difference": difference(slice(None)), "low": low, "high": high}


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
    samples = inputs.check_whole(samples, name="samples", low=1)
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
        ValueError: when there is no image, or labels and probabilities do not fit each other.

    Source:
        Guo et al. 2017, https://arxiv.org/abs/1706.04599.
    """
    y_true, y_prob = _check_predictions(y_true, y_prob)
    logits = _as_logits(y_prob)

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
        ValueError: when the temperature is not a positive number, or these are no probabilities.
    """
    if not 0 < temperature < np.inf:
        raise ValueError(f"A temperature is a finite number above 0. Received: temperature={temperature!r}")
    return special.softmax(_as_logits(inputs.check_probabilities(y_prob)) / temperature, axis=1)


def top_confusions(y_true, y_prob, class_names, *, count=TOP_CONFUSIONS):
    """The most frequent confusions.

    Args:
        y_true: int array `(n,)`.
        y_prob: float array `(n, classes)`.
        class_names: sequence of str.
        count: int. How many to return at most; what never happens is no confusion.

    Returns:
        list of tuples (true class, predicted class, images), most frequent first, equal ones in class order.

    Raises:
        ValueError: when labels, probabilities and names do not fit each other.
    """
    class_names = inputs.check_class_names(class_names)
    y_true, y_prob = _check_predictions(y_true, y_prob, classes=len(class_names))
    indices = np.arange(len(class_names))
    matrix = confusion_matrix(y_true, y_prob.argmax(axis=1), labels=indices)
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


# What is computed for each image once, and the metric of any choice of images: resampling takes thousands.
PAIRED_METRICS = {
    "accuracy": (lambda y_true, y_prob: y_prob.argmax(axis=1) == y_true, lambda right: float(right.mean())),
    "macro_f1": (_see_answers, _macro_f1),
    "ece": (lambda *predictions: np.stack(_grade(*predictions), axis=1), lambda graded: graded_gap(*graded.T)),
}


def _get_metric(metric):
    if metric not in PAIRED_METRICS:
        raise ValueError(f"A metric is one of {list(PAIRED_METRICS)}. Received: metric={metric!r}")
    return PAIRED_METRICS[metric]


def _check_predictions(y_true, y_prob, classes=None):
    """Labels and probabilities of the same images, in the form that this module works with."""
    y_true = inputs.as_array(y_true, "y_true")
    count = len(y_true) if y_true.ndim else None
    y_prob = inputs.check_probabilities(y_prob, count=count, classes=classes)
    return inputs.check_labels(y_true, classes=y_prob.shape[1]), y_prob


def _paired(y_true, y_prob_a, y_prob_b, metric):
    """What a metric needs of two models' predictions, an array `(2, n, …)`, and the function that computes it."""
    look, measure = _get_metric(metric)
    checked = [_check_predictions(y_true, y_prob) for y_prob in (y_prob_a, y_prob_b)]
    shapes = [y_prob.shape for _, y_prob in checked]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "A paired comparison needs both models' predictions on the same images, at least one. "
            f"Received: y_prob_a.shape={shapes[0]}, y_prob_b.shape={shapes[1]}"
        )
    return np.stack([look(*predictions) for predictions in checked]), measure


def _as_logits(y_prob):
    return np.log(np.clip(np.asarray(y_prob, dtype=float), SMALLEST_PROBABILITY, 1))
