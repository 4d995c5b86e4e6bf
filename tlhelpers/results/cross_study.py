"""The synthesis: what all studies have left, side by side, and what the source concludes from them."""

from functools import partial
from itertools import permutations

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from tlhelpers import metrics
from tlhelpers.datasets import studies
from tlhelpers.experiments import grids, records, sweeps
from tlhelpers.results import claims, queries, tables

# The classifier alone, a part, everything: the first line of which all three have left records is taken.
STRATEGIES = {
    "flowers": [("mobilenetv2_100-frozen_linear", "mobilenetv2_100-partial", "mobilenetv2_100-full")],
    "fashion_half": [("small_cnn-frozen", "small_cnn-partial", "small_cnn-full")],
    "cats_dogs": [("mobilenetv2_100-frozen_linear", "mobilenetv2_100-partial", "mobilenetv2_100-full")],
    "deepweeds": [("resnet50-frozen", "resnet50-partial", "resnet50-full")],
    "fer2013": [
        ("resnet18-frozen", "resnet18-partial", "resnet18-full"),
        ("mobilenetv2_100-frozen_linear", "mobilenetv2_100-partial", "mobilenetv2_100-full"),
    ],
}
IMBALANCED_STUDIES = ("deepweeds", "fer2013")
# What a claim can ask for, in words that say what is missing.
DOMAINS, FACES = "the comparison of domains", "three strategies of one network on faces"
ALL_STRATEGIES, IMBALANCED = "three strategies of one network", "a classifier of imbalanced classes"
WAYS = ("frozen", "full fine-tuning")
FEWEST_DOMAINS = 4  # of three, even a perfect order is chance in one of six cases
CHANCE = 0.05  # how often an order as clear may come about by chance
FLATTERY = 0.02  # accuracy above macro F1
COLUMNS = ("published", "recorded", "seeds", "macro F1", "this build")
ROUNDING = 1e-9  # two orders with the same correlation need not give the same bits


def chance_adjusted_accuracy(record):
    """Chance-adjusted balanced accuracy: macro recall, scaled so that guessing gives 0 and perfection 1.

    Args:
        record: Record.

    Returns:
        float of at most 1. Comparable between studies with few classes and with many, balanced or not.
    """
    chance = 1 / len(record.metrics["per_class"])
    return (record.metrics["macro_recall"] - chance) / (1 - chance)


def domain_table(runs):
    """Compares domains: how far each is, and how well one backbone does on it, frozen and fine-tuned.

    Args:
        runs: dict from a study, a way of `grids.WAYS` and, where there are several, a seed to a Record.

    Returns:
        pandas.DataFrame of float indexed by study, the nearest domain first, means over the seeds of the frozen
        backbone: `distance`, see `interpret.domain_distance`; `frozen` and `fine-tuned`, as from
        `chance_adjusted_accuracy`; `gain`, their difference on the seeds of both; and `seeds`. NaN where nothing is
        fine-tuned.
    """
    rows = {}
    for study in grids.DOMAINS:
        frozen, tuned = ({cell[2:]: run for cell, run in runs.items() if cell[:2] == (study, way)} for way in WAYS)
        if not frozen:
            continue
        gains = [
            chance_adjusted_accuracy(tuned[seed]) - chance_adjusted_accuracy(frozen[seed])
            for seed in frozen
            if seed in tuned
        ]
        rows[study] = {
            "distance": _mean(run.details["domain_distance"] for run in frozen.values()),
            "frozen": _mean(map(chance_adjusted_accuracy, frozen.values())),
            "fine-tuned": _mean(map(chance_adjusted_accuracy, tuned.values())),
            "gain": _mean(gains),
            "seeds": len(frozen),
        }
    columns = ["distance", "frozen", "fine-tuned", "gain", "seeds"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns, dtype=float).sort_values("distance")


