"""The one object every chapter opens with, and the numbers it hands to the prose."""

import dataclasses
import html
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import keras
import matplotlib
import numpy as np
import pytest
from builders import draw_flower, encode

from tlhelpers import chapters, devices, files, loaders, profiles, settings, training, weights
from tlhelpers.datasets import manifest, sources, splits, studies
from tlhelpers.experiments import trainer
from tlhelpers.results import tables
from tlhelpers.synthetic import collection

INFO = "application/papermill.record/text/plain"


@pytest.fixture(autouse=True)
def _restore_settings():
    policy = keras.config.dtype_policy()
    with matplotlib.rc_context():
        yield
    keras.config.set_dtype_policy(policy)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("TLHELPERS_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def drawn(monkeypatch):
    """A small garden for the profiles that draw, and every way to an archive closed."""
    monkeypatch.setattr(collection, "FILES_PER_CLASS", 30)
    monkeypatch.setattr(sources, "find_archives", lambda _: pytest.fail("looked for an archive"))


def begin(**options):
    return chapters.begin_chapter("flowers", **({"profile": "full"} | options))


def save(chapter, strategy="frozen", seconds=1.0, network="tiny"):
    """Saves a run of a tiny model that is right about every test image."""
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(chapter.study.num_classes),
            keras.layers.Dense(chapter.study.num_classes, trainable=False),
        ]
    )
    y_prob = np.eye(chapter.study.num_classes)[chapter.rows("test")["target"]]
    history = {"loss": [1.0, 0.5]}
    validation_prob = np.eye(chapter.study.num_classes)[chapter.rows("validation")["target"]]
    return chapter.save_run(
        network,
        strategy,
        model,
        y_prob,
        validation_prob=validation_prob,
        history=history,
        seconds={"training": seconds},
    )


@pytest.mark.parametrize(
    ("study", "options", "message"),
    [
        (
            "birds",
            {},
            rf"{re.escape(str(sorted(studies.STUDIES)))}. Received: name='birds'",
        ),
        ("flowers", {"profile": "demo"}, r"\['auto', 'pocket', 'full', 'smoke'\]. Received: name='demo'"),
        ("flowers", {"protocol": "strict"}, r"\['published', 'careful'\]. Received: protocol='strict'"),
        ("flowers", {"seed": 5}, r"folds 0 to 4. Received: seed=5"),
        ("flowers", {"seed": -1}, r"0 or more.* Received: seed=-1"),
        ("flowers", {"seed": -1, "protocol": "published"}, r"0 or more.* Received: seed=-1"),
    ],
)
def test_an_unknown_value_names_the_allowed_ones(study, options, message):
    with pytest.raises(ValueError, match=message):
        chapters.begin_chapter(study, **options)


@pytest.mark.parametrize("profile", sorted(profiles.PROFILES))
def test_a_chapter_asks_for_no_images_until_it_needs_them(monkeypatch, profile):
    monkeypatch.setattr(sources, "prepare_images", lambda _: pytest.fail("asked for images"))
    chapter = begin(profile=profile, seed=2)
    assert (chapter.study.name, chapter.profile.name) == ("flowers", profile)
    assert (chapter.protocol, chapter.seed, chapter.device.seed) == ("careful", 2, 2)


@pytest.mark.slow
def test_a_chapter_that_wants_few_pictures_trains_on_few_and_tests_on_all(drawn):
    whole, few = (begin(profile="smoke", per_class=per_class) for per_class in (None, 2))
    assert few.rows("train")["label"].value_counts().to_dict() == dict.fromkeys(whole.study.class_names, 2)
    for split in ("validation", "test"):
        assert few.rows(split)["path"].tolist() == whole.rows(split)["path"].tolist()
    assert few.table.index.tolist() == list(range(len(few.table)))  # `by_split` counts on it


