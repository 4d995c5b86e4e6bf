"""Predicts the classes of any number of images with a saved model; can be stopped and started again.

python -m tlhelpers predict MODEL FOLDER --out predictions.csv
"""

import collections
import contextlib
import csv
import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tlhelpers import answers, devices, features, files, identity, inputs, loaders, training
from tlhelpers.datasets import manifest

FACTS = ("path", "verdict", "reason", "predicted", "confidence")
BATCH_SIZE = 32
DIGITS = 6  # of a probability
PROBES = 8  # images of noise that show what a model's outputs are
UNFINISHED = ".part"


class Picture(NamedTuple):
    """A file that may be an image: its pixels, uint8 `(side, side, 3)`, or None with a verdict and a reason."""

    path: Path
    pixels: np.ndarray | None
    verdict: str = "ok"
    reason: str = ""


def predict_folder(model_path, folder, destination, *, class_names=None, image_size=None, batch_size=BATCH_SIZE):
    """Writes a table of the predictions of a model for every image below a folder.

    Images are read while the model runs, a few batches ahead, so that memory does not grow with their number.
    An interrupted run resumes where it stopped.

    Args:
        model_path: Path. A model as `training.save_model` saves it, from colour images in 0..255 to logits or
            probabilities of two or more classes, or to one logit or probability of the second of two classes.
        folder: Path. Every file below it is looked at, as `files.walk_files` finds them; or a single file.
        destination: Path. A CSV file with a row per file: path below `folder`, verdict (`"ok"`, `"converted"`, or what
            is wrong with the file), reason, the predicted class, its probability, and the probability of each class,
            `p(class)`. A missing folder around it is made.
        class_names: list of str or None. None means those that were saved with the model, or else numbers.
        image_size: int or None. Side of the images, pixels; asked for when the model takes images of any size.
        batch_size: int, at least 1.

    Returns:
        dict from a verdict to how many files have it, int.

    Raises:
        FileExistsError: when `destination` is there already.
        FileNotFoundError: when the model or the folder is not there.
        BlockingIOError: when another process writes the same table.
        ValueError: when the model is no classifier of square colour images, there is not one name for each class, there
            is no file, or an output is no number.
    """
    model_path, folder, destination = (Path(path).expanduser() for path in (model_path, folder, destination))
    batch_size = inputs.check_whole(batch_size, name="batch_size", low=1)
    _check_destination(destination)
    root, paths = _find_files(folder, destination)
    model = training.load_model(model_path)
    names = check_class_names(class_names or training.saved_class_names(model_path), answers.count_classes(model))
    image_size = check_input(model, image_size)
    call = compile_answers(model, image_size)
    unfinished = _unfinished(destination, model, folder, names, image_size)
    with _alone(destination):
        _check_destination(destination)
        counted = _write_rows(unfinished, call, image_size, paths, root, names, batch_size)
        unfinished.rename(destination)
    return dict(counted)


