"""Claims: each is decided by the records handed to it, one way and the other, and never by hand."""

import dataclasses
import re

import pytest
from builders import (
    BASELINE_ERRORS,
    FROZEN_ERRORS,
    LAST6_ERRORS,
    OVERFITTING,
    PARTIAL_ERRORS,
    SMOOTH,
    STUDY,
    UNTRAINED_ERRORS,
    WORLD,
    make_run,
    make_world,
)

from tlhelpers.experiments import records
from tlhelpers.results import claims
from tlhelpers.results.claims import (
    BASELINE,
    FAST,
    FROZEN,
    FULL,
    LAST6,
    NOT_SUPPORTED,
    NOT_TESTABLE,
    PARTIAL,
    SLOW,
    SUPPORTED,
    UNTRAINED,
)

pytestmark = pytest.mark.usefixtures("quick_queries")

BY_NAME = {claim.name: claim for claim in claims.CLAIMS["flowers"]}
NEEDING_MORE = ("residual-errors",)
# Worse than frozen in every class, least so in rose and tulip.
LOSING_ERRORS = {
    "daisy": {"dandelion": 20},
    "dandelion": {"sunflower": 20},
    "rose": {"tulip": 7},
    "sunflower": {"daisy": 20},
    "tulip": {"rose": 14},
}


def decide(name, runs):
    return claims.decide_claim(BY_NAME[name], STUDY, runs)


def decide_in_world(name, changes=None):
    return decide(name, make_world(changes, BY_NAME[name].models))


def vary(history, **curves):
    return {"history": history | curves}


def misread(errors, **changes):
    return {"errors": errors | changes}


@pytest.mark.parametrize("name", [name for name in BY_NAME if name not in NEEDING_MORE])
def test_a_claim_is_supported_where_it_holds(name):
    assert decide_in_world(name).verdict == SUPPORTED


REFUTATIONS = [
    ("baseline-accuracy", {BASELINE: {"errors": FROZEN_ERRORS}}),
    ("baseline-accuracy", {BASELINE: {"errors": UNTRAINED_ERRORS}}),
    ("frozen-accuracy", {FROZEN: {"errors": {}}}),
    ("tuned-accuracy", {LAST6: {"errors": BASELINE_ERRORS}}),
    ("baseline-size", {BASELINE: {"trainable": 12_000_000}}),
    ("baseline-size", {BASELINE: {"trainable": 11_170}}),
    ("frozen-size", {FROZEN: {"trainable": 881_413}}),
    ("baseline-overfits", {BASELINE: vary(OVERFITTING, val_loss=[1.2, 1.0, 0.9, 0.85, 0.83, 0.8])}),
    ("baseline-overfits", {BASELINE: vary(OVERFITTING, val_loss=[1.2, 1.0, 0.9, 0.91, 0.92, 0.94])}),
    ("baseline-overfits", {BASELINE: vary(OVERFITTING, loss=[1.4, 1.1, 0.9, 0.95, 1.0, 1.0])}),
    ("baseline-turns-late", {BASELINE: vary(OVERFITTING, val_loss=[1.2, 0.9, 0.95, 1.0, 1.1, 1.2])}),
    ("baseline-turns-late", {BASELINE: vary(OVERFITTING, val_loss=[1.2, 1.0, 0.9, 0.85, 0.83, 0.8])}),
    ("baseline-plateau", {BASELINE: vary(OVERFITTING, val_accuracy=[0.5, 0.6, 0.65, 0.66, 0.67, 0.69])}),
    ("baseline-best-class", {BASELINE: misread(BASELINE_ERRORS, sunflower={"daisy": 11})}),
    ("baseline-worst-classes", {BASELINE: misread(BASELINE_ERRORS, daisy={"rose": 20})}),
    ("baseline-daisy-rose", {BASELINE: misread(BASELINE_ERRORS, daisy={"rose": 2, "tulip": 10})}),
    ("baseline-daisy-rose", {BASELINE: misread(BASELINE_ERRORS, daisy={})}),
    ("baseline-tulip-rose", {BASELINE: misread(BASELINE_ERRORS, tulip={"rose": 6, "daisy": 7})}),
    ("baseline-dandelion-sunflower", {BASELINE: misread(BASELINE_ERRORS, dandelion={"sunflower": 1, "tulip": 2})}),
    ("frozen-smooth", {FROZEN: vary(SMOOTH, val_accuracy=[0.8, 0.84, 0.86, 0.88, 0.855, 0.89])}),
    ("frozen-aligned", {FROZEN: vary(SMOOTH, accuracy=[0.7, 0.8, 0.85, 0.88, 0.9, 0.95])}),
    ("frozen-converges", {FROZEN: vary(SMOOTH, val_loss=[0.5, 0.4, 0.32, 0.33, 0.33, 0.34])}),
    ("frozen-beats-baseline", {FROZEN: {"errors": BASELINE_ERRORS}}),
    ("frozen-beats-baseline", {BASELINE: {"errors": {}}}),
    ("tuned-beats-frozen", {LAST6: misread(FROZEN_ERRORS, tulip={"rose": 8})}),
    ("features-not-parameters", {FROZEN: {"trainable": 20_000_000}}),
    ("features-not-parameters", {FROZEN: {"errors": BASELINE_ERRORS}}),
    ("weights-not-architecture", {UNTRAINED: {"errors": FROZEN_ERRORS}}),
    ("tuned-gains", {LAST6: misread(FROZEN_ERRORS, daisy={}, sunflower={}, tulip={"rose": 8})}),
    ("tuned-gains", {LAST6: {"errors": FROZEN_ERRORS}}),
    ("tuned-gains", {LAST6: {"errors": LOSING_ERRORS}}),
    ("tuned-near-perfect", {LAST6: misread(LAST6_ERRORS, sunflower={"daisy": 3})}),
    ("tuned-calibration", {LAST6: {"errors": FROZEN_ERRORS, "right": 0.6, "wrong": 0.8}}),
    ("tuned-calibration", {LAST6: {"right": 0.3, "wrong": 0.9}}),
    ("tuned-sure-when-right", {LAST6: {"right": 0.6}}),
    ("tuned-sure-when-right", {LAST6: {"right": 0.5}}),
    ("tuned-unsure-when-wrong", {LAST6: {"wrong": 0.8}}),
    ("tuned-unsure-when-wrong", {LAST6: {"wrong": 0.9}}),
    ("small-rate", {FAST: {"details": {"old_head_accuracy": 0.88, "recipe": {"learning_rate": 1e-2}}}}),
    ("partial-best-value", {PARTIAL: {"seconds": 300}}),
    ("partial-best-value", {LAST6: {"errors": PARTIAL_ERRORS}}),
    ("partial-best-value", {FULL: {"errors": {}}}),
]


