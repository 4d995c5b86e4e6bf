"""Widgets: a pane for every state, linked to the controls without a kernel, with the numbers of the records."""

import base64
import io
import re
from types import SimpleNamespace

import ipywidgets
import numpy as np
import pytest
from ipywidgets import embed
from PIL import Image

from tlhelpers import widgets
from tlhelpers.figures import galleries

PANES = {"one": {"low": "1 low", "high": "1 high"}, "two": {"low": "2 low", "high": "2 high"}}
CONTROLS = {"Which": "Dropdown", "How": "SelectionSlider"}
Y_TRUE = np.array([0, 0, 1, 1])
Y_PROB = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.45, 0.55]])


def depth_run(accuracy, **changes):
    facts = {
        "metrics": {"accuracy": accuracy},
        "parameters": {"trainable": 1234, "total": 5678},
        "details": {"evaluated_on": "validation", "old_head_accuracy": 0.25, "weight_distance": 0.125},
        "history": {"loss": [2.0, 1.0], "accuracy": [0.1, 0.2], "val_accuracy": [0.3, 0.4]},
    }
    return SimpleNamespace(**(facts | changes))


def panes_of(widget):
    """The HTML of all panes of a stack of stacks."""
    if isinstance(widget, ipywidgets.HTML):
        return [widget.value]
    return [pane for child in widget.children for pane in panes_of(child)]


def links_of(widget):
    """What the browser links: pairs of (source, trait) and (target, trait)."""
    state = embed.dependency_state([widget], drop_defaults=False)
    models = [model["state"] for model in state.values() if model["model_name"] == "LinkModel"]
    return {tuple((end[0].removeprefix("IPY_MODEL_"), end[1]) for end in (m["source"], m["target"])) for m in models}


def test_every_combination_of_options_has_its_pane():
    shown = widgets.show_panes(PANES, CONTROLS)
    first, second, stack = shown.children
    assert [type(first), type(second)] == [ipywidgets.Dropdown, ipywidgets.SelectionSlider]
    assert (first.description, list(first.options), list(second.options)) == ("Which", ["one", "two"], ["low", "high"])
    assert panes_of(stack) == ["1 low", "1 high", "2 low", "2 high"]


def test_controls_choose_the_pane_in_the_browser_alone():
    shown = widgets.show_panes(PANES, CONTROLS)
    first, second, stack = shown.children
    expected = [(first, stack), (second, stack.children[0]), (second, stack.children[1])]
    assert links_of(shown) == {((c.model_id, "index"), (s.model_id, "selected_index")) for c, s in expected}


def test_the_kernel_switches_panes_where_the_browser_cannot(monkeypatch):
    monkeypatch.delattr(ipywidgets, "Stack")
    first, second, box = widgets.show_panes(PANES, CONTROLS).children

    def visible(widget):
        if isinstance(widget, ipywidgets.HTML):
            return [widget.value]
        return [pane for child in widget.children if child.layout.display != "none" for pane in visible(child)]

    assert visible(box) == ["1 low"]
    first.value, second.value = "two", "high"
    assert visible(box) == ["2 high"]


def test_depths_show_what_trains_and_the_mean_over_seeds():
    runs = {("all", 0.001, 0): depth_run(0.5), ("all", 0.001, 1): depth_run(0.7), ("all", 0.01, 0): depth_run(0.2)}
    *controls, stack = widgets.explore_depths(runs).children
    assert [list(control.options) for control in controls] == [["all"], ["0.001", "0.01"]]
    first, second = panes_of(stack)
    for text in ("1,234 of 5,678", "validation accuracy</dt><dd>60.0%", "25.0%", "0.125", "<dt>runs</dt><dd>2<"):
        assert text in first
    assert "20.0%" in second
    assert 'aria-label="Accuracy over 2 epochs: training from 10.0% to 20.0%; validation from 30.0% to 40.0%"' in first
    assert 'points="0,84.0 320,72.0"' in first


