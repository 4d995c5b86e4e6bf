"""The table of studies agrees with the numbers their sources published."""

import re
from dataclasses import FrozenInstanceError, replace

import pytest

from tlhelpers import models
from tlhelpers.datasets import studies
from tlhelpers.datasets.studies import STUDIES, get_study, published_model, published_numbers


@pytest.fixture(params=sorted(STUDIES))
def study(request):
    return get_study(request.param)


@pytest.fixture(params=sorted(set(STUDIES) - {"fashion_half"}))
def published_study(request):
    """Each study that a source published."""
    return get_study(request.param)


def test_published_class_counts_sum_to_the_published_images(published_study):
    study, published = published_study, published_numbers(published_study.name)
    assert sum(published["class_counts"].values()) == published["images"] == study.published_count


def test_published_training_and_test_parts_sum_to_the_published_images(published_study):
    study, published = published_study, published_numbers(published_study.name)
    assert published["train"] + published["test"] == published["images"]
    assert published["test"] == study.published_test_count


def test_published_classes_are_the_studys_in_label_order(published_study):
    study = published_study
    assert tuple(published_numbers(study.name)["class_counts"]) == study.class_names
    assert study.num_classes == len(study.class_names)


def test_study_that_nobody_published_has_no_published_models():
    assert published_numbers("fashion_half") == {"models": []}
    assert studies.published_models("fashion_half") == {}


def test_half_of_the_clothes_are_some_of_the_whole_study_in_the_same_files():
    half, whole = get_study("fashion_half"), get_study("fashion_mnist")
    assert set(half.class_names) < set(whole.class_names)
    assert (half.archives, half.places, half.label_names) == (whole.archives, whole.places, whole.label_names)


def test_flower_study_has_the_published_4317_images():
    flowers = get_study("flowers")
    published = published_numbers("flowers")
    assert (flowers.published_count, published["train"], published["test"]) == (4317, 3454, 863)
    assert flowers.num_classes == 5


def test_study_names_a_backbone_that_its_source_published(study):
    networks = {model["network"] for model in published_numbers(study.name)["models"]}
    if study.backbone:
        assert study.backbone in models.BACKBONES
        assert study.backbone in networks


def test_drawn_edition_differs_in_its_pictures_and_their_splits_alone(study):
    drawn = get_study(study.name, drawn=True)
    assert (study.drawn, study.fold_part) == (False, "test")
    assert (drawn.drawn, drawn.fold_part, drawn.places) == (True, study.drawn_fold_part, studies.ANYWHERE)
    assert drawn.image_size == study.drawn_size
    found = {
        "title": study.title,
        "drawn": False,
        "fold_part": "test",
        "places": study.places,
        "image_size": study.image_size,
        "tables": study.tables,
    }
    assert replace(drawn, **found) == study
    assert get_study(study.name) == study
    assert (study.pictures, drawn.pictures) == (f"photographs of {study.shows}", f"drawn {study.shows}")
    assert drawn.title == f"synthetic {study.shows}"  # never the name of the real images


@pytest.mark.parametrize("function", [get_study, published_numbers, lambda name: published_model(name, "any")])
def test_unknown_study_is_answered_with_the_allowed_ones(function):
    with pytest.raises(ValueError, match=rf"one of {re.escape(str(sorted(STUDIES)))}. Received: name='birds'"):
        function("birds")


@pytest.mark.parametrize(
    ("model", "accuracy", "trainable"),
    [
        ("baseline_cnn-scratch", 0.67, "about 11.17 million"),
        ("mobilenetv2_100-frozen", 0.88, "about 160 thousand"),
        ("mobilenetv2_100-last6", 0.91, None),
    ],
)
def test_published_models_are_quoted(model, accuracy, trainable):
    row = published_model("flowers", model)
    assert (row["accuracy"], row.get("trainable_parameters")) == (accuracy, trainable)


@pytest.mark.parametrize(
    ("study", "model", "metric", "expected", "words"),
    [
        ("flowers", "baseline_cnn-scratch", "accuracy", (0.67, 0.67), "67%"),
        ("fashion_mnist", "small_cnn-scratch", "accuracy", (0.90, 0.91), "90% to 91%"),
        ("fashion_mnist", "small_cnn-scratch", "macro_f1", (0.91, 0.91), "91%"),
    ],
)
def test_published_metrics_are_quoted_as_a_number_or_a_range(study, model, metric, expected, words):
    assert studies.published_range(study, model, metric) == expected
    assert studies.quote(study, model, metric) == words


