"""Executing chapters and building the site: what happens when something is not as it should be."""

import os
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import nbformat
import pytest
from nbformat import v4

from tlhelpers import devices, files, profiles, settings
from tlhelpers import weights as weight_files
from tlhelpers.book import build, cache, execution, pool, recording, staging, toc
from tlhelpers.datasets import sources, studies
from tlhelpers.experiments import records
from tlhelpers.synthetic import collection

TRAINING = ("03", "04", "05", "12", "13", "13", "14", "15", "16")


@pytest.fixture
def plan(monkeypatch, tmp_path):
    """Notes what would be executed and built instead of doing it."""
    done = SimpleNamespace(
        executed=[],
        destinations=[],
        runs=set(),
        sites=0,
        weights=[],
        drawn=[],
        failing=[],
        edits={},
        limits=set(),
        loaded=0,
    )

    def execute(source, destination, parameters, *, metadata=None, time_limit, copied=False):
        if source.name[:2] in done.failing:
            raise execution.ChapterError(f"{source.name}, cell 3: no such petal")
        done.executed.append((source.name, parameters))
        done.limits.add(time_limit)
        done.destinations.append(destination)
        done.runs.add(settings.runs_folder(parameters["PROFILE"]))
        destination.parent.mkdir(parents=True, exist_ok=True)
        title = v4.new_markdown_cell("# Title\n\nText.")
        nbformat.write(v4.new_notebook(cells=[title], metadata=metadata or {}), destination)
        return 1.0

    def make_key(chapter, parameters, *, drawn, follows):
        return {
            "chapter": f"{chapter} {done.edits.get(chapter[5:7])}",
            "parameters": str(parameters),
            "code": {},
            "chapters it follows": str(follows),
        }

    def load_ahead():
        done.loaded += 1

    def build_site():
        done.sites += 1
        return "index.html"

    monkeypatch.setenv("TLHELPERS_BUILD", str(tmp_path / "build"))
    monkeypatch.setattr(execution, "execute_chapter", execute)
    monkeypatch.setattr(cache, "make_cache_key", make_key)
    monkeypatch.setattr(pool, "start_pool", lambda jobs: ThreadPoolExecutor(1))
    monkeypatch.setattr(pool, "load_ahead", load_ahead)
    monkeypatch.setattr(staging, "stage_source", lambda chapters, executed, repository: None)
    monkeypatch.setattr(staging, "build_site", build_site)
    monkeypatch.setattr(settings, "drop_folders", list)
    monkeypatch.setattr(weight_files, "find_weights", lambda name: done.weights.append(name))
    monkeypatch.setattr(collection, "draw_study", lambda study: done.drawn.append(study.name))
    monkeypatch.setattr(devices, "list_gpus", list)
    monkeypatch.setenv("TLHELPERS_RUNS", str(tmp_path / "runs"))  # so that what recording sets is set back
    return done


def numbers(plan):
    return [name[:2] for name, _ in plan.executed]


def test_book_executes_every_chapter_after_those_it_follows_with_the_chosen_parameters(plan, mirror):
    build.build_book(profile="full", protocol="published", seed=2)
    assert sorted(numbers(plan)) == [chapter[5:7] for chapter in toc.list_chapters()]
    places = {f"book/{name}": place for place, (name, _) in enumerate(plan.executed)}
    assert all(places[earlier] < places[later] for later, before in toc.FOLLOWS.items() for earlier in before)
    assert {tuple(parameters.items()) for _, parameters in plan.executed} == {
        (("PROFILE", "full"), ("PROTOCOL", "published"), ("SEED", 2))
    }
    assert plan.sites == 1


def test_what_has_not_changed_is_kept(plan, capsys):
    build.build_book()
    plan.executed.clear()
    build.build_book()
    assert plan.executed == []
    assert f"0 of {len(toc.list_chapters())} chapters to execute" in capsys.readouterr().out


def test_what_chapters_need_is_loaded_ahead_where_some_were_never_executed(plan):
    build.build_book()
    assert plan.loaded == 1
    build.build_book(seed=1)
    assert plan.loaded == 1  # it is not known beforehand that all of them are to be executed
    staging.staged(toc.list_chapters()[0]).unlink()
    build.build_book()
    assert plan.loaded == 2


def test_an_edited_chapter_is_executed_with_those_that_follow_it_alone(plan, capsys):
    build.build_book()
    plan.executed.clear()
    plan.edits["12"] = "a new sentence"
    build.build_book()
    assert numbers(plan) == ["12", "13", "17"]
    out = capsys.readouterr().out
    assert "12_fashion_from_scratch.ipynb: chapter" in out
    assert "13_fashion_strategies.ipynb: chapters it follows" in out


def test_other_parameters_execute_the_book_anew(plan):
    build.build_book()
    build.build_book(seed=1)
    assert len(plan.executed) == 2 * len(toc.list_chapters())


