"""Where images stand: official parts are told apart, and what is missing is named."""

import itertools
from dataclasses import replace

import pytest

from tlhelpers import layouts, studies
from tlhelpers.studies import Place

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
    listed = layouts.list_images(inner, study.class_names, PLACES)
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
