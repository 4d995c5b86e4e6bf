"""The book's figures: one palette, fixed sizes, data first, and the Axes returned.

No function shows or saves anything. Figures made of images are in `galleries`.
"""

from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from IPython import get_ipython
from matplotlib.colors import to_rgb
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter
from sklearn.metrics import confusion_matrix

from tlhelpers import inputs, metrics
from tlhelpers.figures import curves
from tlhelpers.figures.lettering import LONGEST_LABEL, as_entry, as_label, as_labels, lettered

PALETTE = sns.color_palette("colorblind").as_hex()
TRAIN_COLOUR, VALIDATION_COLOUR = PALETTE[0], PALETTE[1]
CURVE_STYLES = (
    {"color": TRAIN_COLOUR, "marker": "o"},
    {"color": VALIDATION_COLOUR, "marker": "s", "linestyle": "--"},
)
WIDTH = 7.0
SIDE_BY_SIDE = 6  # names of classes that fit below an axis without being turned
MATRIX_SIDE, MATRIX_CELL = 3.9, 0.55  # inches: of a confusion matrix, and of one cell where there are many classes
COUNTED_CLASSES, CROWDED_SIDE = 20, 7.5  # classes whose counts are written, and the side without them, inches
NAMED_CLASSES, LINE = 20, 0.17  # classes with a name where there are more, and the height of a line, inches
PER_CLASS = ("precision", "recall", "f1")
SHOWN_BARS = 40  # more of them are a wall
FIGURE_RESOLUTION = 144
NOTEBOOK_BACKENDS = ("module://", "inline", "widget", "ipympl", "nbagg", "notebook")  # whose figures stand on a page


def use_book_style():
    """Sets fonts, sizes and colours for every figure that follows."""
    sns.set_theme(
        style="whitegrid",
        palette=PALETTE,
        rc={
            "figure.figsize": (WIDTH, 3.2),
            "figure.dpi": FIGURE_RESOLUTION,
            "figure.constrained_layout.use": True,
            "font.size": 10,
            "axes.titlesize": 10,
            "axes.titleweight": "bold",
            "axes.labelsize": 10,
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
            "legend.fontsize": 9,
            "legend.frameon": False,
            "grid.color": "0.9",
            "axes.edgecolor": "0.6",
        },
    )
    if shell := get_ipython():
        if hasattr(shell, "kernel") and not plt.get_backend().startswith(NOTEBOOK_BACKENDS):
            shell.run_line_magic("matplotlib", "inline")  # the environment names a backend that shows nothing here
        from matplotlib_inline.backend_inline import set_matplotlib_formats  # it looks for a notebook when it is loaded

        # The layout leaves no margin to cut off, and to look for one every figure is drawn twice.
        set_matplotlib_formats("png", bbox_inches=None)


