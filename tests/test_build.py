"""Executing chapters and building the site: what happens when something is not as it should be."""

from types import SimpleNamespace

import nbformat
import pytest
from nbformat import v4

from tlhelpers import build, profiles, records, settings, sources

PARAMETERS_CELL = v4.new_code_cell("COUNT = 1", metadata={"tags": ["parameters"]})


def write_notebook(path, *sources_):
    notebook = v4.new_notebook(cells=[PARAMETERS_CELL, *map(v4.new_code_cell, sources_)])
    notebook.metadata["kernelspec"] = {"name": build.KERNEL, "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)
    return path


def executed_cell(*outputs):
    return v4.new_notebook(cells=[v4.new_code_cell("1", outputs=list(outputs))])


def stream(name, text):
    return v4.new_output("stream", name=name, text=text)


def test_parameters_reach_the_executed_copy_and_the_source_stays(tmp_path):
    source = write_notebook(tmp_path / "source.ipynb", "print(COUNT + 1)")
    before = source.read_bytes()
    seconds = build.execute_chapter(source, tmp_path / "out" / "copy.ipynb", {"COUNT": 41})
    executed = nbformat.read(tmp_path / "out" / "copy.ipynb", as_version=4)
    assert executed.cells[-1].outputs[0].text == "42\n"
    assert source.read_bytes() == before
    assert seconds > 0
    injected = next(c for c in executed.cells if "injected-parameters" in c.metadata.get("tags", []))
    assert "remove-cell" in injected.metadata["tags"]


def test_unknown_parameter_is_refused_before_anything_runs(tmp_path):
    source = write_notebook(tmp_path / "source.ipynb", "open('ran', 'w')")
    with pytest.raises(build.ChapterError, match=r"has the parameters \['COUNT'\]\. Received: \['COUNTS'\]"):
        build.execute_chapter(source, tmp_path / "copy.ipynb", {"COUNTS": 2})
    assert not (tmp_path / "copy.ipynb").exists()


def test_failing_cell_is_named_and_the_last_good_copy_stays(tmp_path):
    copy = write_notebook(tmp_path / "copy.ipynb", "'the last good one'")
    source = write_notebook(tmp_path / "source.ipynb", "raise ValueError('no such petal')")
    with pytest.raises(build.ChapterError, match=r"source\.ipynb, cell 2: ValueError: no such petal"):
        build.execute_chapter(source, copy, {})
    assert "the last good one" in copy.read_text()
    assert "no such petal" in (tmp_path / "copy.failed.ipynb").read_text()


def test_output_on_stderr_fails_the_chapter():
    with pytest.raises(build.ChapterError, match="chapter, cell 0 wrote to stderr: careful"):
        build.check_outputs(executed_cell(stream("stderr", "careful")), "chapter")


def test_error_output_fails_the_chapter():
    error = v4.new_output("error", ename="KeyError", evalue="'rose'", traceback=[])
    with pytest.raises(build.ChapterError, match="chapter, cell 0: KeyError: 'rose'"):
        build.check_outputs(executed_cell(error), "chapter")


def test_only_tensorflows_startup_messages_are_dropped():
    startup = "WARNING: All log messages before absl::InitializeLog() is called\nI0000 00:00:17 port.cc:153] oneDNN\n"
    notebook = executed_cell(
        stream("stderr", startup), stream("stderr", startup + "loss is NaN\n"), stream("stdout", "1")
    )
    build.drop_startup_messages(notebook)
    assert [output.text for output in notebook.cells[0].outputs] == ["loss is NaN\n", "1"]


@pytest.fixture
def plan(monkeypatch, tmp_path):
    """Notes what would be executed and built instead of doing it."""
    done = SimpleNamespace(executed=[], sites=0, weights=[])

    def execute(source, destination, parameters):
        done.executed.append((source.name, parameters))
        return 1.0

    def build_site():
        done.sites += 1
        return "index.html"

    monkeypatch.setattr(build, "STAGING_FOLDER", tmp_path / "staged")
    monkeypatch.setattr(build, "execute_chapter", execute)
    monkeypatch.setattr(build, "stage_source", lambda chapters: None)
    monkeypatch.setattr(build, "build_site", build_site)
    monkeypatch.setattr(settings, "drop_folders", list)
    monkeypatch.setattr(sources, "find_weights", lambda name: done.weights.append(name))
    return done


def test_book_executes_every_chapter_in_order_with_the_chosen_parameters(plan, mirror):
    build.build_book(profile="full", protocol="published", seed=2)
    assert [name[:2] for name, _ in plan.executed] == ["01", "02", "03", "04", "05", "06"]
    assert {tuple(parameters.items()) for _, parameters in plan.executed} == {
        (("PROFILE", "full"), ("PROTOCOL", "published"), ("SEED", 2))
    }
    assert plan.sites == 1


def test_only_some_chapters_can_be_executed_anew(plan, mirror):
    for chapter in build.list_chapters():
        staged = build.STAGING_FOLDER / chapter
        staged.parent.mkdir(parents=True, exist_ok=True)
        staged.touch()
    build.build_book(only=["03", "05"])
    assert [name[:2] for name, _ in plan.executed] == ["03", "05"]


def test_some_chapters_alone_are_refused_before_the_first_whole_build(plan, mirror):
    with pytest.raises(build.ChapterError, match=r"never executed: \['book/01_.*without --only"):
        build.build_book(only=["05"])
    assert plan.executed == []


def test_unknown_chapter_names_the_known_ones(plan, mirror):
    with pytest.raises(ValueError, match=r"01_why_transfer_works\.ipynb.*Received: \['9'\]"):
        build.build_book(only=["9"])


def test_book_without_photographs_stops_before_any_chapter_and_names_the_ways(plan, monkeypatch, capsys):
    monkeypatch.setattr(sources, "_download_from_kaggle", _refuse)
    assert build.main(["book"]) == 1
    message = capsys.readouterr().err
    assert "Provide it in one of these ways" in message
    assert "TLHELPERS_MIRROR" in message
    assert plan.executed == []


def _refuse(study):
    raise OSError("no network")


def test_book_without_weights_stops_before_any_chapter(plan, mirror, monkeypatch, capsys):
    def refuse(name):
        raise sources.MissingDataError(f"{name} is nowhere to be found")

    monkeypatch.setattr(sources, "find_weights", refuse)
    assert build.main(["book"]) == 1
    assert "_1.0_224_no_top.h5 is nowhere to be found" in capsys.readouterr().err
    assert plan.executed == []


def test_book_with_random_weights_asks_for_none(plan, mirror):
    build.build_book(profile="smoke")
    assert plan.weights == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["book", "--profile", "huge"], "invalid choice: 'huge'"),
        (["book", "--protocol", "random"], "invalid choice: 'random'"),
        (["bok"], "invalid choice: 'bok'"),
    ],
)
def test_command_line_names_the_allowed_values(arguments, message, capsys):
    with pytest.raises(SystemExit):
        build.main(arguments)
    assert message in capsys.readouterr().err


