"""The numbers themselves, against hand computations, scikit-learn and SciPy."""

import re

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from tlhelpers import metrics

NAMES = ("daisy", "rose", "tulip")


def one_hot(predicted, classes=3):
    return np.eye(classes)[np.asarray(predicted)]


def draw_predictions(count=200, classes=3, seed=0):
    """Targets and probabilities that lean to the target."""
    rng = np.random.default_rng(seed)
    y_true = rng.integers(0, classes, count)
    logits = rng.normal(size=(count, classes)) + 1.5 * one_hot(y_true, classes)
    y_prob = np.exp(logits)
    return y_true, y_prob / y_prob.sum(axis=1, keepdims=True)


def binary(confidence, right):
    """Two-class predictions of given confidence, right or wrong."""
    confidence = np.asarray(confidence, dtype=float)
    return np.where(right, 0, 1), np.stack([confidence, 1 - confidence], axis=1)


def test_metrics_equal_a_hand_computation():
    y_true = [0, 0, 0, 0, 1, 1, 2]
    y_prob = one_hot([0, 0, 0, 1, 1, 0, 1])
    result = metrics.evaluate(y_true, y_prob, NAMES)
    assert result["accuracy"] == pytest.approx(4 / 7)
    assert result["per_class"]["daisy"] == pytest.approx(
        {"precision": 3 / 4, "recall": 3 / 4, "f1": 3 / 4, "support": 4}
    )
    assert result["per_class"]["rose"] == pytest.approx(
        {"precision": 1 / 3, "recall": 1 / 2, "f1": 2 / 5, "support": 2}
    )
    assert result["per_class"]["tulip"] == {"precision": 0, "recall": 0, "f1": 0, "support": 1}
    assert result["macro_precision"] == pytest.approx((3 / 4 + 1 / 3) / 3)
    assert result["macro_recall"] == pytest.approx((3 / 4 + 1 / 2) / 3)
    assert result["macro_f1"] == pytest.approx((3 / 4 + 2 / 5) / 3)
    assert result["ece"] == pytest.approx(3 / 7)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_metrics_equal_those_of_scikit_learn(seed):
    y_true, y_prob = draw_predictions(seed=seed)
    y_pred = y_prob.argmax(axis=1)
    result = metrics.evaluate(y_true, y_prob, NAMES)
    report = sklearn_metrics.classification_report(y_true, y_pred, target_names=NAMES, output_dict=True)
    assert result["accuracy"] == pytest.approx(report["accuracy"])
    assert result["macro_f1"] == pytest.approx(report["macro avg"]["f1-score"])
    assert result["macro_recall"] == pytest.approx(sklearn_metrics.balanced_accuracy_score(y_true, y_pred))
    for name in NAMES:
        assert result["per_class"][name]["precision"] == pytest.approx(report[name]["precision"])
        assert result["per_class"][name]["support"] == report[name]["support"]


def test_a_class_without_images_counts_in_the_mean_and_does_not_warn(recwarn):
    result = metrics.evaluate([0, 1], one_hot([0, 1]), NAMES)
    assert result["accuracy"] == 1
    assert result["macro_recall"] == pytest.approx(2 / 3)
    assert not [warning for warning in recwarn if "UndefinedMetric" in str(warning.category)]


def test_metrics_are_plain_numbers_that_json_can_hold():
    result = metrics.evaluate(*draw_predictions(), NAMES)
    per_class = result.pop("per_class")
    assert {type(value) for value in result.values()} == {float}
    for row in per_class.values():
        assert [type(value) for value in row.values()] == [float, float, float, int]


@pytest.mark.parametrize("shape", [(4, 3), (5, 2), (5, 4), (5,), (0, 3)])
def test_shapes_that_do_not_fit_are_an_error_that_names_them(shape):
    with pytest.raises(ValueError, match=r"Received: y_prob of shape " + re.escape(str(shape))):
        metrics.evaluate([0, 1, 2, 0, 1], np.full(shape, 1 / shape[-1]), NAMES)


