"""Summaries: records summed up into the book's tables, figures and captions."""

import dataclasses

import numpy as np
import pytest
from builders import HARDWARE, STUDY, make_fold, make_record, save_several

from tlhelpers import metrics
from tlhelpers.experiments import records
from tlhelpers.results import tables


def test_a_summary_is_mean_interval_and_seeds_per_model():
    several = [make_record(seed=seed, wrong=wrong) for seed, wrong in enumerate((0, 1, 2))]
    summary = tables.summarise([*several, make_record(strategy="last6")])
    assert summary.index.names == ["protocol", "model"]
    row = summary.loc["careful", "mobilenetv2_100-frozen"]
    assert row["mean"] == pytest.approx(0.9)
    assert row["half_width"] == pytest.approx(4.302653 * 0.1 / np.sqrt(3), rel=1e-6)
    assert row["seeds"] == 3
    alone = summary.loc["careful", "mobilenetv2_100-last6"]
    assert (alone["mean"], alone["seeds"]) == (0.9, 1)
    assert np.isnan(alone["half_width"])


def test_another_metric_can_be_summed_up():
    record = make_record(wrong=3)
    summary = tables.summarise([record], "ece")
    assert summary["mean"].tolist() == [record.metrics["ece"]]


def test_protocols_are_never_mixed():
    summary = tables.summarise([make_record(wrong=0), make_record(wrong=4, protocol="published")])
    assert summary["mean"].to_dict() == {
        ("careful", "mobilenetv2_100-frozen"): 1.0,
        ("published", "mobilenetv2_100-frozen"): 0.6,
    }


def test_no_records_have_an_empty_summary():
    summary = tables.summarise([])
    assert len(summary) == 0
    assert list(summary.columns) == ["mean", "half_width", "seeds"]


def test_the_reproduction_table_quotes_and_compares(folder):
    for seed, wrong in enumerate((0, 1, 2)):
        records.save_record(make_record(seed=seed, wrong=wrong), folder)
    run = make_record(wrong=4, strategy="last6")
    table = tables.reproduction_table("flowers", {("careful", run.model): run}, recorded=folder)
    assert list(table.columns) == ["published", "recorded", "this build"]
    assert len(table) == 6
    assert table["published"].tolist() == ["67%", "88%", "91%"] * 2
    frozen = table.loc["careful", "MobileNetV2, frozen"]
    assert frozen.tolist() == ["88%", "90.0% ± 24.8 (3 seeds)", "not run in this build"]
    last = table.loc["careful", "MobileNetV2, last six layers"]
    assert last.tolist() == ["91%", "no recorded run yet", "60.0% (1 seed)"]
    assert table.loc["published", "MobileNetV2, frozen"].tolist()[1:] == [
        "no recorded run yet",
        "not run in this build",
    ]


def make_synthetic(**changes):
    """A run of the pocket backbone on synthetic images."""
    return make_record(**({"network": "mobilenetv2_035", "profile": "pocket"} | changes))


@pytest.mark.parametrize(
    ("run", "name"),
    [
        (make_record(), "MobileNetV2"),
        (make_synthetic(), "pocket backbone, frozen, synthetic images"),
        (make_synthetic(strategy="last118"), "pocket backbone, last 118 layers, synthetic images"),
        (make_synthetic(profile="smoke", strategy="full"), "pocket backbone, full, synthetic images"),
        (make_record(network="mobilenetv2_035"), "MobileNetV2"),  # its width on photographs: the label's business
        (make_synthetic(network="small_cnn"), "MobileNetV2, synthetic images"),
        (dataclasses.replace(make_synthetic(), study="leaves"), "MobileNetV2"),  # a folder of one's own: photographs
    ],
)
def test_a_synthetic_run_never_bears_the_name_of_a_network_of_the_source(run, name):
    assert tables.name_run(run, "MobileNetV2") == name


def test_a_build_with_a_synthetic_run_is_called_synthetic():
    assert tables.name_build([]) == tables.name_build([make_record()]) == "this build"
    assert tables.name_build([make_record(), make_synthetic()]) == "this build: pocket backbone, synthetic images"