@lettered
def plot_learning_curves(history, *, axes=None):
    """Accuracy and loss by epoch, training beside validation.

    Args:
        history: keras.callbacks.History as `fit` returns it, or its dict of lists, one value per epoch: an accuracy,
            `loss`, and the same with `val_` before. What is missing is left out.
        axes: two Axes or None. None makes a figure.

    Returns:
        array of two Axes: accuracy, loss.

    Raises:
        ValueError: when it is no history, or one without loss and accuracy.
    """
    found = curves.read_curves(history)
    names = {"accuracy": curves.find_accuracy(found), "loss": "loss"}
    parts = {"training": "", "validation": "val_"}
    if not any(f"{prefix}{name}" in found for name in names.values() for prefix in parts.values()):
        raise ValueError(
            "A history has a list of `loss` or of an accuracy, one value per epoch. "
            f"Received: history with {sorted(found)}"
        )
    if axes is None:
        _, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.9))
    for axis, (title, name) in zip(axes, names.items(), strict=True):
        for (part, prefix), style in zip(parts.items(), CURVE_STYLES, strict=True):
            values = found.get(f"{prefix}{name}", [])
            if len(values):
                axis.plot(np.arange(1, len(values) + 1), values, markersize=3, label=part, **style)
        axis.set(title=title.capitalize(), xlabel="epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if not axis.lines:
            _say_nothing(axis, f"no {title} in this history")
    axes[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes[1].set_ylim(bottom=0)
    if any(axis.lines for axis in axes):
        next(axis for axis in axes if axis.lines).legend(loc="best")
    return np.asarray(axes)


@lettered
def plot_runs(histories, *, metric="accuracy", ax=None):
    """One metric of several runs by epoch: training solid, validation dashed where there is one.

    Args:
        histories: dict from a run's label to its history: what `fit` returns, or a dict of lists, one value per epoch.
        metric: str. A key of the histories; `val_` and the metric is the validation's.
        ax: Axes or None. None makes a figure.

    Returns:
        Axes.

    Raises:
        ValueError: when a run has no such metric.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(WIDTH, 3.2))
    for index, (label, history) in enumerate(zip(_entries(histories), histories.values(), strict=True)):
        found = curves.read_curves(history)
        name = curves.find_accuracy(found) if metric == "accuracy" else metric
        if name not in found:
            raise ValueError(f"A metric of these runs is one of {sorted(found)}. Received: metric={metric!r}")
        style = {"color": _colour(index), "marker": "os^D"[index % 4], "markersize": 3}
        validation = found.get(f"val_{name}", [])
        part = ", training" if validation else ""
        ax.plot(np.arange(1, len(found[name]) + 1), found[name], **style, label=f"{label}{part}")
        if validation:
            epochs = np.arange(1, len(validation) + 1)
            ax.plot(epochs, validation, **style, linestyle="--", label=f"{label}, validation")
    ax.set(xlabel="epoch", ylabel=as_label(metric.replace("_", " ")))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if metric.endswith("accuracy"):
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


@lettered
def plot_confusion_matrix(y_true, y_prob, class_names, *, ax=None):
    """Counts of true class (rows) against predicted class (columns), shaded by the share of the row.

    Where there are many classes, shades stand alone, and the classes with most errors have their names.

    Args:
        y_true: int array `(n,)`.
        y_prob: float array `(n, classes)`.
        class_names: sequence of str.
        ax: Axes or None. None makes a figure.

    Returns:
        Axes.
    """
    names = as_labels(inputs.check_class_names(class_names))
    y_prob = inputs.check_probabilities(y_prob, classes=len(names))
    y_true = inputs.check_labels(y_true, classes=len(names))
    crowded = len(names) > COUNTED_CLASSES
    if ax is None:
        side = CROWDED_SIDE if crowded else max(MATRIX_SIDE, MATRIX_CELL * len(names))
        _, ax = plt.subplots(figsize=(side + 0.7, side))
    counts = confusion_matrix(y_true, y_prob.argmax(axis=1), labels=range(len(names)))
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    sns.heatmap(
        share,
        annot=None if crowded else counts,
        fmt="d",
        cmap="Blues",
        vmin=0,
        vmax=1,
        square=True,
        linewidths=0 if crowded else 0.5,
        xticklabels=False,
        yticklabels=False,
        cbar_kws={"label": "share of the true class", "format": PercentFormatter(1, decimals=0)},
        ax=ax,
    )
    named = _most_confused(counts) if crowded else np.arange(len(names))
    shown = [names[index] for index in named]
    ax.set_xticks(named + 0.5, shown, rotation=30 if not crowded else 90, ha="right", rotation_mode="anchor")
    ax.set_yticks(named + 0.5, shown, rotation=0)
    if crowded:
        plt.setp(ax.get_xticklabels(), va="center")
    else:
        _contrast_texts(ax)
    ax.set(xlabel="predicted", ylabel="true")
    if len(named) < len(names):
        ax.set_title(f"{len(names)} classes, those with most errors by name")
    return ax


@lettered
def plot_bars(values, *, label, percent=True, digits=0, ax=None):
    """One horizontal bar per entry, its value written beside it.

    Args:
        values: dict from a name to a number.
        label: str. What the bars measure.
        percent: bool. Whether the numbers are shares in 0..1.
        digits: int. Decimals of numbers that are no shares.
        ax: Axes or None. None makes a figure.

    Returns:
        Axes.
    """
    heights = np.array(list(values.values()), float)
    chosen = np.sort(np.argsort(-heights, kind="stable")[:SHOWN_BARS])
    names, heights = [list(values)[index] for index in chosen], heights[chosen]
    if ax is None:
        _, ax = plt.subplots(figsize=(WIDTH, 0.5 + 0.38 * len(names)))
    bars = ax.barh(range(len(names)), heights, color=PALETTE[0])
    ax.set_yticks(range(len(names)), as_labels(names, longest=LONGEST_LABEL))
    ax.bar_label(bars, fmt="{:.1%}" if percent else f"{{:,.{digits}f}}", padding=4, fontsize=9)
    ax.invert_yaxis()
    some = "" if len(names) == len(values) else f", the {len(names)} largest of {len(values)}"
    ax.set(xlabel=f"{as_label(label)}{some}", xlim=(0, 1 if percent else max(heights.max(initial=0), 1e-9) * 1.12))
    if not len(names):
        _say_nothing(ax)
    if percent:
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.grid(False, axis="y")
    return ax


@lettered
def plot_per_class(metrics_by_model, *, metric="recall", ax=None):
    """One bar per class and model.

    Args:
        metrics_by_model: dict from a model's label to its metrics, as from `metrics.evaluate`.
        metric: str. `"precision"`, `"recall"` or `"f1"`.
        ax: Axes or None. None makes a figure.

    Returns:
        Axes.

    Raises:
        ValueError: when they are no such metrics.
    """
    if metric not in PER_CLASS:
        raise ValueError(f"A metric of each class is one of {list(PER_CLASS)}. Received: metric={metric!r}")
    if not all(isinstance(found, dict) and "per_class" in found for found in metrics_by_model.values()):
        raise ValueError(
            'Each model has a label and what `evaluate` returns for it, as in {"frozen": tl.evaluate(...)}. '
            f"Received: metrics_by_model with {list(metrics_by_model)[:5]}"
        )
    if ax is None:
        _, ax = plt.subplots()
    values = {
        label: {name: row[metric] for name, row in found["per_class"].items()}
        for label, found in metrics_by_model.items()
    }
    everyone = list(next(iter(values.values())))
    mean = np.mean([[row[name] for name in everyone] for row in values.values()], axis=0)
    chosen = np.sort(np.argsort(mean, kind="stable")[:SHOWN_BARS])
    classes = [everyone[index] for index in chosen]
    width = 0.8 / len(values)
    for index, (label, row) in enumerate(zip(_entries(values), values.values(), strict=True)):
        places = np.arange(len(classes)) + (index - (len(values) - 1) / 2) * width
        heights = [row[name] for name in classes]
        ax.bar(places, heights, width, label=label, color=_colour(index), edgecolor="white")
    many, most = len(classes) > SIDE_BY_SIDE, len(classes) > COUNTED_CLASSES
    turned = {"rotation": 90 if most else 30, "ha": "right", "rotation_mode": "anchor"} if many else {}
    ax.set_xticks(np.arange(len(classes)), as_labels(name.replace("_", " ") for name in classes), **turned)
    if most:
        plt.setp(ax.get_xticklabels(), va="center", fontsize=7)
    if len(classes) < len(everyone):
        ax.set_title(f"the {len(classes)} lowest of {len(everyone)} classes")
    ax.set(ylabel=metric.capitalize() if metric == "f1" else metric, ylim=(0, 1))
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.3 if many else -0.12), ncols=min(len(values), 4))
    ax.grid(False, axis="x")
    return ax


@lettered
def plot_comparison(points, *, ax=None):
    """Accuracies of several models from several sources, as points with intervals.

    Args:
        points: pandas.DataFrame with `model`, `source`, `accuracy`, and `low` and `high`, the ends of its interval
            (0..1; NaN for none).
        ax: Axes or None. None makes a figure.

    Returns:
        Axes.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(WIDTH, 2.8))
    labels = list(dict.fromkeys(points["model"]))
    sources = list(dict.fromkeys(points["source"]))
    for index, (source, entry) in enumerate(zip(sources, _entries(sources), strict=True)):
        rows = points[points["source"] == source]
        offset = (index - (len(sources) - 1) / 2) * 0.2
        places = [labels.index(model) + offset for model in rows["model"]]
        ax.errorbar(
            rows["accuracy"],
            places,
            xerr=[rows["accuracy"] - rows["low"], rows["high"] - rows["accuracy"]],
            fmt="osD^v"[index % 5],
            color=_colour(index),
            capsize=3,
            label=entry,
        )
    ax.set_yticks(range(len(labels)), as_labels(labels, longest=LONGEST_LABEL))
    ax.invert_yaxis()
    ax.set(xlabel="test accuracy")
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=len(sources))
    return ax


