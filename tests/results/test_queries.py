"""Queries: what they say of records, when they hold, and when they cannot tell."""

import dataclasses
import itertools
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from builders import (
    BASELINE_ERRORS,
    FROZEN_ERRORS,
    GPU,
    HARDWARE,
    OVERFITTING,
    SMOOTH,
    STUDY,
    WORLD,
    make_run,
    make_seeds,
    make_world,
)

from tlhelpers.datasets import studies
from tlhelpers.results import queries
from tlhelpers.results.claims import BASELINE, FROZEN, FULL, LAST6, PARTIAL

pytestmark = pytest.mark.usefixtures("quick_queries")

NAMES = STUDY.class_names
NO_COMMON_PICTURES = "mobilenetv2_100-frozen and mobilenetv2_100-last6 have no seed with the same test images"


def ask(query, *models, changes=None):
    """Asks one run of each model in a world in which all holds."""
    return query(STUDY, *make_world(changes, models).values())


def refuse(query, *runs):
    """The reason for which a query cannot tell."""
    with pytest.raises(queries.NotTestableError) as caught:
        query(STUDY, *runs)
    return str(caught.value)


@pytest.mark.parametrize(
    ("query", "model", "numbers"),
    [
        (partial(queries.is_as_good, model=BASELINE), BASELINE, "quoted 67%, measured 67.0% ± 6.5 (1 seed)"),
        (partial(queries.is_as_large, model=BASELINE), BASELINE, "quoted about 11.17 million, counted 11,170,000"),
        (
            queries.overfits,
            BASELINE,
            "validation loss ends 22.2% above its minimum; since then, training loss falls by 0.60",
        ),
        (queries.turns_late, BASELINE, "validation loss is lowest at epoch 3 of 6"),
        (
            queries.reaches_plateau,
            BASELINE,
            "best validation accuracy gains 0.7 points per epoch in the second half",
        ),
        (
            partial(queries.recall_is_best, name="sunflower"),
            BASELINE,
            "recall: daisy 70.0%, dandelion 75.0%, rose 52.5%, sunflower 87.5%, tulip 50.0%",
        ),
        (
            partial(queries.is_taken_for, true="daisy", predicted="rose"),
            BASELINE,
            "daisy is taken most for rose (10 of 12 errors)",
        ),
        (
            queries.is_smooth,
            FROZEN,
            "validation accuracy drops by at most 0.5 points from one epoch to the next",
        ),
        (queries.is_aligned, FROZEN, "training accuracy ends 3.0 points above validation accuracy"),
        (queries.does_not_diverge, FROZEN, "validation loss ends 0.6% above its minimum"),
        (
            partial(queries.recall_is_near_perfect, names=("dandelion", "sunflower")),
            LAST6,
            "recall: dandelion 95.0%, sunflower 95.0%",
        ),
    ],
)
def test_the_numbers_say_what_decided(query, model, numbers):
    assert ask(query, model) == (True, numbers)


@pytest.mark.parametrize(
    ("query", "models", "numbers"),
    [
        (queries.is_more_accurate, (FROZEN, LAST6), "accuracy 88.0% to 91.0%: +3.0 points (95 % interval +"),
        (
            queries.is_better_calibrated,
            (FROZEN, LAST6),
            "calibration error 44.8% to 9.1%: -35.7 points (95 % interval -",
        ),
        (
            queries.is_surer_when_right,
            (FROZEN, LAST6),
            "confidence when right 60.0% to 95.0%: +35.0 points (95 % interval +",
        ),
        (
            queries.is_less_sure_when_wrong,
            (FROZEN, LAST6),
            "confidence when wrong 80.0% to 50.0%: -30.0 points (95 % interval -",
        ),
        (
            queries.needs_fewer_parameters,
            (BASELINE, FROZEN),
            "11,170,000 to 160,000 trainable parameters, accuracy 67.0% to 88.0%: +21.0 points",
        ),
        (
            partial(queries.gains_are_largest, names=("rose", "tulip")),
            (FROZEN, LAST6),
            "F1 in points: daisy +0.0, dandelion +0.0, rose +7.3, sunflower +0.0, tulip +7.3",
        ),
    ],
)
def test_the_numbers_of_a_comparison_name_both_models_and_the_interval(query, models, numbers):
    holds, said = ask(query, *models)
    assert holds
    assert said.startswith(numbers)


def test_a_query_for_what_no_record_holds_says_what_it_needs():
    assert refuse(queries.needs("a meter")) == "needs a meter, which no record holds"