@pytest.mark.parametrize(
    ("profile", "drawn", "backbone"),
    [("full", False, "mobilenetv2_100"), ("pocket", True, "mobilenetv2_035"), ("smoke", True, "mobilenetv2_035")],
)
def test_the_profile_chooses_the_edition_of_the_study_and_the_backbone(profile, drawn, backbone):
    chapter = begin(profile=profile)
    assert (chapter.study.drawn, chapter.backbone) == (drawn, backbone)
    assert chapter.study.backbone == "mobilenetv2_100"


def test_the_device_and_then_the_environment_choose_the_profile_of_auto(monkeypatch):
    monkeypatch.setattr(devices, "list_gpus", list)
    assert chapters.begin_chapter("flowers").profile.name == "pocket"
    monkeypatch.setattr(devices, "list_gpus", lambda: [{"name": "a GPU", "compute_capability": None}])
    assert chapters.begin_chapter("flowers").profile.name == "full"
    monkeypatch.setenv("TLHELPERS_PROFILE", "smoke")
    assert chapters.begin_chapter("flowers").profile.name == "smoke"


@pytest.mark.slow
@pytest.mark.parametrize("protocol", splits.PROTOCOLS)
def test_the_images_of_a_pocket_chapter_are_drawn_and_no_archive_is_looked_for(mirror, drawn, protocol):
    chapter = begin(profile="pocket", protocol=protocol)
    unreadable = chapter.manifest["verdict"].isin(["empty", "truncated", "not_an_image"])
    assert (len(chapter.manifest), unreadable.sum()) == (5 * 30, 5 * 3)
    train, test = (len(chapter.rows(split)) for split in ("train", "test"))
    assert train == pytest.approx(len(chapter.table) / 5, abs=2)
    assert test > 3 * train
    assert set(chapter.rows("train")["path"]).isdisjoint(chapter.rows("test")["path"])


def test_opening_a_chapter_seeds_and_styles():
    begin(seed=1)
    first = keras.random.uniform((3,)).numpy().tolist()
    begin(seed=1)
    assert keras.random.uniform((3,)).numpy().tolist() == first
    assert matplotlib.rcParams["figure.figsize"] == [7.0, 3.2]


@pytest.mark.parametrize(
    ("protocol", "expected"), [("careful", {"train", "validation", "test"}), ("published", {"train", "test"})]
)
def test_the_images_of_a_mirror_are_split(mirror, protocol, expected):
    chapter = begin(protocol=protocol)
    assert set(chapter.table["split"]) == expected
    assert len(chapter.table) == len(chapter.manifest) == 40
    parts = {split: chapter.rows(split) for split in expected}
    assert sum(len(part) for part in parts.values()) == 40
    assert len(set().union(*(part["path"] for part in parts.values()))) == 40
    assert len(parts["test"]) == 8
    assert splits.count_leaks(chapter.table) == 0
    assert len(chapter.rows("validation")) > 0


def test_each_fold_tests_on_other_images(mirror):
    tests = [set(begin(seed=seed).rows("test")["sha256"]) for seed in range(5)]
    assert len(set().union(*tests)) == sum(len(test) for test in tests) == 40


def test_the_images_are_read_once_per_chapter(mirror, monkeypatch):
    chapter = begin()
    table = chapter.table
    monkeypatch.setattr(manifest, "load_manifest", None)
    assert chapter.table is table
    assert len(chapter.manifest) == 40


def test_interrupted_trainings_of_different_runs_never_share_a_folder(monkeypatch):
    begun = [begin(), begin(seed=1), begin(protocol="published"), begin(profile="pocket"), begin(profile="smoke")]
    folders = {chapter.resume_folder(name) for chapter in begun for name in ("one", "two")}
    assert len(folders) == 10
    assert {folder.parent for folder in folders} == {settings.home_folder() / "interrupted"}
    assert begin().resume_folder("one") in folders


