"""Widgets: figures that answer to a control, in a kernel and on a page without one.

A page holds a pane for every state of the controls, and the browser shows the one that they choose.
"""

import base64
import html
import re
from collections.abc import Mapping

import numpy as np
from PIL import Image
from sklearn.metrics import confusion_matrix

from tlhelpers.figures import galleries
from tlhelpers.figures.plotting import PALETTE
from tlhelpers.synthetic import collection

THRESHOLDS = tuple(float(share) for share in np.linspace(0, 0.95, 20).round(2))
CURVES = {"accuracy": ("training", "4 3"), "val_accuracy": ("validation", "none")}
CURVE_WIDTH, CURVE_HEIGHT = 320, 120  # pixels
PICTURE_SIZE, JPEG_QUALITY = 224, 80  # pixels; percent
CONTROL_WIDTH = "min(100%, 30rem)"


def show_panes(panes, controls):
    """One pane at a time, chosen by one or more controls.

    Args:
        panes: dict from an option of the first control to HTML or, with more controls, to such a dict for the others;
            all of these have the same options.
        controls: dict from a control's label to its kind: `"Dropdown"` or `"SelectionSlider"`.

    Returns:
        ipywidgets.VBox of the controls and, below them, the panes. It needs no kernel with ipywidgets 8, whose `Stack`
        the browser switches alone; under ipywidgets 7 the kernel does. With a kernel it does more: its trait `choice`
        holds the chosen options, tuple of str, for code to read or to `observe`.
    """
    import ipywidgets
    import traitlets

    made, level = [], panes
    for label, kind in controls.items():
        options = list(level)
        look = {"style": {"description_width": "auto"}, "layout": {"width": CONTROL_WIDTH}}
        made.append(getattr(ipywidgets, kind)(options=options, description=label, **look))
        level = level[options[0]]
    box = ipywidgets.VBox([*made, _stack(panes, made)])
    box.add_traits(choice=traitlets.Tuple())

    def choose(_=None):
        box.choice = tuple(control.value for control in made)

    for control in made:
        control.observe(choose, "value")
    choose()
    return box


def explore_depths(runs):
    """Shows how much of a backbone is trained at what learning rate: parameters, accuracies and learning curves.

    Args:
        runs: dict from a depth in words, a learning rate and maybe a seed to a Record, as from `load_sweep("depths")`.

    Returns:
        ipywidgets.VBox with a slider over depths and one over learning rates.
    """
    cells = {}
    for (depth, rate, *_), run in runs.items():
        cells.setdefault(depth, {}).setdefault(f"{rate:g}", []).append(run)
    panes = {depth: {rate: _describe_depth(found) for rate, found in rates.items()} for depth, rates in cells.items()}
    return show_panes(panes, {"What moves": "SelectionSlider", "Rate": "SelectionSlider"})


def explore_confusions(predictions, class_names):
    """Which class is taken for which, by each of several models.

    Args:
        predictions: dict from a source of runs to a dict from a model to `y_true` (int array `(n,)`) and `y_prob`
            (float array `(n, classes)`); all sources have the same models.
        class_names: sequence of str, in the order of the classes.

    Returns:
        ipywidgets.VBox with a list of sources and one of models.
    """
    panes = {
        source: {model: _tabulate_confusions(*found, class_names) for model, found in models.items()}
        for source, models in predictions.items()
    }
    return show_panes(panes, {"Runs": "Dropdown", "Model": "Dropdown"})


def explore_threshold(predictions):
    """Shows what a model gains and loses that may decline to answer: only images above a confidence are counted.

    Args:
        predictions: dict from a model to `y_true` (int array `(n,)`) and `y_prob` (float array `(n, classes)`).

    Returns:
        ipywidgets.VBox with a list of models and a slider over confidences, 0 % to 95 %.
    """
    panes = {
        model: {f"{threshold:.0%}": _describe_threshold(*found, threshold) for threshold in THRESHOLDS}
        for model, found in predictions.items()
    }
    return show_panes(panes, {"Model": "Dropdown", "Confidence at least": "SelectionSlider"})


def explore_heat_maps(images, labels, maps, answers):
    """Shows the heat maps of several models over one image, one at a time in the same position.

    Args:
        images: uint8 array `(n, height, width, 3)` in 0..255.
        labels: sequence of n str. The true classes.
        maps: dict from a model to a float array `(n, height, width)` in 0..1, as from `grad_cam`.
        answers: dict from a model to a sequence of n str. Its predictions.

    Returns:
        ipywidgets.VBox with a list of images and one of what to show: the image alone, or darkened where the heat map
        of a model is low.
    """
    panes = {}
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        views = {"the picture": _show_picture(image, f"true: {label}")}
        for model, heats in maps.items():
            dark = image * (1 - galleries.SHADE * (1 - heats[index][..., np.newaxis]))
            views[model] = _show_picture(dark, f"{model}: {answers[model][index]}, true: {label}")
        panes[f"{index + 1}: {label}"] = views
    return show_panes(panes, {"Picture": "Dropdown", "Seen by": "Dropdown"})


def above_threshold(y_true, y_prob, threshold):
    """Counts how a model does on the images that it predicts with a high confidence.

    Args:
        y_true: int array `(n,)`.
        y_prob: float array `(n, classes)`.
        threshold: float in 0..1. The lowest confidence that is an answer.

    Returns:
        dict of int: `answered`, `right` and `wrong` images, and those `declined`.
    """
    sure = y_prob.max(axis=1) >= threshold
    right = int((y_prob.argmax(axis=1) == y_true)[sure].sum())
    answered = int(sure.sum())
    return {"answered": answered, "right": right, "wrong": answered - right, "declined": len(sure) - answered}