def test_a_synthetic_run_has_a_row_of_its_own_in_the_reproduction_table(folder):
    run = make_synthetic(wrong=4, protocol="published")
    table = tables.reproduction_table("flowers", {("published", "mobilenetv2_100-frozen"): run}, recorded=folder)
    live = table.loc[table["this build"] != "not run in this build"]
    assert live.index.tolist() == [("published", "pocket backbone, frozen, synthetic images")]
    assert live.iloc[0].tolist() == ["–", "–", "60.0% (1 seed)"]


def test_a_synthetic_run_stands_apart_from_the_model_it_stands_in_for(folder):
    labels, runs = {"mobilenetv2_100-frozen": "Frozen"}, {"mobilenetv2_100-frozen": make_synthetic(wrong=3)}
    name = "pocket backbone, frozen, synthetic images"
    points = tables.compare_sources("flowers", "careful", labels, runs, recorded=folder)
    assert points.set_index("source")["model"].to_dict() == {"published": "Frozen", "this build": name}
    table = tables.metrics_table("flowers", "careful", labels, runs, recorded=folder)
    assert table.loc[("Frozen", "this build"), "accuracy"] == "not run in this build"
    assert table.loc[(name, "this build"), "accuracy"] == "70.0%"
    shares = tables.epoch_shares("flowers", labels, [], runs)
    assert shares.columns[-1] == "this build: pocket backbone, synthetic images"


def test_the_reproduction_table_stands_without_any_run(folder):
    table = tables.reproduction_table("flowers", {}, protocols=["careful"], recorded=folder)
    assert table["recorded"].tolist() == ["no recorded run yet"] * 3
    assert table["this build"].tolist() == ["not run in this build"] * 3


def test_a_recorded_model_is_described_as_in_the_table(folder):
    save_several(folder)
    model = "mobilenetv2_100-frozen"
    assert tables.describe_recorded("flowers", "careful", model, folder=folder) == "90.0% ± 0.0 (2 seeds)"
    assert tables.describe_recorded("flowers", "published", model, folder=folder) == "90.0% (1 seed)"
    assert tables.describe_recorded("flowers", "careful", "baseline_cnn-scratch", folder=folder) == tables.NO_RECORD


def test_sources_are_compared_model_by_model(folder):
    for seed, wrong in enumerate((0, 1, 2)):
        records.save_record(make_record(seed=seed, wrong=wrong), folder)
    run = make_record(strategy="last6", wrong=3)
    labels = {"mobilenetv2_100-frozen": "Frozen", "mobilenetv2_100-last6": "Last six"}
    points = tables.compare_sources("flowers", "careful", labels, {run.model: run}, recorded=folder)
    assert list(zip(points["model"], points["source"], points["accuracy"].round(6), strict=True)) == [
        ("Frozen", "published", 0.88),
        ("Frozen", "recorded", 0.9),
        ("Last six", "published", 0.91),
        ("Last six", "this build", 0.7),
    ]
    low, high = metrics.bootstrap_interval(run.y_true, run.y_prob)
    half_width = 4.302653 * 0.1 / np.sqrt(3)
    np.testing.assert_allclose(points["low"], [np.nan, 0.9 - half_width, np.nan, low], rtol=1e-6)
    np.testing.assert_allclose(points["high"], [np.nan, 0.9 + half_width, np.nan, high], rtol=1e-6)


def test_a_run_of_another_network_is_compared_under_the_name_it_is_given(folder):
    run = make_record(network="mobilenetv2_035", wrong=3)
    labels = {"mobilenetv2_100-frozen": "Frozen"}
    points = tables.compare_sources("flowers", "careful", labels, {"mobilenetv2_100-frozen": run}, recorded=folder)
    assert points["source"].tolist() == ["published", "this build"]
    assert points["accuracy"].tolist() == pytest.approx([0.88, 0.7])


def test_records_of_another_protocol_are_not_compared(folder):
    records.save_record(make_record(protocol="published"), folder)
    labels = {"mobilenetv2_100-frozen": "Frozen"}
    points = tables.compare_sources("flowers", "careful", labels, {}, recorded=folder)
    assert points["source"].tolist() == ["published"]