def test_unpublished_metric_is_answered_with_the_published_ones():
    with pytest.raises(ValueError, match=r"published \['accuracy', .*Received: metric='macro_f1'"):
        studies.published_range("flowers", "baseline_cnn-scratch", "macro_f1")


def test_unknown_model_is_answered_with_the_published_ones():
    with pytest.raises(ValueError, match=r"published \['baseline_cnn-scratch', .*Received: model='resnet-frozen'"):
        published_model("flowers", "resnet-frozen")


def test_studies_cannot_be_changed_by_accident():
    with pytest.raises(FrozenInstanceError):
        studies.STUDIES["flowers"].image_size = 32


def test_classes_in_words_have_no_underscore():
    assert get_study("fashion_mnist").class_words[0] == "t shirt"
    assert get_study("flowers").class_words == list(get_study("flowers").class_names)


def test_a_folder_of_ones_own_becomes_a_study_of_its_subfolders(tmp_path):
    for name in ("oak", "birch", ".cache"):
        (tmp_path / "leaves" / name).mkdir(parents=True)
    (tmp_path / "leaves" / "notes.txt").touch()
    study = studies.describe_folder(tmp_path / "leaves", image_size=96)
    assert (study.title, study.class_names, study.image_size) == ("leaves", ("birch", "oak"), 96)
    assert study.folder == tmp_path / "leaves"
    assert not study.drawn


def test_folders_of_one_name_are_told_apart_by_their_contents_and_shown_by_their_name(tmp_path):
    for place, content in (("one", "a"), ("two", "b"), ("three", "a")):
        for label in ("oak", "birch"):
            (tmp_path / place / "flowers" / label).mkdir(parents=True)
            (tmp_path / place / "flowers" / label / "1.jpg").write_text(content)
    one, two, three = (studies.describe_folder(tmp_path / place / "flowers") for place in ("one", "two", "three"))
    assert one.name != two.name
    assert one.name == three.name
    assert one.title == two.title == "flowers"
    assert one.name not in STUDIES


def make_files(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize("inner", ["", "flowers/"])
@pytest.mark.parametrize(
    ("train", "held"),
    [("train", "test"), ("Training", "VALID"), ("training_set", "test_set"), ("seg_train", "Testing")],
)
def test_folders_of_parts_are_official_parts(tmp_path, inner, train, held):
    names = [f"{inner}{part}/{label}/1.jpg" for part in (train, held) for label in ("oak", "birch")]
    study = studies.describe_folder(make_files(tmp_path / "p", names))
    assert study.class_names == ("birch", "oak")
    assert list(study.places) == ["train", "test"]
    assert study.places["train"].of("oak") == f"{train}/oak"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train/oak/1", "train/birch/1", "test/oak/1"), r"Missing: \{'test': \['birch'\]\}"),
        (("train/oak/1", "train/birch/1", "other/1"), r"\['train'\] beside \['other'\]"),
        (("train/1", "test/1"), "none below them"),
        (("val/oak/1", "val/birch/1", "test/oak/1", "test/birch/1"), "one for training"),
    ],
)
def test_parts_that_do_not_fit_are_refused_with_the_reason(tmp_path, names, message):
    with pytest.raises(ValueError, match=message):
        studies.describe_folder(make_files(tmp_path / "p", names))


@pytest.mark.parametrize("folder", ["", None, 3, "/no/where"])
def test_what_is_no_folder_is_refused(folder):
    with pytest.raises(ValueError, match=r"Images are read from a folder.*Received"):
        studies.describe_folder(folder)


@pytest.mark.parametrize("inner", [(), ("oak",)])
def test_a_folder_with_fewer_than_two_classes_is_refused_with_what_is_there(tmp_path, inner):
    for name in ("", *inner):
        (tmp_path / "leaves" / name).mkdir(parents=True, exist_ok=True)
    with pytest.raises(
        ValueError, match=rf"at least two subfolders.*Received: .*leaves' .*{re.escape(str(list(inner)))}"
    ):
        studies.describe_folder(tmp_path / "leaves")