def test_a_class_without_errors_is_taken_for_no_other():
    query = partial(queries.is_taken_for, true="daisy", predicted="rose")
    assert ask(query, BASELINE, changes={BASELINE: {"errors": {}}}) == (False, "every daisy is named rightly")


def err(count):
    return {name: {other: count} for name, other in zip(STUDY.class_names, STUDY.class_names[1:], strict=False)}


@pytest.mark.parametrize(
    ("errors_per_class", "holds"),
    [
        ([17, 17, 17], False),  # 66 % in each: an interval of no width that misses what rounds to 67 %
        ([16, 17, 16], True),
        ([15, 15, 15], False),
        ([5, 5, 25], True),  # 90 %, 90 %, 50 %
        ([5, 5, 8], False),
        ([8, 12], False),  # 84 % and 76 %: a Student interval would reach from 29 % to 131 %
    ],
)
def test_a_quoted_accuracy_is_met_by_the_interval_over_seeds(errors_per_class, holds):
    runs = make_seeds(BASELINE, [err(count) for count in errors_per_class])
    assert queries.is_as_good(STUDY, runs, model=BASELINE)[0] == holds


@pytest.mark.parametrize(
    ("query", "model", "history"),
    [
        (queries.overfits, BASELINE, SMOOTH),
        (queries.turns_late, BASELINE, SMOOTH | {"val_loss": [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]}),
        (queries.reaches_plateau, BASELINE, OVERFITTING | {"val_accuracy": [0.4, 0.5, 0.6, 0.7, 0.8, 0.9]}),
        (queries.is_smooth, FROZEN, SMOOTH | {"val_accuracy": [0.8, 0.7, 0.86, 0.87, 0.88, 0.89]}),
        (queries.is_aligned, FROZEN, OVERFITTING),
        (queries.does_not_diverge, FROZEN, OVERFITTING),
    ],
)
def test_what_curves_do_they_do_in_every_run(query, model, history):
    several = make_seeds(model, [WORLD[model]["errors"]] * 3)
    assert query(STUDY, several)[0]
    several[1] = dataclasses.replace(several[1], history=history)
    assert not query(STUDY, several)[0]


@pytest.mark.parametrize("epochs", [0, 1, 3])
@pytest.mark.parametrize(
    "query",
    [
        queries.overfits,
        queries.turns_late,
        queries.reaches_plateau,
        queries.is_smooth,
        queries.is_aligned,
        queries.does_not_diverge,
    ],
)
def test_a_curve_of_few_epochs_is_no_evidence(query, epochs):
    history = {name: values[:epochs] for name, values in SMOOTH.items()} if epochs else {}
    run = make_run(FROZEN, errors={}, history=history)
    assert refuse(query, [run]) == f"{epochs} epochs make no curve: 4 are the fewest"


def test_classes_are_counted_over_the_pooled_predictions():
    misleading, clear = BASELINE_ERRORS | {"sunflower": {"daisy": 11}}, BASELINE_ERRORS | {"sunflower": {}}
    query = partial(queries.recall_is_best, name="sunflower")
    assert not query(STUDY, make_seeds(BASELINE, [misleading]))[0]
    holds, numbers = query(STUDY, make_seeds(BASELINE, [misleading, clear]))
    assert holds
    assert "sunflower 86.2%" in numbers


def compare_seeds(count, **options):
    """Asks whether two errors less in 200 makes a model more accurate, with some seeds."""
    after = FROZEN_ERRORS | {"tulip": {"rose": 7}}
    runs = (make_seeds(FROZEN, [FROZEN_ERRORS] * count, **options), make_seeds(LAST6, [after] * count, **options))
    return queries.is_more_accurate(STUDY, *runs)


@pytest.mark.parametrize(("count", "holds"), [(1, False), (5, True)])
def test_a_small_difference_becomes_one_over_many_pictures(count, holds):
    found, numbers = compare_seeds(count)
    assert found == holds
    assert "88.0% to 89.0%: +1.0 points" in numbers


def test_the_same_pictures_under_other_seeds_are_no_new_evidence():
    (one, numbers), (five, more_numbers) = (compare_seeds(count, pictures="all") for count in (1, 5))
    assert not one
    assert not five
    assert more_numbers == numbers.replace("1 seed", "5 seeds")


