"""The drawn edition: every planned fault is there, every file is what the plan says, and the manifest finds it all."""

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from builders import CLASS_NAMES
from PIL import Image, UnidentifiedImageError

from tlhelpers import settings
from tlhelpers.datasets import manifest, studies
from tlhelpers.synthetic import collection, flowers

SMALL = 30
SIZE = studies.get_study("flowers").drawn_size
SEED = collection.PICTURE_SEED
PICTURE = ["species", "index"]


def plan_small(seed=SEED):
    return collection.plan_files(CLASS_NAMES, per_class=SMALL, seed=seed)


def fault_rows(plan, *faults):
    return plan[plan["fault"].isin(faults)]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A small drawn study: its plan, its folder and its manifest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLHELPERS_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setattr(collection, "FILES_PER_CLASS", SMALL)
        study = studies.get_study("flowers", drawn=True)
        table = manifest.load_manifest(study)
        folder = collection.draw_study(study)
    table["file"] = [Path(path).relative_to(folder).as_posix() for path in table["path"]]
    return SimpleNamespace(folder=folder, plan=plan_small(), table=plan_small().merge(table.drop(columns="label")))


@pytest.fixture
def small_study(monkeypatch):
    """The drawn flower study with few and tiny pictures."""
    monkeypatch.setattr(collection, "FILES_PER_CLASS", SMALL)
    return replace(studies.get_study("flowers", drawn=True), drawn_size=24)


# The plan


def test_plan_is_the_same_for_a_seed_and_another_for_another():
    assert plan_small().equals(plan_small())
    assert not plan_small()[PICTURE].equals(plan_small(SEED + 1)[PICTURE])


@pytest.mark.parametrize("per_class", [28, collection.FILES_PER_CLASS])
def test_every_class_holds_its_files_and_every_fault(per_class):
    plan = collection.plan_files(CLASS_NAMES, per_class=per_class)
    assert plan["file"].is_unique
    assert (plan["file"] == plan["label"] + "/" + plan["file"].str[-8:]).all()
    for name in CLASS_NAMES:
        faults = plan.loc[plan["label"] == name, "fault"]
        counts = faults.value_counts().to_dict()
        assert len(faults) == per_class
        assert counts == collection.FAULTS | {"": per_class - sum(collection.FAULTS.values())}


def test_class_too_small_for_its_faults_is_refused():
    with pytest.raises(ValueError, match=r"at least 28 files, .* Received: per_class=27"):
        collection.plan_files(CLASS_NAMES, per_class=27)


def test_exactly_the_mislabelled_files_and_copies_from_elsewhere_show_another_species():
    plan = plan_small()
    elsewhere = plan["label"] != plan["species"]
    assert set(plan.loc[elsewhere, "fault"]) == {"mislabelled", "two classes"}
    assert elsewhere.sum() == len(CLASS_NAMES) * (collection.FAULTS["mislabelled"] + collection.FAULTS["two classes"])


@pytest.mark.parametrize("seed", [SEED, 0, 1, 2, 3])
def test_copies_repeat_a_sound_original_of_the_class_they_should(seed):
    plan = plan_small(seed)
    sound = plan[plan["fault"] == ""].set_index(PICTURE)["label"]
    for fault in collection.COPIES:
        copies = fault_rows(plan, fault)
        originals = sound.loc[list(copies[PICTURE].itertuples(index=False, name=None))]
        assert ((originals.to_numpy() == copies["label"].to_numpy()) == (fault != "two classes")).all()


@pytest.mark.parametrize(
    "seed",
    [
        SEED,
        0,
        1,
        5,
    ],
)
def test_no_two_files_show_one_picture_unless_they_are_planned_copies(seed):
    plan = collection.plan_files(CLASS_NAMES, seed=seed)
    originals = fault_rows(plan, "", "mislabelled")
    assert not originals.duplicated(PICTURE).any()


# The files