def test_a_build_takes_back_the_site_that_a_killed_one_has_moved_even_if_it_fails_itself(plan):
    older = settings.build_folder() / staging.OLDER
    older.mkdir(parents=True)
    (older / "index.html").write_text("the last good one")
    plan.failing.append("12")
    with pytest.raises(execution.ChapterError):
        build.build_book()
    assert (settings.site_folder() / "index.html").read_text() == "the last good one"


def test_a_failing_chapter_stops_those_that_follow_it_and_keeps_the_last_good_site(plan):
    plan.failing.append("12")
    with pytest.raises(execution.ChapterError) as failure:
        build.build_book()
    message = str(failure.value)
    assert message.startswith(
        f"3 of {len(toc.list_chapters())} chapters failed; the others are done, and the last good site stays."
    )
    assert "12_fashion_from_scratch.ipynb, cell 3: no such petal" in message
    assert "`make book ONLY=12` the first of them" in message
    assert len(plan.executed) == len(toc.list_chapters()) - 3
    assert plan.sites == 0
    plan.failing.clear()
    build.build_book()
    assert numbers(plan)[-3:] == ["12", "13", "17"]
    assert plan.sites == 1


def test_a_build_names_the_chapters_that_warned_and_the_synthetic_editions(plan, mirror, capsys, monkeypatch):
    execute = execution.execute_chapter

    def execute_some(source, destination, parameters, *, metadata=None, **options):
        if source.name.startswith("15") and parameters["PROFILE"] == "full":
            raise sources.MissingDataError("DeepWeeds: no source has the archive")
        if source.name.startswith("19"):
            metadata = metadata | {execution.WARNINGS: [{"cell": 4, "text": "Corrupt EXIF data in 3.jpg"}]}
        return execute(source, destination, parameters, metadata=metadata, **options)

    monkeypatch.setattr(execution, "execute_chapter", execute_some)
    build.build_book(profile="full", jobs=1)
    said = capsys.readouterr().out
    assert "book/19_your_own_pictures.ipynb, cell 4, warned: Corrupt EXIF data in 3.jpg\n" in said
    assert "book/15_deepweeds.ipynb is a synthetic edition: DeepWeeds: no source has the archive\n" in said
    assert dict(plan.executed)["15_deepweeds.ipynb"]["PROFILE"] == "pocket"
    build.build_book(profile="full", jobs=1)
    assert "is a synthetic edition" in capsys.readouterr().out
    with pytest.raises(execution.ChapterError, match=r"1 of 1 chapters failed.*\nDeepWeeds: no source has"):
        build.build_book(profile="full", jobs=1, strict=True)


def test_a_second_build_in_the_same_folder_is_told_so(plan, capsys):
    with files.only_one(settings.build_folder() / "lock", "Busy"):
        assert build.main(["book"]) == 1
    assert "Stopped: Another build is at work in the same folder" in capsys.readouterr().err
    assert plan.executed == []


def test_no_chapter_at_a_time_is_refused(plan):
    with pytest.raises(ValueError, match=r"At least one chapter runs at a time\. Received: jobs=0"):
        build.build_book(jobs=0)


@pytest.mark.parametrize("profile", ["pocket", "smoke", "auto"])
def test_book_of_drawings_needs_the_embedded_weights_and_no_archive(plan, monkeypatch, profile):
    monkeypatch.setattr(sources, "find_archives", lambda _: pytest.fail("looked for an archive"))
    build.build_book(profile=profile)
    assert (plan.drawn, plan.weights) == (["flowers"], ["mobilenetv2_035.npz"])
    assert {parameters["PROFILE"] for _, parameters in plan.executed} == {profile}
    assert (len(plan.executed), plan.sites) == (len(toc.list_chapters()), 1)


@pytest.mark.parametrize("profile", ["full", "auto"])
def test_book_of_photographs_needs_the_sources_weights_and_draws_nothing(plan, mirror, monkeypatch, profile):
    monkeypatch.setattr(devices, "list_gpus", lambda: [{"name": "a GPU", "compute_capability": None}])
    build.build_book(profile=profile)
    assert plan.drawn == []
    assert plan.weights == [weight_files.WEIGHT_FILES["imagenet"]["mobilenetv2_100"]]


def test_only_some_chapters_can_be_executed_anew(plan):
    for chapter in toc.list_chapters():
        staged = staging.staged(chapter)
        staged.parent.mkdir(parents=True, exist_ok=True)
        staged.touch()
    build.build_book(only=["03", "05"])
    assert sorted(numbers(plan)) == ["03", "05"]


def test_some_chapters_alone_are_refused_before_the_first_whole_build(plan):
    with pytest.raises(execution.ChapterError, match=r"never executed: \['book/01_.*without --only"):
        build.build_book(only=["05"])
    assert plan.executed == []


