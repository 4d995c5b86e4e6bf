"""Records: written whole, found again, refused when damaged."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from builders import STUDY, make_record, make_table, save_several

from tlhelpers import metrics, settings
from tlhelpers.datasets import studies
from tlhelpers.experiments import packs, records


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
    facts = dict.fromkeys(("protocol", "network", "strategy", "profile", "seed", "image_size"), "")
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
    with pytest.raises(ValueError, match=r"Received: y_prob of shape \(9, 5\)"):
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
    paths = [records.record_path(folder, record.name) for record in found]
    assert paths == sorted(paths)


def test_an_unknown_study_names_the_known_ones(folder):
    with pytest.raises(ValueError, match=rf"{re.escape(str(sorted(studies.STUDIES)))}. Received: name='birds'"):
        records.load_records("birds", folder=folder)


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
    packed = packs.read_pack(COMMITTED[profile], "flowers", arrays=False)
    assert {record.name for record in committed} == set(packed)
    assert [path for path in settings.committed_files() if path.name.startswith("seed-")] == []