def studies_table(protocol, runs, *, recorded=None):
    """All studies and all their models, from every source.

    Args:
        protocol: str. `"published"` or `"careful"`.
        runs: dict from a study to a dict from `<network>-<strategy>` to this build's Record of it.
        recorded: Path or None. The recorded runs; None means the committed ones.

    Returns:
        pandas.DataFrame of str, indexed by `study` (title) and `model` (the source's label, else its name), with the
        columns `published`, `recorded` (mean ± 95 % interval), `seeds` (how many), `macro F1` (recorded, mean) and
        `this build`; all of accuracy but `macro F1`. A synthetic run has a row of its own, see `tables.name_run`.
    """
    rows = {}
    for study, live in runs.items():
        found = claims.by_model(records.load_records(study, folder=recorded, protocol=protocol))
        published = studies.published_models(study)
        for model in dict.fromkeys([*published, *found, *live]):
            label, title = published.get(model, {}).get("label", model), studies.get_study(study).title
            run = live.get(model)
            synthetic = run is not None and tables.is_synthetic(run)
            if model in published or model in found or not synthetic:
                rows[title, label] = {
                    "published": studies.quote(study, model) if model in published else "–",
                    **_recorded_cells(found.get(model, [])),
                    "this build": "–",
                }
            if run is not None:
                title = studies.get_study(study, drawn=synthetic).title
                row = rows.setdefault((title, tables.name_run(run, label)), {"published": "–", **_recorded_cells([])})
                row["this build"] = f"{run.metrics['accuracy']:.1%}"
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index = pd.MultiIndex.from_tuples(rows, names=["study", "model"])
    return table


def check_conclusion(protocol, *, runs=None, domains=None, recorded=None):
    """Holds every sentence of the source's conclusion against the records of all studies.

    Args:
        protocol: str. `"published"` or `"careful"`.
        runs: dict from a study to a dict from `<network>-<strategy>` to this build's Record of it, or None.
        domains: dict. This build's runs of `grids.plan_domains`, or None.
        recorded: Path or None. The recorded runs; None means the committed ones.

    Returns:
        pandas.DataFrame, as from `claims.check_claims`.
    """
    live = {study: {m: [run] for m, run in (runs or {}).get(study, {}).items()} for study in STRATEGIES}
    evidence = gather_recorded(protocol, recorded=recorded), gather_evidence(live, domains or {})
    built = [*(domains or {}).values(), *(run for found in (runs or {}).values() for run in found.values())]
    return claims.tabulate(
        ((claim, *(claims.decide_claim(claim, None, one) for one in evidence)) for claim in CONCLUSION),
        tables.name_build(built),
    )


def gather_recorded(protocol="careful", *, recorded=None):
    """What the records of all studies hold for the conclusion; see `gather_evidence`.

    Args:
        protocol: str. `"published"` or `"careful"`.
        recorded: Path or None. The recorded runs; None means the committed ones.
    """
    stored = {
        study: claims.by_model(records.load_records(study, folder=recorded, protocol=protocol)) for study in STRATEGIES
    }
    compared = sweeps.load_sweep("domains") if protocol == "careful" and recorded is None else {}
    return gather_evidence(stored, compared)


def gather_evidence(found, domains):
    """What the conclusion is held against.

    Args:
        found: dict from a study to a dict from `<network>-<strategy>`, as the source calls it, to a list of Record; all
            of one protocol.
        domains: dict. Runs of `grids.plan_domains`.

    Returns:
        dict from what a claim of `CONCLUSION` asks for: the rows of `domain_table` by study, and by_study: by study,
        three lists of Record, the classifier alone, a part, everything.
    """
    by_study = {study: strategies for study in STRATEGIES if (strategies := _strategies_of(study, found[study]))}
    return {
        DOMAINS: domain_table(domains).to_dict("index"),
        ALL_STRATEGIES: by_study,
        IMBALANCED: {study: by_study[study] for study in IMBALANCED_STUDIES if study in by_study},
        FACES: by_study.get("fer2013"),
    }


