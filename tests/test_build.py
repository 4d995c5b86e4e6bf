"""Executing chapters and building the site: what happens when something is not as it should be."""

import base64
import io
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import yaml
from nbformat import v4
from PIL import Image

from tlhelpers import build, checkpoints, devices, drawings, frontpage, profiles, records, settings, sources, studies

TRAINING = ("03", "04", "05", "12", "13", "14", "15", "16", "13")
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
        stream("stderr", startup),
        stream("stderr", startup + "loss is NaN\n"),
        stream("stdout", "INFO:tensorflow:Assets written to: /tmp/x\n"),
        stream("stdout", "1"),
    )
    build.drop_startup_messages(notebook)
    assert [output.text for output in notebook.cells[0].outputs] == ["loss is NaN\n", "1"]


@pytest.fixture
def plan(monkeypatch, tmp_path):
    """Notes what would be executed and built instead of doing it."""
    done = SimpleNamespace(executed=[], destinations=[], runs=set(), sites=0, weights=[], drawn=[])

    def execute(source, destination, parameters):
        done.executed.append((source.name, parameters))
        done.destinations.append(destination)
        done.runs.add(settings.runs_folder(parameters["PROFILE"]))
        return 1.0

    def build_site():
        done.sites += 1
        return "index.html"

    monkeypatch.setattr(build, "STAGING_FOLDER", tmp_path / "staged")
    monkeypatch.setattr(build, "execute_chapter", execute)
    monkeypatch.setattr(build, "stage_source", lambda chapters, executed, repository: None)
    monkeypatch.setattr(build, "build_site", build_site)
    monkeypatch.setattr(settings, "drop_folders", list)
    monkeypatch.setattr(checkpoints, "find_weights", lambda name: done.weights.append(name))
    monkeypatch.setattr(drawings, "draw_study", lambda study: done.drawn.append(study.name))
    monkeypatch.setattr(devices, "list_gpus", list)
    monkeypatch.setenv("TLHELPERS_RUNS", str(tmp_path / "runs"))  # so that what recording sets is set back
    return done


def test_book_executes_every_chapter_in_order_with_the_chosen_parameters(plan, mirror):
    build.build_book(profile="full", protocol="published", seed=2)
    assert [name[:2] for name, _ in plan.executed] == [
        "01",
        "02",
        "03",
        "04",
        "05",
        "06",
        "07",
        "08",
        "09",
        "10",
        "11",
        "12",
        "13",
        "14",
        "15",
        "16",
        "17",
        "18",
        "19",
        "a1",
    ]
    assert {tuple(parameters.items()) for _, parameters in plan.executed} == {
        (("PROFILE", "full"), ("PROTOCOL", "published"), ("SEED", 2))
    }
    assert plan.sites == 1


@pytest.mark.parametrize("profile", ["pocket", "smoke", "auto"])
def test_book_of_drawings_needs_the_embedded_weights_and_no_archive(plan, monkeypatch, profile):
    monkeypatch.setattr(sources, "find_archives", lambda _: pytest.fail("looked for an archive"))
    build.build_book(profile=profile)
    assert (plan.drawn, plan.weights) == (["flowers"], ["mobilenetv2_035.weights.h5"])
    assert {parameters["PROFILE"] for _, parameters in plan.executed} == {profile}
    assert (len(plan.executed), plan.sites) == (len(build.list_chapters()), 1)


@pytest.mark.parametrize("profile", ["full", "auto"])
def test_book_of_photographs_needs_the_sources_weights_and_draws_nothing(plan, mirror, monkeypatch, profile):
    monkeypatch.setattr(devices, "list_gpus", lambda: [{"name": "a GPU", "compute_capability": None}])
    build.build_book(profile=profile)
    assert plan.drawn == []
    assert plan.weights == [checkpoints.WEIGHT_FILES["imagenet"]["mobilenetv2_100"]]


def test_only_some_chapters_can_be_executed_anew(plan):
    for chapter in build.list_chapters():
        staged = build.STAGING_FOLDER / chapter
        staged.parent.mkdir(parents=True, exist_ok=True)
        staged.touch()
    build.build_book(only=["03", "05"])
    assert [name[:2] for name, _ in plan.executed] == ["03", "05"]


def test_some_chapters_alone_are_refused_before_the_first_whole_build(plan):
    with pytest.raises(build.ChapterError, match=r"never executed: \['book/01_.*without --only"):
        build.build_book(only=["05"])
    assert plan.executed == []


def test_unknown_chapter_names_the_known_ones(plan):
    with pytest.raises(ValueError, match=r"01_why_transfer_works\.ipynb.*Received: \['9'\]"):
        build.build_book(only=["9"])


