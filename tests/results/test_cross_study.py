"""The synthesis: studies side by side, domains in order, and a conclusion that records decide."""

import dataclasses

import pandas as pd
import pytest
from builders import FROZEN_ERRORS, HARDWARE, PARTIAL_ERRORS, STUDY, UNTRAINED_ERRORS, make_run, save_several

from tlhelpers.experiments import grids
from tlhelpers.results import claims, cross_study, queries, tables
from tlhelpers.results.claims import FROZEN, FULL, LAST6, NOT_SUPPORTED, NOT_TESTABLE, PARTIAL, SUPPORTED

pytestmark = pytest.mark.usefixtures("quick_queries")

LINEAR = "mobilenetv2_100-frozen_linear"
WRONG = {name: {next(n for n in STUDY.class_names if n != name): 40} for name in STUDY.class_names}


def domain_run(share_wrong, *, distance=None, seed=0):
    """A run in which every class is misread in the same share of its 40 pictures."""
    errors = {name: {other: round(40 * share_wrong)} for name, others in WRONG.items() for other in others}
    details = {} if distance is None else {"domain_distance": distance}
    return make_run("mobilenetv2_100-domain", errors=errors, details=details, seed=seed)


def make_domains(rows):
    """Runs of the comparison: per study its distance and its shares of errors, frozen and moving."""
    return {
        (study, way): domain_run(wrong, distance=distance if way == "frozen" else None)
        for study, (distance, *shares) in rows.items()
        for way, wrong in zip(cross_study.WAYS, shares, strict=True)
    }


def ask_order(accuracies, *, sign=-1):
    """Holds some domains, each a step farther than the one before, against an order."""
    rows = {str(step): {"distance": step, "frozen": value} for step, value in enumerate(accuracies)}
    return cross_study.goes_with_distance(None, rows, measure="frozen", sign=sign)


def make_ladder(frozen, part, everything, *, seconds=(10, 100, 200), **changes):
    """One run of each strategy, by its errors."""
    models = zip((LINEAR, PARTIAL, FULL), (frozen, part, everything), seconds, strict=True)
    return [[make_run(model, errors=errors, seconds=cost, **changes)] for model, errors, cost in models]


@pytest.mark.parametrize(("wrong", "expected"), [(0, 1.0), (0.8, 0.0), (0.4, 0.5)])
def test_chance_adjusted_accuracy_is_zero_for_guessing_and_one_for_perfection(wrong, expected):
    assert cross_study.chance_adjusted_accuracy(domain_run(wrong)) == pytest.approx(expected)


def test_domains_stand_in_the_order_of_their_distance_with_what_moving_gains():
    table = cross_study.domain_table(make_domains({"fer2013": (0.5, 0.4, 0.2), "cats_dogs": (0.3, 0.2, 0.2)}))
    assert list(table.index) == ["cats_dogs", "fer2013"]
    assert table.loc["fer2013"].to_dict() == pytest.approx(
        {"distance": 0.5, "frozen": 0.5, "fine-tuned": 0.75, "gain": 0.25, "seeds": 1}
    )


def test_what_moving_gains_is_counted_on_the_seeds_of_both_ways():
    still, moves = cross_study.WAYS
    runs = {
        ("flowers", still, 0): domain_run(0.4, distance=0.2),
        ("flowers", moves, 0): domain_run(0.0),
        ("flowers", still, 1): domain_run(0.8, distance=0.4, seed=1),
        ("cats_dogs", moves, 0): domain_run(0.0),
    }
    table = cross_study.domain_table(runs)
    assert list(table.index) == ["flowers"]
    assert table.loc["flowers"].tolist() == pytest.approx([0.3, 0.25, 1.0, 0.5, 2])


def test_where_nothing_moves_there_is_a_distance_and_no_gain():
    table = cross_study.domain_table({("flowers", cross_study.WAYS[0]): domain_run(0.4, distance=0.2)})
    assert table.loc["flowers", ["distance", "frozen"]].tolist() == pytest.approx([0.2, 0.5])
    assert table[["fine-tuned", "gain"]].isna().all(axis=None)
    rows = dict.fromkeys("abcd", table.to_dict("index")["flowers"])
    with pytest.raises(queries.NotTestableError, match="no backbone is fine-tuned"):
        cross_study.goes_with_distance(None, rows, measure="gain", sign=1)


def test_no_run_makes_an_empty_comparison_of_domains():
    assert list(cross_study.domain_table({}).columns) == ["distance", "frozen", "fine-tuned", "gain", "seeds"]
    assert cross_study.domain_table({}).empty


