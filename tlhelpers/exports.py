"""Models as files that need neither Keras nor Python, and what a page needs beside them to run them in a browser."""

import json
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from tlhelpers import features, files, inputs
from tlhelpers.keras_settings import keras

CARD = "classifier.json"
CHECKED_IMAGES, LARGEST_DIFFERENCE = 2, 1e-2  # of an answer, relative where it is above 1


def export_model(model, path):
    """Writes a model as a LiteRT file: its operations one after the other, its weights as constants among them.

    What the file answers is held against what Keras answers before it is kept.

    As `model.export(path, format="litert")`, which goes by way of a SavedModel: that takes several times as long.

    Args:
        model: keras.Model of one input and one output, from images `(n, height, width, 3)`.
        path: Path, ending in `.tflite`. The file takes one float32 image at a time, of the model's own size, by the
            name of `image`, and returns `output`.

    Raises:
        ValueError: when the model is not built, has several inputs or outputs, or takes images of any size, when the
            path ends in something else, or when the file would answer otherwise than Keras does.
        ModuleNotFoundError: when LiteRT, which is an extra of this package, is not installed.
    """
    if Path(path).suffix != ".tflite":
        raise ValueError(f"An exported model is a file that ends in .tflite. Received: path={str(path)!r}")
    shape = (1, *inputs.check_model(model).input_shape[1:])
    if None in shape:
        raise ValueError(f"A model is exported for images of one size. Received: input_shape={model.input_shape}")
    frozen, module = features.compile_frozen(model), tf.Module()
    signature = [tf.TensorSpec(shape, tf.float32, name="image")]
    module.call = tf.function(lambda image: {"output": frozen(image)}, input_signature=signature)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.call.get_concrete_function()], module)
    content = converter.convert()
    _check_answers(model, content, shape)
    with files.atomic_file(path) as temporary:
        temporary.write_bytes(content)


def _load_interpreter():
    """LiteRT's class that runs exported models, which not every reader needs."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('What is exported is run by LiteRT: pip install "tlhelpers[litert]"') from error
    return Interpreter


def _check_answers(model, content, shape):
    """Raises a ValueError when an exported model answers otherwise than the one it was made from."""
    images = np.random.default_rng(0).uniform(0, 255, (CHECKED_IMAGES, *shape[1:])).astype("float32")
    runner = _load_interpreter()(model_content=content).get_signature_runner()
    found = np.concatenate([runner(image=image[np.newaxis])["output"] for image in images])
    expected = keras.ops.convert_to_numpy(model(images, training=False))
    apart = float(np.max(np.abs(found - expected) / np.maximum(1, np.abs(expected))))
    if not apart <= LARGEST_DIFFERENCE:
        raise ValueError(
            f"An exported model answers as Keras does, within {LARGEST_DIFFERENCE:g}. "
            f"Received: {model.name!r}, whose file is {apart:g} away"
        )


def save_classifier(folder, models, samples, drawings, class_names, *, note=""):
    """Writes the images a reader can choose from and the card that names all files, last of all.

    Args:
        folder: Path. Where `<name>.tflite` lies for each model.
        models: dict from a name to the keras.Model it was exported from, which ends in logits; all take images
            of one size.
        samples: dict with `images`, uint8 array `(n, size, size, 3)` in 0..255, and `labels`, sequence of n str:
            images of the study.
        drawings: dict of the same kind: images nobody has trained or chosen by.
        class_names: sequence of str, in the order of the probabilities.
        note: str. What a reader is told who gives a photo.

    Raises:
        ValueError: when a model was not exported; the message names the missing file.
    """
    folder = Path(folder)
    missing = [name for name in models if not (folder / f"{name}.tflite").is_file()]
    if missing:
        raise ValueError(f"Each model lies in {folder} as <name>.tflite. Received: {missing}, not exported")
    card = {
        "image_size": int(samples["images"].shape[1]),
        "class_names": list(class_names),
        "note": note,
        "models": [_describe_model(folder, name) for name in models],
        "samples": _write_pictures(folder, "sample", models, **samples),
        "drawings": _write_pictures(folder, "drawing", models, **drawings),
    }
    files.write_text(folder / CARD, json.dumps(card))


def _describe_model(folder, name):
    path = folder / f"{name}.tflite"
    return {"name": name, "file": path.name, "bytes": path.stat().st_size}


def _write_pictures(folder, kind, models, images, labels):
    """Writes images without loss, so that a browser sees the pixels that Keras saw, and says what it said."""
    said = {name: keras.ops.softmax(model(images.astype("float32"))).numpy() for name, model in models.items()}
    rows = []
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / f"{kind}-{index}.png"
        with files.atomic_file(path) as temporary:
            Image.fromarray(image).save(temporary)
        rows.append({"file": path.name, "label": label, "keras": {name: said[name][index].tolist() for name in models}})
    return rows