def _write_rows(unfinished, call, image_size, paths, folder, names, batch_size):
    """Adds the rows that are missing to an unfinished table; returns how many files have each verdict."""
    counted, done = collections.Counter(), set()
    for row in _read_rows(unfinished):
        counted[row["verdict"]] += 1
        done.add(row["path"])
    paths = (path for path in paths if _shown(path, folder) not in done)
    try:
        with open(unfinished, "a", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            if not stream.tell():
                writer.writerow([*FACTS, *map(name_column, names)])
            for rows in files.progress(
                predict_batches(call, image_size, paths, folder, names, batch_size),
                description="Predicting",
                unit="batch",
            ):
                writer.writerows(rows)
                stream.flush()
                counted.update(row[1] for row in rows)
    finally:
        if not counted:
            unfinished.unlink(missing_ok=True)
    if not counted:
        raise ValueError(
            "Images are looked for below a folder, hidden and system files left out. "
            f"Received: {files.shown_name(folder)!r}, in which there are 0 files"
        )
    return counted


def name_column(class_name):
    """What the column of a class's probability is called, str: never as one of the other columns."""
    return f"p({class_name})"


def check_input(model, image_size=None):
    """The side of the images that a model takes.

    Args:
        model: keras.Model of one input.
        image_size: int or None. What was asked for.

    Returns:
        int. Pixels.

    Raises:
        ValueError: when it does not take square colour images, or those of another size.
    """
    image_size = None if image_size is None else inputs.check_image_size(image_size)
    shape = tuple(inputs.check_model(model).input_shape)
    rule = "Models that classify images take batches of square images in colour, (None, side, side, 3)"
    if len(shape) != 4 or shape[0] is not None or shape[3] != 3 or shape[1] != shape[2]:
        raise ValueError(f"{rule}. Received: {model.name!r} for {shape}")
    if shape[1] is None and image_size is None:
        raise ValueError(f"{rule}; of one that takes any size, give image_size (--size). Received: image_size=None")
    if None not in (shape[1], image_size) and shape[1] != image_size:
        raise ValueError(f"{rule}; the size is the model's. Received: image_size={image_size}, the model {shape}")
    return shape[1] or image_size


def compile_answers(model, image_size):
    """A compiled call that answers with probabilities.

    Whether outputs are logits or probabilities follows from the last layers, or else from outputs for images of noise.

    Args:
        model: keras.Model, see `predict_folder`.
        image_size: int. Side of its images, pixels.

    Returns:
        callable from a float32 batch of images in 0..255 to a float32 array `(n, classes)`; rows sum to one.

    Raises:
        ValueError: when its outputs are neither logits nor probabilities.
    """
    answers.count_classes(model)
    kind, call = answers.read_ending(model), features.compile_frozen(model)
    noise = np.random.default_rng(0).integers(0, 256, (PROBES, image_size, image_size, 3)).astype("float32")
    outputs = call(noise).numpy()
    if kind == answers.UNKNOWN:
        kind = answers.guess_kind(outputs)
    answers.to_probabilities(outputs, kind)  # refuses what is no number
    return lambda images: answers.to_probabilities(call(images).numpy(), kind)


def _check_destination(destination):
    if destination.is_dir():
        raise IsADirectoryError(f"Predictions go into a file. Received: {files.shown_name(destination)!r}, a folder")
    if os.path.lexists(destination):
        raise FileExistsError(
            f"Predictions go into a new file; remove or rename the old one. Received: {files.shown_name(destination)!r}"
        )


@contextlib.contextmanager
def _alone(destination):
    """Lets one process at a time write a table."""
    lock = destination.with_name(f".{destination.name}.lock")
    with files.only_one(
        lock,
        "Predictions are written by one process at a time; wait for the other, or stop it. "
        f"Received: {files.shown_name(destination)!r}, which another process is writing",
    ):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _find_files(folder, destination):
    """The folder from which names start, and the files to look at."""
    if folder.is_file():
        return folder.parent, [folder]
    if not folder.is_dir():
        raise FileNotFoundError(f"Images are looked for below a folder. Received: {files.shown_name(folder)!r}")
    with os.scandir(folder):  # raises where it may not be read
        pass
    own = f"{destination.name}."  # an unfinished table of ours may be among the images
    place = destination.parent.resolve()
    return folder, (
        path
        for path in list_files(folder)
        if not (path.name.startswith(own) and path.suffix == UNFINISHED and path.parent.resolve() == place)
    )


def list_files(folder):
    """Yields the Path of every file below a folder, see `files.walk_files`; then of folders that cannot be read."""
    closed = []
    yield from files.walk_files(folder, on_error=closed.append)
    yield from (Path(error.filename) for error in closed)


def read_picture(path, image_size):
    """Reads one file as the loaders of the book do, upright and in colour.

    Args:
        path: Path.
        image_size: int. Side, pixels.

    Returns:
        `Picture`, without pixels when the file cannot be used.
    """
    try:
        verdict, reason, image = manifest.open_image(path, decode=False)
        if verdict == "ok":
            pixels = loaders.read_image(os.fsencode(path), image_size).numpy()
            return Picture(path, pixels, verdict, reason)
    except tf.errors.OpError:
        verdict, reason, image = manifest.open_image(path)
        if verdict == "ok":
            verdict, reason = "converted", manifest.REFUSED
    pixels = None if image is None else loaders.resize(np.asarray(image), image_size).numpy()
    return Picture(path, pixels, verdict, reason)


def check_class_names(names, count):
    """The names of a model's classes, a list of str on one line each; numbers where there are none.

    Raises:
        ValueError: when there is not one name for each class.
    """
    names = names or [f"class {index}" for index in range(count)]
    return [files.shown_name(name) for name in inputs.check_class_names(names, count=count)]


def predict_batches(call, image_size, paths, folder, names, batch_size=BATCH_SIZE):
    """Predicts files batch by batch while the next ones are read.

    Args:
        call: callable, as from `compile_answers`.
        image_size: int. Side of the images it takes, pixels.
        paths: iterable of Path.
        folder: Path. The folder from which their names start.
        names: list of str. The classes.
        batch_size: int, at least 1.

    Yields:
        list of rows of the table, bad files among them.

    Raises:
        ValueError: when an output is no number.
    """
    pictures = _read_ahead(paths, image_size, 2 * batch_size)
    while batch := list(itertools.islice(pictures, batch_size)):
        good = [picture.pixels for picture in batch if picture.pixels is not None]
        found = iter(call(np.stack(good).astype("float32")) if good else ())
        yield [_row(picture, folder, names, None if picture.pixels is None else next(found)) for picture in batch]


def _read_ahead(paths, image_size, count):
    """Yields each `Picture` in order while other threads read the next `count` files."""
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
    return files.shown_name(path.relative_to(folder))


def _unfinished(destination, model, folder, names, image_size):
    """Where the rows stand until all are there: rows of another model, folder, name or reader stand apart."""
    task = identity.digest_of(
        identity.digest_of_network(model),
        files.shown_name(folder.resolve()),
        names,
        image_size,
        identity.digest_of_reader(),
        manifest.READER_VERSION,
    )
    return destination.with_name(f"{destination.name}.{task[:8]}{UNFINISHED}")


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
