"""Predicts the classes of any number of pictures with a saved model; can be stopped and started again.

python -m tlhelpers predict MODEL FOLDER --out predictions.csv
"""

import collections
import csv
import itertools
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from scipy.special import softmax

from tlhelpers import devices, features, files, loaders, manifest, training

FACTS = ("path", "verdict", "reason", "predicted", "confidence")
BATCH_SIZE = 32
DIGITS = 6  # of a probability


class Picture(NamedTuple):
    """A file that may be a picture: its pixels, uint8 `(side, side, 3)`, or None with a verdict and a reason."""

    path: Path
    pixels: np.ndarray | None
    verdict: str = "ok"
    reason: str = ""


def predict_folder(model_path, folder, destination, *, class_names=None, batch_size=BATCH_SIZE):
    """Writes a table of what a model says about every picture below a folder.

    Pictures are read while the model works, a few batches ahead, so that memory does not grow with their number.
    A run that was stopped goes on where it was.

    Args:
        model_path: Path. A model as `training.save_model` leaves it: images in 0..255 to logits.
        folder: Path. Every file below it is looked at, hidden ones left out.
        destination: Path. A CSV file with a row per file: path below `folder`, verdict (`"ok"`, `"converted"`, or what
            is wrong with the file), reason, the predicted class, its probability, and the probability of each class.
        class_names: list of str or None. None means those that were saved with the model, or else numbers.
        batch_size: int, at least 1.

    Returns:
        dict from a verdict to how many files have it, int.

    Raises:
        FileExistsError: when `destination` is there already.
        FileNotFoundError: when the model or the folder is not there.
        ValueError: when there is not one name for each class.
    """
    folder, destination = Path(folder), Path(destination)
    if destination.exists():
        raise FileExistsError(f"Predictions go into a new file; remove or rename the old one. Received: {destination}")
    if not folder.is_dir():
        raise FileNotFoundError(f"Pictures are looked for below a folder. Received: {folder}")
    model = training.load_model(model_path)
    names = check_class_names(class_names or training.saved_class_names(model_path), model.output_shape[-1])
    unfinished = _unfinished(destination, model_path, folder, names)
    counted, done = collections.Counter(), set()
    for row in _read_rows(unfinished):
        counted[row["verdict"]] += 1
        done.add(row["path"])
    paths = (path for path in list_files(folder) if _shown(path, folder) not in done)
    with open(unfinished, "a", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        if not stream.tell():
            writer.writerow([*FACTS, *names])
        for rows in files.progress(
            predict_batches(features.compile_frozen(model), model.input_shape[1], paths, folder, names, batch_size),
            description="Predicting",
            unit="batch",
        ):
            writer.writerows(rows)
            stream.flush()
            counted.update(row[1] for row in rows)
    unfinished.rename(destination)
    return dict(counted)


def list_files(folder):
    """Yields the Path of every file below a folder, in the order of their names, hidden ones left out."""
    with os.scandir(folder) as entries:
        shown = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in shown:
        if entry.is_dir(follow_symlinks=False):
            yield from list_files(entry.path)
        elif entry.is_file():
            yield Path(entry.path)


def read_picture(path, image_size):
    """Reads one file as the loaders of the book do, upright and in colour.

    Args:
        path: Path.
        image_size: int. Side, pixels.

    Returns:
        Picture. Without pixels when the file cannot be used.
    """
    try:
        verdict, reason, image = manifest.open_image(path, decode=False)
        if verdict == "ok":
            return Picture(path, loaders.read_image(str(path), image_size).numpy())
    except tf.errors.InvalidArgumentError:
        verdict, reason, image = manifest.open_image(path)
        if verdict == "ok":
            verdict, reason = "converted", manifest.REFUSED
    pixels = None if image is None else loaders.resize(np.asarray(image), image_size).numpy()
    return Picture(path, pixels, verdict, reason)


def check_class_names(names, count):
    """The names of a model's classes, a list of str; numbers where there are none.

    Raises:
        ValueError: when there is not one name for each class.
    """
    names = list(names) if names else [f"class {index}" for index in range(count)]
    if len(names) != count or len(set(names)) != count:
        raise ValueError(f"A model of {count} classes needs as many different names. Received: {names}")
    return names


def predict_batches(call, image_size, paths, folder, names, batch_size=BATCH_SIZE):
    """Predicts files batch by batch while the next ones are read.

    Args:
        call: callable, as from `features.compile_frozen`.
        image_size: int. Side of the images it takes, pixels.
        paths: iterable of Path.
        folder: Path. The folder from which their names start.
        names: list of str. The classes.
        batch_size: int, at least 1.

    Yields:
        list of rows of the table, bad files among them.
    """
    pictures = _read_ahead(paths, image_size, 2 * batch_size)
    while batch := list(itertools.islice(pictures, batch_size)):
        good = [picture.pixels for picture in batch if picture.pixels is not None]
        found = iter(softmax(call(np.stack(good).astype("float32")).numpy(), axis=1) if good else ())
        yield [_row(picture, folder, names, None if picture.pixels is None else next(found)) for picture in batch]


def _read_ahead(paths, image_size, count):
    """Yields pictures in order, of which a number are being read by other threads meanwhile."""
    with ThreadPoolExecutor(devices.available_cores()) as pool:
        waiting = collections.deque()
        for path in paths:
            waiting.append(pool.submit(read_picture, path, image_size))
            if len(waiting) > count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _row(picture, folder, names, probabilities):
    facts = [_shown(picture.path, folder), picture.verdict, picture.reason]
    if probabilities is None:
        return [*facts, "", "", *("" for _ in names)]
    best = int(probabilities.argmax())
    return [*facts, names[best], *(f"{value:.{DIGITS}f}" for value in (probabilities[best], *probabilities))]


def _shown(path, folder):
    """A file's path below a folder, on one line whatever its name."""
    text = str(path.relative_to(folder))
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def _unfinished(destination, model_path, folder, names):
    """Where the rows stand until all are there: another model, folder or other names go on in another file."""
    task = json.dumps([files.sha256_of(model_path), str(folder.resolve()), names])
    return destination.with_name(f"{destination.name}.{files.sha256_of_text(task)[:8]}.part")


def _read_rows(unfinished):
    """Yields the whole rows of a run that was stopped, and cuts off half a one at its end."""
    if not unfinished.is_file():
        return
    with open(unfinished, "rb+") as stream:
        stream.seek(0, os.SEEK_END)
        end = stream.tell()
        stream.seek(max(0, end - 65536))
        last = stream.read().rfind(b"\n")
        stream.truncate(max(0, end - 65536) + last + 1)
    with open(unfinished, encoding="utf-8", newline="") as stream:
        yield from csv.DictReader(stream)
