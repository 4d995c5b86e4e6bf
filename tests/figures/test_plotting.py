"""Figures: the right artists in the right place, on the given Axes, in readable colours, and never shown."""

import base64
import io
import itertools
from types import SimpleNamespace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from eight_pictures import HEAT, IMAGES, NAMES, READABLE, Y_PROB, Y_TRUE
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from PIL import Image

from tlhelpers import metrics
from tlhelpers.figures import galleries, plotting

HISTORY = {
    "accuracy": [0.4, 0.6, 0.8],
    "val_accuracy": [0.3, 0.5, 0.55],
    "loss": [1.5, 1.0, 0.6],
    "val_loss": [1.6, 1.2, 1.1],
}
COUNTS = [[2, 1, 1], [0, 2, 0], [1, 0, 1]]
POINTS = pd.DataFrame(
    {
        "model": ["baseline", "frozen", "baseline", "frozen"],
        "source": ["published", "published", "recorded", "recorded"],
        "accuracy": [0.67, 0.88, 0.65, 0.9],
        "low": [np.nan, np.nan, 0.62, 0.88],
        "high": [np.nan, np.nan, 0.67, 0.91],
    }
)
GROWTH = pd.DataFrame(
    {
        "way": ["scratch", "scratch", "frozen", "frozen"],
        "size": [50, 5, 5, 50],
        "mean": [0.5, 0.3, 0.7, 0.8],
        "low": [0.4, 0.2, np.nan, np.nan],
        "high": [0.6, 0.4, np.nan, np.nan],
    }
)
COSTS = pd.DataFrame(
    {"seconds": [10, 100, 200], "accuracy": [0.8, 0.9, 0.85], "low": [0.78, 0.88, 0.8], "high": [0.82, 0.92, 0.9]},
    index=["small", "large", "slow"],
)
POSITIONS = np.random.default_rng(1).normal(size=(8, 2))


def metrics_by_model():
    return {
        "baseline": metrics.evaluate(Y_TRUE, Y_PROB, NAMES),
        "perfect": metrics.evaluate(Y_TRUE, np.eye(3)[Y_TRUE], NAMES),
    }


# The functions that draw on one Axes, each with arguments.
ON_ONE_AXES = {
    "runs": lambda **options: plotting.plot_runs({"frozen": HISTORY, "last six": HISTORY}, **options),
    "confusion": lambda **options: plotting.plot_confusion_matrix(Y_TRUE, Y_PROB, NAMES, **options),
    "per class": lambda **options: plotting.plot_per_class(metrics_by_model(), **options),
    "bars": lambda **options: plotting.plot_bars({"shallow": 0.4, "deep": 0.9}, label="accuracy", **options),
    "comparison": lambda **options: plotting.plot_comparison(POINTS, **options),
    "reliability": lambda **options: plotting.plot_reliability({"frozen": (Y_TRUE, Y_PROB)}, **options),
    "growth": lambda **options: plotting.plot_growth(GROWTH, label="pictures", **options),
    "front": lambda **options: plotting.plot_pareto(COSTS, cost="seconds", label="seconds", **options),
    "embedding": lambda **options: plotting.plot_embedding(POSITIONS, Y_TRUE, NAMES, **options),
}
ON_SEVERAL_AXES = {
    "curves": lambda: plotting.plot_learning_curves(HISTORY),
    "images": lambda: galleries.plot_image_grid(IMAGES, list("abcdefgh")),
    "predictions": lambda: galleries.plot_prediction_grid(IMAGES, Y_TRUE, Y_PROB, NAMES),
    "heat maps": lambda: galleries.plot_heat_maps(IMAGES[:3], HEAT, list("abc")),
    "calibration": lambda: plotting.plot_calibration({"frozen": (Y_TRUE, Y_PROB)}, {"frozen": (Y_TRUE, Y_PROB)}),
}
one_axes = pytest.mark.parametrize("draw", ON_ONE_AXES.values(), ids=ON_ONE_AXES.keys())
every_figure = pytest.mark.parametrize(
    "draw", [*ON_ONE_AXES.values(), *ON_SEVERAL_AXES.values()], ids=[*ON_ONE_AXES, *ON_SEVERAL_AXES]
)