def list_facts(facts, *, label=None):
    """Facts side by side, each below its name.

    Args:
        facts: dict from a name to a value; both are shown as text.
        label: str or None. What a screen reader calls the list.

    Returns:
        str. HTML.
    """
    rows = "".join(f"<div><dt>{html.escape(k)}</dt><dd>{html.escape(str(v))}</dd></div>" for k, v in facts.items())
    named = f' aria-label="{html.escape(label)}"' if label else ""
    return f'<dl class="run-badge"{named}>{rows}</dl>'


def as_html(text):
    """A text as HTML: escaped, and what stands between backticks as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", html.escape(text))


def _stack(panes, controls):
    """A widget that shows one of the panes below a dict, as the controls say, first to last."""
    import ipywidgets

    if not isinstance(panes, Mapping):
        return ipywidgets.HTML(panes)
    children = [_stack(pane, controls[1:]) for pane in panes.values()]
    if not hasattr(ipywidgets, "Stack"):
        return _switch_in_kernel(controls[0], children)
    stack = ipywidgets.Stack(children, selected_index=0)
    ipywidgets.jslink((controls[0], "index"), (stack, "selected_index"))
    return stack


def _switch_in_kernel(control, children):
    import ipywidgets

    def show(_=None):
        for index, child in enumerate(children):
            child.layout.display = None if index == control.index else "none"

    control.observe(show, "index")
    show()
    return ipywidgets.VBox(children)


def _describe_depth(runs):
    run = runs[0]
    accuracies = [found.metrics["accuracy"] for found in runs]
    facts = {
        "parameters that train": f"{run.parameters['trainable']:,} of {run.parameters['total']:,}",
        f"{run.details['evaluated_on']} accuracy": f"{np.mean(accuracies):.1%}",
        "with the old head": f"{np.mean([found.details['old_head_accuracy'] for found in runs]):.1%}",
        "weights moved by": f"{np.mean([found.details['weight_distance'] for found in runs]):.3f}",
        "runs": f"{len(runs)}",
    }
    return list_facts(facts) + _draw_curves(run.history)


def _describe_threshold(y_true, y_prob, threshold):
    counts = above_threshold(y_true, y_prob, threshold)
    accuracy = f"{counts['right'] / counts['answered']:.1%}" if counts["answered"] else "no answer"
    shares = {"answered": counts["answered"], "declined": counts["declined"]}
    facts = {name: f"{count:,} ({count / len(y_true):.1%})" for name, count in shares.items()}
    return list_facts(facts | {"wrong": f"{counts['wrong']:,}", "accuracy of the answers": accuracy})


def _show_picture(pixels, text):
    image = Image.fromarray(np.asarray(pixels).round().astype(np.uint8))
    image.thumbnail((PICTURE_SIZE, PICTURE_SIZE))  # a larger one would only make the page heavier
    data = base64.b64encode(collection.encode(np.asarray(image), quality=JPEG_QUALITY)).decode()
    text = html.escape(text)
    scale = PICTURE_SIZE / max(image.size)  # a small image is shown as large as a large one
    size = 'width="{:.0f}" height="{:.0f}"'.format(*(side * scale for side in image.size))
    return f'<p>{text}</p><img alt="{text}" {size} src="data:image/jpeg;base64,{data}">'


def _tabulate_confusions(y_true, y_prob, class_names):
    """A table of counts with a bar in each cell, as long as the cell's share of its row."""
    classes = range(len(class_names))
    counts = confusion_matrix(y_true, y_prob.argmax(axis=1), labels=classes)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [html.escape(name) for name in class_names]
    heads = "".join(f'<th scope="col">{name}</th>' for name in names)
    rows = "".join(
        f'<tr><th scope="row">{names[true]}</th>'
        + "".join(_cell(counts[true, taken], shares[true, taken], true == taken) for taken in classes)
        + "</tr>"
        for true in classes
    )
    right = np.trace(counts)
    text = f"{right:,} of {len(y_true):,} right. Rows: the true class; columns: what the model says."
    return (
        f'<p>{text}</p><table aria-label="Confusions"><thead><tr><td></td>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _cell(count, share, right):
    colour = PALETTE[0] if right else PALETTE[1]
    bar = f"linear-gradient({colour}, {colour}) left bottom / {share:.1%} 0.3em no-repeat"
    return (
        f'<td style="min-width: 6.5em; text-align: right; padding: 0.2em 0.6em 0.4em; background: {bar}">{count}</td>'
    )


def _draw_curves(history):
    """Accuracy over the epochs as a small figure in the colour of the text."""
    lines, words = [], []
    for name, (label, dashes) in CURVES.items():
        values = history.get(name, [])
        if values:
            across = np.linspace(0, CURVE_WIDTH, len(values)) if len(values) > 1 else [0]
            points = " ".join(
                f"{x:.0f},{CURVE_HEIGHT * (1 - value):.1f}" for x, value in zip(across, values, strict=True)
            )
            lines.append(f'<polyline points="{points}" stroke-dasharray="{dashes}"/>')
            words.append(f"{label} from {values[0]:.1%} to {values[-1]:.1%}")
    text = f"Accuracy over {len(history['loss'])} epochs: {'; '.join(words)}"
    frame = f'<path d="M0 0V{CURVE_HEIGHT}H{CURVE_WIDTH}" opacity="0.5"/>'
    return (
        f'<svg role="img" aria-label="{text}" viewBox="-2 -2 {CURVE_WIDTH + 4} {CURVE_HEIGHT + 4}" '
        f'style="max-width: {CURVE_WIDTH}px; width: 100%" fill="none" stroke="currentColor" stroke-width="2">'
        f"{frame}{''.join(lines)}</svg><p>{text} (dashed: training; full height: 100 %).</p>"
    )