@pytest.mark.parametrize(("name", "changes"), REFUTATIONS)
def test_a_claim_is_not_supported_where_it_does_not_hold(name, changes):
    assert decide_in_world(name, changes).verdict == NOT_SUPPORTED


def test_every_claim_that_records_decide_can_be_refuted():
    assert {name for name, _ in REFUTATIONS} | set(NEEDING_MORE) == set(BY_NAME)


@pytest.mark.parametrize("name", NEEDING_MORE)
def test_what_records_cannot_decide_says_what_it_needs(name):
    finding = decide_in_world(name)
    assert finding.verdict == NOT_TESTABLE
    assert finding.numbers.startswith("needs ")
    assert finding.numbers.endswith(", which no record holds")


@pytest.mark.parametrize("name", [name for name, claim in BY_NAME.items() if claim.models])
def test_missing_records_are_named(name):
    missing = BY_NAME[name].models[-1]
    runs = {model: runs for model, runs in make_world(models=BY_NAME[name].models).items() if model != missing}
    assert decide(name, runs) == (NOT_TESTABLE, f"no record of {missing}")
    assert decide(name, {}) == (NOT_TESTABLE, f"no record of {', '.join(BY_NAME[name].models)}")


def test_forgetting_is_told_from_the_old_head_at_both_rates():
    assert decide_in_world("small-rate").numbers == (
        "the old head gets 88.0% at the rate 0.0001, the old head gets 40.0% at the rate 0.01 (1 seed)"
    )


def test_the_grid_of_depths_is_asked_where_its_sweep_leaves_it(folder):
    for [run] in make_world(models=(SLOW, FAST)).values():
        records.save_record(run, folder / "sweeps" / "depths")
    frame = claims.check_claims("flowers", "careful", recorded=folder)
    assert frame.loc["small-rate", "recorded"] == SUPPORTED


def save_world(folder, **changes):
    for [run] in make_world(**changes).values():
        records.save_record(run, folder)


