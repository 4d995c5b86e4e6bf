"""Backing: which sentences of the book generalise, and what decides each of them.

`data/backing.yml` names, for every page, the lines of its recap or of the cheat sheet; `data/quizzes.yml` does so for
every question. A sentence holds by definition, is advice that claims nothing, or names what decides it: claims on the
committed records, each with the verdict that the sentence needs, or tests.
"""

import json
import re
from functools import partial
from typing import NamedTuple

import numpy as np
import yaml

from tlhelpers import settings
from tlhelpers.datasets import studies
from tlhelpers.experiments import records, sweeps
from tlhelpers.results import claims, cross_study, queries
from tlhelpers.results.claims import BASELINE, FROZEN, FULL, LAST6, PARTIAL, SMALL, Claim

BY_DEFINITION, ADVICE = WITHOUT_RECORDS = ("by definition", "advice")
TESTS, PASSES = "tests/", "passes"
CONCLUSION = "conclusion"

LINEAR = "mobilenetv2_100-frozen_linear"
AUGMENTED = "baseline_cnn-scratch_augmented"
UPDATING, LONGER = "mobilenetv2_100-last6_bn_updating", "mobilenetv2_100-full_longer"
UPPER_GARMENTS = ("t_shirt", "pullover", "dress", "coat", "shirt")
DEPTH = "mobilenetv2_100-depth-{}-rate-{}"
# The rule for the learning rate, by what is unfrozen; `sweeps.best_rates` reads it from the same grid.
RATES = {6: 1e-3, "partial": 1e-4, "all": 1e-4}
GRID = tuple(DEPTH.format(part, rate) for part in RATES for rate in ("0.0001", "0.001", "0.01"))


def _of_size(way, count):
    return f"{'baseline_cnn' if way == 'scratch_augmented' else 'mobilenetv2_100'}-{way}-{count}-per-class"


SCRATCH_5, SCRATCH_50, SCRATCH_200 = (_of_size("scratch_augmented", count) for count in (5, 50, 200))
FROZEN_5, FROZEN_50, FROZEN_200 = (_of_size("frozen_linear", count) for count in (5, 50, 200))
FULL_50 = _of_size("full", 50)


def separates_as_well(_, domains, *, far, near):
    """Frozen features separate the classes of a far domain at least as well as those of a nearer one."""
    rows = domains[far], domains[near]
    words = (f"{name} {row['distance']:.2f}: {row['frozen']:.1%}" for name, row in zip((far, near), rows, strict=True))
    farther, no_worse = rows[0]["distance"] > rows[1]["distance"], rows[0]["frozen"] >= rows[1]["frozen"]
    return bool(farther and no_worse), ", ".join(words)


def part_gains_most(_, by_study, *, study):
    """From the classifier alone to a part that is unfrozen, one study gains more accuracy than every other."""
    means = {
        name: [np.mean([r.metrics["accuracy"] for r in runs]) for runs in strategies]
        for name, strategies in by_study.items()
    }
    gains = {name: part - frozen for name, (frozen, part, _) in means.items()}
    return max(gains, key=gains.get) == study, ", ".join(f"{name} {gain * 100:+.1f}" for name, gain in gains.items())


# fmt: off
# What the book itself says, beside what its sources say.
BOOK = {
    "flowers": (
        Claim("views-help", "With augmentation, and the longer training it allows, the baseline is more accurate.",
              (BASELINE, AUGMENTED), queries.is_more_accurate),
        Claim("pictures-help", "With more pictures of each class the baseline is more accurate.",
              (SCRATCH_50, SCRATCH_200), queries.is_more_accurate),
        Claim("frozen-few", "With five pictures a class frozen features beat a network from scratch.",
              (SCRATCH_5, FROZEN_5), queries.is_more_accurate),
        Claim("full-few", "With fifty pictures a class full fine-tuning beats frozen features.",
              (FROZEN_50, FULL_50), queries.is_more_accurate),
        Claim("partial-few", "With fifty pictures a class unfreezing from the middle on beats frozen features.",
              (FROZEN_50, DEPTH.format("partial", "0.0001")), queries.is_more_accurate),
        Claim("lead-shrinks", "The lead of frozen features over a network from scratch shrinks with more pictures.",
              (SCRATCH_5, FROZEN_5, SCRATCH_200, FROZEN_200), queries.lead_shrinks),
        Claim("best-rates", "More unfrozen layers bear only a lower rate.",
              GRID, partial(queries.has_best_rates, rates=RATES)),
        Claim("deeper-at-low-rate", "At the low rate, the whole backbone gains over its last six layers.",
              (DEPTH.format(6, "0.0001"), DEPTH.format("all", "0.0001")), queries.is_more_accurate),
        Claim("high-rate-forgets", "At a high rate, full fine-tuning is less accurate than the last six layers.",
              (DEPTH.format("all", "0.001"), DEPTH.format(6, "0.001")), queries.is_more_accurate),
        Claim("last6-beats-linear", "The last six layers beat a linear head on frozen features at a higher resolution.",
              (LINEAR, LAST6), queries.is_more_accurate),
        Claim("linear-beats-frozen", "A linear head at a higher resolution beats the source's frozen recipe.",
              (FROZEN, LINEAR), queries.is_more_accurate),
        Claim("partial-beats-linear", "Unfreezing from the middle on beats a linear head on frozen features.",
              (LINEAR, PARTIAL), queries.is_more_accurate),
        Claim("full-beats-linear", "Full fine-tuning beats a linear head on frozen features.",
              (LINEAR, FULL), queries.is_more_accurate),
        Claim("longer-helps", "Twice the epochs make full fine-tuning more accurate.",
              (FULL, LONGER), queries.is_more_accurate),
        Claim("updating-costs", "With BatchNormalization updating, fine-tuning is less accurate.",
              (UPDATING, LAST6), queries.is_more_accurate),
        Claim("temperature-mends", "Temperature scaling lowers the calibration error of the over-confident baseline.",
              (BASELINE,), queries.temperature_mends),
    ),
    "fashion_mnist": (
        Claim("scratch-suffices", "With thousands of pictures a class a small network from scratch gets nine in ten.",
              (SMALL,), partial(queries.reaches, lowest=0.9)),
        Claim("curves-together", "The small network's training and validation accuracy stay together.",
              (SMALL,), queries.is_aligned),
        Claim("accuracy-flatters", "With balanced classes accuracy lies above macro F1 all the same.",
              (SMALL,), partial(queries.accuracy_flatters, by=0.01)),
        Claim("upper-garments", "Most errors take one upper garment for another.",
              (SMALL,), partial(queries.errors_are_among, names=UPPER_GARMENTS, share=0.5)),
    ),
    "cats_dogs": (
        Claim("frozen-rescues", "A linear head on a frozen backbone beats the network trained wrongly.",
              (claims.OVERFITTED, LINEAR), queries.is_more_accurate),
    ),
    "fer2013": (
        Claim("part-gains", "Unfreezing from the middle on beats a classifier on frozen features.",
              (LINEAR, PARTIAL), queries.is_more_accurate),
        Claim("all-gains-more", "Unfreezing everything beats unfreezing from the middle on.",
              (PARTIAL, FULL), queries.is_more_accurate),
        Claim("linear-collapses", "On frozen features the classifier hardly finds some expression.",
              (LINEAR,), queries.collapses),
        Claim("copies-left-out", "Copies of training pictures are left out of the test part.",
              (LINEAR,), queries.tests_fewer_than_official),
    ),
    CONCLUSION: (
        Claim("clothes-separate", "Frozen features separate clothes, far away, as well as flowers.",
              (cross_study.DOMAINS,), partial(separates_as_well, far="fashion_mnist", near="flowers")),
        Claim("faces-separate", "Frozen features separate expressions as well as cats and dogs.",
              (cross_study.DOMAINS,), partial(separates_as_well, far="fer2013", near="cats_dogs")),
        Claim("faces-gain-most", "Unfreezing a part gains more on faces than in any other study.",
              (cross_study.ALL_STRATEGIES,), partial(part_gains_most, study="fer2013")),
    ),
}
# fmt: on


