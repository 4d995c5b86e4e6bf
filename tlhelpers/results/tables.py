"""Summaries: several records summed up into the book's tables, figures and captions."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd

from tlhelpers import metrics, profiles
from tlhelpers.datasets import splits, studies
from tlhelpers.experiments.records import TESTED, load_records

NO_RECORD = "no recorded run yet"
NOT_BUILT = "not run in this build"
THIS_BUILD = "this build"
STAND_IN = "pocket backbone, synthetic images"
MACRO = {
    "accuracy": "accuracy",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "macro_f1": "macro F1",
}
POOLED_COLUMNS = (
    "accuracy", "low", "high", "seed_spread", "seeds", "images", "macro_f1", "ece", "scaled_ece",
)  # fmt: skip


def is_synthetic(record):
    """Whether a record of one of the book's studies was made on synthetic images, by stand-ins for its networks."""
    return record.study in studies.STUDIES and profiles.PROFILES[record.profile].drawn


def name_run(record, label):
    """How tables and figures call a run: a synthetic one never bears the name of a real set or network.

    Args:
        record: Record.
        label: str. How a page calls the model that the run stands for, such as `"MobileNetV2, frozen"`.

    Returns:
        str. `label`, or such as `"pocket backbone, frozen, synthetic images"`.
    """
    if not is_synthetic(record):
        return label
    if record.network == profiles.PROFILES[record.profile].backbone:
        strategy = re.sub(r"^last(\d+)", r"last \1 layers", record.strategy).replace("_", " ")
        label = f"pocket backbone, {strategy}"
    return f"{label}, synthetic images"


def name_build(records):
    """How tables and figures call what this build has run: `"this build"`, and that it is synthetic where it is.

    Args:
        records: iterable of Record.

    Returns:
        str.
    """
    return f"{THIS_BUILD}: {STAND_IN}" if any(map(is_synthetic, records)) else THIS_BUILD


def summarise(records, metric="accuracy"):
    """Mean and interval over seeds, one row per protocol and model.

    Args:
        records: list of Record.
        metric: str. A key of `Record.metrics` with a float value.

    Returns:
        pandas.DataFrame indexed by `protocol` and `model`, with `mean`, `half_width` (95 %, over seeds) and `seeds`.
    """
    rows = [{"protocol": r.protocol, "model": r.model, "value": r.metrics[metric]} for r in records]
    frame = pd.DataFrame(rows, columns=["protocol", "model", "value"])
    summary = {}
    for key, values in frame.groupby(["protocol", "model"])["value"]:
        mean, half_width = metrics.mean_interval(values)
        summary[key] = {"mean": mean, "half_width": half_width, "seeds": len(values)}
    index = pd.MultiIndex.from_tuples(summary, names=["protocol", "model"]) if summary else None
    return pd.DataFrame(list(summary.values()), index=index, columns=["mean", "half_width", "seeds"])


def pool_predictions(records):
    """The test predictions of several records of one model as one set, such as those of all five careful folds.

    Args:
        records: list of Record, of one protocol and model.

    Returns:
        tuple of `test_id` (str array `(n,)`, sorted), `y_true` (int array `(n,)`) and `y_prob` (float array
        `(n, classes)`). Models pooled over the same seeds stand row by row on the same images.

    Raises:
        ValueError: when there is no record, when they are of several models, protocols or sets of images, or when
            two of them test the same image, as shuffles of the `published` protocol do.
    """
    kinds = sorted({(r.protocol, r.model, r.dataset_sha256[:8]) for r in records})
    if len(kinds) != 1:
        raise ValueError(f"Pooled records are of one protocol, model and set of images. Received: {kinds}")
    tested = [np.unique(r.test_id) for r in records]  # a fold keeps exact copies together: each stands once here
    images, times = np.unique(np.concatenate(tested), return_counts=True)
    if (times > 1).any():
        raise ValueError(
            "Pooled records test each image once, as the careful folds of photographs do. "
            f"Received: {kinds[0]}, seeds {[r.seed for r in records]}, {(times > 1).sum()} of {len(images)} images "
            "in several of them"
        )
    ordered = sorted(records, key=lambda record: record.seed)
    test_id, y_true, y_prob = (np.concatenate([getattr(r, name) for r in ordered]) for name in TESTED)
    order = np.argsort(test_id, kind="stable")
    return test_id[order], y_true[order], y_prob[order]


