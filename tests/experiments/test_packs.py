"""Packs: what a study's records hold, to the bit, in two files that are whole at every moment."""

import json

import numpy as np
import pytest
from builders import make_fold, make_record, save_several

from tlhelpers import files
from tlhelpers.datasets import studies
from tlhelpers.experiments import packs, records

PACK = ["flowers.json", "flowers.npz"]


def names_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def assert_same(record, other):
    for name in records.ARRAYS:
        one, two = getattr(record, name), getattr(other, name)
        assert (one.dtype, one.shape, one.tobytes()) == (two.dtype, two.shape, two.tobytes()), name
    facts = [{name: value for name, value in vars(r).items() if name not in records.ARRAYS} for r in (record, other)]
    assert facts[0] == facts[1]


def test_packed_records_are_what_they_were_to_the_bit_in_two_files(folder):
    for seed in (0, 1):
        awkward = np.random.default_rng(seed).dirichlet(np.full(5, 0.1), 10).astype(np.float32)
        records.save_record(make_fold(seed, y_prob=awkward), folder)
    records.save_record(make_record(protocol="published", validation_prob=None), folder)
    before = records.load_records("flowers", folder=folder)
    assert records.pack_records(folder) == 3
    after = records.load_records("flowers", folder=folder)
    assert names_in(folder) == PACK
    assert [record.name for record in after] == [record.name for record in before]
    for one, two in zip(before, after, strict=True):
        assert_same(one, two)


def test_what_several_records_share_stands_once(folder):
    for strategy in ("frozen", "last6"):
        for seed in (0, 1):
            records.save_record(make_fold(seed, strategy=strategy, wrong=seed), folder)
    records.pack_records(folder)
    told = json.loads((folder / "flowers.json").read_text(encoding="utf-8"))
    hashes = {facts["arrays"]["test_id"] for facts in told.values()}
    assert (len(told), len(hashes)) == (4, 2)
    with np.load(folder / "flowers.npz") as kept:
        assert set(kept) == {digest for facts in told.values() for digest in facts["arrays"].values()}


def test_records_are_added_to_a_pack_and_a_newer_one_takes_the_place_of_the_older(folder):
    save_several(folder)
    records.pack_records(folder)
    records.save_record(make_record(wrong=5), folder)
    records.save_record(make_record(seed=4), folder)
    unpacked = records.load_records("flowers", folder=folder)
    assert records.pack_records(folder) == 2
    packed = records.load_records("flowers", folder=folder)
    assert [record.metrics["accuracy"] for record in packed] == [record.metrics["accuracy"] for record in unpacked]
    assert len(packed) == 5
    assert packed[0].metrics["accuracy"] == 0.5
    assert records.pack_records(folder) == 0


def test_a_record_is_found_in_a_pack_by_its_name(folder):
    save_several(folder)
    records.pack_records(folder)
    name = "flowers/careful/mobilenetv2_100-last6/seed-0"
    found = records.find_records([name, "flowers/careful/mobilenetv2_100-last6/seed-9", "faces/a/b/seed-0"], folder)
    assert list(found) == [name]
    assert found[name].name == name


def test_without_predictions_the_arrays_are_not_even_opened(folder):
    save_several(folder)
    records.pack_records(folder)
    (folder / "flowers.npz").unlink()
    found = records.load_records("flowers", folder=folder, predictions=False)
    assert len(found) == 4
    assert {len(record.y_prob) for record in found} == {0}
    assert found[0].metrics["accuracy"] == 0.9


def test_the_records_of_a_study_are_read_from_at_most_two_files(folder, monkeypatch):
    save_several(folder)
    records.pack_records(folder)
    opened = []
    opens = type(folder).open
    monkeypatch.setattr(
        type(folder), "open", lambda path, *rest, **more: opened.append(path) or opens(path, *rest, **more)
    )
    loads = np.load
    monkeypatch.setattr(np, "load", lambda path, **more: opened.append(path) or loads(path, **more))
    records.load_records("flowers", folder=folder)
    assert sorted(path.name for path in opened) == PACK


@pytest.mark.parametrize("moment", ["facts", "removal"])
def test_packing_that_is_killed_loses_nothing_and_the_next_one_goes_on(folder, monkeypatch, moment):
    save_several(folder)
    records.pack_records(folder)
    records.save_record(make_record(wrong=5), folder)
    expected = [record.metrics["accuracy"] for record in records.load_records("flowers", folder=folder)]

    def refuse(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*((files, "write_text") if moment == "facts" else (records, "_remove_loose")), refuse)
        with pytest.raises(KeyboardInterrupt):
            records.pack_records(folder)
    found = records.load_records("flowers", folder=folder)
    assert [record.metrics["accuracy"] for record in found] == expected
    assert records.pack_records(folder) == 1
    assert names_in(folder) == PACK
    found = records.load_records("flowers", folder=folder)
    assert [record.metrics["accuracy"] for record in found] == expected


def test_of_two_processes_that_pack_one_is_told(folder):
    save_several(folder)
    lock = records.settings.home_folder() / "packing.lock"
    with (
        files.only_one(lock, "held"),
        pytest.raises(BlockingIOError, match=r"Another process packs.*Received: .*records"),
    ):
        records.pack_records(folder)
    assert records.pack_records(folder) == 4


def test_sweeps_below_a_folder_are_packed_by_themselves(folder):
    records.save_record(make_record(), folder)
    records.save_record(make_record(), folder / "sweeps" / "depths")
    assert records.pack_records(folder) == 1
    assert len(names_in(folder)) == 4


@pytest.mark.parametrize(
    ("suffix", "content"),
    [(".json", b"{"), (".json", b"[]"), (".json", b'{"a/b/c/seed-0": {}}'), (".npz", b""), (".npz", None)],
)
def test_a_damaged_pack_is_an_error_that_names_the_file_and_is_not_written_over(folder, suffix, content):
    save_several(folder)
    records.pack_records(folder)
    damaged = folder / f"flowers{suffix}"
    damaged.unlink() if content is None else damaged.write_bytes(content)
    with pytest.raises(ValueError, match=r"a whole JSON file with its NPZ.*Received: .*flowers\.json"):
        records.load_records("flowers", folder=folder)
    records.save_record(make_record(seed=8), folder)
    with pytest.raises(ValueError, match=r"Received: .*flowers\.json"):
        records.pack_records(folder)
    assert records.record_path(folder, "flowers/careful/mobilenetv2_100-frozen/seed-8").is_file()


def test_facts_that_make_no_record_are_an_error_that_names_the_file(folder):
    save_several(folder)
    records.pack_records(folder)
    path = packs.pack_path(folder, "flowers")
    told = json.loads(path.read_text(encoding="utf-8"))
    del next(iter(told.values()))["seed"]
    path.write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(ValueError, match=r"seed.*Received: .*flowers\.json"):
        records.load_records("flowers", folder=folder)


def test_the_committed_records_of_a_study_name_the_images_of_a_fold_once():
    for study in ("flowers", "fer2013", "cats_dogs", "fashion_mnist", "fashion_half"):
        told = packs.read_pack(records.settings.records_folder(), study, arrays=False)
        assert told
        found = records.load_records(studies.get_study(study))
        folds = {(record.protocol, record.seed) for record in found}
        assert len({record.test_id.tobytes() for record in found}) <= len(folds)