def test_a_run_is_saved_in_the_runs_folder_and_found_again(mirror, runs):
    chapter = begin(seed=1)
    record = save(chapter)
    assert [path.relative_to(runs).as_posix() for path in runs.rglob("*.json")] == [
        "flowers/careful/tiny-frozen/seed-1.json"
    ]
    assert (record.network, record.strategy, record.profile, record.seed) == ("tiny", "frozen", "full", 1)
    assert record.parameters == {"total": 50, "trainable": 20}
    assert record.image_size == 224
    assert record.metrics["accuracy"] == 1
    assert record.hardware == devices.hardware_facts(chapter.device)
    found = chapter.load_runs()
    assert list(found) == ["tiny-frozen"]
    np.testing.assert_array_equal(found["tiny-frozen"].test_id, chapter.rows("test")["sha256"])
    assert found["tiny-frozen"].history == {"loss": [1.0, 0.5]}


def test_runs_of_another_protocol_or_seed_are_not_found(mirror, runs):
    save(begin(seed=0))
    save(begin(seed=0), "last6")
    save(begin(seed=1), "other")
    save(begin(protocol="published"), "published")
    assert set(begin(seed=0).load_runs()) == {"tiny-frozen", "tiny-last6"}
    assert set(begin(seed=1).load_runs()) == {"tiny-other"}
    assert set(begin(protocol="published").load_runs()) == {"tiny-published"}
    assert begin(seed=2).load_runs() == {}


@pytest.mark.slow
def test_runs_of_different_profiles_stand_in_folders_of_their_own(drawn, monkeypatch):
    monkeypatch.setattr(settings, "in_checkout", lambda: False)
    save(begin(profile="pocket"))
    save(begin(profile="smoke"))
    assert sorted(path.parents[3].as_posix() for path in Path("_build").rglob("*.json")) == [
        "_build/runs/pocket",
        "_build/runs/smoke",
    ]


@pytest.mark.slow
def test_runs_of_another_profile_in_the_same_folder_are_not_found(drawn, runs):
    save(begin(profile="smoke"))
    assert set(begin(profile="smoke").load_runs()) == {"tiny-frozen"}
    assert begin(profile="pocket").load_runs() == {}
    assert begin(profile="full").load_live_records() == {}


@pytest.mark.slow
def test_runs_of_the_embedded_backbone_are_found_under_the_sources_name(drawn, runs, recorded):
    for protocol in ("careful", "published"):
        chapter = begin(profile="pocket", protocol=protocol)
        save(chapter, network=chapter.backbone)
        save(chapter, "scratch", network="baseline_cnn")
    assert sorted({path.parent.name for path in runs.rglob("*.json")}) == [
        "baseline_cnn-scratch",
        "mobilenetv2_035-frozen",
    ]
    found = chapter.load_runs()
    assert {name: (record.model, record.protocol) for name, record in found.items()} == {
        "baseline_cnn-scratch": ("baseline_cnn-scratch", "published"),
        "mobilenetv2_100-frozen": ("mobilenetv2_035-frozen", "published"),
    }
    live = chapter.load_live_records()
    assert set(live) == {(protocol, name) for protocol in ("careful", "published") for name in found}
    table = tables.reproduction_table("flowers", live, recorded=recorded)
    trained = table.index[table["this build"] == "100.0% (1 seed)"]
    assert set(trained.get_level_values("model")) == {
        "Baseline CNN, synthetic images",
        "pocket backbone, frozen, synthetic images",
    }
    origin = chapter.load_runs_or_records(["mobilenetv2_100-frozen"])[1]
    assert origin == "runs of this build: pocket backbone, synthetic images"


def test_runs_on_photographs_keep_the_names_of_their_networks(mirror, runs):
    chapter = begin()
    for network in ("mobilenetv2_100", "mobilenetv2_035"):
        save(chapter, network=network)
    assert set(chapter.load_runs()) == {"mobilenetv2_100-frozen", "mobilenetv2_035-frozen"}


def test_a_grid_has_a_folder_of_its_own_for_each_state_of_the_code(runs, monkeypatch):
    asked = []
    monkeypatch.setattr(chapters.sweeps, "run_sweep", lambda planned, folder: asked.append((planned, folder)) or [])
    for digest in ("first", "second"):
        monkeypatch.setattr(chapters.runner, "digest_of_code", lambda digest=digest: digest)
        begin(profile="smoke").run_grid("depth", ["an experiment"])
    assert asked == [(["an experiment"], runs / "sweeps" / f"depth-{digest}") for digest in ("first", "second")]