@pytest.mark.slow
def test_readable_files_are_the_planned_pictures(drawn):
    rows = fault_rows(drawn.plan, "", "mislabelled").groupby("fault").head(6)
    assert len(rows) == 12
    for row in rows.itertuples():
        pixels = flowers.draw_flower(row.species, SEED, row.index, SIZE)
        assert (drawn.folder / row.file).read_bytes() == collection.encode(pixels)


def originals_of(drawn, *faults):
    """Pairs of bytes: a copy's and its original's."""
    sound = drawn.plan[drawn.plan["fault"] == ""].set_index(PICTURE)["file"]
    for row in fault_rows(drawn.plan, *faults).to_dict("records"):
        original = sound[row["species"], row["index"]]
        yield (drawn.folder / row["file"]).read_bytes(), (drawn.folder / original).read_bytes()


def test_exact_copies_are_their_originals_to_the_byte(drawn):
    pairs = list(originals_of(drawn, "exact duplicate", "two classes"))
    assert len(pairs) == 15
    assert all(copy == original for copy, original in pairs)


def test_near_duplicates_are_their_originals_made_smaller(drawn):
    pairs = list(originals_of(drawn, "near duplicate"))
    assert len(pairs) == 10
    for copy, original in pairs:
        small, large = (Image.open(io.BytesIO(content)) for content in (copy, original))
        assert (small.size, large.size) == ((112, 112), (128, 128))
        difference = np.asarray(small, float) - np.asarray(large.resize(small.size), float)
        assert np.abs(difference).mean() < 12