@lettered
def plot_grid(values, *, title="", ax=None):
    """A table of shares as shaded cells, their values written in them; darker is higher.

    Args:
        values: pandas.DataFrame of float in 0..1; the names of its index and columns become the axes' labels.
        title: str.
        ax: Axes or None. None makes a figure.

    Returns:
        Axes.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(4.6, 2.6))
    rows, columns = (as_labels(axis) for axis in (values.index, values.columns))
    ticks = {"yticklabels": rows, "xticklabels": columns}
    sns.heatmap(values, annot=True, fmt=".0%", cmap="Blues", vmin=0, vmax=1, linewidths=0.5, cbar=False, ax=ax, **ticks)
    _contrast_texts(ax)
    ax.set(xlabel=as_label(values.columns.name or ""), ylabel=as_label(values.index.name or ""), title=as_label(title))
    ax.tick_params(axis="y", rotation=0)
    return ax


@lettered
def plot_growth(points, *, label, log=True, ax=None):
    """Accuracy as something grows, one line per way of training, with a band where there is an interval.

    Args:
        points: pandas.DataFrame with `way` (str), `size` (float, above 0 where `log`), `mean` (0..1), `low` and `high`
            (0..1, NaN for none).
        label: str. What grows.
        log: bool. Whether the sizes stand on a logarithmic axis.
        ax: Axes or None. None makes a figure.

    Returns:
        Axes.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(WIDTH, 3.2))
    ways = list(dict.fromkeys(points["way"]))
    for index, (way, entry) in enumerate(zip(ways, _entries(ways), strict=True)):
        rows = points[points["way"] == way].sort_values("size")
        style = {"color": _colour(index), "marker": "os^D"[index % 4], "markersize": 4}
        ax.plot(rows["size"], rows["mean"], **style, label=entry)
        ax.fill_between(rows["size"], rows["low"], rows["high"], color=_colour(index), alpha=0.2, linewidth=0)
    if log:
        ax.set_xscale("log")
    sizes = sorted(set(points["size"]))
    ax.set_xticks(sizes, [f"{size:g}" for size in sizes])
    ax.minorticks_off()
    ax.set(xlabel=as_label(label), ylabel="accuracy")
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