def test_a_model_of_this_build_is_loaded_again_and_predicts_the_same(mirror, runs):
    chapter = begin()
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(5)])
    y_prob = np.eye(5)[chapter.rows("test")["target"]]
    chapter.save_run("tiny", "frozen", model, y_prob, validation_prob=None, history={}, seconds={})
    loaded = chapter.load_model("tiny", "frozen")
    inputs = np.random.default_rng(0).random((4, 3), dtype=np.float32)
    np.testing.assert_array_equal(loaded.predict(inputs, verbose=0), model.predict(inputs, verbose=0))


def test_a_model_nobody_trained_is_an_error_that_says_what_to_execute(mirror, runs):
    with pytest.raises(ValueError, match=r"execute chapters 3 to 5 first. Missing: .*tiny-frozen"):
        begin().load_model("tiny", "frozen")


def test_a_run_whose_predictions_miss_an_image_is_not_saved(mirror, runs):
    chapter = begin()
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(5)])
    with pytest.raises(ValueError, match=r"Received: y_prob of shape \(7, 5\)"):
        chapter.save_run("tiny", "frozen", model, np.ones((7, 5)) / 5, validation_prob=None, history={}, seconds={})
    assert not runs.exists()


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """An empty folder in place of the committed records."""
    monkeypatch.setattr(settings, "records_folder", lambda: tmp_path / "recorded")
    return tmp_path / "recorded"


def test_runs_of_this_build_come_before_records(mirror, runs, recorded):
    chapter = begin()
    save(chapter, "one", seconds=1.0)
    save(chapter, "two", seconds=1.0)
    shutil.copytree(runs, recorded)
    save(chapter, "one", seconds=2.0)
    found, origin = chapter.load_runs_or_records(["tiny-two", "tiny-one"])
    assert list(found) == ["tiny-two", "tiny-one"]
    assert found["tiny-one"].seconds == {"training": 2.0}
    assert "this build" in origin


def test_records_stand_in_for_an_incomplete_build_and_are_never_mixed_with_it(mirror, runs, recorded):
    chapter = begin()
    save(chapter, "one", seconds=1.0)
    save(chapter, "two", seconds=1.0)
    runs.rename(recorded)
    save(chapter, "one", seconds=2.0)
    found, origin = chapter.load_runs_or_records(["tiny-one", "tiny-two"])
    assert {record.seconds["training"] for record in found.values()} == {1.0}
    assert origin == f"recorded runs on {chapter.study.pictures}"


def test_missing_runs_are_an_error_that_names_them(mirror, runs, recorded):
    save(begin(), "one")
    message = r"Missing: \['tiny-two'\]. Received: protocol='careful', seed=0"
    with pytest.raises(ValueError, match=message):
        begin().load_runs_or_records(["tiny-one", "tiny-two"])
    with pytest.raises(ValueError, match="seed=1"):
        begin(seed=1).load_runs_or_records(["tiny-one"])


WANTED = {"base": ("baseline_cnn", "scratch"), "cold": ("mobilenetv2_035", "frozen")}


@pytest.mark.slow
def test_models_that_this_machine_has_not_trained_are_small_ones_and_a_sentence_says_so(
    drawn, runs, monkeypatch, capsys
):
    monkeypatch.setattr(chapters, "STAND_IN_PER_CLASS", 3)
    chapter = begin(profile="smoke")
    models, found = chapter.load_or_train(WANTED | {"warm": ("mobilenetv2_035", chapter.profile.fine_tuned)})
    assert "trained here and now on 3 pictures of each class." in capsys.readouterr().out
    assert list(models) == list(found) == ["base", "cold", "warm"]
    assert models["warm"].get_layer("out_relu").output.shape[1:3] == (4, 4)
    test = chapter.rows("test")
    images = loaders.read_images(test.head(8), chapter.image_size)
    for label, model in models.items():
        assert found[label].test_id.tolist() == test["sha256"].tolist()
        assert found[label].counts["train"] == 3 * 5
        same = training.predict_probabilities(model, images)
        np.testing.assert_allclose(found[label].y_prob[:8], same, atol=1e-3)
    monkeypatch.setattr(trainer, "fit_recipe", lambda *_, **__: pytest.fail("trained again"))
    assert list(chapter.load_or_train(WANTED)[1]) == list(WANTED)
    assert chapter.load_runs() == {}  # they are not taken for those of the chapters


