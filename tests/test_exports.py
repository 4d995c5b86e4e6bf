"""What the page with the classifier finds beside the exported models."""

import json

import keras
import numpy as np
import pytest
from PIL import Image

from tlhelpers import exports, settings, training

NAMES = ["daisy", "rose"]
RUNTIME = settings.PROJECT_FOLDER / "book" / "_static" / "classifier"


@pytest.fixture
def model():
    """A model of two classes for pictures of 8 pixels a side."""
    return keras.Sequential([keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])


@pytest.fixture
def pictures():
    """Three pictures and their labels."""
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    return {"images": images, "labels": ["daisy", "rose", "rose"]}


def test_the_card_names_every_file_with_its_size_and_what_keras_says(tmp_path, model, pictures):
    (tmp_path / "small.tflite").write_bytes(b"12345")
    exports.save_classifier(tmp_path, {"small": model}, pictures, {k: v[:1] for k, v in pictures.items()}, NAMES)
    card = json.loads((tmp_path / exports.CARD).read_text(encoding="utf-8"))
    assert (card["image_size"], card["class_names"]) == (8, NAMES)
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
    text = (RUNTIME / "classifier.js").read_text(encoding="utf-8")
    size = (RUNTIME / "litert_wasm_compat_internal.wasm").stat().st_size
    assert f"const RUNTIME_BYTES = {size};" in text
