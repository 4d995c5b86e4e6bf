"""What the sources say, sentence by sentence, each with the query on records that decides it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from tlhelpers import settings
from tlhelpers.datasets import splits, studies
from tlhelpers.datasets.studies import HIGHEST_TRAINING, LOWEST_VALIDATION
from tlhelpers.experiments import records, sweeps
from tlhelpers.results import queries, tables

SUPPORTED, NOT_SUPPORTED, NOT_TESTABLE = VERDICTS = ("supported", "not supported", "not testable in this build")

METRIC_WORDS = {"accuracy": "accuracy", "macro_f1": "macro F1"}
BASELINE, FROZEN, LAST6 = "baseline_cnn-scratch", "mobilenetv2_100-frozen", "mobilenetv2_100-last6"
WEED_FROZEN, WEED_PARTIAL, WEED_FULL = "resnet50-frozen", "resnet50-partial", "resnet50-full"
FACE_FROZEN, FACE_PARTIAL, FACE_FULL = "resnet18-frozen", "resnet18-partial", "resnet18-full"
OVERFITTED, RESCUED = "mobilenetv2_100-overfitted", "mobilenetv2_100-rescued"
SMALL, SMALL_FROZEN, SMALL_FULL = "small_cnn-scratch", "small_cnn-frozen", "small_cnn-full"
RANDOM_FULL, RANDOM_PARTIAL, RANDOM_FROZEN = (
    "small_cnn-random_full",
    "small_cnn-random_partial",
    "small_cnn-random_frozen",
)
UNTRAINED, PARTIAL, FULL = "mobilenetv2_100-scratch", "mobilenetv2_100-partial", "mobilenetv2_100-full"
SLOW, FAST = "mobilenetv2_100-depth-all-rate-0.0001", "mobilenetv2_100-depth-all-rate-0.01"  # of the sweep `depths`


class Finding(NamedTuple):
    """What records say about a claim: one of `VERDICTS`, and the numbers behind it or the reason for having none."""

    verdict: str
    numbers: str


@dataclass(frozen=True)
class Claim:
    """A sentence and the query that decides it.

    Args:
        name: str. The key, unique within its study.
        sentence: str. What is claimed, in our words.
        models: tuple of str. The models it speaks of, `<network>-<strategy>` as the source calls them.
        decide: Callable. A query, see `queries`: from the Study and a list of Record per model, in the order of
            `models`, to whether the claim holds (bool) and the numbers behind it (str); raises `NotTestableError`
            when they cannot tell.
    """

    name: str
    sentence: str
    models: tuple
    decide: Callable


def check_claims(study, protocol, *, runs=None, recorded=None):
    """Holds every claim about a study against its records.

    Predictions of several seeds are pooled. Two models are compared on the seeds and test images they share, by
    a bootstrap over images; a difference counts when its 95 % interval excludes zero.

    Args:
        study: str. A key of `CLAIMS`.
        protocol: str. `"published"` or `"careful"`.
        runs: dict from `<network>-<strategy>`, as the source calls it, to this build's Record of it, or None.
        recorded: Path or None. The recorded runs; None means the committed ones.

    Returns:
        pandas.DataFrame of str, indexed by `name`: `claim` (the sentence), `recorded` and `this build` (one of
        `VERDICTS` each), and `numbers`: those of the recorded runs, else of this build, else the reason for none.

    Raises:
        ValueError: when there are no claims about the study, no such protocol, or a run is of another protocol.
    """
    chosen = _check_arguments(study, protocol, runs or {})
    folder = Path(recorded or settings.records_folder())
    places = (folder, folder / sweeps.SWEEPS["depths"].place)
    stored = by_model([run for place in places for run in records.load_records(study, folder=place, protocol=protocol)])
    live = {model: [record] for model, record in (runs or {}).items()}
    return tabulate(
        ((claim, decide_claim(claim, chosen, stored), decide_claim(claim, chosen, live)) for claim in CLAIMS[study]),
        tables.name_build((runs or {}).values()),
    )


def tabulate(decided, build):
    """The table of `check_claims`, from tuples of a Claim and its Finding on recorded runs and on this build, and from
    how the build is called where only it has numbers.
    """
    rows = {
        claim.name: {
            "claim": claim.sentence,
            "recorded": measured.verdict,
            "this build": built.verdict,
            "numbers": _choose_numbers(measured, built, build),
        }
        for claim, measured, built in decided
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("name")


def decide_claim(claim, study, runs):
    """Holds one claim against some records.

    Args:
        claim: Claim.
        study: Study. It names the classes.
        runs: dict from `<network>-<strategy>` to a list of Record, one per seed, all of one protocol.

    Returns:
        Finding.
    """
    missing = [model for model in claim.models if not runs.get(model)]
    if missing:
        return Finding(NOT_TESTABLE, f"no record of {', '.join(missing)}")
    try:
        holds, numbers = claim.decide(study, *(runs[model] for model in claim.models))
    except queries.NotTestableError as reason:
        return Finding(NOT_TESTABLE, str(reason))
    return Finding(SUPPORTED if holds else NOT_SUPPORTED, numbers)


def _check_arguments(study, protocol, runs):
    if study not in CLAIMS:
        raise ValueError(f"The studies with claims are {sorted(CLAIMS)}. Received: study={study!r}")
    splits.check_protocol(protocol, 0)
    others = {model: run.protocol for model, run in runs.items() if run.protocol != protocol}
    if others:
        raise ValueError(f"All runs are of the protocol {protocol!r}. Received: runs of {others}")
    return studies.get_study(study)


def by_model(found):
    """Some records by model: dict from `<network>-<strategy>` to a list of Record, in the order of `found`."""
    return {model: [run for run in found if run.model == model] for model in dict.fromkeys(run.model for run in found)}


def _choose_numbers(measured, built, build):
    if measured.verdict == NOT_TESTABLE and built.verdict != NOT_TESTABLE:
        return f"{build}: {built.numbers}"
    return measured.numbers


def as_quoted(name, subject, model, metrics=("accuracy",)):
    """Claims that a model is as good as its source says, one per metric.

    Args:
        name: str. What the claims' names begin with.
        subject: str. The model in words, as the sentences begin.
        model: str. `<network>-<strategy>`.
        metrics: tuple of str. `"accuracy"`, `"macro_f1"`.

    Returns:
        list of Claim.
    """
    return [
        Claim(
            f"{name}-{metric.replace('_', '-')}",
            f"{subject} has the {METRIC_WORDS[metric]} quoted for it.",
            (model,),
            partial(queries.is_as_good, model=model, metric=metric),
        )
        for metric in metrics
    ]


# fmt: off
FLOWERS = (
    *as_quoted("baseline", "The baseline", BASELINE),
    *as_quoted("frozen", "The frozen backbone", FROZEN),
    *as_quoted("tuned", "The fine-tuned backbone", LAST6),
    Claim("baseline-size", "The baseline trains as many parameters as quoted.",
          (BASELINE,), partial(queries.is_as_large, model=BASELINE)),
    Claim("frozen-size", "With the backbone frozen, as many parameters are trained as quoted.",
          (FROZEN,), partial(queries.is_as_large, model=FROZEN)),
    Claim("baseline-overfits",
          "The baseline overfits: its training loss goes on falling while its validation loss turns up.",
          (BASELINE,), queries.overfits),
    Claim("baseline-turns-late", "The baseline's validation loss turns after several epochs, not at once.",
          (BASELINE,), queries.turns_late),
    Claim("baseline-plateau", "The baseline's validation accuracy reaches a plateau.",
          (BASELINE,), queries.reaches_plateau),
    Claim("baseline-best-class", "Of all classes, the baseline finds sunflower best.",
          (BASELINE,), partial(queries.recall_is_best, name="sunflower")),
    Claim("baseline-worst-classes", "Of all classes, the baseline finds rose and tulip worst.",
          (BASELINE,), partial(queries.recall_is_worst, names=("rose", "tulip"))),
    Claim("baseline-daisy-rose", "A daisy that the baseline misreads is mostly taken for a rose.",
          (BASELINE,), partial(queries.is_taken_for, true="daisy", predicted="rose")),
    Claim("baseline-tulip-rose", "A tulip that the baseline misreads is mostly taken for a rose.",
          (BASELINE,), partial(queries.is_taken_for, true="tulip", predicted="rose")),
    Claim("baseline-dandelion-sunflower", "A dandelion that the baseline misreads is mostly taken for a sunflower.",
          (BASELINE,), partial(queries.is_taken_for, true="dandelion", predicted="sunflower")),
    Claim("frozen-smooth", "The frozen backbone's validation accuracy is smooth.",
          (FROZEN,), queries.is_smooth),
    Claim("frozen-aligned", "The frozen backbone's training and validation accuracy stay together.",
          (FROZEN,), queries.is_aligned),
    Claim("frozen-converges", "The frozen backbone's validation loss does not turn away from its training loss.",
          (FROZEN,), queries.does_not_diverge),
    Claim("frozen-beats-baseline", "A frozen pretrained backbone is more accurate than the baseline.",
          (BASELINE, FROZEN), queries.is_more_accurate),
    Claim("tuned-beats-frozen", "A fine-tuned backbone is more accurate than a frozen one.",
          (FROZEN, LAST6), queries.is_more_accurate),
    Claim("features-not-parameters",
          "Features matter more than parameters: the frozen backbone trains fewer and is more accurate.",
          (BASELINE, FROZEN), queries.needs_fewer_parameters),
    Claim("weights-not-architecture",
          "It is the pretrained weights, not the architecture: the same network from scratch is less accurate.",
          (UNTRAINED, FROZEN), queries.is_more_accurate),
    Claim("tuned-gains", "Fine-tuning separates rose and tulip better, and gains more there than in any other class.",
          (FROZEN, LAST6), partial(queries.gains_are_largest, names=("rose", "tulip"))),
    Claim("tuned-near-perfect", "The fine-tuned backbone finds dandelion and sunflower nearly perfectly.",
          (LAST6,), partial(queries.recall_is_near_perfect, names=("dandelion", "sunflower"))),
    Claim("tuned-calibration", "Fine-tuning improves calibration.",
          (FROZEN, LAST6), queries.is_better_calibrated),
    Claim("tuned-sure-when-right", "Fine-tuning makes the model more confident when it is right.",
          (FROZEN, LAST6), queries.is_surer_when_right),
    Claim("tuned-unsure-when-wrong", "Fine-tuning makes the model less confident when it is wrong.",
          (FROZEN, LAST6), queries.is_less_sure_when_wrong),
    Claim("partial-best-value",
          "Unfreezing a part pays best: more accurate than six layers, hardly less so than all, in less time than all.",
          (LAST6, PARTIAL, FULL), queries.is_best_value),
    Claim("small-rate", "A reduced learning rate keeps the backbone from forgetting what it knows.",
          (SLOW, FAST), queries.forgets_less),
    Claim("residual-errors", "The errors that remain come from lighting, blur, unusual angles and occlusion.",
          (), queries.needs("annotations of lighting, blur, angle and occlusion")),
)
FASHION_MNIST = (
    *as_quoted("scratch", "The CNN from scratch", SMALL, ("accuracy", "macro_f1")),
    Claim("scratch-shirt", "Shirts and T-shirts are taken for each other more often than any other two classes.",
          (SMALL,), partial(queries.is_main_confusion, names=("shirt", "t_shirt"))),
    *as_quoted("full", "Training everything", RANDOM_FULL),
    *as_quoted("partial", "The network with four frozen layers", RANDOM_PARTIAL),
    *as_quoted("extractor", "The feature extractor", RANDOM_FROZEN),
    Claim("full-beats-partial", "Training everything is more accurate than freezing the first layers.",
          (RANDOM_PARTIAL, RANDOM_FULL), queries.is_more_accurate),
    Claim("partial-beats-extractor", "The feature extractor is less accurate than partial training.",
          (RANDOM_FROZEN, RANDOM_PARTIAL), queries.is_more_accurate),
    Claim("partial-is-faster", "Freezing the first layers makes an epoch shorter.",
          (RANDOM_FULL, RANDOM_PARTIAL), queries.is_faster),
    Claim("extractor-is-fastest", "The feature extractor has the shortest epoch.",
          (RANDOM_PARTIAL, RANDOM_FROZEN), queries.is_faster),
)
FASHION_HALF = (
    Claim("transfer-pays", "With few pictures a pretrained network that moves is more accurate than one from scratch.",
          (SMALL, SMALL_FULL), queries.is_more_accurate),
    Claim("frozen-transfer-pays", "So is a pretrained network whose convolutions stay frozen.",
          (SMALL, SMALL_FROZEN), queries.is_more_accurate),
    Claim("moving-pays", "Letting the pretrained convolutions move is more accurate than freezing them.",
          (SMALL_FROZEN, SMALL_FULL), queries.is_more_accurate),
)
CATS_DOGS = (
    *as_quoted("wrong", "Trained wrongly, the network", OVERFITTED),
    Claim("wrong-gap", "Trained wrongly, the network knows its training pictures and not the others.",
          (OVERFITTED,), partial(queries.fits_training_alone, gap=0.15)),
    Claim("rescued-window", "The rescued network ends inside the window that the exercise asks for.",
          (RESCUED,), partial(queries.ends_in_window, lowest=LOWEST_VALIDATION, highest=HIGHEST_TRAINING)),
    *as_quoted("rescued", "The rescued network", RESCUED),
    Claim("rescued-beats-wrong", "The rescued network is more accurate than the one trained wrongly.",
          (OVERFITTED, RESCUED), queries.is_more_accurate),
)
DEEPWEEDS = (
    *as_quoted("frozen", "The classifier alone", WEED_FROZEN, ("accuracy", "macro_f1")),
    *as_quoted("partial", "The network whose last stage moves", WEED_PARTIAL, ("accuracy", "macro_f1")),
    *as_quoted("full", "The network that moves as a whole", WEED_FULL, ("accuracy", "macro_f1")),
    Claim("frozen-misses", "The classifier alone is precise and misses much.",
          (WEED_FROZEN,), partial(queries.misses_more_than_it_confuses, by=0.05)),
    Claim("accuracy-flatters", "Under imbalance accuracy flatters: macro F1 lies below it.",
          (WEED_FROZEN,), partial(queries.accuracy_flatters, by=0.02)),
    Claim("partial-trade-off",
          "The last stage pays best: more accurate than the classifier, hardly less so than all.",
          (WEED_FROZEN, WEED_PARTIAL, WEED_FULL), queries.is_best_value),
    Claim("negative-hardest", "The field without a weed is the hardest class.",
          (WEED_FULL,), partial(queries.recall_is_worst, names=("negative",))),
)
FER2013 = (
    *as_quoted("frozen", "The classifier alone", FACE_FROZEN, ("accuracy", "macro_f1")),
    *as_quoted("partial", "The network whose last stage moves", FACE_PARTIAL, ("accuracy", "macro_f1")),
    *as_quoted("full", "The network that moves as a whole", FACE_FULL, ("accuracy", "macro_f1")),
    Claim("frozen-collapses", "On frozen features the classifier collapses: some class is hardly ever found.",
          (FACE_FROZEN,), queries.collapses),
    Claim("early-layers-move", "Early layers must adapt: moving everything beats moving the last stage.",
          (FACE_PARTIAL, FACE_FULL), queries.is_more_accurate),
    Claim("fear-surprise", "Fear and surprise are taken for each other more often than any other two classes.",
          (FACE_FULL,), partial(queries.is_main_confusion, names=("fear", "surprise"))),
    Claim("disgust-angry", "Disgust that is misread is mostly taken for anger.",
          (FACE_FULL,), partial(queries.is_taken_for, true="disgust", predicted="angry")),
)
# fmt: on

CLAIMS = {
    "flowers": FLOWERS,
    "fashion_mnist": FASHION_MNIST,
    "fashion_half": FASHION_HALF,
    "cats_dogs": CATS_DOGS,
    "deepweeds": DEEPWEEDS,
    "fer2013": FER2013,
}
