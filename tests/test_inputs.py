"""What comes from outside: taken in any unambiguous form, refused by name, shape, dtype and range in any other."""

import keras
import numpy as np
import pytest

from tlhelpers import inputs, settings
from tlhelpers.experiments import records

Y = np.array([0, 2, 1, 2])
FORMS = {
    "column": Y[:, None],
    "one-hot": np.eye(3)[Y],
    "bool one-hot": np.eye(3, dtype=bool)[Y],
    "list": Y.tolist(),
    "float": Y.astype("float32"),
    "small": Y.astype("uint8"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("classes", [None, 3])
def test_labels_are_the_same_in_every_unambiguous_form(form, classes):
    labels = inputs.check_labels(FORMS[form], classes=classes)
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, Y)


@pytest.mark.parametrize(
    ("labels", "received"),
    [
        (np.array(["a", "b"]), r"dtype <U1"),
        ([-1, 0], "-1 to 0"),
        ([0, 3], "0 to 3"),
        ([0.5, 1], "not all of them whole"),
        ([np.nan, 1], "not all of them whole"),
        (np.ones((2, 3)), r"shape \(2, 3\)"),
        (np.eye(4)[:2], r"shape \(2, 4\)"),
        (np.zeros((2, 1, 1)), r"shape \(2, 1, 1\)"),
        ([], r"shape \(0,\)"),
        (3, r"shape \(\)"),
        ([None, 1], "dtype object"),
    ],
)
def test_labels_of_another_kind_are_refused(labels, received):
    with pytest.raises(ValueError, match=rf"Labels are whole numbers from 0 on to 2.*Received: y_true .*{received}"):
        inputs.check_labels(labels, classes=3)


def test_probabilities_pass_in_single_and_half_precision():
    rows = np.random.default_rng(0).dirichlet(np.ones(200), 50)
    for dtype in ("float64", "float32", "float16"):
        assert inputs.check_probabilities(rows.astype(dtype), count=50, classes=200).dtype == dtype


@pytest.mark.parametrize(
    ("prob", "said"),
    [
        ([[3.0, -2.0], [0.5, 0.5]], "logits go through a softmax first.*-2 to 3"),
        ([[0.5, np.nan]], "all of them finite.*with NaN"),
        ([[0.5, 0.2]], "rows that sum to 0.7"),
        ([[1.0]], r"two columns.*shape \(1, 1\)"),
        ([0.5, 0.5], r"shape \(2,\)"),
        (np.empty((0, 2)), "at least one row"),
        ([["a", "b"]], "dtype <U1"),
    ],
)
def test_what_are_no_probabilities_is_refused(prob, said):
    with pytest.raises(ValueError, match=said):
        inputs.check_probabilities(prob)


@pytest.mark.parametrize("check", [inputs.check_labels, inputs.check_probabilities, inputs.check_images])
def test_rows_of_several_lengths_are_no_array(check):
    with pytest.raises(ValueError, match=r"is one array, with rows of one length\. Received: .* of type list"):
        check([[0, 1], [1]])


@pytest.mark.parametrize("options", [{"count": 3}, {"classes": 3}])
def test_probabilities_of_other_images_or_classes_are_refused(options):
    with pytest.raises(ValueError, match=r"Received: y_prob of shape \(2, 2\)"):
        inputs.check_probabilities(np.full((2, 2), 0.5), **options)


def test_every_committed_record_holds_labels_and_probabilities():
    folders = [settings.records_folder(), *(settings.records_folder() / "sweeps").iterdir()]
    packs = [path for folder in (*folders, settings.pocket_folder() / "records") for path in folder.glob("*.json")]
    found = [record for path in packs for record in records.load_records(path.stem, folder=path.parent)]
    assert len(found) > 100
    for record in found:
        for true, prob in ((record.y_true, record.y_prob), (record.validation_true, record.validation_prob)):
            if len(true):
                assert inputs.check_probabilities(prob, count=len(true)) is prob
                np.testing.assert_array_equal(inputs.check_labels(true, classes=prob.shape[1]), true)


IMAGES = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize("images", [IMAGES, IMAGES.astype("float32"), list(IMAGES), IMAGES.astype("uint16")])
def test_images_in_0_to_255_pass_whatever_their_type(images):
    np.testing.assert_array_equal(inputs.check_images(images, size=8), IMAGES)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (IMAGES[0], r"image\[None\]"),
        (IMAGES / 255, "look like 0..1"),
        (IMAGES[..., :1], r"shape \(2, 8, 8, 1\)"),
        (IMAGES[:0], "at least one"),
        (IMAGES.astype("uint16") * 200, "0..255"),
        (IMAGES - 128.0, "0..255"),
        (np.full((1, 8, 8, 3), np.nan), "nan"),
        (np.zeros((1, 9, 8, 3)), r"shape \(1, 9, 8, 3\)"),
    ],
)
def test_images_of_another_kind_are_refused(images, said):
    with pytest.raises(ValueError, match=rf"Images have the shape \(n, 8, 8, 3\).*{said}"):
        inputs.check_images(images, size=8)


@pytest.mark.parametrize("size", [224, (224, 224), [224, 224], np.int64(224)])
def test_a_size_is_a_number_or_twice_the_same(size):
    assert inputs.check_image_size(size) == 224


@pytest.mark.parametrize("size", [0, -5, 64.0, "64", (64, 48), (64, 64, 3), None, True, ()])
def test_other_sizes_are_refused(size):
    with pytest.raises(ValueError, match=r"image_size is the side of square images.*Received: image_size="):
        inputs.check_image_size(size)


@pytest.mark.parametrize("value", [0, 11, 2.0, True, "3", None])
def test_a_whole_number_out_of_its_range_is_refused(value):
    assert inputs.check_whole(np.int32(10), name="count", low=1, high=10) == 10
    with pytest.raises(ValueError, match=r"count is a whole number, at least 1, at most 10. Received: count="):
        inputs.check_whole(value, name="count", low=1, high=10)


@pytest.mark.parametrize("names", ["ab", ["a", "a"], ["a", 1], ["a"]])
def test_class_names_are_as_many_different_texts_as_there_are_classes(names):
    assert inputs.check_class_names(("a", "b"), count=2) == ["a", "b"]
    with pytest.raises(ValueError, match=r"Class names are 2 different texts. Received: class_names="):
        inputs.check_class_names(names, count=2)


def test_a_model_has_one_input_and_one_output_and_is_built():
    one, other = keras.Input((3,)), keras.Input((3,))
    model = keras.Model(one, keras.layers.Dense(2)(one))
    assert inputs.check_model(model) is model
    wrong = {
        "2 inputs": keras.Model([one, other], keras.layers.Add()([one, other])),
        "2 outputs": keras.Model(one, [keras.layers.Dense(2)(one), one]),
        "has no inputs yet": keras.Sequential([keras.layers.Dense(2)]),
        "type dict": {},
    }
    for said, stranger in wrong.items():
        with pytest.raises(ValueError, match=f"one input and one output.*Received: .*{said}"):
            inputs.check_model(stranger)