def test_models_are_compared_on_the_seeds_they_share():
    before, after = make_seeds(BASELINE, [BASELINE_ERRORS]), make_seeds(FROZEN, [BASELINE_ERRORS, {}, {}, {}, {}])
    assert queries.is_more_accurate(STUDY, before, after) == (
        False,
        "accuracy 67.0% to 67.0%: +0.0 points (95 % interval +0.0 to +0.0, 1 seed)",
    )


@pytest.mark.parametrize("change", [{"seed": 1}, {"pictures": "other"}])
@pytest.mark.parametrize(
    "query",
    [
        queries.is_more_accurate,
        queries.is_better_calibrated,
        partial(queries.gains_are_largest, names=("rose", "tulip")),
    ],
)
def test_models_without_common_test_pictures_are_not_compared(query, change):
    world = make_world({LAST6: change}, (FROZEN, LAST6))
    assert refuse(query, *world.values()) == NO_COMMON_PICTURES


@pytest.mark.parametrize("model", [FROZEN, LAST6])
def test_a_model_without_errors_has_no_confidence_in_them(model):
    world = make_world({model: {"errors": {}}}, (FROZEN, LAST6))
    assert refuse(queries.is_less_sure_when_wrong, *world.values()) == "one of the models is always right, or never"


def test_the_cost_of_a_part_is_counted_in_core_seconds_where_records_have_them():
    cores = {PARTIAL: 300.0, FULL: 250.0}  # a busy machine made the wall clock say the opposite
    changes = {model: {"hardware": HARDWARE, "details": {"core_seconds": value}} for model, value in cores.items()}
    holds, numbers = ask(queries.is_best_value, LAST6, PARTIAL, FULL, changes=changes)
    assert not holds
    assert numbers.endswith("300 against 250 seconds of a core or GPU")


def test_seconds_of_different_machines_do_not_compare():
    world = make_world({FULL: {"hardware": GPU | {"name": "another GPU"}}}, (LAST6, PARTIAL, FULL))
    assert refuse(queries.is_best_value, *world.values()).endswith("do not compare: a GPU (1), another GPU (1)")


@pytest.mark.parametrize(
    ("names", "holds"), [(("tulip", "rose"), True), (("rose", "tulip"), True), (("rose", "daisy"), False)]
)
def test_main_confusion_counts_both_directions(names, holds):
    query = partial(queries.is_main_confusion, names=names)
    assert ask(query, BASELINE) == (holds, "rose and tulip: 26 of 66 errors")


def test_nothing_confused_is_no_main_confusion():
    perfect = {BASELINE: {"errors": {}}}
    query = partial(queries.is_main_confusion, names=("rose", "tulip"))
    assert ask(query, BASELINE, changes=perfect) == (False, "every picture is named rightly")


def test_quoted_range_is_met_anywhere_inside(monkeypatch):
    query = partial(queries.is_as_good, model=BASELINE)
    for quoted, holds in (((0.5, 0.9), True), ((0.9, 0.95), False), ((0.3, 0.4), False)):
        monkeypatch.setattr(studies, "published_range", lambda *_, quoted=quoted: quoted)
        assert ask(query, BASELINE)[0] is holds


def test_a_model_is_faster_by_the_epoch_whatever_the_number_of_epochs():
    one_epoch = {"loss": [1.0], "val_loss": [1.0]}
    changes = {PARTIAL: {"seconds": 100, "history": SMOOTH}, FULL: {"seconds": 30, "history": one_epoch}}
    assert ask(queries.is_faster, FULL, PARTIAL, changes=changes) == (True, "31.0 and 16.8 seconds an epoch")
    assert ask(queries.is_faster, PARTIAL, FULL, changes=changes)[0] is False


FLATTERS, MISSES = queries.accuracy_flatters, queries.misses_more_than_it_confuses


@pytest.mark.parametrize(
    ("query", "names", "values", "holds"),
    [
        (FLATTERS, ("accuracy", "macro_f1"), (0.8, 0.7), True),
        (FLATTERS, ("accuracy", "macro_f1"), (0.8, 0.79), False),
        (MISSES, ("macro_precision", "macro_recall"), (0.8, 0.7), True),
        (MISSES, ("macro_precision", "macro_recall"), (0.7, 0.8), False),
    ],
)
def test_averages_over_classes_are_held_against_each_other(query, names, values, holds):
    runs = [SimpleNamespace(metrics=dict(zip(names, values, strict=True)))]
    numbers = ", ".join(
        f"{name.replace('_', ' ').replace('f1', 'F1')} {value:.1%}" for name, value in zip(names, values, strict=True)
    )
    assert query(STUDY, runs, by=0.02) == (holds, f"{numbers} (1 seed)")


