"""The book's figures: one palette, fixed sizes, data first, and the Axes returned.

No function shows or saves anything. Figures made of pictures are in `galleries`.
"""

from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from IPython import get_ipython
from matplotlib.colors import to_rgb
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter
from sklearn.metrics import confusion_matrix

from tlhelpers import metrics

PALETTE = sns.color_palette("colorblind").as_hex()
TRAIN_COLOUR, VALIDATION_COLOUR = PALETTE[0], PALETTE[1]
WIDTH = 7.0
SIDE_BY_SIDE = 6  # names of classes that fit below an axis without being turned
MATRIX_SIDE, MATRIX_CELL = 3.9, 0.55  # inches: of a confusion matrix, and of one cell where there are many classes
FIGURE_RESOLUTION = 144


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
    if get_ipython():
        from matplotlib_inline.backend_inline import set_matplotlib_formats  # it looks for a notebook when it is loaded

        # The layout leaves no margin to cut off, and to look for one every figure is drawn twice.
        set_matplotlib_formats("png", bbox_inches=None)


def plot_learning_curves(history, *, axes=None):
    """Accuracy and loss by epoch, training beside validation.

    Args:
        history: dict of lists with `accuracy`, `val_accuracy`, `loss` and `val_loss`, one value per epoch.
        axes: two Axes or None. None makes a figure.

    Returns:
        array of two Axes: accuracy, loss.
    """
    if axes is None:
        _, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.9))
    epochs = np.arange(1, len(history["loss"]) + 1)
    for axis, name in zip(axes, ("accuracy", "loss"), strict=True):
        axis.plot(epochs, history[name], color=TRAIN_COLOUR, marker="o", markersize=3, label="training")
        axis.plot(
            epochs,
            history[f"val_{name}"],
            color=VALIDATION_COLOUR,
            marker="s",
            markersize=3,
            linestyle="--",
            label="validation",
        )
        axis.set(title=name.capitalize(), xlabel="epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes[1].set_ylim(bottom=0)
    axes[0].legend(loc="best")
    return np.asarray(axes)


def plot_runs(histories, *, metric="accuracy", ax=None):
    """One metric of several runs by epoch: training solid, validation dashed where there is one.

    Args:
        histories: dict from a run's label to its history (dict of lists, one value per epoch).
        metric: str. A key of the histories; `val_` and the metric is the validation's.
        ax: Axes or None. None makes a figure.

    Returns:
        Axes.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(WIDTH, 3.2))
    for index, (label, history) in enumerate(histories.items()):
        epochs = np.arange(1, len(history[metric]) + 1)
        style = {"color": PALETTE[index], "marker": "os^D"[index % 4], "markersize": 3}
        part = ", training" if f"val_{metric}" in history else ""
        ax.plot(epochs, history[metric], **style, label=f"{label}{part}")
        if f"val_{metric}" in history:
            ax.plot(epochs, history[f"val_{metric}"], **style, linestyle="--", label=f"{label}, validation")
    ax.set(xlabel="epoch", ylabel=metric.replace("_", " "))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if metric.endswith("accuracy"):
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


def plot_confusion_matrix(y_true, y_prob, class_names, *, ax=None):
    """Counts of true class (rows) against predicted class (columns), shaded by the share of the row.

    Args:
        y_true: int array `(n,)`.
        y_prob: float array `(n, classes)`.
        class_names: sequence of str.
        ax: Axes or None. None makes a figure.

    Returns:
        Axes.
    """
    if ax is None:
        side = max(MATRIX_SIDE, MATRIX_CELL * len(class_names))
        _, ax = plt.subplots(figsize=(side + 0.7, side))
    counts = confusion_matrix(y_true, np.asarray(y_prob).argmax(axis=1), labels=range(len(class_names)))
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    sns.heatmap(
        share,
        annot=counts,
        fmt="d",
        cmap="Blues",
        vmin=0,
        vmax=1,
        square=True,
        linewidths=0.5,
        xticklabels=class_names,
        yticklabels=class_names,
        cbar_kws={"label": "share of the true class", "format": PercentFormatter(1, decimals=0)},
        ax=ax,
    )
    _contrast_texts(ax)
    ax.set(xlabel="predicted", ylabel="true")
    plt.setp(ax.get_xticklabels(), rotation=30, ha="right", rotation_mode="anchor")
    ax.tick_params(axis="y", rotation=0)
    return ax


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
    if ax is None:
        _, ax = plt.subplots(figsize=(WIDTH, 0.5 + 0.38 * len(values)))
    bars = ax.barh(list(values), list(values.values()), color=PALETTE[0])
    ax.bar_label(bars, fmt="{:.1%}" if percent else f"{{:,.{digits}f}}", padding=4, fontsize=9)
    ax.invert_yaxis()
    ax.set(xlabel=label, xlim=(0, 1 if percent else max(values.values()) * 1.12))
    if percent:
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.grid(False, axis="y")
    return ax


def plot_per_class(metrics_by_model, *, metric="recall", ax=None):
    """One bar per class and model.

    Args:
        metrics_by_model: dict from a model's label to its metrics, as from `metrics.evaluate`.
        metric: str. `"precision"`, `"recall"` or `"f1"`.
        ax: Axes or None. None makes a figure.

    Returns:
        Axes.
    """
    if ax is None:
        _, ax = plt.subplots()
    width = 0.8 / len(metrics_by_model)
    for index, (label, values) in enumerate(metrics_by_model.items()):
        classes = list(values["per_class"])
        heights = [values["per_class"][name][metric] for name in classes]
        places = np.arange(len(classes)) + (index - (len(metrics_by_model) - 1) / 2) * width
        ax.bar(places, heights, width, label=label, color=PALETTE[index], edgecolor="white")
    many = len(classes) > SIDE_BY_SIDE
    turned = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if many else {}
    ax.set_xticks(np.arange(len(classes)), [name.replace("_", " ") for name in classes], **turned)
    ax.set(ylabel=metric.capitalize() if metric == "f1" else metric, ylim=(0, 1))
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.3 if many else -0.12), ncols=len(metrics_by_model))
    ax.grid(False, axis="x")
    return ax


def plot_comparison(points, *, ax=None):
    """Accuracies of several models from several sources, as points with intervals.

    Args:
        points: pandas.DataFrame with `model`, `source`, `accuracy` (0..1) and `half_width` (NaN for none).
        ax: Axes or None. None makes a figure.

    Returns:
        Axes.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(WIDTH, 2.8))
    labels = list(dict.fromkeys(points["model"]))
    sources = list(dict.fromkeys(points["source"]))
    for index, source in enumerate(sources):
        rows = points[points["source"] == source]
        offset = (index - (len(sources) - 1) / 2) * 0.2
        places = [labels.index(model) + offset for model in rows["model"]]
        ax.errorbar(
            rows["accuracy"],
            places,
            xerr=rows["half_width"],
            fmt="osD^v"[index % 5],
            color=PALETTE[index],
            capsize=3,
            label=source,
        )
    ax.set_yticks(range(len(labels)), labels)
    ax.invert_yaxis()
    ax.set(xlabel="test accuracy")
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=len(sources))
    return ax


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
    sns.heatmap(values, annot=True, fmt=".0%", cmap="Blues", vmin=0, vmax=1, linewidths=0.5, cbar=False, ax=ax)
    _contrast_texts(ax)
    ax.set_title(title)
    ax.tick_params(axis="y", rotation=0)
    return ax


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
    for index, (way, rows) in enumerate(points.groupby("way", sort=False)):
        rows = rows.sort_values("size")
        style = {"color": PALETTE[index], "marker": "os^D"[index % 4], "markersize": 4}
        ax.plot(rows["size"], rows["mean"], **style, label=way)
        ax.fill_between(rows["size"], rows["low"], rows["high"], color=PALETTE[index], alpha=0.2, linewidth=0)
    if log:
        ax.set_xscale("log")
    sizes = sorted(set(points["size"]))
    ax.set_xticks(sizes, [f"{size:g}" for size in sizes])
    ax.minorticks_off()
    ax.set(xlabel=label, ylabel="accuracy")
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


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
    for name, row in points.iterrows():
        colour = PALETTE[0] if name in front.index else PALETTE[7]
        ends = [[row["accuracy"] - row["low"]], [row["high"] - row["accuracy"]]]
        ax.errorbar(row[cost], row["accuracy"], yerr=ends, fmt="o", color=colour, capsize=3)
        side = -1 if row[cost] ** 2 > points[cost].min() * points[cost].max() else 1  # towards the middle
        place = {"xytext": (6 * side, 5), "textcoords": "offset points", "ha": "right" if side < 0 else "left"}
        box = {"color": "white", "alpha": 0.7, "pad": 0.5}
        ax.annotate(name, (row[cost], row["accuracy"]), **place, fontsize=8, bbox=box)
    if len(points) == 0:
        ax.text(0.5, 0.5, "nothing to show", ha="center", transform=ax.transAxes)
    ax.set_xscale("log")
    for axis_formatter in (ax.xaxis.set_major_formatter, ax.xaxis.set_minor_formatter):
        axis_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    ax.margins(x=0.15)
    ax.set(xlabel=label, ylabel="accuracy")
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    return ax


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
    for index, (label, (y_true, y_prob)) in enumerate(predictions.items()):
        table = metrics.reliability_table(y_true, y_prob)
        ax.plot(table["confidence"], table["accuracy"], marker="osD"[index % 3], color=PALETTE[index], label=label)
    ax.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.legend(loc="upper left")
    return ax


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


def plot_embedding(points, y, class_names, *, highlight=None, ax=None):
    """Pictures as points in the plane, one colour and marker per class.

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
    points, y = np.asarray(points), np.asarray(y)
    for index, name in enumerate(class_names):
        style = {"color": PALETTE[index % len(PALETTE)], "marker": "osD^v"[index % 5]}
        ax.scatter(*points[y == index].T, s=9, alpha=0.75, linewidths=0, label=name, **style)
    if highlight is not None:
        ringed = points[np.asarray(highlight, bool)]
        ax.scatter(*ringed.T, s=32, facecolors="none", edgecolors="0.15", linewidths=0.7, label="wrong")
    ax.set(xticks=[], yticks=[])
    ax.set_aspect("equal", adjustable="datalim")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
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