@pytest.mark.parametrize(
    ("fault", "error"),
    [("empty", UnidentifiedImageError), ("truncated", OSError), ("not an image", UnidentifiedImageError)],
)
def test_broken_files_are_broken_as_planned(drawn, fault, error):
    rows = fault_rows(drawn.plan, fault)
    assert len(rows) == len(CLASS_NAMES)
    for row in rows.itertuples():
        content = (drawn.folder / row.file).read_bytes()
        whole = collection.encode(flowers.draw_flower(row.species, SEED, row.index, SIZE))
        expected = {"empty": b"", "truncated": whole[: len(whole) // 2]}.get(fault, content)
        assert content == expected
        with pytest.raises(error):
            Image.open(io.BytesIO(content)).load()


def test_folder_holds_the_planned_files_and_no_others(drawn):
    names = (path.relative_to(drawn.folder).as_posix() for path in drawn.folder.rglob("*") if path.is_file())
    assert {name for name in names if not name.startswith(".")} == set(drawn.plan["file"])


# The folder


def test_a_study_is_drawn_once(small_study, monkeypatch):
    folder = collection.draw_study(small_study)

    def refuse(*arguments, **options):
        raise AssertionError("drawn again")

    monkeypatch.setattr(collection, "draw_files", refuse)
    assert collection.draw_study(small_study) == folder
    with pytest.raises(AssertionError, match="drawn again"):
        collection.draw_study(small_study, seed=SEED + 1)
    monkeypatch.setattr(collection, "FILES_PER_CLASS", SMALL + 1)
    with pytest.raises(AssertionError, match="drawn again"):
        collection.draw_study(small_study)


@pytest.mark.slow
def test_drawn_pictures_of_which_some_are_gone_are_drawn_again(small_study):
    folder = collection.draw_study(small_study)
    lost = folder / "rose" / "0000.jpg"
    before = lost.read_bytes()
    lost.unlink()
    assert collection.draw_study(small_study) == folder
    assert lost.read_bytes() == before


@pytest.mark.slow
def test_another_seed_draws_other_pictures_into_another_folder(small_study):
    first, other = collection.draw_study(small_study), collection.draw_study(small_study, seed=SEED + 1)
    assert first != other
    assert first.parent == other.parent == settings.home_folder() / "images" / "flowers-drawn"
    assert (first / "rose" / "0000.jpg").read_bytes() != (other / "rose" / "0000.jpg").read_bytes()


def test_a_killed_drawing_leaves_no_folder(small_study, monkeypatch):
    original = collection.encode
    calls = []

    def encode(pixels, **options):
        calls.append(pixels)
        if len(calls) == 40:
            raise KeyboardInterrupt
        return original(pixels, **options)

    monkeypatch.setattr(collection, "encode", encode)
    with pytest.raises(KeyboardInterrupt):
        collection.draw_study(small_study)
    assert list((settings.home_folder() / "images" / "flowers-drawn").iterdir()) == []
    folder = collection.draw_study(small_study)
    assert len(list(folder.rglob("*.jpg"))) == SMALL * len(CLASS_NAMES)


# The manifest


def test_manifest_gives_every_planned_file_its_verdict(drawn):
    verdicts = drawn.table.set_index("file")["verdict"]
    assert len(verdicts) == SMALL * len(CLASS_NAMES)
    for fault in collection.UNREADABLE:
        assert set(verdicts[fault_rows(drawn.plan, fault)["file"]]) == {fault.replace(" ", "_")}
    readable = drawn.plan[~drawn.plan["fault"].isin(collection.UNREADABLE)]
    labels = readable.groupby(PICTURE)["label"].transform("nunique")
    assert set(verdicts[readable.loc[labels > 1, "file"]]) == {"two_classes"}
    assert set(verdicts[readable.loc[labels == 1, "file"]]) == {"ok"}
    assert (labels > 1).sum() >= 2 * len(CLASS_NAMES)


def test_manifest_groups_every_copy_with_its_original_and_nothing_else(drawn):
    readable = drawn.table[~drawn.table["fault"].isin(collection.UNREADABLE)]
    assert (readable.groupby(PICTURE)["group"].nunique() == 1).all()
    assert readable["group"].nunique() == len(readable.drop_duplicates(PICTURE))
    copies = fault_rows(readable, *collection.COPIES)
    assert len(copies) == 5 * len(CLASS_NAMES)
    assert copies["group"].isin(readable.loc[readable["fault"] == "", "group"]).all()


def test_a_class_may_have_more_files_than_the_others():
    counts = dict.fromkeys(CLASS_NAMES, 30) | {"tulip": 50}
    plan = collection.plan_files(CLASS_NAMES, per_class=counts)
    assert plan["label"].value_counts().to_dict() == counts
    with pytest.raises(ValueError, match="at least 28 files"):
        collection.plan_files(CLASS_NAMES, per_class=counts | {"rose": 20})


def test_every_study_has_someone_who_draws_all_its_classes():
    assert set(collection.ARTISTS) == set(studies.STUDIES)
    for name, (_, draw) in collection.ARTISTS.items():
        study = studies.get_study(name, drawn=True)
        for label in study.class_names:
            picture = draw(label, seed=0, index=0, size=study.drawn_size)
            assert picture.shape == (study.image_size, study.image_size, 3)


ARTISTS = [
    pytest.param(name, draw, id=name) for name, (_, draw) in collection.ARTISTS.items() if name != "fashion_half"
]


@pytest.mark.parametrize(("study", "draw"), ARTISTS)
def test_same_seed_and_index_draw_the_same_picture_and_others_another(study, draw):
    for label in studies.get_study(study).class_names:
        first, again, next_one, other = (draw(label, *which, size=32) for which in ((3, 7), (3, 7), (3, 8), (4, 7)))
        np.testing.assert_array_equal(first, again)
        assert (first.shape, first.dtype) == ((32, 32, 3), np.uint8)
        assert not np.array_equal(first, next_one)
        assert not np.array_equal(first, other)


@pytest.mark.parametrize(("study", "draw"), ARTISTS)
def test_unknown_class_is_answered_with_the_known_ones(study, draw):
    first = sorted(studies.get_study(study).class_names)[0]
    with pytest.raises(ValueError, match=rf"is one of \['{first}', .*Received: .*='hat'"):
        draw("hat", 0, 0)