@lettered
def plot_pareto(points, *, cost, label, ax=None):
    """Accuracy against cost, and the front: the models that no other beats in both.

    Args:
        points: pandas.DataFrame indexed by a model's name, with the column that `cost` names (above 0), `accuracy`
            (0..1), and `low` and `high`, the ends of its interval.
        cost: str. A column of `points`.
        label: str. What the cost is, with its unit.
        ax: Axes or None. None makes a figure.

    Returns:
        Axes. The models on the front are joined by a line, cheapest first.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(WIDTH, 3.6))
    front = points[metrics.pareto_front(points[cost], points["accuracy"])].sort_values(cost)
    ax.plot(front[cost], front["accuracy"], color="0.5", drawstyle="steps-post", zorder=1, label="front")
    texts = as_labels(points.index, longest=LONGEST_LABEL)
    for text, (name, row) in zip(texts, points.iterrows(), strict=True):
        colour = PALETTE[0] if name in front.index else PALETTE[7]
        ends = [[row["accuracy"] - row["low"]], [row["high"] - row["accuracy"]]]
        ax.errorbar(row[cost], row["accuracy"], yerr=ends, fmt="o", color=colour, capsize=3)
        side = -1 if row[cost] ** 2 > points[cost].min() * points[cost].max() else 1  # towards the middle
        place = {"xytext": (6 * side, 5), "textcoords": "offset points", "ha": "right" if side < 0 else "left"}
        box = {"color": "white", "alpha": 0.7, "pad": 0.5}
        ax.annotate(text, (row[cost], row["accuracy"]), **place, fontsize=8, bbox=box)
    if len(points) == 0:
        _say_nothing(ax)
    ax.set_xscale("log")
    for axis_formatter in (ax.xaxis.set_major_formatter, ax.xaxis.set_minor_formatter):
        axis_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    ax.margins(x=0.15)
    ax.set(xlabel=as_label(label), ylabel="accuracy")
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    return ax


@lettered
def plot_reliability(predictions, *, ax=None):
    """Accuracy against confidence; the diagonal is perfect calibration.

    Args:
        predictions: dict from a model's label to a pair `(y_true, y_prob)`.
        ax: Axes or None. None makes a figure.

    Returns:
        Axes.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(4.4, 3.8))
    ax.plot([0, 1], [0, 1], color="0.5", linestyle=":", label="perfect")
    for index, (label, (y_true, y_prob)) in enumerate(zip(_entries(predictions), predictions.values(), strict=True)):
        table = metrics.reliability_table(y_true, y_prob)
        ax.plot(table["confidence"], table["accuracy"], marker="osD"[index % 3], color=_colour(index), label=label)
    ax.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.legend(loc="upper left")
    return ax


