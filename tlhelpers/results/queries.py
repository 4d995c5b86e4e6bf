"""Queries: statements about records, each decided one way or the other, with the numbers behind it.

A query takes a Study, which names the classes, and a list of Record per model, and returns whether the statement holds
(bool) and the numbers behind it (str). What it says of curves holds in every run. Classes are counted over the pooled
predictions of all seeds. Two models differ when the 95 % interval of the difference, by a bootstrap over images,
excludes zero.
"""

from collections import Counter
from typing import NamedTuple

import numpy as np

from tlhelpers import metrics
from tlhelpers.datasets import studies
from tlhelpers.results import tables

BOOTSTRAP_SAMPLES = 1000  # the ends of an interval settle to about a fiftieth of its width
FEWEST_SEEDS = 3  # from two seeds a Student interval is twelve standard errors wide and contains anything
FEWEST_EPOCHS = 4  # two in each half of a curve
SEVERAL_EPOCHS = 3  # fewer are one or a couple
UPTURN = 0.05  # a rise of the validation loss, relative to its minimum, that a reader sees in a figure
PLATEAU = 0.01  # a point of accuracy per epoch looks flat beside the first epochs
SMOOTH = 0.02  # some 400 validation images give an accuracy near 0.9 a standard error of 1.5 points
ALIGNED = 0.05  # curves further apart than five points are two curves to the eye
NEAR_PERFECT = 0.95  # one image in twenty missed
NEGLIGIBLE = 0.01  # a point of accuracy is what one would give up for a shorter training
ROUNDING = 0.005  # accuracies are quoted in whole percents
ABOUT = 0.05  # the room that "about" leaves around a quoted count
UNITS = {"thousand": 1e3, "million": 1e6}


class NotTestableError(Exception):
    """These records cannot decide the statement; the message says why."""


def needs(what):
    """A query for what no record holds: it only says what is missing."""

    def decide(study, *models):
        raise NotTestableError(f"needs {what}, which no record holds")

    return decide


def is_as_good(study, runs, *, model, metric="accuracy"):
    """The interval of a metric meets what rounds to the percentage quoted for a model."""
    low, high = studies.published_range(study.name, model, metric)
    mean, half_width = _interval(runs, metric)
    quoted = studies.quote(study.name, model, metric)
    numbers = f"quoted {quoted}, measured {mean:.1%} ± {half_width * 100:.1f} ({_seeds(runs)})"
    return low - half_width - ROUNDING <= mean <= high + half_width + ROUNDING, numbers


def is_as_large(study, runs, *, model):
    """As many parameters are trained as quoted for a model, as nearly as "about" means."""
    quote = studies.published_model(study.name, model)["trainable_parameters"]
    amount, unit = quote.split()[-2:]
    quoted = float(amount) * UNITS[unit]
    counts = {run.parameters["trainable"] for run in runs}
    return all(abs(count - quoted) <= ABOUT * quoted for count in counts), f"quoted {quote}, counted {_span(counts)}"


def overfits(study, runs):
    """The validation loss turns up while the training loss goes on falling."""
    curves = _curves(runs)
    turns = [np.argmin(curve["val_loss"]) for curve in curves]
    upturns = [_final_upturn(curve) for curve in curves]
    drops = [curve["loss"][turn] - curve["loss"][-1] for curve, turn in zip(curves, turns, strict=True)]
    numbers = f"{_describe_upturns(upturns)}; since then, training loss falls by {_span(drops, '.2f')}"
    return min(upturns) >= UPTURN and min(drops) > 0, numbers


def turns_late(study, runs):
    """The validation loss turns after several epochs, and does turn."""
    curves = _curves(runs)
    turns = [int(np.argmin(curve["val_loss"])) + 1 for curve in curves]
    lengths = [len(curve["val_loss"]) for curve in curves]
    holds = min(turns) >= SEVERAL_EPOCHS and all(turn < length for turn, length in zip(turns, lengths, strict=True))
    return holds, f"validation loss is lowest at epoch {_span(turns)} of {_span(lengths)}"


def reaches_plateau(study, runs):
    """The best validation accuracy hardly grows in the second half of the epochs."""
    halves = [np.array_split(curve["val_accuracy"], 2) for curve in _curves(runs)]
    gains = [(second.max() - first.max()) / len(second) for first, second in halves]
    points = _span([gain * 100 for gain in gains], ".1f")
    return max(gains) <= PLATEAU, f"best validation accuracy gains {points} points per epoch in the second half"


