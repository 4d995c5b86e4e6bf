"""One thing has one name, the field's: docstrings, comments and messages use no word of `vocabulary.yml`."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest
import yaml

from tlhelpers import settings

WORDS = yaml.safe_load(Path(__file__).with_name("vocabulary.yml").read_text(encoding="utf-8"))
MODULES = sorted(settings.PACKAGE_FOLDER.rglob("*.py"))
ARGUMENT = re.compile(r"^ {8,12}\w+(?=: )", re.MULTILINE)  # its name is code


def prose_of(source):
    """The docstrings, comments and messages of errors of a module, each with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            constant = node.body[0].value
            yield constant.lineno, ARGUMENT.sub("", constant.value)
        if isinstance(node, ast.Raise):
            texts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
            yield node.lineno, " ".join(text for text in texts if isinstance(text, str))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def find_words(source):
    """What a module says that the field calls otherwise: a list of str."""
    found = []
    for line, text in prose_of(source):
        plain = re.sub(r"`[^`]*`|https?://\S+", "", text)
        for word in WORDS:
            for match in re.finditer(word["not"], plain, re.IGNORECASE):
                found.append(f"line {line + plain[: match.start()].count(chr(10))}: {match[0]!r}: {word['but']}")
    return found


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(settings.PACKAGE_FOLDER).as_posix())
def test_a_module_uses_the_words_of_the_field(module):
    assert find_words(module.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ('"""Reads pictures."""', 1),
        ('"""Reads `pictures`."""', 0),
        ("# lets the last layers move", 1),
        ("def f(pictures):\n    raise ValueError('A picture is whole.')", 1),
        ('def f(pictures):\n    """Reads.\n\n    Args:\n        pictures: array of images.\n    """', 0),
        ('TITLE = "pictures"', 0),
    ],
)
def test_words_are_found_in_prose_and_not_in_code(source, count):
    assert len(find_words(source)) == count