def test_conditions_name_hardware_versions_and_days():
    versions = {"tensorflow": "2.21.0", "keras": "3.15.0"}
    first = dataclasses.replace(make_record(), versions=versions, recorded_at="2025-03-01T10:00:00+00:00")
    gpu = HARDWARE | {"kind": "GPU", "name": "Tesla T4", "count": 1}
    second = dataclasses.replace(first, hardware=gpu, recorded_at="2025-03-04T10:00:00+00:00")
    assert tables.describe_conditions([first, first]) == (
        "a processor, 2 CPU cores; TensorFlow 2.21.0, Keras 3.15.0; 2025-03-01"
    )
    assert tables.describe_conditions([second, first]) == (
        "Tesla T4, 1 GPU; a processor, 2 CPU cores; TensorFlow 2.21.0, Keras 3.15.0; 2025-03-01 to 2025-03-04"
    )
    assert tables.describe_conditions([]) == "no recorded run"
    alone = dataclasses.replace(first, hardware=first.hardware | {"count": 1})
    assert tables.describe_conditions([alone]).startswith("a processor, 1 CPU core; ")


def test_pooled_predictions_are_every_test_image_once_in_the_order_of_the_images():
    folds = [make_fold(seed, wrong=seed) for seed in range(5)]
    test_id, y_true, y_prob = tables.pool_predictions(folds)
    assert test_id.tolist() == sorted(name for fold in folds for name in fold.test_id)
    assert [STUDY.class_names[target] for target in y_true] == [name.rstrip("-0123456789") for name in test_id]
    assert (y_prob.argmax(axis=1) != y_true).sum() == 0 + 1 + 2 + 3 + 4
    for fold in folds:
        rows = np.searchsorted(test_id, fold.test_id)
        np.testing.assert_array_equal(y_prob[rows], fold.y_prob)