def calibrate(record):
    """A record after temperature scaling: the temperature is fitted on its validation predictions.

    Args:
        record: Record.

    Returns:
        Record with new `y_prob`, its `ece` in `metrics` and the `temperature` in `details`. What depends on the
        predicted classes alone stays.

    Raises:
        ValueError: when the record holds no validation predictions.
    """
    if not len(record.validation_true):
        raise ValueError(
            "A temperature is fitted on at least one validation image. "
            f"Received: a record of {record.model} without validation predictions"
        )
    temperature = metrics.fit_temperature(record.validation_true, record.validation_prob)
    y_prob = metrics.apply_temperature(record.y_prob, temperature)
    return replace(
        record,
        y_prob=y_prob,
        metrics=record.metrics | {"ece": metrics.expected_calibration_error(record.y_true, y_prob)},
        details=record.details | {"temperature": temperature},
    )


def describe_gain(records, before, after):
    """The gain in accuracy from one model to another in words, on the seeds that both have.

    Args:
        records: list of Record, of one protocol.
        before: str. `<network>-<strategy>`.
        after: str. `<network>-<strategy>`.

    Returns:
        str, such as `"+3.3 points (+2.5 to +4.1)"`, with the 95 % interval of the paired bootstrap over images, or
        `NO_RECORD` when they share no seed.

    Raises:
        ValueError: as `pool_predictions`.
    """
    found = [{r.seed: r for r in records if r.model == model} for model in (before, after)]
    shared = sorted(set(found[0]) & set(found[1]))
    if not shared:
        return NO_RECORD
    (_, y_true, old), (_, _, new) = (pool_predictions([runs[seed] for seed in shared]) for runs in found)
    gain = metrics.bootstrap_difference(y_true, old, new)
    low, high = (f"{gain[end] * 100:+.1f}" for end in ("low", "high"))
    return f"{gain['difference'] * 100:+.1f} points ({low} to {high})"


def summarise_pooled(records):
    """Pooled test predictions, one row per protocol and model, with the two uncertainties apart.

    Args:
        records: list of Record; those of one model are pooled, see `pool_predictions`.

    Returns:
        pandas.DataFrame indexed by `protocol` and `model`, in the order of `records`: `accuracy`; `low` and `high`,
        its 95 % interval over test images; `seed_spread`, the standard deviation of the accuracy from seed
        to seed (NaN for one); `seeds`; `images`; `macro_f1`; `ece`; and `scaled_ece`, after temperature scaling seed
        by seed (NaN where a record holds no validation predictions).

    Raises:
        ValueError: as `pool_predictions`.
    """
    groups = {}
    for record in records:
        groups.setdefault((record.protocol, record.model), []).append(record)
    index = pd.MultiIndex.from_tuples(list(groups), names=["protocol", "model"])
    return pd.DataFrame([_pooled_row(group) for group in groups.values()], index=index, columns=POOLED_COLUMNS)


def cost_table(records):
    """What models cost, one row per protocol, model and kind of device.

    Each value is the median over seeds, which one slow machine does not move.

    Args:
        records: list of Record.

    Returns:
        pandas.DataFrame indexed by `protocol`, `model` and `device` (`"CPU cores"` or `"GPU"`), in the order of
        `records`: `parameters`, `trainable`, `seconds` (of all stages), `images_per_second` (training images times
        epochs by the seconds of the stage that trained them: `training`, or `head` where nothing else was trained;
        NaN without either) and `device_seconds` (which stands in for energy: on a CPU the time its cores have worked
        where a record has it as `core_seconds`, otherwise seconds times CPU cores or GPUs).
    """
    rows = [
        {
            "protocol": r.protocol,
            "model": r.model,
            "device": _unit(r),
            "parameters": r.parameters["total"],
            "trainable": r.parameters["trainable"],
            "seconds": sum(r.seconds.values()),
            "images_per_second": _images_per_second(r),
            "device_seconds": device_seconds(r),
        }
        for r in records
    ]
    keys = ["protocol", "model", "device"]
    measures = ["parameters", "trainable", "seconds", "images_per_second", "device_seconds"]
    return pd.DataFrame(rows, columns=keys + measures).groupby(keys, sort=False).median()