def is_smooth(study, runs):
    """The validation accuracy never drops far from one epoch to the next."""
    drops = [-np.diff(curve["val_accuracy"]).min() for curve in _curves(runs)]
    worst = max(0, *drops)
    return worst <= SMOOTH, f"validation accuracy drops by at most {worst * 100:.1f} points from one epoch to the next"


def is_aligned(study, runs):
    """The training accuracy ends close to the validation accuracy."""
    gaps = [curve["accuracy"][-1] - curve["val_accuracy"][-1] for curve in _curves(runs)]
    points = _span([gap * 100 for gap in gaps], ".1f")
    return max(gaps) <= ALIGNED, f"training accuracy ends {points} points above validation accuracy"


def does_not_diverge(study, runs):
    """The validation loss ends close to its minimum."""
    upturns = [_final_upturn(curve) for curve in _curves(runs)]
    return max(upturns) < UPTURN, _describe_upturns(upturns)


def recall_is_best(study, runs, *, name):
    """One class is found best of all."""
    recall = _per_class(study, runs, "recall")
    return max(recall, key=recall.get) == name, _describe_recall(recall)


def recall_is_worst(study, runs, *, names):
    """Some classes are found worst of all, in whatever order."""
    recall = _per_class(study, runs, "recall")
    return set(sorted(recall, key=recall.get)[: len(names)]) == set(names), _describe_recall(recall)


def recall_is_near_perfect(study, runs, *, names):
    """Hardly an image of some classes is missed."""
    recall = {name: value for name, value in _per_class(study, runs, "recall").items() if name in names}
    return min(recall.values()) >= NEAR_PERFECT, _describe_recall(recall)


def is_taken_for(study, runs, *, true, predicted):
    """A class that is misread is taken for one other class most often."""
    pairs = len(study.class_names) ** 2
    errors = {p: n for t, p, n in metrics.top_confusions(*_pool(runs), study.class_names, count=pairs) if t == true}
    if not errors:
        return False, f"every {true} is named rightly"
    first = next(iter(errors))
    return first == predicted, f"{true} is taken most for {first} ({errors[first]} of {sum(errors.values())} errors)"


def is_main_confusion(study, runs, *, names):
    """Two classes are taken for each other more often than any other two."""
    pairs = len(study.class_names) ** 2
    counts = Counter()
    for true, predicted, count in metrics.top_confusions(*_pool(runs), study.class_names, count=pairs):
        counts[tuple(sorted((true, predicted)))] += count
    if not counts:
        return False, "every picture is named rightly"
    (first, count), total = counts.most_common(1)[0], counts.total()
    return first == tuple(sorted(names)), f"{' and '.join(first)}: {count:,} of {total:,} errors"


def errors_are_among(study, runs, *, names, share):
    """More than a share of all errors take one of some classes for another of them."""
    y_true, y_prob = _pool(runs)
    some = [study.class_names.index(name) for name in names]
    wrong = y_prob.argmax(axis=1) != y_true
    among = wrong & np.isin(y_true, some) & np.isin(y_prob.argmax(axis=1), some)
    if not wrong.any():
        return False, "every picture is named rightly"
    numbers = f"{among.sum():,} of {wrong.sum():,} errors are among {', '.join(names)}"
    return bool(among.sum() > share * wrong.sum()), numbers


def gains_are_largest(study, before, after, *, names):
    """Some classes gain in F1, and more than all others."""
    before, after = _pair(before, after)
    old, new = _per_class(study, before, "f1"), _per_class(study, after, "f1")
    gains = {name: new[name] - old[name] for name in old}
    largest = sorted(gains, key=gains.get, reverse=True)[: len(names)]
    holds = set(largest) == set(names) and min(gains[name] for name in names) > 0
    return holds, "F1 in points: " + ", ".join(f"{name} {gain * 100:+.1f}" for name, gain in gains.items())


def rises(study, before, after, *, name, statistic):
    """A statistic of graded answers, under a name, is higher for the second model."""
    change = _compare(statistic, before, after)
    return change.low > 0, f"{name} {change}"