@pytest.fixture(autouse=True)
def _book_style(monkeypatch):
    """The book's style for one test, in which showing or saving a figure is an error."""

    def refuse(*arguments, **options):
        raise AssertionError("a figure was shown or saved")

    monkeypatch.setattr(plt, "show", refuse)
    monkeypatch.setattr(plt.Figure, "savefig", refuse)
    with matplotlib.rc_context():
        plotting.use_book_style()
        yield


def bars(ax):
    return {container.get_label(): [bar.get_height() for bar in container] for container in ax.containers}


def legend_labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.slow
@every_figure
def test_each_function_returns_its_axes(draw):
    for ax in np.atleast_1d(draw()):
        assert isinstance(ax, Axes)
        assert ax.figure.number in plt.get_fignums()


@one_axes
def test_given_axes_are_drawn_on_and_no_figure_is_made(draw):
    figure, (first, second) = plt.subplots(1, 2)
    assert draw(ax=second) is second
    assert plt.get_fignums() == [figure.number]
    assert second.has_data()
    assert not first.has_data()


def test_learning_curves_use_the_given_axes():
    figure, given = plt.subplots(1, 2)
    returned = plotting.plot_learning_curves(HISTORY, axes=given)
    assert list(returned) == list(given)
    assert plt.get_fignums() == [figure.number]


@every_figure
def test_text_on_white_has_enough_contrast(draw):
    axes = np.atleast_1d(draw())
    figure = axes[0].figure
    figure.canvas.draw()
    cells = {text for ax in axes if ax.collections for text in ax.texts}
    texts = [text for text in figure.findobj(plt.Text) if text.get_text().strip() and text not in cells]
    assert texts
    for text in texts:
        assert plotting.contrast_ratio(text.get_color(), "white") >= READABLE, text


@pytest.mark.parametrize(
    ("first", "second", "ratio"),
    [
        ("white", "black", 21),
        ("black", "white", 21),
        ("red", "red", 1),
        ("#767676", "white", 4.54),
        ("#777777", "white", 4.48),
        ("blue", "white", 8.59),
        ("red", "white", 4.0),
    ],
)
def test_the_contrast_ratio_is_that_of_the_guideline(first, second, ratio):
    assert plotting.contrast_ratio(first, second) == pytest.approx(ratio, abs=0.006)


def test_learning_curves_show_training_beside_validation():
    accuracy, loss = plotting.plot_learning_curves(HISTORY)
    for ax, name in ((accuracy, "accuracy"), (loss, "loss")):
        training, validation = ax.lines
        assert ax.get_title() == name.capitalize()
        np.testing.assert_array_equal(training.get_xdata(), [1, 2, 3])
        np.testing.assert_array_equal(training.get_ydata(), HISTORY[name])
        np.testing.assert_array_equal(validation.get_ydata(), HISTORY[f"val_{name}"])
        assert (training.get_linestyle(), validation.get_linestyle()) == ("-", "--")
    assert legend_labels(accuracy) == ["training", "validation"]
    assert loss.get_ylim()[0] == 0
    assert accuracy.yaxis.get_major_formatter()(0.5) == "50%"


def test_one_epoch_is_still_a_curve():
    accuracy, _ = plotting.plot_learning_curves({name: values[:1] for name, values in HISTORY.items()})
    assert accuracy.lines[0].get_xdata().tolist() == [1]
    assert accuracy.lines[0].get_marker() == "o"


@pytest.mark.parametrize(("metric", "label"), [("accuracy", "50%"), ("loss", None)])
def test_runs_are_a_solid_and_a_dashed_line_each(metric, label):
    shorter = {name: values[:2] for name, values in HISTORY.items()}
    ax = plotting.plot_runs({"first": HISTORY, "second": shorter}, metric=metric)
    assert [line.get_label() for line in ax.lines] == [
        "first, training",
        "first, validation",
        "second, training",
        "second, validation",
    ]
    assert [line.get_linestyle() for line in ax.lines] == ["-", "--"] * 2
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), HISTORY[f"val_{metric}"])
    np.testing.assert_array_equal(ax.lines[2].get_xdata(), [1, 2])
    colours = [to_hex(line.get_color()) for line in ax.lines]
    assert colours[0] == colours[1] != colours[2] == colours[3]
    assert ax.get_ylabel() == metric
    assert label is None or ax.yaxis.get_major_formatter()(0.5) == label


