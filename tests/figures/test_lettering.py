"""Names from outside in figures: no formulas, no boxes, no missing entries, and of bounded length."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pytest

from tlhelpers.figures import lettering, plotting


@pytest.fixture(autouse=True)
def _fonts_of_the_book(monkeypatch):
    """Fonts that a test has found are forgotten after it, and so are the numbers that it has given."""
    monkeypatch.setattr(lettering, "_numbers", {})
    with plt.rc_context():
        yield


def test_names_stay_different_when_they_are_shortened_or_blank():
    labels = lettering.as_labels(["q" * 200 + "1", "q" * 200 + "1", " ", "  ", "rose"])
    assert len(set(labels)) == 5
    assert max(map(len, labels)) <= lettering.LONGEST_NAME + len(" [2]")
    assert labels[2] == lettering.BLANK
    assert labels[4] == "rose"


def test_a_long_name_keeps_its_beginning_and_its_end():
    (label,) = lettering.as_labels(["species of the genus Bellis, photograph 17"])
    assert label.startswith("species of")
    assert label.endswith("17")
    assert "…" in label


def test_dollars_are_no_formulas():
    figure, ax = plt.subplots()
    ax.set_title(lettering.as_label("$5 or $10_old"))
    figure.savefig(io.BytesIO(), format="png")
    assert ax.get_title() == r"\$5 or \$10_old"


def test_signs_that_no_font_has_become_numbers_and_a_printed_line_says_what_they_are(monkeypatch, capsys):
    monkeypatch.setattr(lettering, "_choose_fonts", lambda lacking: ((), lacking))
    assert lettering.as_labels(["猫", "猫 2", "rose"]) == ["(1)", "(1) 2", "rose"]
    lettering.as_labels(["猫"])
    assert capsys.readouterr().out == "No font of this computer has these signs, so figures write numbers: (1) is 猫.\n"


def test_a_font_that_has_the_missing_signs_joins_those_of_the_figures(monkeypatch):
    monkeypatch.setattr(lettering, "_choose_fonts", lambda lacking: (("A font",), frozenset()))
    assert lettering.as_labels(["猫"]) == ["猫"]
    assert plt.rcParams["font.family"][-1] == "A font"


@pytest.mark.filterwarnings("error")
def test_a_legend_shows_names_that_begin_with_an_underscore():
    ax = plotting.plot_embedding(np.eye(4, 2), np.array([0, 1, 0, 1]), ["_unknown", "up"])
    legend = ax.get_legend() or ax.figure.legends[0]
    ax.figure.savefig(io.BytesIO(), format="png")
    assert [text.get_text() for text in legend.get_texts()] == ["_unknown", "up"]


@pytest.mark.parametrize("classes", [37, 200])
def test_a_matrix_of_many_classes_has_a_fixed_side_and_names_the_most_confused_alone(classes):
    truth = np.arange(10 * classes) % classes
    answer = np.where(np.arange(10 * classes) % 7 == 0, (truth + 1) % classes, truth)
    ax = plotting.plot_confusion_matrix(truth, np.eye(classes)[answer], [f"species {i}" for i in range(classes)])
    assert max(ax.figure.get_size_inches()) <= plotting.CROWDED_SIDE + 0.7
    assert 0 < len(ax.get_yticklabels()) < classes
    assert not ax.texts