MEASURES = {
    "evaluate": lambda y, p, q: metrics.evaluate(y, p, NAMES),
    "ece": lambda y, p, q: metrics.expected_calibration_error(y, p),
    "grade": lambda y, p, q: [part.tolist() for part in metrics.grade(y, p)],
    "reliability": lambda y, p, q: {name: part.tolist() for name, part in metrics.reliability_table(y, p).items()},
    "interval": lambda y, p, q: metrics.bootstrap_interval(y, p),
    "macro interval": lambda y, p, q: metrics.bootstrap_interval(y, p, metric="macro_f1", samples=20),
    "paired": metrics.compare_paired,
    "difference": lambda y, p, q: metrics.bootstrap_difference(y, p, q, samples=20),
    "permutation": lambda y, p, q: metrics.permutation_test(y, p, q, samples=20),
    "temperature": lambda y, p, q: metrics.fit_temperature(y, p),
    "weights": lambda y, p, q: metrics.class_weights(y),
    "confusions": lambda y, p, q: metrics.top_confusions(y, p, NAMES),
}


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_labels_in_another_form_give_the_same_numbers_and_other_labels_none(measure):
    y_true, y_prob = draw_predictions()
    other = np.roll(y_prob, 1, axis=1)
    expected = measure(y_true, y_prob, other)
    for form in (y_true[:, None], np.eye(len(NAMES), dtype=int)[y_true], y_true.tolist(), y_true.astype(float)):
        assert measure(form, y_prob, other) == expected
    for wrong in (np.array(NAMES)[y_true], y_true - 1, np.where(y_true == 0, np.nan, y_true)):
        with pytest.raises(ValueError, match=r"Labels are whole numbers.*Received: "):
            measure(wrong, y_prob, other)


@pytest.mark.parametrize("measure", [m for name, m in MEASURES.items() if name != "weights"])
def test_labels_of_other_length_logits_and_no_numbers_are_refused(measure):
    y_true, y_prob = draw_predictions()
    with pytest.raises(ValueError, match=r"Received: y_prob of shape"):
        measure(y_true[:-1], y_prob, y_prob)
    for wrong in (np.log(y_prob + 1e-9), np.where(y_prob == y_prob.max(), np.nan, y_prob)):
        with pytest.raises(ValueError, match=r"Probabilities have one row per image.*Received: y_prob"):
            measure(y_true, wrong, wrong)


def test_a_class_that_never_occurs_has_no_weight_and_is_named():
    with pytest.raises(ValueError, match=r"Every class from 0 to 3 has an image.*without the classes \[2\]"):
        metrics.class_weights([0, 1, 3])


def test_a_perfectly_calibrated_model_has_no_calibration_error():
    confidence = np.repeat([0.6, 0.8, 1.0], 10)
    right = np.concatenate([np.arange(10) < 6, np.arange(10) < 8, np.arange(10) < 10])
    assert metrics.expected_calibration_error(*binary(confidence, right)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("confidence", "hits", "error"), [(1.0, 5, 0.5), (0.9, 5, 0.4), (0.95, 0, 0.95), (0.7, 10, 0.3)]
)
def test_the_calibration_error_is_the_gap_of_confidence_and_accuracy(confidence, hits, error):
    predictions = binary(np.full(10, confidence), np.arange(10) < hits)
    assert metrics.expected_calibration_error(*predictions) == pytest.approx(error)


def test_the_calibration_error_weighs_bins_by_their_images():
    confidence = np.array([0.95] * 8 + [0.65] * 2)
    predictions = binary(confidence, [True] * 4 + [False] * 4 + [True, False])
    assert metrics.expected_calibration_error(*predictions) == pytest.approx(0.8 * 0.45 + 0.2 * 0.15)


