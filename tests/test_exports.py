"""Exported models, and what the page with the classifier finds beside them."""

import json
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

from tlhelpers import exports, settings, training
from tlhelpers.book import programs

NAMES = ["daisy", "rose"]


@pytest.fixture
def model():
    """A model of two classes for pictures of 8 pixels a side."""
    return keras.Sequential([keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])


@pytest.fixture
def pictures():
    """Three pictures and their labels."""
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    return {"images": images, "labels": ["daisy", "rose", "rose"]}


def test_a_machine_without_litert_is_told_how_to_get_it(monkeypatch, tmp_path, model):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "tlhelpers\[litert\]"'):
        exports.export_model(model, tmp_path / "model.tflite")
    assert not (tmp_path / "model.tflite").exists()


def test_an_exported_model_answers_as_keras_does_one_picture_at_a_time(tmp_path, model, pictures):
    norm = keras.layers.BatchNormalization()
    whole = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), norm, *model.layers[:1]])
    norm.moving_mean.assign([3.0, -2.0, 1.0, 0.0])
    exports.export_model(whole, tmp_path / "whole.tflite")
    runner = Interpreter(str(tmp_path / "whole.tflite")).get_signature_runner()
    assert runner.get_input_details()["image"]["shape"].tolist() == [1, 8, 8, 3]
    images = pictures["images"].astype("float32")
    answers = [runner(image=image[np.newaxis])["output"][0] for image in images]
    np.testing.assert_allclose(answers, whole(images), rtol=1e-4, atol=1e-3)


def test_a_model_for_pictures_of_any_size_is_not_exported(tmp_path):
    anything = keras.Sequential([keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D()])
    with pytest.raises(ValueError, match=r"of one size\. Received: input_shape=\(None, None, None, 3\)"):
        exports.export_model(anything, tmp_path / "exports" / "anything.tflite")
    assert not (tmp_path / "exports").exists()


def test_an_export_that_breaks_leaves_the_file_there_was(tmp_path, model, monkeypatch):
    def refuse(converter):
        raise RuntimeError("not convertible")

    older = tmp_path / "exports" / "model.tflite"
    older.parent.mkdir()
    older.write_bytes(b"older")
    monkeypatch.setattr(type(tf.lite.TFLiteConverter.from_concrete_functions([])), "convert", refuse)
    with pytest.raises(RuntimeError, match="not convertible"):
        exports.export_model(model, older)
    assert [path.read_bytes() for path in older.parent.iterdir()] == [b"older"]


def test_the_card_names_every_file_with_its_size_and_what_keras_says(tmp_path, model, pictures):
    (tmp_path / "small.tflite").write_bytes(b"12345")
    first = {k: v[:1] for k, v in pictures.items()}
    exports.save_classifier(tmp_path, {"small": model}, pictures, first, NAMES, note="It knows drawings.")
    card = json.loads((tmp_path / exports.CARD).read_text(encoding="utf-8"))
    assert (card["image_size"], card["class_names"]) == (8, NAMES)
    assert card["note"] == "It knows drawings."
    assert card["models"] == [{"name": "small", "file": "small.tflite", "bytes": 5}]
    assert [sample["label"] for sample in card["samples"]] == pictures["labels"]
    assert [drawing["file"] for drawing in card["drawings"]] == ["drawing-0.png"]
    said = [sample["keras"]["small"] for sample in card["samples"]]
    expected = training.predict_probabilities(model, pictures["images"].astype("float32"))
    np.testing.assert_allclose(said, expected, atol=1e-6)


def test_pictures_reach_the_browser_without_loss(tmp_path, model, pictures):
    (tmp_path / "small.tflite").write_bytes(b"")
    exports.save_classifier(tmp_path, {"small": model}, pictures, pictures, NAMES)
    for index, image in enumerate(pictures["images"]):
        with Image.open(tmp_path / f"sample-{index}.png") as written:
            np.testing.assert_array_equal(np.asarray(written), image)


def test_a_model_that_was_not_exported_is_named_and_no_card_is_written(tmp_path, model, pictures):
    with pytest.raises(ValueError, match=r"<name>\.tflite\. Received: \['small'\], not exported"):
        exports.save_classifier(tmp_path, {"small": model}, pictures, pictures, NAMES)
    assert not (tmp_path / exports.CARD).exists()


def test_the_page_knows_how_large_the_program_is_that_it_loads():
    text = (settings.PROJECT_FOLDER / "book/_static/classifier/classifier.js").read_text(encoding="utf-8")
    size = (programs.programs_folder() / "classifier" / "litert_wasm_compat_internal.wasm").stat().st_size
    assert f"const RUNTIME_BYTES = {size};" in text


def test_a_file_that_answers_otherwise_than_keras_is_not_kept(tmp_path, model, monkeypatch):
    other = keras.models.clone_model(model)
    convert = exports.features.compile_frozen
    monkeypatch.setattr(exports.features, "compile_frozen", lambda _: convert(other))
    with pytest.raises(ValueError, match=r"answers as Keras does, within .* Received: .* away"):
        exports.export_model(model, tmp_path / "model.tflite")
    assert list(tmp_path.glob("*.tflite")) == []


def test_models_that_cannot_be_exported_are_refused_with_the_reason(tmp_path, model):
    image, table = keras.Input((8, 8, 3)), keras.Input((2,))
    pooled = keras.layers.GlobalAveragePooling2D()(image)
    wrong = {
        "2 inputs": keras.Model([image, table], keras.layers.Concatenate()([pooled, table])),
        "2 outputs": keras.Model(image, [pooled, pooled]),
        "no inputs yet": keras.Sequential([keras.layers.Dense(2)]),
        "one size": keras.Sequential([keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D()]),
    }
    for said, stranger in wrong.items():
        with pytest.raises(ValueError, match=rf"{said}"):
            exports.export_model(stranger, tmp_path / "model.tflite")
    with pytest.raises(ValueError, match=r"ends in \.tflite\. Received: path="):
        exports.export_model(model, tmp_path / "model.keras")


def test_augmentation_inside_a_model_and_a_backbone_as_one_layer_are_exported(tmp_path, model):
    whole = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.RandomFlip(), model])
    exports.export_model(whole, tmp_path / "a.tflite")
    assert (tmp_path / "a.tflite").is_file()