@lettered
def plot_calibration(before, after=None):
    """Reliability before and after temperature scaling, side by side on shared axes.

    Args:
        before: dict from a model's label to a pair `(y_true, y_prob)`.
        after: dict of the same form or None. None, or an empty one, leaves its panel out.

    Returns:
        array of one or two Axes.
    """
    panels = {"before scaling": before} | ({"after scaling": after} if after else {})
    size = (WIDTH, 3.9) if after else (4.4, 4.2)
    figure, axes = plt.subplots(1, len(panels), figsize=size, sharex=True, sharey=True, squeeze=False)
    for axis, (title, predictions) in zip(axes[0], panels.items(), strict=True):
        plot_reliability(predictions, ax=axis)
        axis.set_title(title)
        axis.set_aspect("equal")
        axis.label_outer()
        axis.get_legend().remove()
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return axes[0]


@lettered
def plot_embedding(points, y, class_names, *, highlight=None, ax=None):
    """Images as points in the plane, one colour and marker per class.

    Args:
        points: float array `(n, 2)`, as from `embed_2d`.
        y: int array `(n,)`, indices of `class_names`.
        class_names: sequence of str.
        highlight: bool array `(n,)` or None. A model's errors, which get a ring.
        ax: Axes or None. None makes a figure.

    Returns:
        Axes.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(4.6, 3.6))
    names = as_labels(inputs.check_class_names(class_names))
    points, y = np.asarray(points), inputs.check_labels(y, classes=len(names), name="y")
    named = set(np.argsort(-np.bincount(y, minlength=len(names)), kind="stable")[:NAMED_CLASSES])
    for index, name in enumerate(names):
        name = as_entry(name) if index in named else None
        style = {"color": _colour(index), "marker": "osD^v"[index % 5]}
        ax.scatter(*points[y == index].T, s=9, alpha=0.75, linewidths=0, label=name, **style)
    if highlight is not None:
        ringed = points[np.asarray(highlight, bool)]
        ax.scatter(*ringed.T, s=32, facecolors="none", edgecolors="0.15", linewidths=0.7, label="wrong")
    ax.set(xticks=[], yticks=[])
    ax.set_aspect("equal", adjustable="datalim")
    title = None if len(named) == len(names) else f"the {len(named)} largest of {len(names)} classes"
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), title=title)
    return ax


def contrast_ratio(first, second):
    """The WCAG contrast ratio of two colours, 1..21.

    Args:
        first: a matplotlib colour.
        second: a matplotlib colour.

    Returns:
        float.

    Source:
        https://www.w3.org/TR/WCAG21/#dfn-contrast-ratio.
    """

    def luminance(colour):
        channels = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        return float(np.dot([0.2126, 0.7152, 0.0722], channels))

    lighter, darker = sorted([luminance(first), luminance(second)], reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _contrast_texts(ax):
    """Writes the numbers in a heat map's cells in black or white, whichever stands out more."""
    cells = ax.collections[-1].get_facecolors()
    for text, colour in zip(ax.texts[-len(cells) :], cells, strict=True):
        text.set_color(max("black", "white", key=partial(contrast_ratio, colour)))


def _colour(index):
    return PALETTE[index % len(PALETTE)]


def _entries(names):
    """Names of models and runs as entries of a legend."""
    return [as_entry(name) for name in as_labels(names, longest=LONGEST_LABEL)]


def _say_nothing(ax, text="nothing to show"):
    ax.text(0.5, 0.5, text, ha="center", transform=ax.transAxes)


def _most_confused(counts):
    """Rows and columns of a confusion matrix with most errors, as many and as far apart as their names need."""
    errors = counts.sum(axis=0) + counts.sum(axis=1) - 2 * np.diag(counts)
    apart = np.ceil(LINE * len(counts) / (0.7 * CROWDED_SIDE))
    chosen = []
    for index in np.argsort(-errors, kind="stable"):
        if len(chosen) < NAMED_CLASSES and all(abs(index - other) >= apart for other in chosen):
            chosen.append(index)
    return np.sort(chosen)