def test_gaps_of_opposite_sign_do_not_cancel_between_bins():
    predictions = binary([0.9] * 10 + [0.6] * 10, [True] * 6 + [False] * 4 + [True] * 9 + [False])
    assert metrics.expected_calibration_error(*predictions) == pytest.approx(0.3)
    assert metrics.expected_calibration_error(*predictions, bins=1) == pytest.approx(0)


def test_the_reliability_table_holds_the_filled_bins():
    table = metrics.reliability_table(*binary([0.55, 0.56, 0.95, 1.0], [True, False, True, True]), bins=10)
    np.testing.assert_allclose(table["confidence"], [0.555, 0.975])
    np.testing.assert_allclose(table["accuracy"], [0.5, 1.0])
    np.testing.assert_allclose(table["share"], [0.5, 0.5])


def test_the_interval_contains_the_accuracy():
    for seed in range(5):
        y_true, y_prob = draw_predictions(seed=seed)
        accuracy = (y_prob.argmax(axis=1) == y_true).mean()
        low, high = metrics.bootstrap_interval(y_true, y_prob, seed=seed)
        assert 0 <= low < accuracy < high <= 1


def test_the_interval_of_an_accuracy_of_many_images_is_as_wide_as_the_normal_one():
    y_true, y_prob = binary(np.full(863, 0.9), np.arange(863) < 776)
    low, high = metrics.bootstrap_interval(y_true, y_prob)
    share = 776 / 863
    half_width = stats.norm.ppf(0.975) * np.sqrt(share * (1 - share) / 863)
    assert high - low == pytest.approx(2 * half_width, rel=0.1)


def test_the_interval_shrinks_with_more_images():
    widths = []
    for count in (50, 500, 5000):
        low, high = metrics.bootstrap_interval(*binary(np.full(count, 0.9), np.arange(count) < 0.8 * count))
        widths.append(high - low)
    assert widths[0] > 2 * widths[1] > 4 * widths[2] > 0


def test_the_bootstrap_interval_follows_its_seed():
    predictions = draw_predictions()
    options = {"metric": "macro_f1", "samples": 101}
    intervals = [metrics.bootstrap_interval(*predictions, seed=seed, **options) for seed in (1, 1, 2, 3)]
    assert intervals[0] == intervals[1]
    assert len(set(intervals)) > 1


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [(6, 6, 0.6097, 1.0), (0, 6, 0.0, 0.3903), (9, 10, 0.5958, 0.9821), (776, 863, 0.8773, 0.9175)],
)
def test_the_interval_of_an_accuracy_is_wilsons_at_its_ends_too(right, count, low, high):
    found = metrics.bootstrap_interval(*binary([0.9] * count, np.arange(count) < right))
    assert found == metrics.wilson_interval(right, count)
    assert found == pytest.approx((low, high), abs=1e-4)


def test_no_image_has_no_interval():
    with pytest.raises(ValueError, match="at least one"):
        metrics.bootstrap_interval([], np.empty((0, 2)))
    with pytest.raises(ValueError, match=r"right is a whole number, at least 0, at most 6\. Received: right=7"):
        metrics.wilson_interval(7, 6)


@pytest.mark.parametrize(
    ("values", "mean", "half_width"),
    [
        ([0.90, 0.92, 0.94], 0.92, 4.302653 * 0.02 / np.sqrt(3)),
        ([0.8, 0.9], 0.85, 12.706205 * np.sqrt(0.005) / np.sqrt(2)),
        ([0.5] * 5, 0.5, 0.0),
    ],
)
def test_the_interval_over_seeds_equals_a_hand_computation(values, mean, half_width):
    assert metrics.mean_interval(values) == pytest.approx((mean, half_width), rel=1e-6, abs=1e-12)


def test_one_seed_has_a_mean_and_no_interval():
    mean, half_width = metrics.mean_interval([0.9])
    assert mean == 0.9
    assert np.isnan(half_width)


