"""A chapter whose photographs or weights no source has becomes its synthetic edition, and says so everywhere."""

import nbformat
import pytest
from builders import write_notebook

from tlhelpers.book import editions, execution
from tlhelpers.datasets.downloads import MissingDataError

CELL = """
from tlhelpers.datasets.downloads import MissingDataError
if PROFILE == "full":
    raise MissingDataError("Weeds: no source has the archive.\\nProvide it in one of these ways")
print(PROFILE)
"""


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A chapter that needs photographs which are nowhere to be had."""
    monkeypatch.setenv("TLHELPERS_BUILD", str(tmp_path / "build"))
    notebook = nbformat.read(write_notebook(tmp_path / "source.ipynb", CELL), as_version=4)
    notebook.cells[0].source = "PROFILE = 'auto'"  # of its parameters
    notebook.cells.insert(0, nbformat.v4.new_markdown_cell("(label)=\n# Weeds\n\nEight weeds."))
    nbformat.write(notebook, tmp_path / "source.ipynb")
    return tmp_path / "source.ipynb"


@pytest.mark.slow
def test_a_chapter_without_its_photographs_is_executed_on_synthetic_images_with_a_box_below_its_title(source, tmp_path):
    editions.execute_chapter(source, tmp_path / "copy.ipynb", {"PROFILE": "full"}, metadata={"mine": 1})
    copy = nbformat.read(tmp_path / "copy.ipynb", as_version=4)
    assert copy.cells[-1].outputs[0].text == "pocket\n"
    assert copy.cells[0].source.startswith("(label)=\n# Weeds\n\n:::{warning}\n**Synthetic edition.**")
    assert "Weeds: no source has the archive.\n" in copy.cells[0].source
    assert copy.cells[0].source.endswith(":::\n\nEight weeds.")
    assert copy.metadata["mine"] == 1
    assert editions.describe({"book/15.ipynb": copy.metadata, "book/16.ipynb": {}}) == [
        "book/15.ipynb is a synthetic edition: Weeds: no source has the archive.",
        "STRICT=1 makes that an error.",
    ]


@pytest.mark.slow
def test_a_chapter_that_has_all_it_needs_is_left_as_it_is(source, tmp_path):
    editions.execute_chapter(source, tmp_path / "copy.ipynb", {"PROFILE": "smoke"})
    copy = nbformat.read(tmp_path / "copy.ipynb", as_version=4)
    assert copy.cells[-1].outputs[0].text == "smoke\n"
    assert ":::" not in copy.cells[0].source
    assert editions.describe({"book/15.ipynb": copy.metadata}) == []


@pytest.mark.slow
def test_strict_makes_missing_photographs_a_failure(source, tmp_path):
    with pytest.raises(MissingDataError, match="no source has the archive"):
        execution.execute_chapter(source, tmp_path / "copy.ipynb", {"PROFILE": "full"})