def reproduction_table(study, runs, *, protocols=splits.PROTOCOLS, recorded=None):
    """The book's spine: published, recorded on the real data, this build.

    Args:
        study: str. The study's name.
        runs: dict from a protocol and a model of the source, `<network>-<strategy>`, to this build's Record of it.
        protocols: sequence of str.
        recorded: Path or None. The recorded runs; None means the committed ones.

    Returns:
        pandas.DataFrame of str, indexed by protocol and model, with the columns `published`, `recorded`, `this build`.
        A synthetic run has a row of its own below that of the model it stands for, see `name_run`.
    """
    recorded_summary = summarise(load_records(study, folder=recorded))
    rows = {}
    for protocol in protocols:
        for model, row in studies.published_models(study).items():
            key = (protocol, model)
            rows[protocol, row["label"]] = {
                "published": studies.quote(study, model),
                "recorded": _cell(recorded_summary, key),
                "this build": NOT_BUILT,
            }
            if key in runs:
                row_of_run = rows.setdefault(
                    (protocol, name_run(runs[key], row["label"])), {"published": "–", "recorded": "–"}
                )
                row_of_run["this build"] = f"{runs[key].metrics['accuracy']:.1%} (1 seed)"
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index = pd.MultiIndex.from_tuples(rows, names=["protocol", "model"])
    return table


def compare_sources(study, protocol, labels, runs, *, recorded=None):
    """The accuracies of some models from every source, for a figure.

    Args:
        study: str. The study's name.
        protocol: str. `"published"` or `"careful"`.
        labels: dict from `<network>-<strategy>` to the label of a figure.
        runs: dict from a model of the source, `<network>-<strategy>`, to this build's Record of it, shown with
            their intervals over test images; may lack models.
        recorded: Path or None. The recorded runs; None means the committed ones.

    Returns:
        pandas.DataFrame with `model` (label, see `name_run`), `source`, `accuracy`, and `low` and `high`, the ends of
        its interval (NaN where there is none).
    """
    summary = summarise(load_records(study, folder=recorded, protocol=protocol))
    rows = []
    for model, label in labels.items():
        low, high = studies.published_range(study, model)
        interval = (low, high) if high > low else (float("nan"), float("nan"))
        rows.append((label, "published", (low + high) / 2, *interval))
        if (protocol, model) in summary.index:
            mean, half_width = summary.loc[(protocol, model), ["mean", "half_width"]]
            rows.append((label, "recorded", mean, mean - half_width, mean + half_width))
        if model in runs:
            interval = metrics.bootstrap_interval(runs[model].y_true, runs[model].y_prob)
            name = name_run(runs[model], label)
            rows.append((name, THIS_BUILD, runs[model].metrics["accuracy"], *interval))
    return pd.DataFrame(rows, columns=["model", "source", "accuracy", "low", "high"])


def metrics_table(study, protocol, labels, runs, *, recorded=None):
    """Accuracy and the macro averages of some models from every source.

    Args:
        study: str. The study's name.
        protocol: str. `"published"` or `"careful"`.
        labels: dict from `<network>-<strategy>` to how a page calls it.
        runs: dict from `<network>-<strategy>` to this build's Record of it; may lack models.
        recorded: Path or None. The recorded runs; None means the committed ones.

    Returns:
        pandas.DataFrame of str, indexed by `model` (label, see `name_run`) and `source`, with one column per metric.
    """
    found = load_records(study, folder=recorded, protocol=protocol)
    published = studies.published_models(study)
    rows = {}
    for model, label in labels.items():
        quoted = {metric: studies.quote(study, model, metric) for metric in MACRO if metric in published.get(model, {})}
        of_model = [record for record in found if record.model == model]
        key, nothing = (protocol, model), dict.fromkeys(MACRO, "–")
        rows[label, "published"] = nothing | quoted
        rows[label, "recorded"] = nothing | {"accuracy": NO_RECORD}
        if of_model:
            rows[label, "recorded"] = {metric: _cell(summarise(of_model, metric), key) for metric in MACRO}
        rows[label, THIS_BUILD] = nothing | {"accuracy": NOT_BUILT}
        if model in runs:
            name = name_run(runs[model], label)
            rows[name, THIS_BUILD] = {metric: f"{runs[model].metrics[metric]:.1%}" for metric in MACRO}
    table = pd.DataFrame.from_dict(rows, orient="index").rename(columns=MACRO)
    table.index = pd.MultiIndex.from_tuples(rows, names=["model", "source"])
    return table


def accuracy_intervals(runs):
    """Test accuracy of some runs with its 95 % interval over test images, as figures want it.

    Args:
        runs: dict from how a page calls a model to its Record.

    Returns:
        pandas.DataFrame of float, one row per run, with `accuracy`, `low` and `high`.
    """
    ends = {label: metrics.bootstrap_interval(run.y_true, run.y_prob) for label, run in runs.items()}
    columns = {"accuracy": [run.metrics["accuracy"] for run in runs.values()]}
    columns |= {name: [pair[at] for pair in ends.values()] for at, name in enumerate(("low", "high"))}
    return pd.DataFrame(columns, index=list(runs))