def test_book_without_photographs_stops_before_any_chapter_and_names_the_ways(plan, monkeypatch, capsys):
    monkeypatch.setattr(sources, "_download_from_kaggle", _refuse)
    assert build.main(["book", "--profile", "full"]) == 1
    message = capsys.readouterr().err
    assert "Provide it in one of these ways" in message
    assert "TLHELPERS_MIRROR" in message
    assert "choose the profile 'pocket', which needs no photographs" in message
    assert plan.executed == []


def _refuse(study):
    raise OSError("no network")


@pytest.mark.parametrize(
    ("profile", "weights"), [("full", "_1.0_224_no_top.h5"), ("pocket", "mobilenetv2_035.weights.h5")]
)
def test_book_without_weights_stops_before_any_chapter(plan, mirror, monkeypatch, capsys, profile, weights):
    def refuse(name):
        raise sources.MissingDataError(f"{name} is nowhere to be found")

    monkeypatch.setattr(checkpoints, "find_weights", refuse)
    assert build.main(["book", "--profile", profile]) == 1
    assert f"{weights} is nowhere to be found" in capsys.readouterr().err
    assert plan.executed == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["book", "--profile", "huge"], "invalid choice: 'huge'"),
        (["book", "--protocol", "random"], "invalid choice: 'random'"),
        (["bok"], "invalid choice: 'bok'"),
        (["records", "--profile", "huge"], "invalid choice: 'huge'"),
    ],
)
def test_command_line_names_the_allowed_values(arguments, message, capsys):
    with pytest.raises(SystemExit):
        build.main(arguments)
    assert message in capsys.readouterr().err


def test_command_line_reports_a_fold_that_does_not_exist(plan, capsys):
    assert build.main(["book", "--seed", "7"]) == 1
    assert "the folds 0 to 4" in capsys.readouterr().err
    assert plan.executed == []


def test_recording_executes_the_training_chapters_of_each_seed(plan, tmp_path):
    build.make_records(profile="full", protocol="published", seeds=[0, 1], folder=tmp_path)
    assert [(name[:2], parameters["SEED"]) for name, parameters in plan.executed] == [
        (chapter, seed) for seed in (0, 1) for chapter in TRAINING
    ]
    assert {parameters["PROFILE"] for _, parameters in plan.executed} == {"full"}
    assert plan.runs == {tmp_path}


