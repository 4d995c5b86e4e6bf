"""Quizzes: every question can be answered, and every answer says why."""

import re

import nbformat
import pytest
import yaml

from tlhelpers import quizzes, settings
from tlhelpers.book import toc

QUESTIONS = [
    (name, question)
    for name, questions in yaml.safe_load((settings.data_folder() / "quizzes.yml").read_text(encoding="utf-8")).items()
    for question in questions
]


@pytest.mark.parametrize(("name", "question"), QUESTIONS, ids=[q["question"][:40] for _, q in QUESTIONS])
def test_one_answer_is_right_and_all_say_why(name, question):
    assert set(question) == {"question", "backing", "answers"}  # what backs it is for tests/results/test_backing.py
    answers = question["answers"]
    assert len(answers) >= 3
    assert [answer["right"] for answer in answers if "right" in answer] == [True]
    assert all(len(answer["why"]) > 15 for answer in answers)
    assert len({answer["text"] for answer in answers}) == len(answers)


def test_the_right_answer_does_not_always_stand_in_the_same_place():
    places = [[("right" in answer) for answer in question["answers"]].index(True) for _, question in QUESTIONS]
    assert all(places.count(place) >= len(places) / 10 for place in range(3))


@pytest.mark.parametrize("chapter", toc.list_chapters())
def test_every_chapter_asks_its_own_questions_before_the_exercises(chapter):
    cells = nbformat.read(settings.PROJECT_FOLDER / chapter, as_version=4).cells
    (place,) = [number for number, cell in enumerate(cells) if "show_quiz" in cell.source]
    (label,) = re.findall(r"^\(chapter-([a-z-]+)\)=", cells[0].source)
    assert cells[place].source == f'tl.show_quiz("{label}")'
    assert cells[place + 1].source.startswith("## Exercises")
    assert quizzes.show_quiz(label).questions


def test_an_answer_opens_and_tells_and_text_is_escaped():
    answers = [{"text": "`a < b`", "why": "Since a & b.", "right": True}, {"text": "no", "why": "Not so."}]
    text = quizzes.Quiz("x", [{"question": "<b>?", "answers": answers}])._repr_html_()
    assert '<p id="quiz-x-1"><strong>1.</strong> &lt;b&gt;?</p>' in text
    assert '<details name="quiz-x-1" class="right"><summary><code>a &lt; b</code></summary>' in text
    assert "<p><strong>✓ Right.</strong> Since a &amp; b.</p></details>" in text
    assert '<details name="quiz-x-1" class="wrong"><summary>no</summary><p><strong>✗ Not this one.</strong>' in text


def test_the_text_of_a_quiz_gives_nothing_away():
    shown = repr(quizzes.show_quiz("frozen"))
    assert "1. The backbone is frozen" in shown
    assert "✓" not in shown


def test_an_unknown_quiz_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"\['backbone', .*Received: 'leaf'"):
        quizzes.show_quiz("leaf")
