"""Splits that keep their promises."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from builders import CLASS_NAMES

from tlhelpers.datasets import splits, studies
from tlhelpers.datasets.splits import count_leaks, rows_of, split_manifest
from tlhelpers.datasets.studies import Place, published_numbers
from tlhelpers.synthetic import collection


def catalogue(counts, *, duplicates=0):
    """A manifest of images that do not exist; the first `duplicates` of each class have a twin in that class."""
    labels = np.repeat(list(counts), list(counts.values()))
    groups = np.arange(len(labels))
    for start in np.flatnonzero(np.r_[True, labels[1:] != labels[:-1]]):
        twins = start + 2 * np.arange(duplicates)
        groups[twins + 1] = groups[twins]
    names = [f"{label}/{i:04d}.jpg" for i, label in enumerate(labels)]
    return pd.DataFrame(
        {
            "path": names,
            "label": labels,
            "part": "",
            "sha256": [f"{i:064x}" for i in range(len(labels))],
            "width": 72,
            "height": 72,
            "verdict": "ok",
            "reason": "",
            "group": groups,
        }
    )


@pytest.fixture
def published():
    """A manifest with the published number of images of each class."""
    return catalogue(published_numbers("flowers")["class_counts"])


@pytest.fixture
def small():
    """A manifest of 400 images in unequal classes, 100 of them in pairs of near duplicates."""
    return catalogue({"daisy": 60, "dandelion": 100, "rose": 80, "sunflower": 60, "tulip": 100}, duplicates=10)


def test_published_protocol_gives_the_published_sizes(published, flowers):
    table = split_manifest(published, flowers, protocol="published", seed=0)
    assert table["split"].value_counts().to_dict() == {"train": 3454, "test": 863}


def test_published_protocol_is_stratified(published, flowers):
    table = split_manifest(published, flowers, protocol="published", seed=0)
    counts = published_numbers("flowers")["class_counts"]
    tested = table[table["split"] == "test"]["label"].value_counts()
    for name, count in counts.items():
        assert abs(tested[name] - count * 863 / 4317) < 1


def test_targets_are_positions_in_the_label_order(published, flowers):
    table = split_manifest(published, flowers, protocol="published")
    pairs = table.groupby("label")["target"].unique()
    assert {name: values.tolist() for name, values in pairs.items()} == {
        "daisy": [0],
        "dandelion": [1],
        "rose": [2],
        "sunflower": [3],
        "tulip": [4],
    }


def test_published_protocol_tests_a_fifth_of_another_edition(small, flowers):
    table = split_manifest(small, flowers, protocol="published")
    assert table["split"].value_counts().to_dict() == {"train": 320, "test": 80}


def test_careful_folds_test_each_image_exactly_once(small, flowers):
    folds = [split_manifest(small, flowers, protocol="careful", seed=seed) for seed in range(splits.FOLDS)]
    tested = sum((fold["split"] == "test").astype(int) for fold in folds)
    assert tested.tolist() == [1] * len(small)


def test_a_careful_split_is_computed_once_and_then_read(small, flowers, monkeypatch):
    first = split_manifest(small, flowers, protocol="careful", seed=2)
    monkeypatch.setattr(splits, "StratifiedGroupKFold", None)
    again = split_manifest(small, flowers, protocol="careful", seed=2)
    pd.testing.assert_frame_equal(again, first)
    with pytest.raises(TypeError):  # other rows have another split
        split_manifest(small.iloc[:-1], flowers, protocol="careful", seed=2)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("drawn", "fold", "rest"), [(False, "test", "train"), (True, "train", "test")])
def test_careful_fold_keeps_groups_together_and_has_its_shares(small, seed, drawn, fold, rest):
    study = studies.get_study("flowers", drawn=drawn)
    table = split_manifest(small, study, protocol="careful", seed=seed)
    assert len(table.drop_duplicates(["group", "split"])) == len(set(table["group"])) == 350
    assert count_leaks(table) == 0
    shares = table["split"].value_counts(normalize=True)
    assert shares[fold] == pytest.approx(0.2, abs=0.01)
    assert shares["validation"] == pytest.approx(0.1, abs=0.01)
    assert shares[rest] == pytest.approx(0.7, abs=0.02)
    for part in ("train", "validation", "test"):
        mix = table.loc[table["split"] == part, "label"].value_counts(normalize=True)
        np.testing.assert_allclose(mix[list(CLASS_NAMES)], [0.15, 0.25, 0.2, 0.15, 0.25], atol=0.05)


OFFICIAL = {"train": Place("train/{label}"), "test": Place("test/{label}")}


@pytest.fixture
def official(flowers):
    """A study with official training and test parts and the source's count for validation; its manifest."""
    study = replace(flowers, places=OFFICIAL, validation_count=60)
    table = catalogue(dict.fromkeys(CLASS_NAMES, 80), duplicates=5)
    return study, table.assign(part=np.where(np.arange(len(table)) % 4 == 3, "test", "train"))