@pytest.mark.slow
def test_a_small_model_whose_file_is_gone_is_trained_again(drawn, runs, monkeypatch, tmp_path):
    monkeypatch.setattr(chapters, "STAND_IN_PER_CLASS", 2)
    frozen = {"cold": WANTED["cold"]}
    begin(profile="smoke").load_or_train(frozen)
    shutil.rmtree(tmp_path / "models")
    assert begin(profile="smoke").load_or_train(frozen)[0]["cold"].output_shape == (None, 5)


@pytest.mark.slow
def test_models_of_the_chapters_are_taken_where_this_machine_has_them_all(drawn, runs, monkeypatch, capsys):
    monkeypatch.setattr(trainer, "fit_recipe", lambda *_, **__: pytest.fail("trained one"))
    chapter = begin(profile="smoke")
    for network, strategy in WANTED.values():
        save(chapter, strategy, network=network)
    models, found = chapter.load_or_train(WANTED)
    assert {label: (run.network, run.strategy) for label, run in found.items()} == WANTED
    assert {model.count_params() for model in models.values()} == {3 * 5 + 5 + 5 * 5 + 5}
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_only_models_that_chapters_train_have_stand_ins(drawn, runs):
    with pytest.raises(ValueError, match=r"stands in for one of .*Received: \[\('resnet50', 'full'\)\]"):
        begin(profile="smoke").load_or_train({"other": ("resnet50", "full")})


def test_errors_come_with_their_image_and_the_most_confident_first(mirror, runs):
    chapter = begin()
    record = save(chapter)
    y_prob = record.y_prob.copy()
    for position, confidence in ((2, 0.6), (5, 0.9)):
        y_prob[position] = (1 - confidence) / 4
        y_prob[position, (record.y_true[position] + 1) % 5] = confidence
    errors = chapter.find_errors(dataclasses.replace(record, y_prob=y_prob))
    assert errors["position"].tolist() == [5, 2]
    assert errors["confidence"].tolist() == pytest.approx([0.9, 0.6])
    assert errors["path"].tolist() == chapter.rows("test")["path"].iloc[[5, 2]].tolist()
    assert errors["target"].tolist() == record.y_true[[5, 2]].tolist()


def test_a_perfect_model_has_no_errors(mirror, runs):
    chapter = begin()
    assert len(chapter.find_errors(save(chapter))) == 0


def test_the_badge_says_what_the_page_was_run_on():
    chapter = begin(profile="smoke", seed=3)
    badge = chapter._repr_html_()
    assert badge.startswith('<dl class="run-badge" aria-label=')
    assert badge.count("<dt>") == badge.count("<dd>") == 9
    for text in (
        "<dd>careful (duplicates kept together",
        "<dd>3</dd>",
        "float32",
        "smoke (the chapter",
        "<dt>date</dt>",
    ):
        assert text in badge


def test_the_badge_escapes_markup():
    device = devices.Device("GPU", '<img src="x">', 1, 8.0, "float32", "5 < 7 & so on", 0)
    badge = dataclasses.replace(begin(), device=device)._repr_html_()
    assert "<img" not in badge
    assert "&lt;img src=&quot;x&quot;&gt;, 1 GPU" in badge
    assert "5 &lt; 7 &amp; so on" in badge


def test_the_plain_form_of_a_chapter_is_one_row():
    text = repr(begin(profile="pocket"))
    assert len(text.splitlines()) == 2
    assert "drawn flowers" in text
    assert "photographs of flowers" in repr(begin())


