"""The package's front door: every listed name resolves, and importing it costs next to nothing."""

import importlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

import tlhelpers as tl
from tlhelpers import settings

PROJECT = Path(tl.__file__).resolve().parent.parent
BOOK_STACK = ("papermill", "jupyter_book", "myst_nb", "sphinx")


def run_in_a_new_process(code, **environment):
    """What `code` prints as JSON in a Python process of its own."""
    variables = os.environ | {"PYTHONPATH": str(PROJECT)} | environment
    command = [sys.executable, "-c", f"import json, os, sys, time\n{code}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=variables)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", tl.__all__)
def test_a_listed_name_resolves_and_is_documented(name):
    value = getattr(tl, name)
    assert callable(value)
    assert value.__doc__


def test_no_name_is_listed_twice():
    assert len(tl.__all__) == len(set(tl.__all__)) > 30
    assert set(tl.__all__) <= set(dir(tl))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="plot_everything"):
        _ = tl.plot_everything


def test_importing_the_package_imports_nothing_heavy():
    heavy = ("tensorflow", "keras", "pandas", "matplotlib", "sklearn", *BOOK_STACK)
    code = f"import tlhelpers\nprint(json.dumps([name for name in {heavy} if name in sys.modules]))"
    assert run_in_a_new_process(code) == []


def test_importing_the_package_takes_less_than_a_second():
    code = "start = time.perf_counter()\nimport tlhelpers\nprint(json.dumps(time.perf_counter() - start))"
    assert run_in_a_new_process(code) < 1


@pytest.mark.slow
def test_a_build_that_has_nothing_to_do_never_waits_for_tensorflow():
    code = "import tlhelpers.book.build\nprint(json.dumps('tensorflow' in sys.modules))"
    assert run_in_a_new_process(code) is False


@pytest.mark.parametrize("owner", [tl.choose_profile("smoke"), tl.get_recipe("full"), tl.get_rescue_budget("smoke")])
def test_an_old_name_of_a_field_says_what_the_field_is_called_now(owner):
    assert owner.OLD
    for old, new in owner.OLD.items():
        assert hasattr(owner, new)
        with pytest.raises(AttributeError, match=f"`{old}` is `{new}` now"):
            getattr(owner, old)
    with pytest.raises(AttributeError, match="has no attribute 'never'"):
        owner.never  # noqa: B018 - asking is the test


@pytest.mark.parametrize("old", tl.RENAMED)
def test_a_name_of_the_first_edition_leads_to_its_new_one(old):
    with pytest.raises(AttributeError, match=rf"`tl.{old}` is `tl.{tl.RENAMED[old]}` now"):
        getattr(tl, old)
    assert tl.RENAMED[old] in tl.__all__


@pytest.mark.parametrize("old", tl.MOVED)
def test_a_module_of_the_first_edition_leads_to_its_new_place(old):
    with pytest.raises(ImportError, match=rf"`tlhelpers.{old}` is `tlhelpers.{tl.MOVED[old]}` now"):
        exec(f"from tlhelpers import {old}")  # noqa: S102 - as a chapter writes it
    assert importlib.import_module(f"tlhelpers.{tl.MOVED[old]}")


@pytest.mark.slow
def test_using_every_name_imports_no_book_stack():
    code = (
        "import tlhelpers as tl\n"
        "for name in tl.__all__: getattr(tl, name)\n"
        f"print(json.dumps([name for name in {('tensorflow', *BOOK_STACK)} if name in sys.modules]))"
    )
    assert run_in_a_new_process(code) == ["tensorflow"]


@pytest.mark.parametrize(
    ("setting", "default", "other"), [("TF_CPP_MIN_LOG_LEVEL", "3", "0"), ("TF_ENABLE_ONEDNN_OPTS", "1", "0")]
)
def test_tensorflow_is_quiet_and_fast_unless_the_reader_says_otherwise(monkeypatch, setting, default, other):
    monkeypatch.delenv(setting, raising=False)
    code = f"import tlhelpers\nprint(json.dumps(os.environ[{setting!r}]))"
    assert run_in_a_new_process(code) == default
    assert run_in_a_new_process(code, **{setting: other}) == other


def test_every_locked_version_installs_on_the_oldest_python_that_the_project_names():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest = project["requires-python"].removeprefix(">=") + ".0"
    lines = (PROJECT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    locked = [line.partition("==")[0] for line in lines if "==" in line and not line.startswith((" ", "#"))]
    asked = {name: importlib.metadata.metadata(name).get("Requires-Python") for name in locked}
    assert len(locked) > 100
    assert [name for name, pythons in asked.items() if oldest not in SpecifierSet(pythons or "")] == []


def test_one_version_stands_wherever_a_version_is_named():
    cited = yaml.safe_load((PROJECT / "CITATION.cff").read_text(encoding="utf-8"))
    changes = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest, date = re.search(r"^## (\d+\.\d+\.\d+) \((\S+)\)$", changes, re.MULTILINE).groups()
    assert tl.__version__ == cited["version"] == newest
    assert cited["date-released"] == date
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert [author["name"] for author in cited["authors"]] == [author["name"] for author in project["authors"]]


def test_the_theme_selects_elements_on_the_oldest_python():
    locked = re.search(r"^soupsieve==(\S+)$", (PROJECT / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert locked[1] not in SpecifierSet(">=3,<3.0.2")  # they claim Python 3.11.0, and fail below 3.11.5


def test_a_wheel_brings_all_that_the_package_reads_of_the_data():
    targets = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"][
        "targets"
    ]
    assert targets["wheel"]["sources"] == {"data": "tlhelpers/data"}
    assert set(targets["wheel"]["include"]) <= set(targets["sdist"]["include"])
    places = [Path(place.lstrip("/")) for place in targets["wheel"]["include"]]
    brought = {path for place in places for path in (PROJECT / place.parent).glob(place.name)}
    committed = settings.committed_files()
    assert {path for path in committed if not {path, *path.parents} & brought} == set()


def test_the_package_reads_no_file_of_the_data_that_stays_at_home():
    code = "\n".join(path.read_text(encoding="utf-8") for path in settings.PACKAGE_FOLDER.rglob("*.py"))
    read = set(re.findall(r'data_folder\(\) / "([^"]+)"', code))
    assert "published.yml" in read
    assert [name for name in sorted(read) if not (settings.data_folder() / name).exists()] == []
    brought = {path.relative_to(settings.data_folder()).parts[0] for path in settings.committed_files()}
    assert read <= brought


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_a_page_of_the_repository_leads_to_files_that_are_there(page):
    text = (PROJECT / page).read_text(encoding="utf-8")
    places = [place.partition("#")[0] for place in re.findall(r"\]\(([^)]+)\)", text) if "://" not in place]
    assert places
    assert [place for place in places if not (PROJECT / place).is_file()] == []


def test_the_readme_is_short_enough_to_be_read_to_its_end():
    assert len((PROJECT / "README.md").read_text(encoding="utf-8").split()) <= 450


def test_every_target_of_make_that_a_page_names_exists():
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    pages = "\n".join(
        (PROJECT / page).read_text(encoding="utf-8") for page in ("README.md", "CONTRIBUTING.md", "book/building.md")
    )
    asked = set(re.findall(r"\bmake ([a-z-]+)", pages))
    assert {"book", "test", "serve"} <= asked
    assert asked <= targets