def goes_with_distance(_, domains, *, measure, sign):
    """A column of `domain_table` rises (sign 1) or falls (sign -1) from near domains to far ones: Spearman's rank
    correlation, with the share of all orders of the domains that are as clear.
    """
    if len(domains) < FEWEST_DOMAINS:
        raise queries.NotTestableError(f"{len(domains)} domains make no order: {FEWEST_DOMAINS} are the fewest")
    distance, values = ([row[name] for row in domains.values()] for name in ("distance", measure))
    if np.isnan(values).any():
        raise queries.NotTestableError("no backbone is fine-tuned in the comparison of domains")
    correlation = spearmanr(distance, values).statistic
    others = [spearmanr(order, values).statistic for order in permutations(distance)]
    chance = np.mean([sign * other >= sign * correlation - ROUNDING for other in others])
    described = ", ".join(f"{study} {row['distance']:.2f}: {row[measure]:.1%}" for study, row in domains.items())
    numbers = f"rank correlation {correlation:+.2f} over {len(domains)} domains, by chance in {chance:.0%}: {described}"
    return bool(chance <= CHANCE), numbers


def each_step_pays(_, strategies):
    """Partial fine-tuning is more accurate than the classifier alone, and everything more accurate than a part."""
    frozen, part, everything = strategies
    steps = [queries.is_more_accurate(None, *pair) for pair in ((frozen, part), (part, everything))]
    return all(holds for holds, _ in steps), "; ".join(numbers for _, numbers in steps)


def accuracy_flatters(_, by_study):
    """Accuracy lies above macro F1 in every imbalanced study, classifier alone."""
    found = {
        study: queries.accuracy_flatters(None, strategies[0], by=FLATTERY) for study, strategies in by_study.items()
    }
    return all(holds for holds, _ in found.values()), "; ".join(
        f"{study}: {text}" for study, (_, text) in found.items()
    )


def part_is_often_best(_, by_study):
    """In more than half of the studies partial fine-tuning is the best value, see `queries.is_best_value`."""
    found = {}
    for study, strategies in by_study.items():
        try:
            found[study] = queries.is_best_value(None, *strategies)[0]
        except queries.NotTestableError:
            continue  # seconds of several machines
    if not found:
        raise queries.NotTestableError("the seconds of every study are of several machines")
    best = [study for study, holds in found.items() if holds]
    return len(best) > len(found) / 2, f"{len(best)} of {len(found)} studies: {', '.join(best) or 'none'}"


def _recorded_cells(found):
    if not found:
        return {"recorded": tables.NO_RECORD, "seeds": "–", "macro F1": "–"}
    accuracy, half_width = metrics.mean_interval([record.metrics["accuracy"] for record in found])
    interval = "" if np.isnan(half_width) else f" ± {half_width * 100:.1f}"
    macro = _mean(record.metrics["macro_f1"] for record in found)
    return {"recorded": f"{accuracy:.1%}{interval}", "seeds": str(len(found)), "macro F1": f"{macro:.1%}"}


def _mean(values):
    values = list(values)
    return float(np.mean(values)) if values else np.nan


def _strategies_of(study, found):
    for models in STRATEGIES[study]:
        if all(found.get(model) for model in models):
            return [found[model] for model in models]
    return None


# fmt: off
CONCLUSION = (
    claims.Claim("near-works-better", "Transfer works as well as the domains are close: frozen features separate best "
                 "what is nearest.",
                 (DOMAINS,), partial(goes_with_distance, measure="frozen", sign=-1)),
    claims.Claim("far-gains-more", "The farther the domain, the more is gained by letting the backbone move.",
                 (DOMAINS,), partial(goes_with_distance, measure="gain", sign=1)),
    claims.Claim("steps-pay", "For complex meanings such as expressions, each step of unfreezing pays.",
                 (FACES,), each_step_pays),
    claims.Claim("macro-needed", "Where classes are imbalanced, accuracy flatters and macro averages are needed.",
                 (IMBALANCED,), accuracy_flatters),
    claims.Claim("part-often-best", "Moving a part is often the best value: nearly as accurate as all, in less time.",
                 (ALL_STRATEGIES,), part_is_often_best),
)
# fmt: on