def test_a_metric_without_a_validation_twin_is_one_line_under_the_runs_own_name():
    ax = plotting.plot_runs(
        {"pocket": {"probe_accuracy": [0.4, 0.7]}, "both": HISTORY | {"probe_accuracy": [0.5]}}, metric="probe_accuracy"
    )
    first, second = ax.lines
    assert [line.get_label() for line in ax.lines] == legend_labels(ax) == ["pocket", "both"]
    assert first.get_xydata().tolist() == [[1, 0.4], [2, 0.7]]
    assert second.get_xydata().tolist() == [[1, 0.5]]
    assert first.get_linestyle() == "-"
    assert ax.get_ylabel() == "probe accuracy"
    assert ax.yaxis.get_major_formatter()(0.5) == "50%"


def test_runs_with_and_without_a_validation_twin_share_one_figure():
    ax = plotting.plot_runs({"pocket": {"loss": [2.0, 1.0]}, "frozen": HISTORY}, metric="loss")
    assert [line.get_label() for line in ax.lines] == ["pocket", "frozen, training", "frozen, validation"]
    np.testing.assert_array_equal(ax.lines[2].get_ydata(), HISTORY["val_loss"])
    colours = [to_hex(line.get_color()) for line in ax.lines]
    assert colours[0] != colours[1] == colours[2]


def test_the_confusion_matrix_counts_rows_of_truth_and_columns_of_prediction():
    ax = plotting.plot_confusion_matrix(Y_TRUE, Y_PROB, NAMES)
    assert [text.get_text() for text in ax.texts] == [str(count) for row in COUNTS for count in row]
    assert [label.get_text() for label in ax.get_xticklabels()] == list(NAMES)
    assert [label.get_text() for label in ax.get_yticklabels()] == list(NAMES)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted", "true")


def test_the_confusion_matrix_is_shaded_by_the_share_of_the_true_class():
    ax = plotting.plot_confusion_matrix(Y_TRUE, Y_PROB, NAMES)
    shares = np.asarray(ax.collections[0].get_array()).reshape(3, 3)
    np.testing.assert_allclose(shares, [[0.5, 0.25, 0.25], [0, 1, 0], [0.5, 0, 0.5]])
    assert ax.collections[0].get_clim() == (0, 1)


def test_names_and_counts_of_many_classes_do_not_overlap():
    names = [f"a long name {k}" for k in range(10)]
    y_true = np.repeat(np.arange(10), 1000)
    ax = plotting.plot_confusion_matrix(y_true, np.eye(10)[y_true], names)
    ax.figure.draw_without_rendering()
    corners = ax.transData.transform([[0, 0], [1, 0]])
    cell = corners[1, 0] - corners[0, 0]
    assert max(text.get_window_extent().width for text in ax.texts) < cell
    for label in ax.get_xticklabels():  # turned, they are lines one above the other
        height = label.get_fontsize() * ax.figure.dpi / 72
        assert label.get_horizontalalignment() == "right"
        assert cell * np.sin(np.radians(label.get_rotation())) > height


def test_names_of_many_classes_are_turned_below_their_bars():
    y_true = np.arange(9)
    result = metrics.evaluate(y_true, np.eye(9)[y_true], [f"a_long_name_{k}" for k in range(9)])
    many, few = (plotting.plot_per_class({"a model": r}) for r in (result, metrics_by_model()["baseline"]))
    assert many.get_xticklabels()[0].get_text() == "a long name 0"
    assert {label.get_rotation() for label in many.get_xticklabels()} == {30}
    assert {label.get_rotation() for label in few.get_xticklabels()} == {0}


def test_a_class_without_images_is_a_row_of_zeros():
    ax = plotting.plot_confusion_matrix([0, 0], np.eye(3)[[0, 1]], NAMES)
    assert [text.get_text() for text in ax.texts] == ["1", "1", "0"] + ["0"] * 6
    assert np.isfinite(np.asarray(ax.collections[0].get_array())).all()