@pytest.mark.parametrize("protocol", splits.PROTOCOLS)
def test_official_parts_are_the_splits_and_validation_is_cut_from_training(official, protocol):
    study, table = official
    split = split_manifest(table, study, protocol=protocol, seed=1)
    parts = split.groupby("split")["part"].unique().map(list).to_dict()
    assert parts == {"train": ["train"], "validation": ["train"], "test": ["test"]}
    assert (split["split"] == "validation").sum() == pytest.approx(60, abs=3)
    mix = split.loc[split["split"] == "validation", "label"].value_counts()
    assert mix.max() - mix.min() <= 3
    again, other = (split_manifest(table, study, protocol=protocol, seed=seed) for seed in (1, 2))
    assert split.equals(again)
    assert not split.equals(other)


def test_careful_leaves_out_of_the_official_test_part_what_trains_or_validates(official):
    study, table = official
    published, careful = (split_manifest(table, study, protocol=protocol) for protocol in splits.PROTOCOLS)
    leaked = count_leaks(published)
    assert leaked > 0
    assert count_leaks(careful) == 0
    tested = [set(split.loc[split["split"] == "test", "path"]) for split in (published, careful)]
    assert len(published) == len(table)
    assert tested[1] < tested[0]
    assert len(careful) == len(table) - len(tested[0] - tested[1])
    assert len(careful.drop_duplicates(["group", "split"])) == careful["group"].nunique()


def test_published_cuts_no_validation_part_where_the_source_did_not(official):
    study, table = official
    study = replace(study, validation_count=None)
    assert set(split_manifest(table, study, protocol="published")["split"]) == {"train", "test"}
    careful = split_manifest(table, study, protocol="careful")
    assert (careful["split"] == "validation").sum() == pytest.approx(0.1 * 300, abs=4)


def test_official_validation_part_is_kept_and_freed_of_what_trains(official):
    study, table = official
    study = replace(study, places=OFFICIAL | {"validation": Place("validation/{label}")})
    table.loc[np.arange(len(table)) % 4 == 1, "part"] = "validation"
    published, careful = (split_manifest(table, study, protocol=protocol) for protocol in splits.PROTOCOLS)
    assert (published["split"] == published["part"]).all()
    assert (careful["split"] == careful["part"]).all()
    assert set(careful["group"][careful["split"] == "train"]).isdisjoint(careful["group"][careful["split"] != "train"])
    assert 0 < len(careful) < len(published)


def test_tables_name_the_part_of_every_fold_and_other_folds_do_not_exist(official):
    study, table = official
    study = replace(study, tables=studies.get_study("deepweeds").tables)
    folds = [
        ",".join("test" if k == i % 5 else "validation" if k == (i + 1) % 5 else "train" for k in range(5))
        for i in range(len(table))
    ]
    table = table.assign(part=folds, group=range(len(table)))
    for seed in range(5):
        split = split_manifest(table, study, protocol="published", seed=seed)["split"]
        assert split.value_counts().to_dict() == {"train": 240, "validation": 80, "test": 80}
        assert (split[seed::5] == "test").all()
    with pytest.raises(ValueError, match=r"the folds 0 to 4\. Received: seed=5"):
        split_manifest(table, study, protocol="published", seed=5)


@pytest.fixture
def drawn_flowers():
    """The drawn flower study: a fold trains and the rest tests."""
    return studies.get_study("flowers", drawn=True)


def test_careful_folds_of_drawings_train_on_each_image_exactly_once(small, drawn_flowers):
    folds = [split_manifest(small, drawn_flowers, protocol="careful", seed=seed) for seed in range(splits.FOLDS)]
    trained = sum((fold["split"] == "train").astype(int) for fold in folds)
    assert trained.tolist() == [1] * len(small)


