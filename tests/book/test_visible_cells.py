"""What a reader sees of a chapter can be typed again: no cell uses a name that only a cell off the page defines."""

import builtins
import symtable

import nbformat
import pytest
from nbformat import v4

from tlhelpers import settings
from tlhelpers.book import toc

OFF_THE_PAGE = {"remove-cell", "remove-input"}  # a folded cell is one click away


def names_of(source):
    """The names that a cell defines for others and those that it takes from somewhere, two sets of str."""
    code = "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines())
    page = symtable.symtable(code, "cell", "exec")
    defined = {symbol.get_name() for symbol in page.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    read = {symbol.get_name() for symbol in page.get_symbols() if symbol.is_referenced()}
    inner = page.get_children()
    while inner:
        scope = inner.pop()
        read |= {s.get_name() for s in scope.get_symbols() if s.is_referenced() and s.is_global()}
        inner += scope.get_children()
    return defined, read


def find_uses(notebook):
    """The names that cells on the page take from cells off it: a list of pairs of a cell's number and a name."""
    seen, found = {*vars(builtins)}, []
    hidden = set()
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        defined, read = names_of(cell.source)
        if OFF_THE_PAGE & set(cell.metadata.get("tags", [])):
            hidden |= defined - seen
        else:
            seen |= defined
            found += [(number, name) for name in sorted(read & hidden - seen)]
    return found


def make_notebook(*cells):
    return v4.new_notebook(cells=[v4.new_code_cell(code, metadata={"tags": tags}) for code, tags in cells])


@pytest.mark.parametrize(
    ("hidden", "visible", "names"),
    [
        ("petals = 5", "print(petals)", ["petals"]),
        ("petals = 5", "def count():\n    return [petals + k for k in range(3)]", ["petals"]),
        ("def count(): pass\nimport math", "count(math.pi)", ["count", "math"]),
        ("petals = 5", "[petals for petals in range(3)]", []),
        ("petals = 5", "petals = 6\nprint(petals)", []),
        ("for petals in range(3): pass", "def count(petals):\n    return petals", []),
    ],
)
def test_a_name_from_a_hidden_cell_is_found_wherever_it_is_used(hidden, visible, names):
    for tag in OFF_THE_PAGE:
        assert [name for _, name in find_uses(make_notebook((hidden, [tag]), (visible, [])))] == names
    assert find_uses(make_notebook((hidden, ["hide-cell"]), (visible, []))) == []


@pytest.mark.parametrize("chapter", toc.list_chapters())
def test_no_cell_on_the_page_uses_a_name_that_only_a_hidden_one_defines(chapter):
    assert find_uses(nbformat.read(settings.PROJECT_FOLDER / chapter, as_version=4)) == []