@pytest.mark.parametrize("hits", range(0, 101, 10))
def test_counts_are_readable_on_every_shade(hits):
    y_true, predicted = np.zeros(100, int), np.where(np.arange(100) < hits, 0, 1)
    ax = plotting.plot_confusion_matrix(y_true, np.eye(2)[predicted], NAMES[:2])
    for text, colour in zip(ax.texts, ax.collections[0].get_facecolors(), strict=True):
        assert plotting.contrast_ratio(text.get_color(), colour) >= READABLE


@pytest.mark.parametrize(
    ("metric", "heights"), [("recall", [0.5, 1, 0.5]), ("precision", [2 / 3, 2 / 3, 0.5]), ("f1", [4 / 7, 0.8, 0.5])]
)
def test_bars_are_as_high_as_the_metric_of_the_class(metric, heights):
    ax = plotting.plot_per_class(metrics_by_model(), metric=metric)
    assert bars(ax)["baseline"] == pytest.approx(heights)
    assert bars(ax)["perfect"] == [1, 1, 1]
    assert [label.get_text() for label in ax.get_xticklabels()] == list(NAMES)
    assert legend_labels(ax) == ["baseline", "perfect"]
    assert ax.get_ylim() == (0, 1)
    assert ax.get_ylabel().lower() == metric


@pytest.mark.parametrize("models", [1, 2, 3])
def test_bars_of_a_class_stand_side_by_side_around_its_tick(models):
    result = metrics_by_model()["baseline"]
    ax = plotting.plot_per_class({f"model {index}": result for index in range(models)})
    for tick in range(3):
        group = sorted((container[tick].get_x(), container[tick].get_width()) for container in ax.containers)
        left, right = group[0][0], group[-1][0] + group[-1][1]
        assert (left + right) / 2 == pytest.approx(tick)
        assert right - left == pytest.approx(0.8)
        for (x, width), (following, _) in itertools.pairwise(group):
            assert x + width == pytest.approx(following)


@pytest.mark.parametrize(
    ("values", "percent", "texts", "right"),
    [
        ({"shallow": 0.4, "deep": 0.912}, True, ["40.0%", "91.2%"], 1),
        ({"daisy": 764, "tulip": 1052}, False, ["764", "1,052"], 1052 * 1.12),
    ],
)
def test_horizontal_bars_are_as_long_as_their_written_values(values, percent, texts, right):
    ax = plotting.plot_bars(values, label="a measure", percent=percent)
    assert [bar.get_width() for bar in ax.containers[0]] == list(values.values())
    assert [text.get_text() for text in ax.texts] == texts
    assert [label.get_text() for label in ax.get_yticklabels()] == list(values)
    assert ax.get_xlim() == pytest.approx((0, right))
    assert ax.yaxis_inverted()
    assert ax.get_xlabel() == "a measure"


def test_bars_per_class_need_a_label_for_each_model_and_a_metric_of_each_class():
    alone = metrics.evaluate(Y_TRUE, Y_PROB, NAMES)
    with pytest.raises(ValueError, match=r"has a label.*Received: metrics_by_model with \['accuracy'"):
        plotting.plot_per_class(alone)
    with pytest.raises(ValueError, match="Received: metric='accuracy'"):
        plotting.plot_per_class({"frozen": alone}, metric="accuracy")


def test_a_comparison_places_each_accuracy_on_the_row_of_its_model():
    ax = plotting.plot_comparison(POINTS)
    published, recorded = ax.containers
    assert (published.get_label(), recorded.get_label()) == ("published", "recorded")
    above, below = (container.lines[0].get_xydata() for container in (published, recorded))
    np.testing.assert_allclose(above[:, 0], [0.67, 0.88])
    np.testing.assert_allclose(below[:, 0], [0.65, 0.9])
    np.testing.assert_allclose(above[:, 1], [-0.1, 0.9])
    np.testing.assert_allclose(below[:, 1], [0.1, 1.1])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["baseline", "frozen"]
    assert ax.yaxis_inverted()