def falls(study, before, after, *, name, statistic):
    """A statistic of graded answers, under a name, is lower for the second model."""
    change = _compare(statistic, before, after)
    return change.high < 0, f"{name} {change}"


def is_more_accurate(study, before, after):
    """The second model is more accurate."""
    return rises(study, before, after, name="accuracy", statistic=_accuracy)


def is_better_calibrated(study, before, after):
    """The second model's confidence is closer to how often it is right."""
    return falls(study, before, after, name="calibration error", statistic=metrics.graded_gap)


def is_surer_when_right(study, before, after):
    """The second model is more confident where it is right."""
    return rises(study, before, after, name="confidence when right", statistic=_confidence_right)


def is_less_sure_when_wrong(study, before, after):
    """The second model is less confident where it is wrong."""
    return falls(study, before, after, name="confidence when wrong", statistic=_confidence_wrong)


def needs_fewer_parameters(study, before, after):
    """The second model trains fewer parameters and is more accurate."""
    sizes = [{run.parameters["trainable"] for run in runs} for runs in (before, after)]
    change = _compare(_accuracy, before, after)
    numbers = f"{_span(sizes[0])} to {_span(sizes[1])} trainable parameters, accuracy {change}"
    return max(sizes[1]) < min(sizes[0]) and change.low > 0, numbers


def is_best_value(study, less, middle, more):
    """The second model is more accurate than the first, hardly less so than the third, and costs less than it: in
    core seconds where records have them, which what else a machine does hardly changes.
    """
    gain, rest = _compare(_accuracy, less, middle), _compare(_accuracy, middle, more)
    cheap, dear = _mean_seconds(middle, more, cost=tables.device_seconds)
    numbers = f"accuracy {gain}; then {rest}, {cheap:.0f} against {dear:.0f} seconds of a core or GPU"
    return gain.low > 0 and rest.high <= NEGLIGIBLE and cheap < dear, numbers


def is_faster(study, slower, faster):
    """The second model takes less time per epoch than the first, all stages counted, on the same machine."""
    seconds = _mean_seconds(slower, faster)
    epochs = [np.mean([len(run.history["loss"]) for run in runs]) for runs in (slower, faster)]
    before, after = (total / count for total, count in zip(seconds, epochs, strict=True))
    return bool(after < before), f"{before:.1f} and {after:.1f} seconds an epoch"


def ends_in_window(study, runs, *, lowest, highest):
    """Validation accuracy ends above one bound and training accuracy below another, in every run."""
    validation, training = ([run.history[name][-1] for run in runs] for name in ("val_accuracy", "accuracy"))
    numbers = f"validation {_span(validation, '.1%')}, training {_span(training, '.1%')} ({_seeds(runs)})"
    return min(validation) > lowest and max(training) < highest, numbers


def fits_training_alone(study, runs, *, gap):
    """Training accuracy ends further above validation accuracy than a gap, in every run."""
    ends = [(run.history["accuracy"][-1], run.history["val_accuracy"][-1]) for run in runs]
    numbers = f"training {_span([t for t, _ in ends], '.1%')}, validation {_span([v for _, v in ends], '.1%')}"
    return min(training - validation for training, validation in ends) > gap, f"{numbers} ({_seeds(runs)})"


def collapses(study, runs):
    """Some class is found less than half as often as guessing would find it."""
    recall = _per_class(study, runs, "recall")
    lowest = min(recall, key=recall.get)
    numbers = f"{lowest} is found in {recall[lowest]:.1%} of its pictures, guessing finds {1 / len(recall):.1%}"
    return recall[lowest] < 0.5 / len(recall), numbers


def accuracy_flatters(study, runs, *, by):
    """Accuracy lies above macro F1 by more than a margin: the frequent classes carry it."""
    mean = {name: np.mean([run.metrics[name] for run in runs]) for name in ("accuracy", "macro_f1")}
    numbers = f"accuracy {mean['accuracy']:.1%}, macro F1 {mean['macro_f1']:.1%} ({_seeds(runs)})"
    return bool(mean["accuracy"] - mean["macro_f1"] > by), numbers


def misses_more_than_it_confuses(study, runs, *, by):
    """Macro precision lies above macro recall by more than a margin."""
    mean = {name: np.mean([run.metrics[name] for run in runs]) for name in ("macro_precision", "macro_recall")}
    numbers = f"macro precision {mean['macro_precision']:.1%}, macro recall {mean['macro_recall']:.1%} ({_seeds(runs)})"
    return bool(mean["macro_precision"] - mean["macro_recall"] > by), numbers