@pytest.mark.parametrize(
    ("values", "holds"),
    [
        ([0.9, 0.8, 0.5, 0.2], True),
        ([0.9, 0.8, 0.2, 0.5], False),  # four domains: one exchange and chance could have done it
        ([0.9, 0.8, 0.7, 0.2, 0.5], True),
        ([0.2, 0.5, 0.8, 0.9], False),
    ],
)
def test_an_order_counts_when_chance_hardly_makes_one_as_clear(values, holds):
    assert ask_order(values)[0] is holds


def test_an_order_says_its_correlation_and_its_domains():
    holds, numbers = ask_order([0.2, 0.5, 0.8, 0.9], sign=1)
    assert holds
    assert numbers.startswith("rank correlation +1.00 over 4 domains, by chance in 4%: 0 0.00: 20.0%")


def test_three_domains_make_no_order():
    with pytest.raises(queries.NotTestableError, match="3 domains make no order: 4 are the fewest"):
        ask_order([0.9, 0.5, 0.2])


def test_each_step_of_unfreezing_has_to_pay():
    steps = UNTRAINED_ERRORS, FROZEN_ERRORS, {}
    assert cross_study.each_step_pays(None, make_ladder(*steps))[0]
    holds, numbers = cross_study.each_step_pays(None, make_ladder(UNTRAINED_ERRORS, FROZEN_ERRORS, FROZEN_ERRORS))
    assert not holds
    assert numbers.count("95 % interval") == 2


def flattered(record):
    return dataclasses.replace(record, metrics=record.metrics | {"accuracy": 0.8, "macro_f1": 0.7})


def test_accuracy_has_to_flatter_in_every_imbalanced_study():
    ladder = make_ladder(FROZEN_ERRORS, PARTIAL_ERRORS, PARTIAL_ERRORS)
    uneven = [[flattered(ladder[0][0])], *ladder[1:]]
    assert cross_study.accuracy_flatters(None, {"fer2013": uneven})[0]
    holds, numbers = cross_study.accuracy_flatters(None, {"fer2013": uneven, "deepweeds": ladder})
    assert not holds
    assert "deepweeds: accuracy 88.0%" in numbers


def test_a_part_is_often_best_when_it_is_in_more_than_half_of_the_studies():
    best = make_ladder(UNTRAINED_ERRORS, PARTIAL_ERRORS, PARTIAL_ERRORS)
    dear = make_ladder(UNTRAINED_ERRORS, PARTIAL_ERRORS, PARTIAL_ERRORS, seconds=(10, 200, 100))
    assert cross_study.part_is_often_best(None, {"flowers": best}) == (True, "1 of 1 studies: flowers")
    assert cross_study.part_is_often_best(None, {"flowers": best, "fer2013": dear})[0] is False


def test_seconds_of_several_machines_decide_nothing_about_value():
    mixed = make_ladder(UNTRAINED_ERRORS, PARTIAL_ERRORS, PARTIAL_ERRORS)
    mixed[2] = make_ladder({}, {}, {}, hardware=HARDWARE)[2]
    best = make_ladder(UNTRAINED_ERRORS, PARTIAL_ERRORS, PARTIAL_ERRORS)
    assert cross_study.part_is_often_best(None, {"flowers": best, "fer2013": mixed})[1] == "1 of 1 studies: flowers"
    with pytest.raises(queries.NotTestableError, match="several machines"):
        cross_study.part_is_often_best(None, {"fer2013": mixed})


def no_records():
    return {study: {} for study in cross_study.STRATEGIES}


def test_the_first_whole_ladder_of_a_study_is_taken():
    whole = {model: [make_run(model, errors={})] for model in (LINEAR, PARTIAL, FULL)}
    broken = {model: [make_run(model, errors={})] for model in ("resnet18-frozen", "resnet18-partial")}
    evidence = cross_study.gather_evidence(no_records() | {"fer2013": broken | whole}, {})
    assert [[run.model for run in step] for step in evidence[cross_study.FACES]] == [[LINEAR], [PARTIAL], [FULL]]
    assert set(evidence[cross_study.ALL_STRATEGIES]) == set(evidence[cross_study.IMBALANCED]) == {"fer2013"}
    complete = broken | {"resnet18-full": [make_run("resnet18-full", errors={})]}
    evidence = cross_study.gather_evidence(no_records() | {"fer2013": complete | whole}, {})
    assert evidence[cross_study.FACES][2][0].model == "resnet18-full"