def test_a_comparison_shows_intervals_where_there_are_any():
    published, recorded = plotting.plot_comparison(POINTS).containers
    segments = [container.lines[2][0].get_segments() for container in (published, recorded)]
    assert [len(segment) for segment in segments[0]] == [0, 0]
    assert [segment[1, 0] - segment[0, 0] for segment in segments[1]] == pytest.approx([0.05, 0.03])
    assert [segment[0, 0] for segment in segments[1]] == pytest.approx([0.62, 0.88])


def test_reliability_is_accuracy_against_confidence_beside_the_diagonal():
    ax = plotting.plot_reliability({"frozen": (Y_TRUE, Y_PROB), "again": (Y_TRUE, Y_PROB)})
    diagonal, line, _ = ax.lines
    assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    table = metrics.reliability_table(Y_TRUE, Y_PROB)
    np.testing.assert_allclose(line.get_xdata(), table["confidence"])
    np.testing.assert_allclose(line.get_ydata(), table["accuracy"])
    assert legend_labels(ax) == ["perfect", "frozen", "again"]
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 1), (0, 1))


def test_calibration_shows_each_state_on_a_panel_of_its_own_with_shared_axes_and_one_legend():
    scaled = metrics.apply_temperature(Y_PROB, 2)
    before, after = plotting.plot_calibration({"frozen": (Y_TRUE, Y_PROB)}, {"frozen": (Y_TRUE, scaled)})
    assert (before.get_title(), after.get_title()) == ("before scaling", "after scaling")
    for ax, y_prob in ((before, Y_PROB), (after, scaled)):
        table = metrics.reliability_table(Y_TRUE, y_prob)
        np.testing.assert_allclose(ax.lines[1].get_xdata(), table["confidence"])
        np.testing.assert_allclose(ax.lines[1].get_ydata(), table["accuracy"])
    assert before.get_shared_x_axes().joined(before, after)
    assert before.get_shared_y_axes().joined(before, after)
    (legend,) = before.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["perfect", "frozen"]
    assert (before.get_legend(), after.get_legend()) == (None, None)


@pytest.mark.parametrize("after", [None, {}])
def test_calibration_without_a_state_after_scaling_has_one_panel(after):
    axes = plotting.plot_calibration({"frozen": (Y_TRUE, Y_PROB)}, after)
    assert [ax.get_title() for ax in axes] == ["before scaling"]
    assert len(axes[0].figure.axes) == 1


def test_an_embedding_has_a_colour_and_a_marker_per_class_and_rings_the_errors():
    wrong = Y_PROB.argmax(axis=1) != Y_TRUE
    ax = plotting.plot_embedding(POSITIONS, Y_TRUE, NAMES, highlight=wrong)
    *classes, rings = ax.collections
    for index, points in enumerate(classes):
        np.testing.assert_allclose(points.get_offsets(), POSITIONS[index == Y_TRUE])
    assert len({to_hex(points.get_facecolor()[0]) for points in classes}) == 3
    assert len({points.get_paths()[0].vertices.tobytes() for points in classes}) == 3
    np.testing.assert_allclose(rings.get_offsets(), POSITIONS[wrong])
    assert len(rings.get_facecolor()) == 0
    assert legend_labels(ax) == [*NAMES, "wrong"]


def test_an_embedding_without_errors_has_no_ring_and_no_axis_that_could_be_read():
    ax = plotting.plot_embedding(POSITIONS, Y_TRUE, NAMES)
    assert legend_labels(ax) == list(NAMES)
    assert len(ax.get_xticks()) == len(ax.get_yticks()) == 0
    assert ax.get_aspect() == 1


def test_the_style_sets_size_and_resolution_of_the_figures_that_follow():
    figure, _ = plt.subplots()
    assert figure.get_size_inches().tolist() == [plotting.WIDTH, 3.2]
    assert figure.dpi == plotting.FIGURE_RESOLUTION
    assert [to_hex(colour) for colour in plt.rcParams["axes.prop_cycle"].by_key()["color"]] == plotting.PALETTE


