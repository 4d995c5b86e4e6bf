"""Copies of the chapters for notebook services, and the check with a service's versions."""

import os
import re
import sys
import tomllib

import nbformat
import pytest
from nbformat import v4

from tlhelpers import settings
from tlhelpers.book import colab, execution, toc


def test_a_copy_installs_the_helpers_first_and_is_the_chapter_after_that(tmp_path):
    copies = colab.stamp_chapters("owner/some.name", "v1.0", folder=tmp_path)
    assert [str(copy.relative_to(tmp_path)) for copy in copies] == toc.list_chapters()
    notebook = nbformat.read(copies[0], as_version=4)
    nbformat.validate(notebook)
    install, *rest = notebook.cells
    assert '"tlhelpers @ git+https://github.com/owner/some.name@v1.0"' in install.source
    source = nbformat.read(settings.PROJECT_FOLDER / toc.list_chapters()[0], as_version=4)
    assert rest == source.cells


def test_copies_ask_by_name_for_what_their_chapters_alone_import(tmp_path):
    extras = tomllib.loads((settings.PROJECT_FOLDER / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    modules = {"labels": "cleanlab", "litert": "ai_edge_litert"}
    assert {re.split("[><=]", extras[name][0])[0].replace("-", "_") for name in modules} == set(modules.values())
    for copy in colab.stamp_chapters("owner/name", folder=tmp_path):
        install, *rest = nbformat.read(copy, as_version=4).cells
        code = "\n".join(cell.source for cell in rest if cell.cell_type == "code")
        wanted = [
            name for name, module in modules.items() if re.search(rf"^(from|import) {module}", code, re.MULTILINE)
        ]
        assert f'"tlhelpers{f"[{wanted[0]}]" if wanted else ""} @ git+' in install.source


def test_installing_asks_for_no_version_of_tensorflow_that_a_service_lacks():
    required = (settings.PROJECT_FOLDER / "pyproject.toml").read_text(encoding="utf-8")
    bounds = dict(re.findall(r'"(tensorflow|keras|numpy|ipywidgets)>=([0-9.]+)"', required))
    versions = (settings.PROJECT_FOLDER / ".ci" / "colab.txt").read_text(encoding="utf-8")
    brought = dict(re.findall(r"^(\w+)==([0-9.]+)$", versions, re.MULTILINE))
    assert sorted(bounds) == sorted(brought)
    as_numbers = {name: tuple(map(int, version.split("."))) for name, version in brought.items()}
    assert all(as_numbers[name] >= tuple(map(int, bounds[name].split("."))) for name in bounds)


@pytest.mark.parametrize("repository", ["name", "owner/name/more", "owner/na me", "https://github.com/owner/name", ""])
def test_a_repository_is_an_owner_and_a_name(tmp_path, repository):
    with pytest.raises(ValueError, match=f"owner/name. Received: {re.escape(repr(repository))}"):
        colab.stamp_chapters(repository, folder=tmp_path / "copies")
    assert not (tmp_path / "copies").exists()


def test_a_reference_that_could_be_more_than_one_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a branch, a tag or a commit"):
        colab.stamp_chapters("owner/name", "main; rm", folder=tmp_path)


def write_project(folder, **sources):
    """A project whose chapters hold one cell each."""
    parameters = v4.new_code_cell('PROFILE = ""\nPROTOCOL = ""\nSEED = 0', metadata={"tags": ["parameters"]})
    for name, source in sources.items():
        notebook = v4.new_notebook(cells=[parameters, v4.new_code_cell(source)])
        notebook.metadata["kernelspec"] = {"name": execution.KERNEL, "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, folder / f"{name}.ipynb")
    chapters = "".join(f"\n  - file: {name}" for name in sources)
    (folder / "_toc.yml").write_text(f"format: jb-book\nroot: index\nparts:\n- chapters:{chapters}\n")


@pytest.mark.slow
def test_the_check_goes_on_after_a_failure_and_names_it(tmp_path, monkeypatch, capsys):
    works = "from pathlib import Path\nassert PROFILE == 'smoke' and not Path('_toc.yml').exists()"
    write_project(tmp_path, first="raise KeyError('petal')", second=works)
    assert list(colab.check_chapters(sys.executable, folder=tmp_path)) == ["first.ipynb"]
    monkeypatch.setattr(settings, "PROJECT_FOLDER", tmp_path)
    assert colab.main(["check", "--python", sys.executable]) == 1
    said = capsys.readouterr().out
    assert "KeyError: 'petal'" in said
    assert "second.ipynb" in said
    assert said.endswith("1 chapters failed: first.ipynb\n")


@pytest.mark.slow
def test_each_chapter_is_checked_on_a_machine_that_knows_no_other(tmp_path, monkeypatch):
    monkeypatch.setenv("TLHELPERS_RUNS", str(tmp_path / "runs"))
    looks_around = """import os
from pathlib import Path
from tlhelpers import settings
assert not list(Path.cwd().iterdir()) and not settings.home_folder().exists() and not settings.build_folder().exists()
assert not [name for name in os.environ if name in ("TLHELPERS_RUNS", "TLHELPERS_MODELS", "TLHELPERS_EXPORTS")]
Path("left").touch()
for folder in (settings.home_folder(), settings.runs_folder("smoke")): folder.mkdir(parents=True)"""
    write_project(tmp_path, first=looks_around, second=looks_around)
    before = dict(os.environ)
    assert colab.check_chapters(sys.executable, folder=tmp_path) == {}
    assert dict(os.environ) == before
    assert not (tmp_path / "runs").exists()


def test_another_environment_executes_the_chapters(tmp_path):
    other = tmp_path / "python"
    other.write_text(f'#!/bin/sh\nIN_THE_OTHER=yes exec "{sys.executable}" "$@"\n')
    other.chmod(0o755)
    write_project(tmp_path, first="import os\nassert os.environ['IN_THE_OTHER'] == 'yes'")
    assert colab.check_chapters(other, folder=tmp_path) == {}


def test_the_check_takes_some_chapters_alone(tmp_path, monkeypatch, capsys):
    write_project(tmp_path, first="1", second="2")
    monkeypatch.setattr(settings, "PROJECT_FOLDER", tmp_path)
    assert colab.main(["check", "--python", sys.executable, "--only", "sec"]) == 0
    assert "first.ipynb" not in capsys.readouterr().out
    assert colab.main(["check", "--python", sys.executable, "--only", "third"]) == 1
    assert "Received: ['third']" in capsys.readouterr().err


def test_the_command_writes_where_it_says_and_explains_a_wrong_name(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TLHELPERS_BUILD", str(tmp_path))
    assert colab.main(["stamp", "owner/name"]) == 0
    assert (tmp_path / "colab" / toc.list_chapters()[0]).is_file()
    assert colab.main(["stamp", "owner"]) == 1
    assert "Stopped: A repository is written owner/name" in capsys.readouterr().err
