"""Where images stand: official parts are told apart, and what is missing is named."""

import itertools
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tlhelpers.datasets import layouts, studies
from tlhelpers.datasets.studies import Place

# A folder for training and one for two further parts, told apart by how file names begin.
PLACES = {
    "train": Place("train/{label}"),
    "validation": Place("held/{label}", "Public_"),
    "test": Place("held/{label}", "Private_"),
}
FILES = {
    "train": ["train/cat/2.png", "train/cat/1.png", "train/dog/1.png"],
    "validation": ["held/cat/Public_1.png", "held/dog/Public_7.png"],
    "test": ["held/cat/Private_1.png", "held/dog/Private_7.png"],
}


@pytest.fixture
def study():
    """A study of cats and dogs with three official parts."""
    return replace(studies.get_study("flowers"), title="Pets", class_names=("cat", "dog"), places=PLACES)


@pytest.fixture
def inner(tmp_path):
    """A folder two levels down that holds every part."""
    for name in [*itertools.chain(*FILES.values()), "train/cat/.hidden", "held/dog/notes.txt"]:
        path = tmp_path / "a" / "b" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "a" / "b"


def test_folder_of_all_parts_is_found_at_any_depth(tmp_path, inner, study):
    assert layouts.find_image_folder(tmp_path, study) == inner


def test_files_are_listed_with_their_class_and_official_part_and_hidden_ones_left_out(inner, study):
    listed = layouts.list_images(inner, study)
    found = {
        part: rows["path"].map(lambda path: path.relative_to(inner).as_posix()) for part, rows in listed.groupby("part")
    }
    assert {part: sorted(names) for part, names in found.items()} == {
        part: sorted(names) for part, names in FILES.items()
    }
    assert (listed["label"] == listed["path"].map(lambda path: path.parent.name)).all()
    assert listed["path"].tolist()[:2] == [inner / "train/cat/1.png", inner / "train/cat/2.png"]


def test_class_missing_from_one_part_is_an_error(inner, study):
    for path in (inner / "held" / "dog").iterdir():
        path.unlink()
    (inner / "held" / "dog").rmdir()
    with pytest.raises(layouts.BadArchiveError, match=r"Pets.*'held/dog'.*Received: "):
        layouts.find_image_folder(inner, study)


def test_missing_class_is_named(inner, study):
    with pytest.raises(layouts.BadArchiveError, match=r"Missing: \['bird'\]\. Received: "):
        layouts.find_image_folder(inner, replace(study, class_names=("bird", "cat", "dog")))


# Tables


@pytest.fixture
def weeds():
    """The study whose labels and folds stand in tables."""
    return studies.get_study("deepweeds")


NAMES = [f"2017{index:04d}.jpg" for index in range(45)]


@pytest.fixture
def field(tmp_path, weeds):
    """A folder in the official layout: 45 empty files, five of each class, and fifteen tables."""
    folder = tmp_path / "a" / "b"
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for name in NAMES:
        (folder / "images" / name).touch()
    for fold in range(5):
        parts = {"test": fold, "val": (fold + 1) % 5}
        held = {part: NAMES[k::5] for part, k in parts.items()}
        held["train"] = [name for name in NAMES if name not in held["test"] + held["val"]]
        for part, names in held.items():
            rows = [f"{name},{NAMES.index(name) // 5}" for name in names]
            (folder / "labels" / f"{part}_subset{fold}.csv").write_text("\n".join(["Filename,Label", *rows]) + "\n")
    return folder


def test_tables_give_each_image_its_label_and_its_part_in_every_fold(field, weeds):
    listed = layouts.list_images(field, weeds)
    assert listed["label"].value_counts().to_dict() == dict.fromkeys(weeds.class_names, 5)
    assert listed["label"].drop_duplicates().tolist() == list(weeds.class_names)
    by_name = listed.set_index(listed["path"].map(lambda path: path.name))["part"]
    assert by_name[NAMES[0]] == "test,train,train,train,validation"
    assert by_name[NAMES[7]] == "train,validation,test,train,train"