def test_a_notebook_shows_a_figure_as_large_as_it_is_made():
    shell = InteractiveShell.instance()
    try:
        plotting.use_book_style()
        figure, _ = plt.subplots(figsize=(4, 2))
        picture = shell.display_formatter.formatters["image/png"](figure)
    finally:
        InteractiveShell.clear_instance()
    with Image.open(io.BytesIO(base64.b64decode(picture))) as shown:
        assert shown.size == (4 * plotting.FIGURE_RESOLUTION, 2 * plotting.FIGURE_RESOLUTION)


def test_a_grid_writes_every_share_into_its_cell_and_names_its_axes():
    values = pd.DataFrame({"0.001": [0.1, 0.9], "0.01": [0.5, 1.0]}, index=["six layers", "all"])
    values = values.rename_axis(index="unfrozen", columns="rate")
    axis = plotting.plot_grid(values, title="accuracy")
    assert [text.get_text() for text in axis.texts] == ["10%", "50%", "90%", "100%"]
    assert [text.get_color() for text in axis.texts] == ["black", "black", "white", "white"]
    assert (axis.get_xlabel(), axis.get_ylabel(), axis.get_title()) == ("rate", "unfrozen", "accuracy")
    assert [label.get_text() for label in axis.get_yticklabels()] == ["six layers", "all"]


def test_growth_is_a_line_per_way_in_the_order_of_the_sizes_with_a_band_where_there_is_an_interval():
    axis = plotting.plot_growth(GROWTH, label="pictures per class")
    scratch, frozen = axis.lines
    np.testing.assert_allclose(scratch.get_xydata(), [[5, 0.3], [50, 0.5]])
    np.testing.assert_allclose(frozen.get_xydata(), [[5, 0.7], [50, 0.8]])
    band, none = (bands.get_paths() for bands in axis.collections)
    assert (band[0].vertices[:, 1].min(), band[0].vertices[:, 1].max()) == pytest.approx((0.2, 0.6))
    assert not none
    assert legend_labels(axis) == ["scratch", "frozen"]
    assert axis.get_xscale() == "log"
    assert [label.get_text() for label in axis.get_xticklabels()] == ["5", "50"]


def test_growth_may_start_at_zero_on_an_even_axis():
    axis = plotting.plot_growth(GROWTH.assign(size=[0.4, 0, 0, 0.4]), label="flipped", log=False)
    assert axis.get_xscale() == "linear"
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0", "0.4"]


def test_the_front_joins_the_models_that_no_other_beats():
    axis = plotting.plot_pareto(COSTS, cost="seconds", label="seconds of one core")
    np.testing.assert_allclose(axis.lines[0].get_xydata(), [[10, 0.8], [100, 0.9]])
    assert [text.get_text() for text in axis.texts] == ["small", "large", "slow"]
    places = [container.lines[0].get_xydata()[0].tolist() for container in axis.containers]
    assert places == [[10, 0.8], [100, 0.9], [200, 0.85]]
    assert {to_hex(container.lines[0].get_color()) for container in axis.containers[:2]} == {plotting.PALETTE[0]}
    assert to_hex(axis.containers[2].lines[0].get_color()) != plotting.PALETTE[0]


def test_a_front_of_no_models_says_so():
    axis = plotting.plot_pareto(COSTS.head(0), cost="seconds", label="seconds")
    assert [text.get_text() for text in axis.texts] == ["nothing to show"]


@pytest.mark.parametrize(("options", "shown"), [({}, "9"), ({"digits": 1}, "8.6")])
def test_bars_of_numbers_have_as_many_decimals_as_are_asked_for(options, shown):
    ax = plotting.plot_bars({"a": 8.6}, label="times", percent=False, **options)
    assert [text.get_text() for text in ax.texts] == [shown]


@pytest.mark.parametrize(("backend", "asked"), [("agg", ["inline"]), ("tkagg", ["inline"]), ("module://ipympl", [])])
def test_a_notebook_shows_figures_whatever_backend_the_environment_names(monkeypatch, backend, asked):
    magics = []
    shell = SimpleNamespace(kernel=None, run_line_magic=lambda name, line: magics.append(line))
    monkeypatch.setattr(plotting, "get_ipython", lambda: shell)
    monkeypatch.setattr(plotting.plt, "get_backend", lambda: backend)
    plotting.use_book_style()
    assert magics == asked