@pytest.mark.parametrize(("only_a", "only_b", "both"), [(3, 9, 5), (10, 0, 0), (1, 1, 50), (0, 7, 3), (20, 35, 100)])
def test_the_paired_comparison_equals_the_exact_binomial_test(only_a, only_b, both):
    right_a = np.array([1] * only_a + [0] * only_b + [1] * both + [0] * 4)
    right_b = np.array([0] * only_a + [1] * only_b + [1] * both + [0] * 4)
    result = metrics.compare_paired(np.ones(len(right_a), int), one_hot(right_a, 2), one_hot(right_b, 2))
    expected = stats.binomtest(only_a, only_a + only_b, 0.5).pvalue
    assert result == {"only_a": only_a, "only_b": only_b, "p_value": pytest.approx(expected)}


def test_models_that_err_on_the_same_images_do_not_differ():
    y_true, y_prob = draw_predictions()
    assert metrics.compare_paired(y_true, y_prob, y_prob) == {"only_a": 0, "only_b": 0, "p_value": 1.0}


def test_swapping_the_models_swaps_the_counts_only():
    (y_true, first), (_, second) = draw_predictions(seed=0), draw_predictions(seed=1)
    one, other = metrics.compare_paired(y_true, first, second), metrics.compare_paired(y_true, second, first)
    assert (one["only_a"], one["only_b"], one["p_value"]) == (other["only_b"], other["only_a"], other["p_value"])
    assert one["p_value"] < 0.05


def test_confusions_come_most_frequent_first():
    y_true = [0] * 5 + [1] * 4 + [2] * 9
    predicted = [1, 1, 1, 0, 0] + [2, 2, 1, 1] + [2] * 8 + [0]
    confusions = metrics.top_confusions(y_true, one_hot(predicted), NAMES)
    assert confusions == [("daisy", "rose", 3), ("rose", "tulip", 2), ("tulip", "daisy", 1)]


@pytest.mark.parametrize("count", [1, 2])
def test_only_as_many_confusions_as_asked_for(count):
    confusions = metrics.top_confusions([0, 0, 1, 2], one_hot([1, 1, 2, 0]), NAMES, count=count)
    assert confusions == [("daisy", "rose", 2), ("rose", "tulip", 1)][:count]


def test_confusions_of_one_size_come_in_class_order():
    y_true, predicted = zip(*[(t, p) for t in range(5) for p in range(5) if t != p], strict=True)
    confusions = metrics.top_confusions(y_true, one_hot(predicted, 5), list("abcde"), count=6)
    assert [pair[:2] for pair in confusions] == [tuple(pair) for pair in ("ab", "ac", "ad", "ae", "ba", "bc")]


@pytest.mark.parametrize("count", [3, 50])
def test_a_right_answer_is_never_a_confusion(count):
    confusions = metrics.top_confusions([0, 1, 2, 2], one_hot([0, 1, 2, 2]), NAMES, count=count)
    assert confusions == []


def sharpen(y_prob, factor):
    """Probabilities whose logits are multiplied by `factor`."""
    raised = np.asarray(y_prob, dtype=float) ** factor
    return raised / raised.sum(axis=1, keepdims=True)


def draw_calibrated(count=20000, seed=0):
    """Probabilities, and targets that follow exactly them."""
    rng = np.random.default_rng(seed)
    y_prob = sharpen(rng.dirichlet(np.ones(5), count), 1.5)
    return (rng.random((count, 1)) > y_prob.cumsum(axis=1)).sum(axis=1), y_prob


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 4.0])
def test_the_temperature_of_too_sure_and_too_shy_predictions_is_recovered(temperature):
    y_true, y_prob = draw_calibrated()
    assert metrics.fit_temperature(y_true, sharpen(y_prob, temperature)) == pytest.approx(temperature, rel=0.04)