def test_without_records_no_sentence_of_the_conclusion_is_decided(tmp_path):
    table = cross_study.check_conclusion("careful", recorded=tmp_path)
    assert len(table) == len({claim.name for claim in cross_study.CONCLUSION}) == len(cross_study.CONCLUSION)
    assert set(table["recorded"]) == set(table["this build"]) == {NOT_TESTABLE}
    assert table.loc["near-works-better", "numbers"] == "no record of the comparison of domains"


def test_the_conclusion_is_decided_by_the_runs_of_this_build(tmp_path):
    near_to_far = [(0.2, 0.0, 0.0), (0.3, 0.1, 0.05), (0.4, 0.2, 0.1), (0.5, 0.3, 0.15), (0.6, 0.4, 0.1)]
    domains = make_domains(dict(zip(grids.DOMAINS, near_to_far, strict=True)))
    ladder = make_ladder(UNTRAINED_ERRORS, FROZEN_ERRORS, {})
    names = "resnet18-frozen", "resnet18-partial", "resnet18-full"  # as the source calls what this build trains
    runs = {"fer2013": {name: run for name, (run,) in zip(names, ladder, strict=True)}}
    table = cross_study.check_conclusion("careful", runs=runs, domains=domains, recorded=tmp_path)
    assert table["this build"].to_dict() == {
        "near-works-better": SUPPORTED,
        "far-gains-more": SUPPORTED,
        "steps-pay": SUPPORTED,
        "macro-needed": NOT_SUPPORTED,
        "part-often-best": NOT_SUPPORTED,
    }
    assert table.loc["steps-pay", "numbers"].startswith("this build: accuracy 50.0% to 88.0%")


def test_the_committed_records_decide_every_sentence_of_the_conclusion():
    table = cross_study.check_conclusion("careful")
    assert NOT_TESTABLE not in set(table["recorded"])
    assert set(table["recorded"]) <= set(claims.VERDICTS)


def test_all_models_of_a_study_stand_in_the_table_wherever_they_come_from(tmp_path):
    save_several(tmp_path)
    live = {"baseline_cnn-scratch": make_run("baseline_cnn-scratch", errors={}), PARTIAL: make_run(PARTIAL, errors={})}
    table = cross_study.studies_table("careful", {"flowers": live, "fer2013": {}}, recorded=tmp_path)
    flowers = table.loc[STUDY.title]
    assert list(flowers.index) == ["Baseline CNN", "MobileNetV2, frozen", "MobileNetV2, last six layers", PARTIAL]
    assert flowers["published"].tolist() == ["67%", "88%", "91%", "–"]
    assert flowers.loc["Baseline CNN", "recorded"] == tables.NO_RECORD
    assert flowers.loc["MobileNetV2, frozen", ["recorded", "seeds"]].tolist() == ["90.0% ± 0.0", "2"]
    assert flowers.loc["MobileNetV2, last six layers", ["recorded", "seeds"]].tolist() == ["90.0%", "1"]
    assert flowers["this build"].tolist() == ["100.0%", "–", "–", "100.0%"]
    assert set(table.loc["FER2013", "recorded"]) == {tables.NO_RECORD}


def test_a_synthetic_run_stands_below_neither_the_real_set_nor_the_sources_network(tmp_path):
    run = dataclasses.replace(make_run("mobilenetv2_035-frozen", errors={}), profile="pocket")
    table = cross_study.studies_table("careful", {"flowers": {FROZEN: run}}, recorded=tmp_path)
    assert table.index[table["this build"] == "100.0%"].tolist() == [
        ("synthetic flowers", "pocket backbone, frozen, synthetic images")
    ]
    assert table.loc[(STUDY.title, "MobileNetV2, frozen"), "this build"] == "–"


def test_the_conclusion_asks_only_for_evidence_that_is_gathered():
    asked = {name for claim in cross_study.CONCLUSION for name in claim.models}
    assert asked == set(cross_study.gather_evidence(no_records(), {}))


def test_every_rung_is_a_strategy_that_some_plan_or_chapter_trains():
    rungs = {model.split("-", 1)[1] for lines in cross_study.STRATEGIES.values() for line in lines for model in line}
    assert rungs == {"frozen", "frozen_linear", "partial", "full"}
    assert all(len(line) == 3 for lines in cross_study.STRATEGIES.values() for line in lines)
    assert {FROZEN, LAST6}.isdisjoint({m for lines in cross_study.STRATEGIES.values() for line in lines for m in line})


def test_the_comparison_of_domains_is_a_frame_that_pages_can_style():
    table = cross_study.domain_table(make_domains({"flowers": (0.3, 0.2, 0.1)}))
    assert isinstance(table, pd.DataFrame)
    assert table.dtypes.eq(float).all()