def test_command_line_reports_a_fold_that_does_not_exist(plan, mirror, capsys):
    assert build.main(["book", "--seed", "7"]) == 1
    assert "the folds 0 to 4" in capsys.readouterr().err
    assert plan.executed == []


def test_recording_executes_the_training_chapters_of_each_seed(plan, tmp_path):
    build.make_records(protocol="published", seeds=[0, 1], folder=tmp_path)
    assert [(name[:2], parameters["SEED"]) for name, parameters in plan.executed] == [
        (chapter, seed) for seed in (0, 1) for chapter in ("03", "04", "05")
    ]
    assert {parameters["PROFILE"] for _, parameters in plan.executed} == {"full"}


def test_recording_skips_what_is_recorded(plan, tmp_path, monkeypatch):
    recorded = [
        SimpleNamespace(model="baseline_cnn-scratch", seed=0),
        SimpleNamespace(model="mobilenetv2_100-last6", seed=0),
    ]
    monkeypatch.setattr(records, "load_records", lambda *args, **kwargs: recorded)
    build.make_records(protocol="published", seeds=[0], folder=tmp_path)
    assert [name[:2] for name, _ in plan.executed] == ["04", "05"]


def test_recorded_chapters_exist():
    assert set(build.RECORDED_CHAPTERS) <= set(build.list_chapters())
    assert "full" in profiles.PROFILES


def test_staging_copies_what_the_site_reads_and_nothing_hidden(monkeypatch, tmp_path):
    project = tmp_path / "project"
    for name in ("_config.yml", "_toc.yml", "book/index.md", "book/01.ipynb", "book/.cache/x", "book/_static/book.css"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).touch()
    monkeypatch.setattr(settings, "PROJECT_FOLDER", project)
    monkeypatch.setattr(build, "STAGING_FOLDER", tmp_path / "staged")
    build.stage_source(["book/01.ipynb"])
    staged = {str(path.relative_to(tmp_path / "staged")) for path in (tmp_path / "staged").rglob("*") if path.is_file()}
    assert staged == {"_config.yml", "_toc.yml", "book/index.md", "book/_static/book.css"}