def forgets_less(study, slow, fast):
    """What the first model's features meant before they moved they still mean, and more so than the second's."""
    kept = [{run.seed: run.details["old_head_accuracy"] for run in runs} for runs in (slow, fast)]
    seeds = sorted(set(kept[0]) & set(kept[1]))
    if not seeds:
        raise NotTestableError(f"{slow[0].model} and {fast[0].model} have no seed in common")
    before, after = ([accuracy[seed] for seed in seeds] for accuracy in kept)
    rates = (runs[0].details["recipe"]["learning_rate"] for runs in (slow, fast))
    numbers = (
        f"the old head gets {_span(one, '.1%')} at the rate {rate:g}"
        for one, rate in zip((before, after), rates, strict=True)
    )
    holds = all(one > other for one, other in zip(before, after, strict=True))
    return holds, f"{', '.join(numbers)} ({len(seeds)} seed{'s' * (len(seeds) > 1)})"


def reaches(study, runs, *, lowest):
    """The mean accuracy over seeds is at least a bound."""
    mean = np.mean([run.metrics["accuracy"] for run in runs])
    return bool(mean >= lowest), f"accuracy {mean:.1%} ({_seeds(runs)}), bound {lowest:.0%}"


def temperature_mends(study, runs):
    """Temperature scaling lowers the calibration error, in every run."""
    if not all(len(run.validation_true) for run in runs):
        raise NotTestableError(f"{runs[0].model} keeps no validation predictions")
    errors = [(run.metrics["ece"], tables.calibrate(run).metrics["ece"]) for run in runs]
    before, after = ([pair[at] for pair in errors] for at in (0, 1))
    numbers = f"calibration error {_span(before, '.1%')} before, {_span(after, '.1%')} after ({_seeds(runs)})"
    return all(new < old for old, new in errors), numbers


def lead_shrinks(study, few, better_few, many, better_many):
    """The lead of one way of training over another is smaller with many images than with few, on the same test."""
    models = (few, better_few, many, better_many)
    by_seed = [{run.seed: run for run in runs} for runs in models]
    seeds = sorted(set.intersection(*map(set, by_seed)))
    runs = [[of[seed] for seed in seeds] for of in by_seed]
    tests = [[run.test_id.tolist() for run in rs] for rs in runs]
    if not seeds or any(ids != tests[0] for ids in tests):
        raise NotTestableError(f"{few[0].model} and {better_many[0].model} have no seed with the same test images")
    right = [np.concatenate([run.y_prob.argmax(axis=1) == run.y_true for run in rs]).astype(int) for rs in runs]
    leads = right[1] - right[0], right[3] - right[2]
    rng, count = np.random.default_rng(0), len(right[0])
    changes = [(leads[1] - leads[0])[rng.integers(0, count, count)].mean() for _ in range(BOOTSTRAP_SAMPLES)]
    tail = (1 - metrics.CONFIDENCE_LEVEL) / 2
    change = _Change(*(lead.mean() for lead in leads), *np.quantile(changes, [tail, 1 - tail]), _seeds(runs[0]))
    return bool(change.high < 0), f"lead {change}"


def has_best_rates(study, *grid, rates):
    """For each part of a backbone that is unfrozen, a grid's highest accuracy is at the rate that is said.

    Args:
        study: Study.
        *grid: lists of Record, one per cell; their recipes say what is unfrozen, and at what rate.
        rates: dict from what is unfrozen, as recipes call it, to a float.
    """
    found = {}
    for runs in grid:
        recipe, accuracy = runs[0].details["recipe"], np.mean([run.metrics["accuracy"] for run in runs])
        found.setdefault(recipe["unfrozen"], {})[recipe["learning_rate"]] = accuracy
    best = {part: max(cells, key=cells.get) for part, cells in found.items()}
    numbers = ", ".join(f"{part}: {found[part][rate]:.1%} at {rate:g}" for part, rate in best.items())
    return best == rates, numbers


def tests_fewer_than_official(study, runs):
    """Fewer images are tested than the official test set holds: copies of training images are left out of it."""
    counts = {run.counts["test"] for run in runs}
    return max(counts) < study.published_test_count, f"{_span(counts)} of {study.published_test_count:,} test pictures"