def test_temperatures_multiply():
    y_true, y_prob = draw_predictions(2000)
    once = metrics.fit_temperature(y_true, y_prob)
    assert metrics.fit_temperature(y_true, sharpen(y_prob, 3)) == pytest.approx(3 * once, rel=1e-3)


def test_the_fitted_temperature_is_the_most_likely_of_its_neighbours():
    y_true, y_prob = draw_predictions()
    fitted = metrics.fit_temperature(y_true, y_prob)

    def likelihood(temperature):
        scaled = metrics.apply_temperature(y_prob, temperature)
        return np.log(scaled[np.arange(len(y_true)), y_true]).mean()

    assert likelihood(fitted) > max(likelihood(fitted * 0.98), likelihood(fitted * 1.02), likelihood(1.0))


def test_scaling_removes_most_of_the_calibration_error_on_other_images():
    y_true, y_prob = draw_calibrated()
    overconfident = sharpen(y_prob, 3)
    temperature = metrics.fit_temperature(y_true[:10000], overconfident[:10000])
    before = metrics.expected_calibration_error(y_true[10000:], overconfident[10000:])
    scaled = metrics.apply_temperature(overconfident[10000:], temperature)
    assert before > 0.1
    assert metrics.expected_calibration_error(y_true[10000:], scaled) < 0.02


def test_a_temperature_of_one_changes_nothing():
    _, y_prob = draw_predictions()
    np.testing.assert_allclose(metrics.apply_temperature(y_prob, 1), y_prob, rtol=1e-12)


@pytest.mark.parametrize("temperature", [0.05, 0.7, 3, 20])
def test_no_temperature_changes_the_predicted_class(temperature):
    _, y_prob = draw_predictions(5000, 5)
    y_prob = y_prob.astype(np.float32)
    y_prob[0] = [0, 0, 1, 0, 0]
    y_prob[1] = np.float32([0.3, 0.3, 0.2, 0.1, 0.1]) + np.float32([0, 6e-8, 0, 0, 0])
    scaled = metrics.apply_temperature(y_prob, temperature)
    np.testing.assert_array_equal(scaled.argmax(axis=1), y_prob.argmax(axis=1))
    np.testing.assert_allclose(scaled.sum(axis=1), 1, rtol=1e-12)


def test_a_temperature_stays_within_its_bounds_where_no_finite_one_is_best():
    lowest, highest = metrics.TEMPERATURE_BOUNDS
    assert lowest <= metrics.fit_temperature(*binary(np.full(20, 0.9), np.full(20, True))) < 0.2
    assert metrics.fit_temperature(*binary(np.full(20, 0.9), np.full(20, False))) == pytest.approx(highest, rel=1e-2)


def test_probabilities_of_zero_have_a_finite_temperature():
    temperature = metrics.fit_temperature([0, 1, 2, 0], one_hot([0, 1, 2, 1]).astype(np.float32))
    assert 1 < temperature <= metrics.TEMPERATURE_BOUNDS[1]


def test_no_validation_image_has_no_temperature():
    with pytest.raises(ValueError, match="at least one row"):
        metrics.fit_temperature([], np.empty((0, 3)))


@pytest.mark.parametrize("temperature", [0, -1, float("nan")])
def test_a_temperature_that_is_not_positive_is_an_error(temperature):
    with pytest.raises(ValueError, match=f"above 0. Received: temperature={temperature}"):
        metrics.apply_temperature(one_hot([0]), temperature)


def paired_counts(only_a, only_b, both, neither):
    """Targets and two models' predictions with given numbers of images that one, both or neither gets right."""
    right_a = np.array([1] * only_a + [0] * only_b + [1] * both + [0] * neither)
    right_b = np.array([0] * only_a + [1] * only_b + [1] * both + [0] * neither)
    return np.ones(len(right_a), int), one_hot(right_a, 2), one_hot(right_b, 2)


