"""The reference names every public function and class once, below the module that defines it."""

import inspect
import re
from importlib import import_module

import pytest
from docutils.core import publish_doctree

import tlhelpers
from tlhelpers.book import api_reference


def test_every_public_name_stands_below_its_module(tmp_path):
    api_reference.write_reference(tmp_path)
    text = (tmp_path / api_reference.TEXT).read_text(encoding="utf-8")
    found = re.findall(r"## `([\w.]+)`\n.*?automodule:: tlhelpers\.([\w.]+)\n\s+:members: (.*?)\n", text, re.DOTALL)
    assert {module: names.split(", ") for module, _, names in found} == tlhelpers.PUBLIC
    assert all(heading == module for heading, module, _ in found)
    assert [module for module, *_ in found] == sorted(tlhelpers.PUBLIC)


@pytest.mark.parametrize("module", sorted(tlhelpers.PUBLIC))
def test_what_a_module_says_of_itself_is_text_that_sphinx_reads(module):
    text = inspect.getdoc(import_module(f"tlhelpers.{module}"))
    publish_doctree(text, settings_overrides={"halt_level": 2})  # raises on what would be a warning