class _Change(NamedTuple):
    """A statistic of one model, of another, the 95 % interval of the difference, and how many seeds they share."""

    before: float
    after: float
    low: float
    high: float
    seeds: str

    def __str__(self):
        difference = (self.after - self.before) * 100
        interval = f"95 % interval {self.low * 100:+.1f} to {self.high * 100:+.1f}, {self.seeds}"
        return f"{self.before:.1%} to {self.after:.1%}: {difference:+.1f} points ({interval})"


def _compare(statistic, before, after, *, seed=0):
    """Bootstraps a difference over images: an image tested under several seeds is drawn with all its predictions."""
    before, after = _pair(before, after)
    old, new = metrics.grade(*_pool(before)), metrics.grade(*_pool(after))
    points = statistic(*old), statistic(*new)
    if np.isnan(points).any():
        raise NotTestableError("one of the models is always right, or never")
    names, picture = np.unique(np.concatenate([run.test_id for run in before]), return_inverse=True)
    rng = np.random.default_rng(seed)
    changes = []
    for _ in range(BOOTSTRAP_SAMPLES):
        counts = np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))
        rows = np.repeat(np.arange(len(picture)), counts[picture])
        changes.append(statistic(*(facts[rows] for facts in new)) - statistic(*(facts[rows] for facts in old)))
    tail = (1 - metrics.CONFIDENCE_LEVEL) / 2
    return _Change(*points, *np.nanquantile(changes, [tail, 1 - tail]), _seeds(before))


def _pair(before, after):
    """The runs of two models under the seeds, and on the test images, that both have."""
    others = {run.seed: run for run in after}
    pairs = [(run, others[run.seed]) for run in before if run.seed in others]
    pairs = [(a, b) for a, b in pairs if np.array_equal(a.test_id, b.test_id)]
    if not pairs:
        raise NotTestableError(f"{before[0].model} and {after[0].model} have no seed with the same test images")
    return [list(runs) for runs in zip(*pairs, strict=True)]


def _pool(runs):
    """All predictions; `pool_predictions` refuses those of `published`, whose shuffles test the same images again."""
    return np.concatenate([run.y_true for run in runs]), np.concatenate([run.y_prob for run in runs])


def _interval(runs, metric):
    mean, half_width = metrics.mean_interval([run.metrics[metric] for run in runs])
    if len(runs) < FEWEST_SEEDS:
        low, high = metrics.bootstrap_interval(*_pool(runs), metric=metric)
        half_width = (high - low) / 2
    return mean, half_width


def _accuracy(correct, confidence):
    return _mean(correct)


def _confidence_right(correct, confidence):
    return _mean(confidence[correct])


def _confidence_wrong(correct, confidence):
    return _mean(confidence[~correct])


def _mean(values):
    return values.mean() if len(values) else np.nan


def _wall_seconds(run):
    return sum(run.seconds.values())


def _mean_seconds(*models, cost=_wall_seconds):
    machines = sorted({f"{run.hardware['name']} ({run.hardware['count']})" for runs in models for run in runs})
    if len(machines) > 1:
        raise NotTestableError(f"the seconds of different machines do not compare: {', '.join(machines)}")
    return [np.mean([cost(run) for run in runs]) for runs in models]


def _curves(runs):
    for run in runs:
        epochs = len(run.history.get("val_loss", ()))
        if epochs < FEWEST_EPOCHS:
            raise NotTestableError(f"{epochs} epochs make no curve: {FEWEST_EPOCHS} are the fewest")
    return [{name: np.asarray(values) for name, values in run.history.items()} for run in runs]


def _final_upturn(curve):
    return curve["val_loss"][-1] / curve["val_loss"].min() - 1


def _describe_upturns(upturns):
    return f"validation loss ends {_span(upturns, '.1%')} above its minimum"


def _per_class(study, runs, key):
    rows = metrics.evaluate(*_pool(runs), study.class_names)["per_class"]
    return {name: row[key] for name, row in rows.items()}


def _describe_recall(recall):
    return "recall: " + ", ".join(f"{name} {value:.1%}" for name, value in recall.items())


def _seeds(runs):
    return f"{len(runs)} seed{'s' * (len(runs) > 1)}"


def _span(values, form=","):
    low, high = (format(value, form) for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
