"""Records: written whole, found again, refused when damaged, and summed up into the book's tables."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest

from tlhelpers import metrics, records, settings, studies

STUDY = studies.get_study("flowers")
HARDWARE = {"kind": "CPU", "name": "a processor", "count": 2, "memory_gib": 16.0, "precision": "float32"}
INFO = "application/papermill.record/text/plain"


def make_table(per_class=4):
    rows = []
    for target, label in enumerate(STUDY.class_names):
        for index in range(per_class):
            split = ("train", "validation", "test", "test")[index % 4]
            rows.append({"label": label, "target": target, "sha256": f"{label}{index}", "split": split})
    return pd.DataFrame(rows)


def make_record(*, seed=0, wrong=1, **changes):
    """A record of ten test images of which `wrong` are misread."""
    table = make_table()
    target = table.loc[table["split"] == "test", "target"].to_numpy()
    predicted = np.where(np.arange(10) < wrong, (target + 1) % 5, target)
    y_prob = 0.8 * np.eye(5)[predicted] + 0.04
    facts = {
        "protocol": "careful",
        "network": "mobilenetv2_100",
        "strategy": "frozen",
        "profile": "full",
        "seed": seed,
        "image_size": 224,
        "parameters": {"total": 10, "trainable": 3},
        "history": {"loss": [1 / 3, 0.1], "accuracy": [0.5, 0.9]},
        "seconds": {"training": 12.5},
        "hardware": HARDWARE,
        "validation_prob": np.full((5, 5), 0.2),
    }
    return records.make_record(study=STUDY, table=table, y_prob=y_prob, **(facts | changes))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "records"


def test_a_record_derives_counts_metrics_and_versions():
    record = make_record(wrong=2)
    assert record.model == "mobilenetv2_100-frozen"
    assert record.counts == {"test": 10, "train": 5, "validation": 5}
    assert record.metrics["accuracy"] == 0.8
    assert set(record.versions) == {"python", *records.PACKAGES}
    assert record.test_id[:2].tolist() == ["daisy2", "daisy3"]
    assert record.y_prob.dtype == np.float32
    assert len(record.dataset_sha256) == 64
    assert record.recorded_at.endswith("+00:00")


def test_a_record_keeps_the_validation_predictions_beside_the_true_classes():
    record = make_record()
    assert record.validation_true.tolist() == [0, 1, 2, 3, 4]
    assert (record.validation_prob.shape, record.validation_prob.dtype) == ((5, 5), np.float32)
    assert make_record(validation_prob=None).validation_prob.size == 0


def test_a_protocol_without_a_validation_part_keeps_no_validation_predictions():
    table = make_table().replace({"split": {"validation": "train"}})
    facts = {name: "" for name in ("protocol", "network", "strategy", "profile", "seed", "image_size")}
    facts |= {name: {} for name in ("parameters", "history", "seconds", "hardware")}
    y_prob = np.eye(5)[table.loc[table["split"] == "test", "target"]]
    record = records.make_record(study=STUDY, table=table, y_prob=y_prob, validation_prob=y_prob, **facts)
    assert record.validation_true.size == 0


def test_a_record_without_details_or_validation_predictions_loads(folder):
    path = records.save_record(make_record(), folder)
    facts = json.loads(path.read_text(encoding="utf-8"))
    del facts["details"]
    path.write_text(json.dumps(facts), encoding="utf-8")
    with np.load(path.with_suffix(".npz")) as arrays:
        kept = {name: arrays[name] for name in ("test_id", "y_true", "y_prob")}
    np.savez_compressed(path.with_suffix(".npz"), **kept)
    record = records.load_record(path)
    assert (record.details, record.validation_prob.size) == ({}, 0)


def test_predictions_that_do_not_fit_the_test_images_are_an_error():
    table = make_table()
    with pytest.raises(ValueError, match=r"Received: y_prob.shape=\(9, 5\)"):
        records.make_record(study=STUDY, table=table, y_prob=np.ones((9, 5)) / 5)


def test_a_record_survives_saving_and_loading(folder):
    record = make_record()
    loaded = records.load_record(records.save_record(record, folder))
    for name in records.ARRAYS:
        np.testing.assert_array_equal(getattr(loaded, name), getattr(record, name))
        assert getattr(loaded, name).dtype == getattr(record, name).dtype
    rounded = ("history", "metrics")
    for field in dataclasses.fields(records.Record):
        if field.name not in (*records.ARRAYS, *rounded):
            assert getattr(loaded, field.name) == getattr(record, field.name)
    assert loaded.history["loss"] == pytest.approx(record.history["loss"], rel=1e-6)
    assert loaded.metrics["macro_f1"] == pytest.approx(record.metrics["macro_f1"], rel=1e-6)
    assert loaded.metrics["per_class"].keys() == record.metrics["per_class"].keys()


def test_a_record_stands_under_study_protocol_model_and_seed(folder):
    path = records.save_record(make_record(seed=3), folder)
    assert path == folder / "flowers/careful/mobilenetv2_100-frozen/seed-3.json"
    assert sorted(file.name for file in path.parent.iterdir()) == ["seed-3.json", "seed-3.npz"]


def test_a_record_is_saved_in_no_folder_but_the_one_it_is_given(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TLHELPERS_RUNS", str(tmp_path / "runs"))
    assert records.save_record(make_record(), folder).is_relative_to(folder)
    assert not (tmp_path / "runs").exists()
    with pytest.raises(TypeError, match="folder"):
        records.save_record(make_record())


def test_saving_again_replaces_a_record(folder):
    records.save_record(make_record(wrong=5), folder)
    path = records.save_record(make_record(wrong=0), folder)
    assert records.load_record(path).metrics["accuracy"] == 1
    assert len(list(path.parent.iterdir())) == 2


def test_the_arrays_need_no_pickle_and_the_json_is_readable(folder):
    path = records.save_record(make_record(), folder)
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
        kinds = {name: arrays[name].dtype.kind for name in arrays}
    assert kinds == {"test_id": "U", "y_true": "i", "y_prob": "f", "validation_true": "i", "validation_prob": "f"}
    text = path.read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert "0.3333333\n" in text.replace(",", "")
    assert not set(records.ARRAYS) & set(json.loads(text))


def cut_in_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def drop_key(path):
    facts = json.loads(path.read_text())
    del facts["seed"]
    path.write_text(json.dumps(facts))


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[content.index(b"y_prob") + 60] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        (".json", cut_in_half),
        (".json", drop_key),
        (".json", lambda path: path.write_text("")),
        (".json", lambda path: path.write_text("[]")),
        (".json", lambda path: path.write_bytes(b"\xff\xfe")),
        (".npz", lambda path: path.unlink()),
        (".npz", cut_in_half),
        (".npz", lambda path: path.write_bytes(b"")),
        (".npz", lambda path: path.write_bytes(b"no archive")),
        (".npz", flip_a_byte),
        (".npz", lambda path: np.savez(path, y_true=[1])),
        (".npz", lambda path: np.savez(path, test_id=np.array([{}]), y_true=[1], y_prob=[[1]])),
    ],
    ids=[
        "json cut", "json lacks a key", "json empty", "json a list", "json no text", "npz missing", "npz cut",
        "npz empty", "npz no zip", "npz altered", "npz lacks arrays", "npz pickled",
    ],
)  # fmt: skip
def test_a_damaged_record_is_an_error_that_names_the_file(folder, suffix, damage):
    path = records.save_record(make_record(), folder)
    damage(path.with_suffix(suffix))
    with pytest.raises(ValueError, match=r"Received: .*/flowers/careful/mobilenetv2_100-frozen/seed-0\.json"):
        records.load_record(path)
    with pytest.raises(ValueError, match=r"seed-0\.json"):
        records.load_records("flowers", folder=folder)


def test_a_run_killed_while_saving_leaves_no_record(folder, monkeypatch):
    def refuse(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("tlhelpers.files.write_text", refuse)
    with pytest.raises(KeyboardInterrupt):
        records.save_record(make_record(), folder)
    assert records.load_records("flowers", folder=folder) == []


def save_several(folder):
    for protocol, strategy, seed in [
        ("careful", "frozen", 0),
        ("careful", "frozen", 1),
        ("careful", "last6", 0),
        ("published", "frozen", 0),
    ]:
        records.save_record(make_record(protocol=protocol, strategy=strategy, seed=seed), folder)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 4),
        ({"protocol": "careful"}, 3),
        ({"protocol": "published"}, 1),
        ({"model": "mobilenetv2_100-frozen"}, 3),
        ({"protocol": "careful", "model": "mobilenetv2_100-last6"}, 1),
        ({"protocol": "other"}, 0),
    ],
)
def test_records_are_found_by_protocol_and_model(folder, options, count):
    save_several(folder)
    found = records.load_records("flowers", folder=folder, **options)
    assert len(found) == count
    paths = [records.record_path(folder, record) for record in found]
    assert paths == sorted(paths)


def test_an_unknown_study_names_the_known_ones(folder):
    with pytest.raises(ValueError, match=r"\['flowers'\]. Received: name='birds'"):
        records.load_records("birds", folder=folder)


def test_a_summary_is_mean_interval_and_seeds_per_model():
    several = [make_record(seed=seed, wrong=wrong) for seed, wrong in enumerate((0, 1, 2))]
    summary = records.summarise([*several, make_record(strategy="last6")])
    assert summary.index.names == ["protocol", "model"]
    row = summary.loc["careful", "mobilenetv2_100-frozen"]
    assert row["mean"] == pytest.approx(0.9)
    assert row["half_width"] == pytest.approx(4.302653 * 0.1 / np.sqrt(3), rel=1e-6)
    assert row["seeds"] == 3
    alone = summary.loc["careful", "mobilenetv2_100-last6"]
    assert (alone["mean"], alone["seeds"]) == (0.9, 1)
    assert np.isnan(alone["half_width"])


def test_another_metric_can_be_summed_up():
    record = make_record(wrong=3)
    summary = records.summarise([record], "ece")
    assert summary["mean"].tolist() == [record.metrics["ece"]]


def test_protocols_are_never_mixed():
    summary = records.summarise([make_record(wrong=0), make_record(wrong=4, protocol="published")])
    assert summary["mean"].to_dict() == {
        ("careful", "mobilenetv2_100-frozen"): 1.0,
        ("published", "mobilenetv2_100-frozen"): 0.6,
    }


def test_no_records_have_an_empty_summary():
    summary = records.summarise([])
    assert len(summary) == 0
    assert list(summary.columns) == ["mean", "half_width", "seeds"]


def test_the_reproduction_table_quotes_and_compares(folder):
    for seed, wrong in enumerate((0, 1, 2)):
        records.save_record(make_record(seed=seed, wrong=wrong), folder)
    run = make_record(wrong=4, strategy="last6")
    table = records.reproduction_table("flowers", {("careful", run.model): run}, recorded=folder)
    assert list(table.columns) == ["published", "recorded", "this build"]
    assert len(table) == 6
    assert table["published"].tolist() == ["67%", "88%", "91%"] * 2
    frozen = table.loc["careful", "MobileNetV2, frozen"]
    assert frozen.tolist() == ["88%", "90.0% ± 24.8 (3 seeds)", "not run in this build"]
    last = table.loc["careful", "MobileNetV2, last six layers"]
    assert last.tolist() == ["91%", "no recorded run yet", "60.0% (1 seed)"]
    assert table.loc["published", "MobileNetV2, frozen"].tolist()[1:] == [
        "no recorded run yet",
        "not run in this build",
    ]


def test_a_run_of_another_network_stands_in_the_row_of_the_model_it_is_given_for(folder):
    run = make_record(wrong=4, network="mobilenetv2_035", profile="pocket", protocol="published")
    table = records.reproduction_table("flowers", {("published", "mobilenetv2_100-frozen"): run}, recorded=folder)
    live = table.loc[table["this build"] != "not run in this build", "this build"]
    assert live.to_dict() == {("published", "MobileNetV2, frozen"): "60.0% (1 seed)"}


def test_the_reproduction_table_stands_without_any_run(folder):
    table = records.reproduction_table("flowers", {}, protocols=["careful"], recorded=folder)
    assert table["recorded"].tolist() == ["no recorded run yet"] * 3
    assert table["this build"].tolist() == ["not run in this build"] * 3


def test_a_recorded_model_is_described_as_in_the_table(folder):
    save_several(folder)
    model = "mobilenetv2_100-frozen"
    assert records.describe_recorded("flowers", "careful", model, folder=folder) == "90.0% ± 0.0 (2 seeds)"
    assert records.describe_recorded("flowers", "published", model, folder=folder) == "90.0% (1 seed)"
    assert records.describe_recorded("flowers", "careful", "baseline_cnn-scratch", folder=folder) == records.NO_RECORD


def test_sources_are_compared_model_by_model(folder):
    for seed, wrong in enumerate((0, 1, 2)):
        records.save_record(make_record(seed=seed, wrong=wrong), folder)
    run = make_record(strategy="last6", wrong=3)
    labels = {"mobilenetv2_100-frozen": "Frozen", "mobilenetv2_100-last6": "Last six"}
    points = records.compare_sources("flowers", "careful", labels, {run.model: run}, recorded=folder)
    assert list(zip(points["model"], points["source"], points["accuracy"].round(6), strict=True)) == [
        ("Frozen", "published", 0.88),
        ("Frozen", "recorded", 0.9),
        ("Last six", "published", 0.91),
        ("Last six", "this build", 0.7),
    ]
    low, high = metrics.bootstrap_interval(run.y_true, run.y_prob)
    expected = [np.nan, 4.302653 * 0.1 / np.sqrt(3), np.nan, (high - low) / 2]
    np.testing.assert_allclose(points["half_width"], expected, rtol=1e-6)


def test_a_run_of_another_network_is_compared_under_the_name_it_is_given(folder):
    run = make_record(network="mobilenetv2_035", wrong=3)
    labels = {"mobilenetv2_100-frozen": "Frozen"}
    points = records.compare_sources("flowers", "careful", labels, {"mobilenetv2_100-frozen": run}, recorded=folder)
    assert points["source"].tolist() == ["published", "this build"]
    assert points["accuracy"].tolist() == pytest.approx([0.88, 0.7])


def test_records_of_another_protocol_are_not_compared(folder):
    records.save_record(make_record(protocol="published"), folder)
    labels = {"mobilenetv2_100-frozen": "Frozen"}
    points = records.compare_sources("flowers", "careful", labels, {}, recorded=folder)
    assert points["source"].tolist() == ["published"]


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
    records.glue("a-name", value, digits=digits)
    [((bundle,), _)] = displayed
    assert bundle == {INFO: repr(text)}


def test_glue_emits_the_record_that_the_site_looks_for(displayed):
    records.glue("a-name", 0.5)
    [((bundle,), options)] = displayed
    assert list(bundle) == ["application/papermill.record/text/plain"]
    scrapbook = {"name": "a-name", "mime_prefix": "application/papermill.record/"}
    assert options == {"raw": True, "metadata": {"scrapbook": scrapbook}}


def test_conditions_name_hardware_versions_and_days():
    versions = {"tensorflow": "2.21.0", "keras": "3.15.0"}
    first = dataclasses.replace(make_record(), versions=versions, recorded_at="2025-03-01T10:00:00+00:00")
    gpu = HARDWARE | {"kind": "GPU", "name": "Tesla T4", "count": 1}
    second = dataclasses.replace(first, hardware=gpu, recorded_at="2025-03-04T10:00:00+00:00")
    assert records.describe_conditions([first, first]) == (
        "a processor, 2 CPU cores; TensorFlow 2.21.0, Keras 3.15.0; 2025-03-01"
    )
    assert records.describe_conditions([second, first]) == (
        "Tesla T4, 1 GPU; a processor, 2 CPU cores; TensorFlow 2.21.0, Keras 3.15.0; 2025-03-01 to 2025-03-04"
    )
    assert records.describe_conditions([]) == "no recorded run"


def test_a_record_outside_a_checkout_has_no_commit(monkeypatch, tmp_path):
    monkeypatch.setattr(settings, "PROJECT_FOLDER", tmp_path)
    assert make_record().commit == ""


def test_a_record_without_git_has_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert shutil.which("git") is None
    assert make_record().commit == ""


COMMITTED = {"full": settings.records_folder(), "pocket": settings.pocket_folder() / "records"}


@pytest.fixture(params=COMMITTED)
def profile(request):
    """The profile under which the committed records of a folder were measured."""
    return request.param


@pytest.fixture
def committed(profile):
    """The records of measured runs that the project holds."""
    found = records.load_records("flowers", folder=COMMITTED[profile])
    if not found:
        pytest.skip(f"no committed records of the profile {profile!r} yet")
    return found


def test_committed_records_are_whole(committed):
    for record in committed:
        count = record.counts["test"]
        assert record.y_prob.shape == (count, STUDY.num_classes)
        assert len(record.test_id) == len(record.y_true) == count
        np.testing.assert_allclose(record.y_prob.sum(axis=1), 1, atol=1e-5)
        assert len({len(values) for values in record.history.values()}) <= 1


def test_metrics_of_committed_records_follow_from_their_arrays(committed):
    for record in committed:
        again = metrics.evaluate(record.y_true, record.y_prob, STUDY.class_names)
        for name, value in again.items():
            if name != "per_class":
                assert record.metrics[name] == pytest.approx(value, abs=1e-6), f"{record.model} {record.seed} {name}"
        for name, row in again["per_class"].items():
            assert record.metrics["per_class"][name] == pytest.approx(row, abs=1e-6)


def test_committed_records_of_one_protocol_and_seed_share_their_test_images(committed):
    groups = {}
    for record in committed:
        first = groups.setdefault((record.protocol, record.seed), record)
        np.testing.assert_array_equal(record.test_id, first.test_id)
        np.testing.assert_array_equal(record.y_true, first.y_true)
        assert record.dataset_sha256 == first.dataset_sha256


def test_committed_records_stand_where_they_say(committed, profile):
    assert {record.profile for record in committed} == {profile}
    folder = COMMITTED[profile]
    paths = {records.record_path(folder, record) for record in committed}
    assert paths == set(folder.glob("flowers/*/*/seed-*.json"))
    assert {path.with_suffix(".json") for path in folder.glob("flowers/*/*/*.npz")} == paths