@pytest.fixture
def committed(tmp_path, monkeypatch):
    """An empty folder in place of the project's data."""
    monkeypatch.setattr(settings, "data_folder", lambda: tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.parametrize(("profile", "folder"), [("full", "records"), ("pocket", "pocket/records")])
def test_recording_goes_to_the_committed_records_of_its_profile(plan, committed, profile, folder):
    assert build.main(["records", "--profile", profile, "--protocol", "careful", "--seeds", "1"]) == 0
    assert plan.runs == {committed / folder}
    assert [parameters for _, parameters in plan.executed] == [
        {"PROFILE": profile, "PROTOCOL": "careful", "SEED": 1}
    ] * len(TRAINING)


def test_recording_measures_the_full_profile_unless_told_otherwise(plan, committed):
    assert build.main(["records", "--seeds", "0"]) == 0
    assert {parameters["PROFILE"] for _, parameters in plan.executed} == {"full"}


def test_executed_copies_of_different_recordings_never_overwrite_each_other(plan, tmp_path):
    for profile in ("full", "pocket"):
        for protocol in ("published", "careful"):
            build.make_records(profile=profile, protocol=protocol, seeds=[0, 1], folder=tmp_path)
    assert len(plan.destinations) == 2 * 2 * 2 * len(TRAINING)
    assert len(set(plan.destinations)) == 2 * 2 * 2 * len(set(TRAINING))  # one chapter serves two studies


@pytest.mark.parametrize(("profile", "backbone"), [("full", "mobilenetv2_100"), ("pocket", "mobilenetv2_035")])
def test_recording_skips_what_is_recorded(plan, committed, monkeypatch, profile, backbone):
    recorded = [SimpleNamespace(model=model, seed=0) for model in ("baseline_cnn-scratch", f"{backbone}-last6")]
    monkeypatch.setattr(records, "load_records", lambda *_, **__: recorded)
    build.make_records(profile=profile, protocol="published", seeds=[0], only=["03", "04", "05"])
    assert [name[:2] for name, _ in plan.executed] == ["04", "05"]


@pytest.mark.parametrize(("profile", "backbone"), [("full", "mobilenetv2_100"), ("pocket", "mobilenetv2_035")])
def test_training_chapters_leave_records_of_the_profiles_backbone(profile, backbone):
    chosen = profiles.choose_profile(profile)
    listed = build.list_recorded(chosen, "flowers")
    assert set(listed) <= set(build.list_chapters())
    assert list(listed.values()) == [
        ["baseline_cnn-scratch"],
        [f"{backbone}-frozen"],
        [f"{backbone}-{chosen.fine_tuned}", f"{backbone}-{chosen.fine_tuned}_bn_updating"],
    ]


@pytest.mark.parametrize("study", sorted(build.RECORDED_CHAPTERS))
def test_full_profile_leaves_records_of_every_published_model(study):
    recorded = {model for models in build.list_recorded(profiles.FULL, study).values() for model in models}
    assert set(studies.published_models(study)) <= recorded


def test_recording_can_be_limited_to_some_chapters(plan, tmp_path):
    build.make_records(profile="full", protocol="published", seeds=[0, 1], only=["12"], folder=tmp_path)
    assert [(name[:2], parameters["SEED"]) for name, parameters in plan.executed] == [("12", 0), ("12", 1)]
    with pytest.raises(ValueError, match=r"beginnings of \['03_baseline_cnn.ipynb', .*Received: \['99'\]"):
        build.make_records(profile="full", protocol="published", seeds=[0], only=["99"], folder=tmp_path)


BADGE = '<dl class="run-badge">the machine</dl>'


def html_output(text):
    return v4.new_output("display_data", {"text/html": text})


@pytest.fixture
def staged(monkeypatch, tmp_path):
    """A project of one page and one chapter, whose executed copy shows a table and then its badge."""
    project = tmp_path / "project"
    for name in ("_toc.yml", "book/index.md", "book/01.ipynb", "book/.cache/x", "book/_static/book.css"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).touch()
    (project / "_config.yml").write_text("title: A book\nhtml:\n  use_edit_page_button: true\n")
    monkeypatch.setattr(settings, "PROJECT_FOLDER", project)
    monkeypatch.setattr(build, "STAGING_FOLDER", tmp_path / "staged")
    monkeypatch.setattr(frontpage, "write_result", lambda folder: (folder / "result.md").touch())
    (tmp_path / "staged" / "book").mkdir(parents=True)
    executed = executed_cell(stream("stdout", "1"), html_output("<table></table>"), html_output(BADGE))
    nbformat.write(executed, tmp_path / "staged" / "book" / "01.ipynb")
    return tmp_path / "staged"


def test_staging_copies_what_the_site_reads_beside_the_executed_chapters_and_nothing_hidden(staged):
    executed = (staged / "book" / "01.ipynb").read_text()
    build.stage_source(["book/01.ipynb"])
    found = {str(path.relative_to(staged)) for path in staged.rglob("*") if path.is_file()}
    copied = {"_config.yml", "_toc.yml", "book/index.md", "book/01.ipynb", "book/_static/book.css"}
    assert found == copied | {"book/result.md", "book/execution_report.md"}
    assert (staged / "book" / "01.ipynb").read_text() == executed


def test_foot_of_every_page_is_the_badge_of_the_first_chapter(staged):
    build.stage_source(["book/01.ipynb"])
    config = yaml.safe_load((staged / "_config.yml").read_text())
    assert config == {"title": "A book", "html": {"use_edit_page_button": True, "extra_footer": BADGE}}


def test_a_published_site_names_its_address_and_a_repository_of_another_form_is_refused():
    config = {
        "title": "A book",
        "html": {},
        "sphinx": {"extra_extensions": ["tlhelpers.site"], "config": {"numfig": True}},
    }
    build.add_publishing(config, "Owner/some.name")
    assert (
        config["html"]["baseurl"] == config["sphinx"]["config"]["ogp_site_url"] == "https://owner.github.io/some.name/"
    )
    assert config["sphinx"]["extra_extensions"][0] == "tlhelpers.site"
    assert config["sphinx"]["config"]["numfig"]
    assert config["sphinx"]["config"]["ogp_site_name"] == "A book"
    with pytest.raises(ValueError, match=r"A repository is written owner/name\. Received: 'owner'"):
        build.add_publishing(config, "owner")


def picture_output(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return v4.new_output("display_data", data={"image/png": base64.b64encode(stream.getvalue()).decode()})


def test_pictures_become_small_and_drawn_lines_stay_exact():
    soft = np.sin(np.linspace(0, 6, 128))[:, None, None] * 90 + np.random.default_rng(0).normal(128, 4, (128, 128, 3))
    lines = np.full((64, 64, 3), 255, np.uint8)
    lines[::8] = 0
    notebook = executed_cell(picture_output(soft.astype(np.uint8)), picture_output(lines), stream("stdout", "1"))
    before = len(notebook.cells[0].outputs[0].data["image/png"])
    build.shrink_pictures(notebook)
    picture, drawing, _ = notebook.cells[0].outputs
    assert list(picture.data) == ["image/jpeg"]
    assert len(picture.data["image/jpeg"]) < before / 2
    assert list(drawing.data) == ["image/png"]