class Backed(NamedTuple):
    """A sentence of a page, and what it is backed by: one of `WITHOUT_RECORDS`, or a dict from a claim
    (`<study>/<name>`) to the verdict it needs and from a test (`tests/<file>::<name>`) to `"passes"`.
    """

    page: str
    sentence: str
    backing: str | dict


def load_backing():
    """Every sentence that is listed, those of pages and the right answers of quizzes.

    Returns:
        list of Backed.
    """
    listed = _read("backing.yml")
    found = [Backed(page, sentence, backing) for page, rows in listed.items() for sentence, backing in rows.items()]
    for name, questions in _read("quizzes.yml").items():
        found += [Backed(f"quiz {name}", question["question"], question.get("backing")) for question in questions]
    return found


def read_page(page):
    """What a page says.

    Args:
        page: str. Below `book/`, such as `"cheat_sheet.md"` or `"03_baseline_cnn.ipynb"`.

    Returns:
        str. Of a notebook its text cells.
    """
    text = (settings.PROJECT_FOLDER / "book" / page).read_text(encoding="utf-8")
    if not page.endswith(".ipynb"):
        return text
    return "\n\n".join("".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "markdown")


def list_lines(page):
    """The lines of a page that have to be backed: of a chapter those of its recap, of another page all of its lists
    and tables without their heads.

    Args:
        page: str. As for `read_page`.

    Returns:
        list of str.
    """
    text = read_page(page)
    if page.endswith(".ipynb"):
        text = text[text.index("## Recap") : text.index("## Quiz")]
    rows = re.sub(r"^\|.*\|\n\|[-| ]+\|$", "", text, flags=re.MULTILINE)
    return [line.removeprefix("- ") for line in re.findall(r"^(?:- .*(?:\n  .*)*|\|.*\|)$", rows, re.MULTILINE)]


def decide(name):
    """Asks the committed records of the careful protocol about a claim.

    Args:
        name: str. `<study>/<claim>`, a claim of `claims.CLAIMS` or `BOOK`; `conclusion/<claim>` for one about several
            studies.

    Returns:
        Finding.

    Raises:
        ValueError: when there is no such claim.
    """
    study, _, key = name.partition("/")
    sources = cross_study.CONCLUSION if study == CONCLUSION else claims.CLAIMS.get(study, ())
    known = {claim.name: claim for claim in (*sources, *BOOK.get(study, ()))}
    if key not in known:
        raise ValueError(f"A claim about {study!r} is one of {sorted(known)}. Received: name={name!r}")
    if study == CONCLUSION:
        return claims.decide_claim(known[key], None, cross_study.gather_recorded())
    return claims.decide_claim(known[key], studies.get_study(study), _load(study))


def _load(study):
    """The committed records of a study by model, those of all sweeps among them."""
    places = {sweep.place: sweep.predictions for sweep in sweeps.SWEEPS.values()}
    found = (
        records.load_records(study, folder=settings.records_folder() / place, protocol="careful", predictions=wanted)
        for place, wanted in places.items()
    )
    return claims.by_model([run for runs in found for run in runs])


def _read(name):
    return yaml.safe_load((settings.data_folder() / name).read_text(encoding="utf-8"))