def test_the_order_of_the_records_does_not_matter():
    folds = [make_fold(seed, wrong=seed) for seed in range(3)]
    for one, other in zip(tables.pool_predictions(folds), tables.pool_predictions(folds[::-1]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_exact_copies_within_one_fold_stay_and_stand_alike_for_every_model():
    copies = np.array(["b", "a", "b", *"cdefghi"])
    pools = []
    for strategy, wrong in (("frozen", 1), ("last6", 3)):
        folds = [make_fold(0, wrong=wrong, test_id=copies), make_fold(1, wrong=wrong)]
        pools.append(tables.pool_predictions([dataclasses.replace(fold, strategy=strategy) for fold in folds]))
    (first_id, first_true, first_prob), (second_id, second_true, _) = pools
    assert first_id.tolist() == second_id.tolist()
    assert first_true.tolist() == second_true.tolist()
    assert first_id.tolist().count("b") == 2
    np.testing.assert_array_equal(first_prob[first_id == "b"], make_record(wrong=1).y_prob[[0, 2]])


def test_records_that_test_the_same_image_cannot_be_pooled():
    folds = [make_fold(0), make_fold(1), make_fold(2, test_id=make_fold(1).test_id)]
    with pytest.raises(ValueError, match=r"each image once.*frozen.*seeds \[0, 1, 2\], 10 of 20 images in several"):
        tables.pool_predictions(folds)


@pytest.mark.parametrize(
    "changes", [{"protocol": "published"}, {"strategy": "last6"}, {"network": "resnet50"}, {"dataset_sha256": "0" * 64}]
)
def test_different_models_protocols_or_images_cannot_be_pooled(changes):
    with pytest.raises(ValueError, match=r"one protocol, model and set of images. Received: .*frozen"):
        tables.pool_predictions([make_fold(0), make_fold(1, **changes)])


def test_nothing_cannot_be_pooled():
    with pytest.raises(ValueError, match=r"Received: \[\]"):
        tables.pool_predictions([])


def make_overconfident(seed=0):
    """A record that is sure of everything it says, right or wrong, on validation and test images alike."""
    record = make_fold(seed, wrong=3)
    return dataclasses.replace(
        record,
        y_prob=np.float32(0.995) * record.y_prob.round() + np.float32(0.001),
        validation_true=record.y_true,
        validation_prob=np.float32(0.995) * record.y_prob.round() + np.float32(0.001),
    )


def test_a_calibrated_record_is_as_sure_as_it_is_right():
    record = make_overconfident()
    calibrated = tables.calibrate(record)
    assert calibrated.details["temperature"] > 2
    assert calibrated.metrics["ece"] < 0.01
    assert metrics.expected_calibration_error(record.y_true, record.y_prob) == pytest.approx(0.296, abs=1e-3)
    np.testing.assert_array_equal(calibrated.y_prob.argmax(axis=1), record.y_prob.argmax(axis=1))
    assert calibrated.y_prob.max(axis=1) == pytest.approx(0.7, abs=1e-3)
    unchanged = set(record.metrics) - {"ece"}
    assert {name: calibrated.metrics[name] for name in unchanged} == {name: record.metrics[name] for name in unchanged}
    assert record.details == {}


def test_a_record_without_validation_predictions_cannot_be_calibrated():
    with pytest.raises(ValueError, match="at least one validation image"):
        tables.calibrate(make_record(validation_prob=None))


def test_a_pooled_summary_shows_the_two_uncertainties_apart():
    folds = [make_fold(seed, wrong=wrong) for seed, wrong in enumerate((0, 1, 2))]
    summary = tables.summarise_pooled(folds)
    assert list(summary.index) == [("careful", "mobilenetv2_100-frozen")]
    row = summary.iloc[0]
    _, y_true, y_prob = tables.pool_predictions(folds)
    assert (row["accuracy"], row["seeds"], row["images"]) == (pytest.approx(0.9), 3, 30)
    assert (row["low"], row["high"]) == metrics.bootstrap_interval(y_true, y_prob)
    assert row["seed_spread"] == pytest.approx(0.1)
    evaluated = metrics.evaluate(y_true, y_prob, STUDY.class_names)
    assert (row["macro_f1"], row["ece"]) == (evaluated["macro_f1"], evaluated["ece"])


def test_models_stand_in_the_order_given_and_one_seed_has_no_spread():
    summary = tables.summarise_pooled([make_fold(0), dataclasses.replace(make_fold(0), strategy="a_first_by_name")])
    assert summary.index.get_level_values("model").tolist() == [
        "mobilenetv2_100-frozen",
        "mobilenetv2_100-a_first_by_name",
    ]
    assert summary["seed_spread"].isna().all()


def test_the_pooled_calibration_error_is_also_given_after_scaling_where_there_are_validation_predictions():
    folds = [make_overconfident(seed) for seed in range(2)]
    scaled = tables.summarise_pooled(folds).iloc[0]
    assert scaled["ece"] == pytest.approx(0.296, abs=1e-3)
    assert scaled["scaled_ece"] < 0.01
    empty = {"validation_true": np.empty(0, np.int64), "validation_prob": np.empty(0, np.float32)}
    partly = [folds[0], dataclasses.replace(folds[1], **empty)]
    assert np.isnan(tables.summarise_pooled(partly)["scaled_ece"].iloc[0])


def test_no_records_have_an_empty_pooled_summary():
    summary = tables.summarise_pooled([])
    assert len(summary) == 0
    assert list(summary.columns) == list(tables.POOLED_COLUMNS)


def test_costs_are_seconds_of_every_stage_images_per_second_and_time_of_every_core():
    seconds = {"features": 4.0, "training": 5.0}
    first = make_record(seconds=seconds)
    second = make_record(seed=1, seconds={"features": 4.0, "training": 10.0})
    gpu = make_record(strategy="last6", seconds=seconds, hardware=HARDWARE | {"kind": "GPU", "count": 1})
    table = tables.cost_table([gpu, first, second])
    assert list(table.index) == [
        ("careful", "mobilenetv2_100-last6", "GPU"),
        ("careful", "mobilenetv2_100-frozen", "CPU cores"),
    ]
    columns = ["parameters", "trainable", "seconds", "images_per_second", "device_seconds"]
    assert list(table.columns) == columns
    assert table.iloc[0].tolist() == [10, 3, 9, 5 * 2 / 5, 9]
    assert table.iloc[1].tolist() == [10, 3, (9 + 14) / 2, (2 + 1) / 2, (18 + 28) / 2]


def test_one_slow_machine_does_not_move_what_a_model_costs():
    runs = [make_record(seed=seed, seconds={"training": seconds}) for seed, seconds in enumerate((5.0, 6.0, 24.0))]
    assert tables.cost_table(runs)["seconds"].tolist() == [6]


def test_times_on_different_kinds_of_devices_are_never_averaged():
    gpu = make_record(seed=1, hardware=HARDWARE | {"kind": "GPU", "count": 1})
    assert len(tables.cost_table([make_record(), gpu])) == 2


def test_no_records_cost_nothing():
    assert len(tables.cost_table([])) == 0


def test_a_frozen_model_is_trained_in_the_seconds_of_its_head():
    stages = [{"features": 4.0, "head": 2.0}, {"features": 4.0, "head": 2.0, "training": 5.0}, {"features": 4.0}]
    models = [make_record(strategy=f"stages-{len(seconds)}", seconds=seconds) for seconds in stages]
    rates = tables.cost_table(models)["images_per_second"].tolist()
    assert rates[:2] == [5 * 2 / 2, 5 * 2 / 5]
    assert np.isnan(rates[2])


def test_measured_work_of_the_cores_is_preferred_to_seconds_times_cores():
    measured = {"seconds": {"features": 4.0, "head": 6.0}, "details": {"core_seconds": 13.0}}
    gpu = HARDWARE | {"kind": "GPU", "count": 1}
    table = tables.cost_table([make_record(**measured), make_record(**measured, hardware=gpu)])
    assert table["device_seconds"].tolist() == [13, 10]
    assert table["seconds"].tolist() == [10, 10]


def test_a_gain_is_that_of_the_seeds_both_models_have():
    old = [make_fold(seed, wrong=4) for seed in (0, 1)]
    new = [make_fold(seed, wrong=1, strategy="full") for seed in (1, 2)]
    gain = tables.describe_gain([*old, *new], "mobilenetv2_100-frozen", "mobilenetv2_100-full")
    assert gain.startswith("+30.0 points (+")
    assert tables.describe_gain(old, "mobilenetv2_100-frozen", "mobilenetv2_100-full") == tables.NO_RECORD


def test_metrics_of_every_source_stand_below_each_other(folder):
    for seed, wrong in enumerate((0, 1, 2)):
        records.save_record(make_record(seed=seed, wrong=wrong), folder)
    run = make_record(wrong=4)
    labels = {run.model: "frozen", "mobilenetv2_100-last6": "tuned"}
    table = tables.metrics_table("flowers", "careful", labels, {run.model: run}, recorded=folder)
    assert list(table.columns) == ["accuracy", "macro precision", "macro recall", "macro F1"]
    assert table["accuracy"].to_dict() == {
        ("frozen", "published"): "88%",
        ("frozen", "recorded"): "90.0% ± 24.8 (3 seeds)",
        ("frozen", "this build"): "60.0%",
        ("tuned", "published"): "91%",
        ("tuned", "recorded"): "no recorded run yet",
        ("tuned", "this build"): "not run in this build",
    }
    assert set(table["macro F1"][[("frozen", "published"), ("tuned", "recorded"), ("tuned", "this build")]]) == {"–"}
    assert table.loc[("frozen", "this build"), "macro F1"] == f"{run.metrics['macro_f1']:.1%}"


def test_published_range_is_a_point_with_its_interval():
    points = tables.compare_sources("fashion_mnist", "careful", {"small_cnn-scratch": "CNN"}, {})
    row = points[points["source"] == "published"].iloc[0]
    assert row["accuracy"] == pytest.approx(0.905)
    assert (row["low"], row["high"]) == pytest.approx((0.9, 0.91))


def test_epochs_are_shares_of_the_first_models_epoch_by_source():
    labels = {"small_cnn-random_full": "all", "small_cnn-random_partial": "some", "small_cnn-random_frozen": "none"}
    facts = {"network": "small_cnn", "history": {"loss": [1, 1]}}
    slow = [make_record(seed=s, strategy="random_full", seconds={"training": 20 + s}, **facts) for s in (0, 2)]
    fast = make_record(strategy="random_partial", seconds={"training": 10.5}, **facts)
    shares = tables.epoch_shares("fashion_mnist", labels, [*slow, fast], {fast.model: fast})
    assert shares["published"].tolist() == pytest.approx([1, 30 / 75, 35 / 75])
    assert shares["recorded"].tolist()[:2] == pytest.approx([1, 0.5])
    assert np.isnan(shares.loc["none", "recorded"])
    assert shares["this build"].isna().all()  # without the first model there is nothing to hold the others against


def test_accuracies_stand_with_the_ends_of_their_intervals():
    runs = {"a model": make_record(wrong=2), "another": make_record(wrong=5)}
    table = tables.accuracy_intervals(runs)
    assert list(table.index) == ["a model", "another"]
    assert table["accuracy"].tolist() == [0.8, 0.5]
    for label, run in runs.items():
        assert tuple(table.loc[label, ["low", "high"]]) == metrics.bootstrap_interval(run.y_true, run.y_prob)