def epoch_shares(study, labels, recorded, runs):
    """The training time of an epoch as a share of the first model's, by source: seconds of one machine each.

    Args:
        study: str. The study's name.
        labels: dict from `<network>-<strategy>` to how a page calls it; the first is what the others are held against.
        recorded: list of Record. All of one protocol.
        runs: dict from `<network>-<strategy>` to this build's Record of it.

    Returns:
        pandas.DataFrame of float, indexed by label, with the columns `published`, `recorded` (mean over seeds) and
        this build's, see `name_build`; NaN where there is no number.
    """
    published = studies.published_models(study)
    of = {model: [record for record in recorded if record.model == model] for model in labels}
    columns = {
        "published": [published.get(model, {}).get("epoch_seconds", np.nan) for model in labels],
        "recorded": [_mean_epoch_seconds(of[model]) for model in labels],
        name_build(runs.values()): [_mean_epoch_seconds([runs[model]] if model in runs else []) for model in labels],
    }
    table = pd.DataFrame(columns, index=list(labels.values()), dtype=float)
    return table / table.iloc[0]


def _mean_epoch_seconds(records):
    return np.mean([r.seconds["training"] / len(r.history["loss"]) for r in records]) if records else np.nan


def describe_recorded(study, protocol, model, *, folder=None):
    """The recorded accuracy of a model, as a cell of a table: mean ± interval over seeds.

    Args:
        study: str or Study. As for `load_records`.
        protocol: str. `"published"` or `"careful"`.
        model: str. `<network>-<strategy>`.
        folder: Path or None. None means the committed records.

    Returns:
        str. `NO_RECORD` when there is none.
    """
    summary = summarise(load_records(study, folder=folder, protocol=protocol, model=model))
    return _cell(summary, (protocol, model), NO_RECORD)


def describe_conditions(records):
    """Hardware, versions and dates of some records, as one sentence for a caption."""
    if not records:
        return "no recorded run"
    hardware = sorted({f"{r.hardware['name']}, {_count_units(r)}" for r in records})
    versions = sorted({f"TensorFlow {r.versions['tensorflow']}, Keras {r.versions['keras']}" for r in records})
    days = sorted({r.recorded_at[:10] for r in records})
    span = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return f"{'; '.join(hardware)}; {'; '.join(versions)}; {span}"


def _cell(summary, key, otherwise=NO_RECORD):
    if key not in summary.index:
        return otherwise
    row = summary.loc[key]
    if np.isnan(row["half_width"]):
        return f"{row['mean']:.1%} (1 seed)"
    return f"{row['mean']:.1%} ± {row['half_width'] * 100:.1f} ({row['seeds']:.0f} seeds)"


def _pooled_row(group):
    _, y_true, y_prob = pool_predictions(group)
    whole = metrics.evaluate(y_true, y_prob, [str(target) for target in range(y_prob.shape[1])])
    low, high = metrics.bootstrap_interval(y_true, y_prob)
    row = {"low": low, "high": high, "seeds": len(group), "images": len(y_true), "scaled_ece": float("nan")}
    row["seed_spread"] = pd.Series([r.metrics["accuracy"] for r in group]).std()
    if all(len(r.validation_true) for r in group):
        _, y_true, y_prob = pool_predictions([calibrate(r) for r in group])
        row["scaled_ece"] = metrics.expected_calibration_error(y_true, y_prob)
    return row | {name: whole[name] for name in ("accuracy", "macro_f1", "ece")}


def _count_units(record):
    count, unit = record.hardware["count"], _unit(record)
    return f"{count} {unit.removesuffix('s') if count == 1 else unit}"


def _unit(record):
    return "GPU" if record.hardware["kind"] == "GPU" else "CPU cores"


def _images_per_second(record):
    seconds = record.seconds.get("training", record.seconds.get("head", float("nan")))
    return record.counts["train"] * len(record.history.get("loss", ())) / seconds


def device_seconds(record):
    """What a record's training cost: core seconds where a CPU run has them, else seconds times CPU cores or GPUs."""
    if _unit(record) == "CPU cores" and "core_seconds" in record.details:
        return record.details["core_seconds"]
    return sum(record.seconds.values()) * record.hardware["count"]