def test_the_paired_bootstrap_is_as_wide_as_the_normal_interval_of_a_paired_difference():
    result = metrics.bootstrap_difference(*paired_counts(20, 60, 700, 220))
    half_width = stats.norm.ppf(0.975) * np.sqrt((80 - 40**2 / 1000) / 1000**2)
    assert result["difference"] == pytest.approx(0.04)
    assert result["high"] - result["low"] == pytest.approx(2 * half_width, rel=0.1)
    assert result["low"] < 0.04 < result["high"]


def test_the_paired_bootstrap_is_narrower_than_two_intervals():
    y_true, before, after = paired_counts(5, 15, 700, 280)
    paired = metrics.bootstrap_difference(y_true, before, after)
    low, high = metrics.bootstrap_interval(y_true, before)
    assert paired["high"] - paired["low"] < (high - low) / 2


@pytest.mark.parametrize("compare", [metrics.bootstrap_difference, metrics.permutation_test])
@pytest.mark.parametrize("metric", metrics.PAIRED_METRICS)
def test_a_difference_is_that_of_the_evaluated_metric(compare, metric):
    (y_true, first), (_, second) = draw_predictions(seed=0), draw_predictions(seed=1)
    before, after = (metrics.evaluate(y_true, y_prob, NAMES)[metric] for y_prob in (first, second))
    result = compare(y_true, first, second, metric=metric, samples=19)
    assert result["difference"] == pytest.approx(after - before)


@pytest.mark.parametrize("metric", metrics.PAIRED_METRICS)
def test_what_is_seen_of_images_once_measures_any_choice_of_them(metric):
    y_true, y_prob = draw_predictions()
    look, measure = metrics.PAIRED_METRICS[metric]
    for rows in ([3, 3, 0], y_true == 0, slice(10, 40)):  # the second without most classes
        direct = metrics.evaluate(y_true[rows], y_prob[rows], NAMES)[metric]
        assert measure(look(y_true, y_prob)[rows]) == pytest.approx(direct)


@pytest.mark.parametrize("compare", [metrics.bootstrap_difference, metrics.permutation_test])
def test_a_paired_comparison_follows_its_seed(compare):
    y_true, first = draw_predictions()
    second = sharpen(first, 1.1)
    results = [compare(y_true, first, second, metric="ece", seed=seed, samples=99) for seed in (1, 1, 2, 3)]
    assert results[0] == results[1]
    assert not results[0] == results[2] == results[3]


@pytest.mark.parametrize("counts", [(1, 4, 3, 1), (0, 6, 2, 0), (2, 2, 2, 2)])
def test_the_exact_permutation_test_of_the_accuracy_is_the_exact_mcnemar_test(counts):
    predictions = paired_counts(*counts)
    permuted = metrics.permutation_test(*predictions, metric="accuracy")
    assert permuted["p_value"] == pytest.approx(metrics.compare_paired(*predictions)["p_value"])


def test_the_macro_f1_differs_where_mcnemar_sees_no_difference():
    y_true = np.array([0] * 900 + [1] * 30)
    before = one_hot([0] * 880 + [1] * 20 + [1] * 10 + [0] * 20, 2)
    after = one_hot([0] * 862 + [1] * 38 + [1] * 30, 2)
    assert metrics.compare_paired(y_true, before, after)["p_value"] > 0.8
    assert metrics.permutation_test(y_true, before, after)["p_value"] < 0.02
    assert metrics.permutation_test(y_true, before, before)["p_value"] == 1


@pytest.mark.parametrize("compare", [metrics.bootstrap_difference, metrics.permutation_test])
def test_an_unknown_metric_names_the_known_ones(compare):
    with pytest.raises(ValueError, match=r"\['accuracy', 'macro_f1', 'ece'\]. Received: metric='auc'"):
        compare([0], one_hot([0]), one_hot([0]), metric="auc")