@pytest.mark.parametrize(
    ("errors", "holds", "share"), [({"rose": {"tulip": 38}}, True, "5.0%"), ({"rose": {"tulip": 30}}, False, "25.0%")]
)
def test_a_classifier_collapses_where_a_class_is_found_less_than_half_as_often_as_by_guessing(errors, holds, share):
    verdict, numbers = ask(queries.collapses, FROZEN, changes={FROZEN: {"errors": errors}})
    assert (verdict, numbers) == (holds, f"rose is found in {share} of its pictures, guessing finds 20.0%")


def test_an_accuracy_reaches_a_bound_or_does_not():
    [runs] = make_world(None, [FROZEN]).values()
    mean = runs[0].metrics["accuracy"]
    assert queries.reaches(STUDY, runs, lowest=mean)[0]
    assert not queries.reaches(STUDY, runs, lowest=mean + 0.001)[0]


def make_scalable(confidence, *, right=8):
    """A run that is right about most of its pictures, and as sure of all of them as is said."""
    y_true = np.zeros(10, int)
    y_prob = np.full((10, 5), (1 - confidence) / 4)
    y_prob[np.arange(10), [0] * right + [1] * (10 - right)] = confidence
    facts = {"y_true": y_true, "y_prob": y_prob, "validation_true": y_true, "validation_prob": y_prob}
    return dataclasses.replace(
        make_run(FROZEN, errors={}), **facts, metrics={"ece": abs(confidence - right / 10), "accuracy": right / 10}
    )


def test_a_temperature_mends_a_model_that_is_too_sure_and_not_one_that_is_as_sure_as_right():
    assert queries.temperature_mends(STUDY, [make_scalable(0.99)])[0]
    assert not queries.temperature_mends(STUDY, [make_scalable(0.99), make_scalable(0.8)])[0]
    bare = dataclasses.replace(make_scalable(0.9), validation_true=np.array([]), validation_prob=np.empty((0, 5)))
    assert refuse(queries.temperature_mends, [bare]) == "mobilenetv2_100-frozen keeps no validation predictions"


def test_a_lead_shrinks_when_it_is_smaller_with_many_pictures():
    bad, fair, good = (
        [make_run(FROZEN, errors={name: {other: count} for name, other in itertools.pairwise(NAMES)})]
        for count in (30, 10, 0)
    )
    assert queries.lead_shrinks(STUDY, bad, good, fair, good)[0]
    assert not queries.lead_shrinks(STUDY, fair, good, bad, good)[0]
    assert not queries.lead_shrinks(STUDY, fair, good, fair, good)[0]
    others = [make_run(FROZEN, errors={}, pictures="others")]
    assert refuse(queries.lead_shrinks, bad, good, fair, others).endswith("no seed with the same test images")


def test_a_grid_has_its_best_rates_where_its_accuracy_is_highest():
    def cell(part, rate, count):
        run = make_run(
            FROZEN, errors={"daisy": {"rose": count}}, details={"recipe": {"unfrozen": part, "learning_rate": rate}}
        )
        return [run]

    grid = [cell("all", 0.1, 1), cell("all", 1.0, 9), cell(6, 0.1, 9), cell(6, 1.0, 1)]
    assert queries.has_best_rates(STUDY, *grid, rates={"all": 0.1, 6: 1.0})[0]
    assert not queries.has_best_rates(STUDY, *grid, rates={"all": 1.0, 6: 1.0})[0]


def test_errors_are_among_some_classes_or_elsewhere():
    run = make_run(FROZEN, errors={"daisy": {"rose": 6}, "tulip": {"sunflower": 4}})
    among = partial(queries.errors_are_among, STUDY, [run], share=0.5)
    assert among(names=("daisy", "rose")) == (True, "6 of 10 errors are among daisy, rose")
    assert not among(names=("tulip", "sunflower"))[0]
    assert not among(names=("daisy", "tulip"))[0]
    assert not queries.errors_are_among(STUDY, [make_run(FROZEN, errors={})], names=("daisy",), share=0.5)[0]


def test_copies_that_are_left_out_of_an_official_test_part_are_missed_in_the_counts():
    run, count = make_run(FROZEN, errors={}), STUDY.published_test_count
    fewer, all_of_them = (dataclasses.replace(run, counts=run.counts | {"test": n}) for n in (count - 1, count))
    assert queries.tests_fewer_than_official(STUDY, [fewer])[0]
    assert not queries.tests_fewer_than_official(STUDY, [fewer, all_of_them])[0]