def test_recorded_runs_and_this_build_are_judged_by_the_same_query(folder):
    save_world(folder)
    runs = {BASELINE: make_run(BASELINE, **WORLD[BASELINE] | {"errors": UNTRAINED_ERRORS})}
    frame = claims.check_claims("flowers", "careful", runs=runs, recorded=folder)
    assert list(frame.columns) == ["claim", "recorded", "this build", "numbers"]
    assert frame.index.tolist() == list(BY_NAME)
    assert frame.loc["baseline-accuracy"].tolist() == [
        "The baseline has the accuracy quoted for it.",
        SUPPORTED,
        NOT_SUPPORTED,
        "quoted 67%, measured 67.0% ± 6.5 (1 seed)",
    ]
    assert frame.loc["tuned-accuracy", ["recorded", "this build"]].tolist() == [SUPPORTED, NOT_TESTABLE]


def test_without_recorded_runs_the_numbers_are_those_of_this_build(folder):
    runs = {BASELINE: make_run(BASELINE, **WORLD[BASELINE])}
    frame = claims.check_claims("flowers", "careful", runs=runs, recorded=folder)
    assert frame.loc["baseline-accuracy"].tolist()[1:] == [
        NOT_TESTABLE,
        SUPPORTED,
        "this build: quoted 67%, measured 67.0% ± 6.5 (1 seed)",
    ]
    assert frame.loc["frozen-accuracy", "numbers"] == "no record of mobilenetv2_100-frozen"


def test_numbers_of_a_synthetic_build_say_so(folder):
    run = dataclasses.replace(make_run("mobilenetv2_035-frozen", **WORLD[FROZEN]), profile="pocket")
    frame = claims.check_claims("flowers", "careful", runs={FROZEN: run}, recorded=folder)
    assert frame.loc["frozen-accuracy", "numbers"].startswith("this build: pocket backbone, synthetic images: quoted")


def test_a_run_of_another_network_is_judged_under_the_name_it_is_given(folder):
    runs = {FROZEN: make_run("mobilenetv2_035-frozen", **WORLD[FROZEN])}
    frame = claims.check_claims("flowers", "careful", runs=runs, recorded=folder)
    assert frame.loc["frozen-accuracy", "this build"] == SUPPORTED


def test_records_of_another_protocol_are_not_asked(folder):
    save_world(folder, protocol="published")
    assert set(claims.check_claims("flowers", "careful", recorded=folder)["recorded"]) == {NOT_TESTABLE}
    assert SUPPORTED in set(claims.check_claims("flowers", "published", recorded=folder)["recorded"])


def test_runs_of_another_protocol_are_refused(folder):
    runs = {BASELINE: make_run(BASELINE, **WORLD[BASELINE])}
    with pytest.raises(
        ValueError, match=r"protocol 'published'\. Received: runs of {'baseline_cnn-scratch': 'careful'}"
    ):
        claims.check_claims("flowers", "published", runs=runs, recorded=folder)


def test_unknown_studies_and_protocols_are_named():
    with pytest.raises(ValueError, match=rf"{re.escape(str(sorted(claims.CLAIMS)))}. Received: study='birds'"):
        claims.check_claims("birds", "careful")
    with pytest.raises(ValueError, match="Received: protocol='mine'"):
        claims.check_claims("flowers", "mine")


@pytest.mark.parametrize("study", claims.CLAIMS)
def test_names_and_sentences_are_unique(study):
    for column in ("name", "sentence"):
        values = [getattr(claim, column) for claim in claims.CLAIMS[study]]
        assert len(values) == len(set(values))


@pytest.mark.parametrize("study", claims.CLAIMS)
@pytest.mark.parametrize("protocol", ["published", "careful"])
def test_claims_about_the_committed_records_have_verdicts_and_reasons(study, protocol):
    frame = claims.check_claims(study, protocol)
    assert set(frame["recorded"]) <= set(claims.VERDICTS)
    assert set(frame["this build"]) == {NOT_TESTABLE}
    assert frame["numbers"].str.len().gt(0).all()
    assert not frame["numbers"].str.contains("nan").any()


def test_what_a_query_cannot_tell_is_not_testable_for_its_reason():
    finding = decide_in_world("tuned-beats-frozen", {LAST6: {"seed": 1}})
    assert finding == (
        NOT_TESTABLE,
        "mobilenetv2_100-frozen and mobilenetv2_100-last6 have no seed with the same test images",
    )