def test_unknown_chapter_names_the_known_ones(plan):
    with pytest.raises(ValueError, match=r"01_why_transfer_works\.ipynb.*Received: \['9'\]"):
        build.build_book(only=["9"])


def test_what_libraries_say_while_photographs_are_read_is_not_heard(plan, mirror, monkeypatch, capfd):
    def make_key(*arguments, **options):
        os.write(2, b"I0000 00:00:1796121617.05 15002 port.cc:153] oneDNN custom operations are on.\n")
        os.write(2, b"a picture is damaged\n")
        return marked(*arguments, **options)

    marked = build.make_cache_keys
    monkeypatch.setattr(build, "make_cache_keys", make_key)
    build.build_book(profile="full")
    assert capfd.readouterr().err == "a picture is damaged\n"


def test_book_without_photographs_stops_before_any_chapter_and_names_the_ways(plan, monkeypatch, capsys):
    monkeypatch.setattr(sources, "_download_from_kaggle", _refuse)
    assert build.main(["book", "--profile", "full"]) == 1
    message = capsys.readouterr().err
    assert "no source has the archive flowers-recognition.zip.\nProvide it in one of these ways:\n" in message
    assert "TLHELPERS_MIRROR" in message
    assert "choose the profile 'pocket', which needs no photographs" in message
    assert plan.executed == []


def _refuse(study):
    raise OSError("no network")


@pytest.mark.parametrize(("profile", "weights"), [("full", "_1.0_224_no_top.h5"), ("pocket", "mobilenetv2_035.npz")])
def test_book_without_weights_stops_before_any_chapter(plan, mirror, monkeypatch, capsys, profile, weights):
    def refuse(name):
        raise sources.MissingDataError(f"{name} is nowhere to be found")

    monkeypatch.setattr(weight_files, "find_weights", refuse)
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
    recording.make_records(profile="full", protocol="published", seeds=[0, 1], folder=tmp_path)
    assert [(name[:2], parameters["SEED"]) for name, parameters in plan.executed] == [
        (chapter, seed) for seed in (0, 1) for chapter in TRAINING
    ]
    assert {parameters["PROFILE"] for _, parameters in plan.executed} == {"full"}
    assert plan.runs == {tmp_path}
    assert plan.limits == {None}  # a recording takes what it takes


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
            recording.make_records(profile=profile, protocol=protocol, seeds=[0, 1], folder=tmp_path)
    assert len(plan.destinations) == 2 * 2 * 2 * len(TRAINING)
    assert len(set(plan.destinations)) == 2 * 2 * 2 * len(set(TRAINING))  # one chapter serves two studies


@pytest.mark.parametrize(("profile", "backbone"), [("full", "mobilenetv2_100"), ("pocket", "mobilenetv2_035")])
def test_recording_skips_what_is_recorded(plan, committed, monkeypatch, profile, backbone):
    recorded = [SimpleNamespace(model=model, seed=0) for model in ("baseline_cnn-scratch", f"{backbone}-last6")]
    monkeypatch.setattr(records, "load_records", lambda *_, **__: recorded)
    recording.make_records(profile=profile, protocol="published", seeds=[0], only=["03", "04", "05"])
    assert numbers(plan) == ["04", "05"]


@pytest.mark.parametrize(("profile", "backbone"), [("full", "mobilenetv2_100"), ("pocket", "mobilenetv2_035")])
def test_training_chapters_leave_records_of_the_profiles_backbone(profile, backbone):
    chosen = profiles.choose_profile(profile)
    listed = toc.list_recorded(chosen, "flowers")
    assert set(listed) <= set(toc.list_chapters())
    assert list(listed.values()) == [
        ["baseline_cnn-scratch"],
        [f"{backbone}-frozen"],
        [f"{backbone}-{chosen.fine_tuned}", f"{backbone}-{chosen.fine_tuned}_bn_updating"],
    ]


@pytest.mark.parametrize("study", toc.list_recorded_studies())
def test_full_profile_leaves_records_of_every_published_model(study):
    recorded = {model for models in toc.list_recorded(profiles.FULL, study).values() for model in models}
    assert set(studies.published_models(study)) <= recorded


def test_recording_can_be_limited_to_some_chapters(plan, tmp_path):
    recording.make_records(profile="full", protocol="published", seeds=[0, 1], only=["12"], folder=tmp_path)
    assert [(name[:2], parameters["SEED"]) for name, parameters in plan.executed] == [("12", 0), ("12", 1)]
    with pytest.raises(ValueError, match=r"beginnings of \['03_baseline_cnn.ipynb', .*Received: \['99'\]"):
        recording.make_records(profile="full", protocol="published", seeds=[0], only=["99"], folder=tmp_path)