def test_folder_of_images_with_tables_is_found_at_any_depth(field, weeds):
    assert layouts.find_image_folder(field.parent.parent, weeds) == field
    (field / "images").rename(field / "pictures")
    with pytest.raises(layouts.BadArchiveError, match=r"stand in a folder \['images'\]"):
        layouts.find_image_folder(field, weeds)


def test_tables_may_stand_elsewhere(field, weeds, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (field / "labels").rename(tmp_path / "elsewhere" / "labels")
    assert len(layouts.list_images(field, weeds, tables_folder=tmp_path / "elsewhere")) == 45
    with pytest.raises(layouts.BadArchiveError, match=r"Missing: \['labels/train_subset0.csv', .*Received: "):
        layouts.list_images(field, weeds)


def rewrite(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def spoil_label(field):
    rewrite(field / "labels" / "val_subset2.csv", f"{NAMES[3]},0", f"{NAMES[3]},9")


def leave_label_out(field):
    rewrite(field / "labels" / "val_subset2.csv", f"{NAMES[3]},0", f"{NAMES[3]},")


def overlap_parts(field):
    with open(field / "labels" / "train_subset1.csv", "a") as table:
        table.write(f"{NAMES[1]},0\n")


def never_test(field):
    rewrite(field / "labels" / "test_subset0.csv", f"{NAMES[0]},0\n", "")
    with open(field / "labels" / "train_subset0.csv", "a") as table:
        table.write(f"{NAMES[0]},0\n")


def forget_an_image(field):
    rewrite(field / "labels" / "train_subset3.csv", f"{NAMES[1]},0\n", "")


def change_a_label(field):
    rewrite(field / "labels" / "train_subset3.csv", f"{NAMES[1]},0", f"{NAMES[1]},1")


def overwrite(field, text):
    (field / "labels" / "val_subset0.csv").write_text(text)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda field: (field / "labels" / "test_subset4.csv").unlink(), r"Missing: \['labels/test_subset4.csv'\]"),
        (lambda field: (field / "images" / NAMES[5]).unlink(), rf"Missing: 1 of 45, such as \['{NAMES[5]}'\]"),
        (spoil_label, r"between 0 and 8\. Received: \['9'\] in .*val_subset2.csv"),
        (leave_label_out, r"between 0 and 8\. Received: \['nothing'\] in .*val_subset2.csv"),
        (overlap_parts, rf"1 in several of fold 1, such as \['{NAMES[1]}'\]"),
        (never_test, rf"test each image once\. Received: '{NAMES[0]}' tested 0 times, and 0 more"),
        (forget_an_image, rf"Every fold has every image\. Received: \['{NAMES[1]}'\]"),
        (change_a_label, rf"one label\. Received: \['{NAMES[1]}'\] with several"),
        (partial(overwrite, text=""), r"is a CSV file \(No columns"),
        (partial(overwrite, text="name,label\na,1\n"), r"columns \['Filename', 'Label'\]\. Received: \['name', "),
    ],
    ids=[
        "missing table", "missing image", "unknown label", "no label", "overlapping parts", "never tested",
        "missing from a fold", "two labels", "empty table", "other columns",
    ],
)  # fmt: skip
def test_tables_that_do_not_fit_are_refused(field, weeds, spoil, message):
    spoil(field)
    with pytest.raises(layouts.BadArchiveError, match=message):
        layouts.list_images(field, weeds)


def test_folder_that_is_the_wanted_one_is_not_walked(inner, study, monkeypatch):
    monkeypatch.setattr(Path, "rglob", lambda *_: pytest.fail("walked through all files"))
    assert layouts.find_image_folder(inner, study) == inner


def test_a_class_folder_that_may_not_be_read_is_named_with_the_rule(tmp_path, monkeypatch):
    listing = Path.iterdir

    def refuse(folder):
        if folder.name == "closed":
            raise PermissionError(13, "Permission denied", str(folder))
        return listing(folder)

    for name in ("open", "closed"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(PermissionError, match=r"Each folder of images can be read\. Received: '.*closed' \(Permission"):
        layouts.recognise_layout(tmp_path)
