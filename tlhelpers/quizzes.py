"""Quizzes: questions with one right answer, which tell at each answer why it is right or wrong, without a kernel."""

from dataclasses import dataclass

import yaml

from tlhelpers import settings
from tlhelpers.widgets import as_html


@dataclass(frozen=True)
class Quiz:
    """The questions of a chapter; shown at the end of a cell, answers open by click or key and tell why.

    Args:
        name: str.
        questions: list of dict with `question` (str), `answers`: dicts with `text`, `why` (str) and, for the one
            that is, `right` (True); and `backing`, what decides the right answer, see `backing.Backed`.
    """

    name: str
    questions: list

    def _repr_html_(self):
        return "".join(self._show(number, **question) for number, question in enumerate(self.questions, 1))

    def __repr__(self):
        return "\n\n".join(
            "\n".join([f"{number}. {question['question']}", *(f"   - {a['text']}" for a in question["answers"])])
            for number, question in enumerate(self.questions, 1)
        )

    def _show(self, number, question, answers, backing=None):
        group = f"quiz-{self.name}-{number}"  # of which one answer is open at a time
        options = "".join(
            f'<details name="{group}" class="{"right" if _is_right(a) else "wrong"}">'
            f"<summary>{as_html(a['text'])}</summary><p>{_verdict(a)} {as_html(a['why'])}</p></details>"
            for a in answers
        )
        title = f'<p id="{group}"><strong>{number}.</strong> {as_html(question)}</p>'
        return f'<div class="quiz" role="group" aria-labelledby="{group}">{title}{options}</div>'


def show_quiz(name):
    """The quiz of a chapter.

    Args:
        name: str. The chapter, as its label calls it without `chapter-`, such as `"frozen"`.

    Returns:
        Quiz.

    Raises:
        ValueError: when there is no such quiz.
    """
    quizzes = yaml.safe_load((settings.data_folder() / "quizzes.yml").read_text(encoding="utf-8"))
    if name not in quizzes:
        raise ValueError(f"A quiz is one of {sorted(quizzes)}. Received: {name!r}")
    return Quiz(name, quizzes[name])


def _is_right(answer):
    return answer.get("right", False)


def _verdict(answer):
    return "<strong>✓ Right.</strong>" if _is_right(answer) else "<strong>✗ Not this one.</strong>"