def test_a_training_without_validation_draws_one_curve():
    run = depth_run(0.5, history={"loss": [1.0], "accuracy": [0.25]})
    (pane,) = panes_of(widgets.explore_depths({("all", 0.001): run}).children[-1])
    assert pane.count("<polyline") == 1


def test_confusions_count_true_classes_in_rows_with_bars_as_long_as_their_share():
    predictions = {"this build": {"ours": (Y_TRUE, Y_PROB)}}
    (pane,) = panes_of(widgets.explore_confusions(predictions, ["a<b", "c"]).children[-1])
    assert re.findall(r"<td style[^>]*>(\d+)</td>", pane) == ["1", "1", "0", "2"]
    assert re.findall(r"bottom / ([\d.]+)%", pane) == ["50.0", "50.0", "0.0", "100.0"]
    assert '<th scope="row">a&lt;b</th>' in pane
    assert "3 of 4 right" in pane


@pytest.mark.parametrize(
    ("threshold", "answered", "right", "wrong", "declined"),
    [(0.0, 4, 3, 1, 0), (0.6, 3, 2, 1, 1), (0.85, 1, 1, 0, 3), (0.95, 0, 0, 0, 4)],
)
def test_a_threshold_parts_answers_from_pictures_declined(threshold, answered, right, wrong, declined):
    expected = {"answered": answered, "right": right, "wrong": wrong, "declined": declined}
    assert widgets.above_threshold(Y_TRUE, Y_PROB, threshold) == expected


def test_the_threshold_has_a_pane_for_every_step_and_says_when_nothing_is_answered():
    *_, slider, stack = widgets.explore_threshold({"ours": (Y_TRUE, Y_PROB)}).children
    panes = panes_of(stack)
    assert len(panes) == len(slider.options) == len(widgets.THRESHOLDS)
    assert "75.0%" in panes[0]
    assert "no answer" in panes[-1]


def picture_in(pane):
    """The pixels of the picture that a pane holds."""
    data = re.search(r"base64,([^\"]+)", pane).group(1)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_a_heat_map_darkens_its_picture_where_it_is_cold():
    images = np.full((2, 64, 64, 3), 200, np.uint8)
    heat = np.zeros((2, 64, 64), np.float32)
    heat[:, :32] = 1
    shown = widgets.explore_heat_maps(images, ["rose", "a<b"], {"ours": heat}, {"ours": ["tulip", "rose"]})
    assert list(shown.children[0].options) == ["1: rose", "2: a<b"]
    bare, seen, _, last = panes_of(shown.children[-1])
    assert picture_in(bare).mean() == pytest.approx(200, abs=2)
    assert picture_in(seen)[:24].mean() == pytest.approx(200, abs=2)
    assert picture_in(seen)[40:].mean() == pytest.approx(200 * (1 - galleries.SHADE), abs=2)
    assert 'alt="ours: tulip, true: rose"' in seen
    assert 'alt="ours: rose, true: a&lt;b"' in last


def test_a_large_picture_is_made_small_before_it_goes_into_the_page():
    images = np.zeros((1, 448, 300, 3), np.uint8)
    (bare,) = panes_of(widgets.explore_heat_maps(images, ["rose"], {}, {}).children[-1])
    assert picture_in(bare).shape == (224, 150, 3)
    assert 'width="150" height="224"' in bare


def test_a_small_picture_is_shown_as_large_as_a_large_one():
    (bare,) = panes_of(widgets.explore_heat_maps(np.zeros((1, 56, 28, 3)), ["rose"], {}, {}).children[-1])
    assert picture_in(bare).shape == (56, 28, 3)
    assert 'width="112" height="224"' in bare


def test_a_kernel_knows_what_is_chosen_and_is_told_when_that_changes():
    panes = {"one": {"a": "1a", "b": "1b"}, "two": {"a": "2a", "b": "2b"}}
    box = widgets.show_panes(panes, {"Number": "Dropdown", "Letter": "SelectionSlider"})
    heard = []
    box.observe(lambda change: heard.append(change["new"]), "choice")
    box.children[0].value = "two"
    box.children[1].value = "b"
    assert box.choice == ("two", "b")
    assert heard == [("two", "a"), ("two", "b")]