def test_a_fold_that_trains_is_the_fold_that_tests_elsewhere(small, flowers, drawn_flowers):
    for protocol in splits.PROTOCOLS:
        found, drawn = (split_manifest(small, study, protocol=protocol, seed=3) for study in (flowers, drawn_flowers))
        assert (found["split"] == "test").tolist() == (drawn["split"] == "train").tolist()


def test_published_protocol_trains_on_a_fifth_of_drawings(small, drawn_flowers):
    table = split_manifest(small, drawn_flowers, protocol="published")
    assert table["split"].value_counts().to_dict() == {"train": 80, "test": 320}
    trained = table.loc[table["split"] == "train", "label"].value_counts()
    assert trained[list(CLASS_NAMES)].tolist() == [12, 20, 16, 12, 20]


def planned_manifest():
    """The manifest of the planned drawings, as it is when every fault is found; nothing is drawn."""
    plan = collection.plan_files(CLASS_NAMES)
    verdicts = plan["fault"].where(plan["fault"].isin(collection.UNREADABLE), "ok").str.replace(" ", "_")
    pictures = plan.groupby(["species", "index"]).ngroup()
    readable = verdicts == "ok"
    groups = pictures.where(readable, pictures.max() + 1 + np.arange(len(plan)))
    labels = plan["label"].where(readable).groupby(groups).transform("nunique")
    table = catalogue(plan["label"].value_counts(sort=False).to_dict())
    return table.assign(
        path=plan["file"], label=plan["label"], verdict=verdicts.mask(labels > 1, "two_classes"), group=groups
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("protocol", splits.PROTOCOLS)
def test_drawings_train_on_few_pictures_and_test_on_many(drawn_flowers, protocol, seed):
    planned = planned_manifest()
    assert planned["verdict"].value_counts()[["empty", "truncated", "not_an_image"]].tolist() == [5, 5, 5]
    assert (planned["verdict"] == "two_classes").sum() >= 10
    table = split_manifest(planned, drawn_flowers, protocol=protocol, seed=seed)
    trained = table.loc[table["split"] == "train", "label"].value_counts()
    assert sorted(trained.index) == sorted(CLASS_NAMES)
    assert trained.between(50, 60).all()
    assert (table["split"] == "test").sum() >= 1000


@pytest.mark.parametrize("per_class", [5, 8, 9])
@pytest.mark.filterwarnings("ignore:The least populated class")
def test_careful_protocol_works_on_a_few_images_per_class(flowers, per_class):
    table = split_manifest(catalogue(dict.fromkeys(flowers.class_names, per_class)), flowers)
    counts = table["split"].value_counts()
    assert counts.sum() == 5 * per_class
    assert counts["test"] == pytest.approx(per_class, abs=1)
    assert counts["validation"] == 5


@pytest.mark.parametrize("protocol", splits.PROTOCOLS)
def test_seed_decides_the_split(small, flowers, protocol):
    first, again = (split_manifest(small, flowers, protocol=protocol, seed=1) for _ in range(2))
    other = split_manifest(small, flowers, protocol=protocol, seed=2)
    pd.testing.assert_frame_equal(first, again)
    assert (first["split"] != other["split"]).mean() > 0.1


def test_splitting_leaves_the_manifest_as_it_was(small, flowers):
    before = small.copy()
    split_manifest(small, flowers, protocol="careful")
    pd.testing.assert_frame_equal(small, before)


@pytest.mark.parametrize(
    ("protocol", "seed", "message"),
    [
        ("careless", 0, r"one of \['published', 'careful'\]\. Received: protocol='careless'"),
        ("careful", 5, r"the folds 0 to 4\. Received: seed=5"),
        ("careful", -1, r"A seed is 0 or more; .* Received: seed=-1"),
        ("published", -1, r"A seed is 0 or more; .* Received: seed=-1"),
    ],
)
def test_unknown_protocol_or_fold_is_answered_with_the_allowed_ones(small, flowers, protocol, seed, message):
    with pytest.raises(ValueError, match=message):
        split_manifest(small, flowers, protocol=protocol, seed=seed)


def test_unknown_split_is_answered_with_the_allowed_ones(small, flowers):
    table = split_manifest(small, flowers)
    with pytest.raises(ValueError, match=r"one of \['train', 'validation', 'test'\]\. Received: split='dev'"):
        rows_of(table, "dev")


def test_published_protocol_validates_on_its_test_part_and_careful_on_its_own(small, flowers):
    published = split_manifest(small, flowers, protocol="published")
    pd.testing.assert_frame_equal(rows_of(published, "validation"), rows_of(published, "test"))
    careful = split_manifest(small, flowers, protocol="careful")
    assert set(rows_of(careful, "validation")["split"]) == {"validation"}
    assert sum(len(rows_of(careful, part)) for part in ("train", "validation", "test")) == 400


def test_leaks_are_test_images_with_a_duplicate_in_training():
    table = pd.DataFrame(
        {
            "split": ["train", "train", "test", "test", "test", "test", "validation"],
            "group": [0, 1, 0, 0, 2, 3, 3],
        }
    )
    assert count_leaks(table) == 2


def test_published_protocol_leaks_where_there_are_duplicates(small, published, flowers):
    assert count_leaks(split_manifest(small, flowers, protocol="published")) > 0
    assert count_leaks(split_manifest(published, flowers, protocol="published")) == 0


def test_class_with_fewer_images_than_folds_is_named(flowers):
    rows = [{"label": name, "sha256": f"{name}{i}"} for name in flowers.class_names for i in range(6)]
    table = pd.DataFrame(rows).iloc[3:].assign(group=range(27), verdict="ok", part="")
    with pytest.raises(ValueError, match=r"at least 5 different images of every class\. Received: 3 of 'daisy'"):
        split_manifest(table, flowers, protocol="careful", seed=0)


def test_few_training_images_a_class_are_part_of_more_and_the_other_splits_stay(small, flowers):
    table = split_manifest(small, flowers, seed=2)
    few, more, other = (splits.limit_per_class(table, n, seed=seed) for n, seed in ((3, 0), (9, 0), (3, 1)))
    counts = few[few["split"] == "train"]["label"].value_counts()
    assert counts.to_dict() == dict.fromkeys(CLASS_NAMES, 3)
    trained = [set(t.loc[t["split"] == "train", "path"]) for t in (few, more, other)]
    assert trained[0] < trained[1]
    assert trained[0] != trained[2]
    assert few[few["split"] != "train"].equals(table[table["split"] != "train"])


@pytest.mark.parametrize("per_class", [0, 1000])
def test_more_training_images_than_a_class_has_are_refused(small, flowers, per_class):
    message = f"between 1 and [0-9]+ training images here. Received: per_class={per_class}"
    with pytest.raises(ValueError, match=message):
        splits.limit_per_class(split_manifest(small, flowers), per_class)


@pytest.fixture
def own(tmp_path):
    """A study of one's own with two classes."""
    return replace(studies.get_study("flowers"), class_names=("a", "b"), folder=tmp_path)


@pytest.mark.parametrize("seed", range(5))
def test_groups_of_unequal_size_leave_every_part_every_class(own, seed):
    sizes = (12, 9, 3, 3, 2, 1)
    table = catalogue(dict.fromkeys("ab", sum(sizes))).assign(group=np.repeat(range(12), sizes * 2))
    found = split_manifest(table, own, seed=seed)
    assert pd.crosstab(found["split"], found["label"]).to_numpy().min() > 0
    assert len(found.drop_duplicates(["group", "split"])) == found["group"].nunique()


def test_groups_that_cannot_be_spread_are_named_with_what_to_do(own):
    table = catalogue(dict.fromkeys("ab", 20)).assign(group=np.repeat(range(4), 10))
    with pytest.raises(ValueError, match=r"20 images of 'a' form 2 groups.*near_duplicates=.off"):
        split_manifest(table, own)


def test_pictures_of_ones_own_have_no_published_protocol(own):
    with pytest.raises(ValueError, match=r"'careful'\. Received: protocol='published'"):
        split_manifest(catalogue(dict.fromkeys("ab", 20)), own, protocol="published")


@pytest.mark.parametrize("seed", [0.5, "1", None])
def test_seed_is_a_whole_number(small, flowers, seed):
    with pytest.raises(ValueError, match="Received: seed="):
        split_manifest(small, flowers, seed=seed)