def test_by_split_cuts_rows_in_step_with_the_table(mirror):
    chapter = begin()
    hashes = chapter.by_split(chapter.table["sha256"])
    assert {split: list(values) for split, values in hashes.items()} == {
        split: list(chapter.rows(split)["sha256"]) for split in ("train", "validation", "test")
    }
    assert sum(map(len, hashes.values())) == len(chapter.table)


def test_errors_are_found_only_on_the_images_the_record_was_made_on(mirror):
    chapter = begin()
    test = chapter.rows("test")
    y_prob = np.full((len(test), 5), 0.1)
    y_prob[np.arange(len(test)), test["target"]] = 0.6
    y_prob[2] = np.roll(y_prob[2], 1)
    record = SimpleNamespace(test_id=test["sha256"].to_numpy(), y_true=test["target"].to_numpy(), y_prob=y_prob)
    errors = chapter.find_errors(record)
    assert errors["sha256"].tolist() == [test["sha256"].iloc[2]]
    assert errors["position"].tolist() == [2]
    elsewhere = SimpleNamespace(**(vars(record) | {"test_id": np.array(["0" * 64] * len(test))}))
    assert len(chapter.find_errors(elsewhere)) == 0


def test_confusion_table_counts_what_the_figure_shows(mirror):
    chapter = begin()
    record = SimpleNamespace(y_true=np.array([0, 0, 4]), y_prob=np.eye(5)[[0, 4, 4]])
    table = chapter.confusion_table(record)
    assert (table.loc["daisy", "daisy"], table.loc["daisy", "tulip"], table.loc["tulip", "tulip"]) == (1, 1, 1)


def test_confusions_are_told_in_words_the_most_frequent_first():
    record = SimpleNamespace(y_true=np.array([0, 0, 2, 2, 2, 4]), y_prob=np.eye(5)[[4, 4, 1, 1, 1, 4]])
    assert begin().describe_confusions(record)[:2] == [
        "rose taken for dandelion (3 pictures)",
        "daisy taken for tulip (2 pictures)",
    ]


def test_confusions_that_never_happen_are_said_not_to():
    record = SimpleNamespace(y_true=np.array([0, 1]), y_prob=np.eye(5)[[1, 1]])
    found = begin().describe_confusions(record)
    assert found == ["daisy taken for dandelion (1 picture)", chapters.NO_CONFUSION, chapters.NO_CONFUSION]


@pytest.fixture
def displayed(monkeypatch):
    """What `display` received: a list of pairs of arguments."""
    calls = []
    monkeypatch.setattr("IPython.display.display", lambda *args, **options: calls.append((args, options)))
    return calls


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.8766, 1, "87.7%"),
        (0.8766, 0, "88%"),
        (1.0, 1, "100.0%"),
        (np.float32(0.25), 1, "25.0%"),
        (11169605, 1, "11,169,605"),
        (0, 1, "0"),
        (np.int64(4317), 1, "4,317"),
        ("a text", 1, "a text"),
    ],
)
def test_glued_values_read_as_prose_does(displayed, value, digits, text):
    chapters.glue("a-name", value, digits=digits)
    [((bundle,), _)] = displayed
    assert bundle == {INFO: repr(text)}


def test_glue_emits_the_record_that_the_site_looks_for(displayed):
    chapters.glue("a-name", 0.5)
    [((bundle,), options)] = displayed
    assert list(bundle) == ["application/papermill.record/text/plain"]
    scrapbook = {"name": "a-name", "mime_prefix": "application/papermill.record/"}
    assert options == {"raw": True, "metadata": {"scrapbook": scrapbook}}


@pytest.fixture
def mine(tmp_path):
    """A study of one's own of ten flowers a class."""
    for label in ("rose", "tulip"):
        (tmp_path / "mine" / label).mkdir(parents=True)
        for index in range(10):
            (tmp_path / "mine" / label / f"{index}.jpg").write_bytes(encode(draw_flower(label, index)))
    return studies.describe_folder(tmp_path / "mine", image_size=32)