@pytest.mark.parametrize("compare", [metrics.bootstrap_difference, metrics.permutation_test])
@pytest.mark.parametrize(("images", "first", "second"), [(2, 3, 2), (3, 2, 2), (0, 0, 0)])
def test_models_on_different_images_cannot_be_compared(compare, images, first, second):
    with pytest.raises(ValueError, match=r"Received: y_prob(_a\.shape=| of shape )\("):
        compare(np.zeros(images, int), np.full((first, 2), 0.5), np.full((second, 2), 0.5))


@pytest.mark.parametrize(
    ("cost", "accuracy", "front"),
    [
        ([1, 2, 3], [0.7, 0.8, 0.9], [True, True, True]),
        ([1, 2, 3], [0.9, 0.8, 0.7], [True, False, False]),
        ([2, 1, 3], [0.8, 0.7, 0.75], [True, True, False]),
        ([1, 1], [0.7, 0.8], [False, True]),
        ([1, 2], [0.7, 0.7], [True, False]),
        ([1, 1], [0.7, 0.7], [True, True]),
    ],
)
def test_on_the_front_is_what_nothing_beats_in_cost_and_accuracy(cost, accuracy, front):
    assert metrics.pareto_front(cost, accuracy).tolist() == front


def test_interval_of_macro_f1_holds_the_value_and_narrows_with_more_images():
    rng = np.random.default_rng(0)
    y_true = rng.integers(0, 3, 900)
    y_prob = np.eye(3)[np.where(rng.random(900) < 0.8, y_true, 0)]
    widths = []
    for count in (100, 900):
        low, high = metrics.bootstrap_interval(y_true[:count], y_prob[:count], metric="macro_f1", samples=300)
        assert low < metrics.evaluate(y_true[:count], y_prob[:count], list("abc"))["macro_f1"] < high
        widths.append(high - low)
    assert widths[0] > 2 * widths[1]


def test_class_weights_give_every_class_the_same_say():
    y = np.repeat([0, 1, 2], [8, 1, 3])
    weights = metrics.class_weights(y)
    assert weights == {0: pytest.approx(0.5), 1: pytest.approx(4.0), 2: pytest.approx(4 / 3)}
    assert np.mean([weights[k] for k in y]) == pytest.approx(1)
    assert all(type(k) is int for k in weights)


@pytest.mark.parametrize(
    ("correct", "confidence", "received"),
    [
        ([True], [0.5, 0.5], r"correct of shape \(1,\)"),
        ([], [], r"shape \(0,\)"),
        ([0, 2], [0.5, 0.5], "correct of shape"),
        ([0, 1], [0.5, 1.5], "confidence of shape"),
        ([0, 1], [0.5, np.nan], "confidence of shape"),
        ([0, 1], ["a", "b"], "dtype <U1"),
    ],
)
def test_answers_that_are_not_graded_have_no_calibration_gap(correct, confidence, received):
    with pytest.raises(ValueError, match=received):
        metrics.calibration_gap(correct, confidence)


def test_the_calibration_gap_of_graded_answers_is_that_of_their_predictions():
    gap = metrics.calibration_gap([True, True, False], [0.9, 0.6, 0.7])
    assert gap == pytest.approx((0.1 + 0.4 + 0.7) / 3)
    assert gap == metrics.expected_calibration_error([0, 1, 1], [[0.9, 0.1], [0.4, 0.6], [0.7, 0.3]])


@pytest.mark.parametrize("samples", [0, -1, 1.5, None])
def test_resampling_takes_at_least_one_sample(samples):
    y_true, y_prob = [0, 1], np.eye(2)
    with pytest.raises(ValueError, match="samples is a whole number, at least 1"):
        metrics.bootstrap_interval(y_true, y_prob, metric="macro_f1", samples=samples)
    for compare in (metrics.bootstrap_difference, metrics.permutation_test):
        with pytest.raises(ValueError, match="samples is a whole number, at least 1"):
            compare(y_true, y_prob, y_prob, samples=samples)
