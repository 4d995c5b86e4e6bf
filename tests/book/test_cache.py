"""What makes an executed chapter stale, and what does not."""

import nbformat
import pytest
from builders import write_archive
from nbformat import v4

from tlhelpers import settings
from tlhelpers.book import build, cache, toc

PARAMETERS = {"PROFILE": "pocket", "PROTOCOL": "careful", "SEED": 0}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of one chapter and five modules: `chart` is used, and `ink` through it, `folds` in a function."""
    package = tmp_path / "tlhelpers"
    for name, code in {
        "__init__": "",
        "chart": "from tlhelpers import ink\n\ndef draw():\n    from tlhelpers.folds import fold",
        "ink": "import tlhelpers.room.paper",
        "room.paper": "from tlhelpers.room import edge",
        "room.edge": "",
        "folds": "",
        "other": "from tlhelpers import chart",
    }.items():
        path = package.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    for place in ("data/records/flowers", "data/pocket", "book"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "requirements.txt").write_text("numpy==1\n")
    (tmp_path / "_toc.yml").touch()
    cells = [
        v4.new_markdown_cell("# A chapter"),
        v4.new_code_cell("%matplotlib inline\nimport tlhelpers as tl\ntl.plot_it()"),
    ]
    nbformat.write(v4.new_notebook(cells=cells), tmp_path / "book" / "01.ipynb")
    monkeypatch.setattr(settings, "PROJECT_FOLDER", tmp_path)
    monkeypatch.setattr(settings, "PACKAGE_FOLDER", package)
    monkeypatch.setattr("tlhelpers.PUBLIC", {"chart": ["plot_it"], "other": ["plot_other"]})
    return tmp_path


def key_now(**changes):
    for remembered in (cache._digest_of_data, cache._describe_machine, cache._fingerprint):
        remembered.cache_clear()
    return cache.make_cache_key("book/01.ipynb", **({"parameters": PARAMETERS, "drawn": True} | changes))


def test_a_chapter_reaches_modules_through_others_and_within_functions(project):
    assert set(key_now()["code"]) == {"__init__", "chart", "ink", "room.paper", "room.edge", "folds"}


def test_nothing_changed_means_nothing_to_do(project):
    assert cache.list_changes(key_now(), key_now()) == []


def test_a_chapter_without_a_copy_was_never_executed(project):
    assert cache.list_changes(key_now(), None) == ["never executed"]


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("book/01.ipynb", "chapter"),
        ("tlhelpers/room/paper.py", "code (room.paper)"),
        ("tlhelpers/chart.py", "code (chart)"),
        ("data/records/flowers/run.json", "data"),
        ("data/claims.yml", "data"),
        ("data/speed.json", "data"),
        ("requirements.txt", "machine"),
        ("tlhelpers/other.py", None),
        ("data/flowers-recognition.zip", None),
        ("README.md", None),
    ],
)
def test_a_changed_file_makes_what_depends_on_it_stale_and_nothing_else(project, path, change):
    before = key_now()
    file = project / path
    text = file.read_text() if file.is_file() else ""
    file.write_text(f"{text}\n")
    assert cache.list_changes(key_now(), before) == ([change] if change else [])


def test_parameters_and_earlier_chapters_count(project):
    before = key_now(follows=[{"chapter": "a"}])
    assert cache.list_changes(key_now(parameters=PARAMETERS | {"SEED": 1}, follows=[{"chapter": "a"}]), before) == [
        "parameters"
    ]
    assert cache.list_changes(key_now(follows=[{"chapter": "b"}]), before) == ["chapters it follows"]


@pytest.mark.slow
def test_other_photographs_make_a_chapter_of_theirs_stale(mirror, flowers, monkeypatch):
    chapter = "book/02_the_pictures.ipynb"
    before = cache.make_cache_key(chapter, PARAMETERS, drawn=False)
    cache._fingerprint.cache_clear()
    write_archive(mirror / "flowers-recognition.zip", per_class=9)
    after = cache.make_cache_key(chapter, PARAMETERS, drawn=False)
    cache._fingerprint.cache_clear()
    assert cache.list_changes(after, before) == ["pictures"]


def test_the_chapters_of_the_book_reach_what_they_use():
    modules = cache.make_cache_key("book/18_in_the_browser.ipynb", PARAMETERS, drawn=True)["code"]
    assert {"chapters", "exports", "datasets.studies", "synthetic.flowers", "models"} <= set(modules)
    assert not [module for module in modules if module.startswith("book")]


def test_every_chapter_has_a_mark_that_can_be_kept_in_a_notebook():
    keys = build.make_cache_keys(toc.list_chapters(), PARAMETERS, drawn=True)
    assert all(
        isinstance(v4.new_notebook(metadata={cache.CACHE_KEY: key}), nbformat.NotebookNode) for key in keys.values()
    )