def provide_weights(mirror):
    files.write_text(mirror / "weights" / weights.WEIGHT_FILES["imagenet"]["mobilenetv2_100"], "weights")


@pytest.mark.parametrize("profile", sorted(profiles.PROFILES))
def test_pictures_of_ones_own_get_imagenet_weights_whatever_the_hardware(mine, mirror, profile):
    provide_weights(mirror)
    chapter = chapters.begin_chapter(mine, profile=profile)
    assert (chapter.backbone, chapter.profile.weights) == ("mobilenetv2_100", "imagenet")
    assert chapter.profile.head_epochs == profiles.choose_profile(profile).head_epochs
    assert "mobilenetv2_100: it has learned from the photographs of ImageNet" in chapter._repr_html_()


@pytest.mark.parametrize("profile", sorted(profiles.PROFILES))
def test_without_imagenet_weights_a_page_says_what_its_numbers_are_worth(mine, profile):
    chapter = chapters.begin_chapter(mine, profile=profile)
    assert (chapter.backbone, chapter.profile.weights) == ("mobilenetv2_035", "pocket")
    badge = html.unescape(chapter._repr_html_())
    for words in (chapters.FROM_DRAWINGS, chapters.LITTLE_WORTH, chapters.WITHOUT_WEIGHTS):
        assert words in chapter.learned_from
        assert words in badge


def test_weights_that_are_damaged_are_not_taken_for_missing_ones(mine, mirror):
    provide_weights(mirror)
    name = weights.WEIGHT_FILES["imagenet"]["mobilenetv2_100"]
    files.write_text(mirror / "SHA256SUMS", f"{'0' * 64}  weights/{name}\n")
    with pytest.raises(sources.BadArchiveError):
        chapters.begin_chapter(mine, profile="smoke")


def test_drawings_of_this_package_keep_the_backbone_of_the_profile(drawn, mirror):
    provide_weights(mirror)
    folder = sources.prepare_images(studies.get_study("cats_dogs", drawn=True))
    chapter = chapters.begin_chapter(studies.describe_folder(folder, image_size=32), profile="smoke")
    assert (chapter.backbone, chapter.profile) == ("mobilenetv2_035", profiles.choose_profile("smoke"))
    assert chapters.FROM_DRAWINGS in chapter.learned_from
    assert chapters.WITHOUT_WEIGHTS not in chapter.learned_from


def test_who_gives_a_photo_to_models_of_drawings_is_told(flowers):
    assert chapters.FROM_DRAWINGS in begin(profile="smoke").note_on_photographs
    assert chapters.FROM_DRAWINGS not in begin(profile="full").note_on_photographs


@pytest.mark.parametrize("profile", ["smoke", "full"])
def test_a_study_of_ones_own_opens_on_its_own_pictures_under_every_profile(mine, tmp_path, profile):
    chapter = chapters.begin_chapter(mine, profile=profile)
    assert chapter.study is mine
    assert chapter.table.groupby("label").size().to_dict() == {"rose": 10, "tulip": 10}
    assert set(chapter.table["split"]) == {"train", "validation", "test"}
    assert all(Path(path).is_relative_to(tmp_path / "mine") for path in chapter.table["path"])


def test_a_study_of_ones_own_has_its_own_runs_alone_though_its_folder_is_called_like_one_of_the_book(tmp_path, runs):
    for label in ("daisy", "rose"):
        (tmp_path / "flowers" / label).mkdir(parents=True)
        for index in range(10):
            (tmp_path / "flowers" / label / f"{index}.jpg").write_bytes(encode(draw_flower(label, index)))
    chapter = chapters.begin_chapter(studies.describe_folder(tmp_path / "flowers", image_size=32), profile="smoke")
    assert chapter.load_runs() == {}
    assert chapter.describe_recorded("mobilenetv2_100-frozen") == tables.NO_RECORD
    save(chapter)
    assert list(chapter.load_runs()) == ["tiny-frozen"]
