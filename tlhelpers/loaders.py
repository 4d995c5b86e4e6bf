"""From rows of a manifest to batches: a `tf.data` pipeline sized to the machine, the same on every run."""

import atexit
import shutil
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import tensorflow as tf

from tlhelpers import devices, files, identity, images, inputs, settings

MEMORY_SHARE = 0.25
SHUFFLE_BUFFER = 5000
SHUFFLE_BYTES = 128 * 2**20  # of images that wait in a shuffle and are in no cache in memory
PREFETCHED_BATCHES = 2
ITERATORS_PER_EPOCH = 2  # Keras opens one when an epoch begins, and one when it ends


@dataclass(frozen=True)
class Augmentation:
    """How far an augmented view may differ from its image.

    Args:
        min_area: float in (0, 1]. The smallest share of the image that a crop keeps.
        aspect: float, at least 1. A crop's sides differ by at most this factor.
        brightness: float. Added or taken away, at most, of 255.
        contrast: float. Contrast changes by at most this share.
        saturation: float. Saturation changes by at most this share; 0 leaves colours alone.
    """

    min_area: float
    aspect: float
    brightness: float
    contrast: float
    saturation: float


AUGMENTATIONS = {
    "light": Augmentation(min_area=0.7, aspect=1.25, brightness=25.0, contrast=0.2, saturation=0.0),
    "strong": Augmentation(min_area=0.35, aspect=4 / 3, brightness=32.0, contrast=0.3, saturation=0.3),
}


def load_dataset(
    table,
    image_size=224,
    *,
    batch_size=None,
    shuffle=False,
    augment=None,
    flipped=False,
    read_size=None,
    cache="auto",
    seed=0,
):
    """A dataset of images and class indices.

    Files are read, decoded and resized in parallel, in a fixed order. From the second epoch on they come from the
    cache. Shuffling and augmentation follow `seed`: two runs see the same batches. Unless the cache is in memory, the
    memory that this takes is bounded, however many images there are.

    Args:
        table: pandas.DataFrame with `path` and `target`, as from `split_manifest`.
        image_size: int. Side of the square images, pixels. The aspect ratio is not kept, as in the source.
        batch_size: int, at least 1, or None: as many as suit the device, see `devices.choose_batch_size`.
        shuffle: bool. Whether each epoch has another order.
        augment: str or None. A key of `AUGMENTATIONS`: images are flipped, cropped and lit differently in each
            epoch, a little or a lot.
        flipped: bool. Whether every image is mirrored left to right, for test-time augmentation.
        read_size: int or None. Side at which images are read, pixels, so that a crop still has detail; only with
            `augment`. None means `image_size`.
        cache: str. `"memory"`, `"disk"`, `"none"`, or `"auto"`: memory when the decoded images take less than
            a quarter of what is free, disk otherwise.
        seed: int.

    Returns:
        tf.data.Dataset of `(images, targets)`: float32 `(batch, image_size, image_size, 3)` in 0..255 and
        int32 `(batch,)`.

    Raises:
        ValueError: when the table is empty or lacks a column, or an argument is out of range.
        FileNotFoundError: when a file of the table is not there.
    """
    table = inputs.check_table(table, columns=("path", "target"))
    image_size = inputs.check_image_size(image_size)
    read_size = None if read_size is None else inputs.check_image_size(read_size, name="read_size")
    batch_size = _check_batch_size(batch_size)
    if augment not in (None, *AUGMENTATIONS):
        raise ValueError(f"augment is None or one of {sorted(AUGMENTATIONS)}. Received: augment={augment!r}")
    read_size = read_size if augment and read_size else image_size
    place = choose_cache(len(table), read_size) if cache == "auto" else cache
    buffer = _choose_buffer(len(table), read_size, place)
    if shuffle and len(table) > buffer:  # class by class, a buffer would hold a few classes alone
        table = table.sample(frac=1, random_state=seed)
    paths = table["path"].to_numpy(dtype=str)
    targets = table["target"].to_numpy(dtype="int32")
    dataset = tf.data.Dataset.from_tensor_slices((paths, targets))
    cores = devices.available_cores()
    dataset = dataset.map(lambda path, target: (read_image(path, read_size), target), num_parallel_calls=cores)
    dataset = _cached(dataset, place)
    if shuffle:
        dataset = dataset.shuffle(buffer, seed=seed)
    if augment:
        dataset = _augmented(dataset, image_size, seed, augment, cores)
    if flipped:
        dataset = dataset.map(lambda image, target: (image[:, ::-1], target))
    dataset = _without_tuning(dataset.batch(batch_size).map(_as_float).prefetch(PREFETCHED_BATCHES))
    hashes = table["sha256"].tolist() if "sha256" in table else paths.tolist()
    shown = [image_size, batch_size, shuffle, augment, flipped, read_size, seed]
    return identity.note_data(dataset, hashes, targets.tolist(), shown, identity.digest_of_reader())


def load_arrays(x, y, *, batch_size=None, shuffle=False, seed=0):
    """A dataset of arrays in memory, such as features and their classes: for a head that is trained in seconds.

    The dataset that `fit` makes from arrays takes longer to start, in each epoch and again for validation, than a head
    takes for a few thousand features; and here the order of every epoch follows `seed`.

    Args:
        x: array `(n, ...)`.
        y: array `(n, ...)`.
        batch_size: int, at least 1, or None: as many as suit the device, see `devices.choose_batch_size`.
        shuffle: bool. Whether each epoch has another order.
        seed: int.

    Returns:
        tf.data.Dataset of `(x, y)`, both `(batch, ...)`, of the dtypes of the arrays.

    Raises:
        ValueError: when the arrays are empty, or of different length.
    """
    batch_size = _check_batch_size(batch_size)
    if not 0 < len(x) == len(y):
        raise ValueError(f"Arrays of a dataset have one length, at least 1. Received: {len(x)} and {len(y)} rows")
    dataset = tf.data.Dataset.from_tensor_slices((x, y))
    if shuffle:
        dataset = dataset.shuffle(len(x), seed=seed)
    dataset = _without_tuning(dataset.batch(batch_size))
    return identity.note_data(dataset, identity.digest_of_arrays(x, y), batch_size, shuffle, seed)


def _check_batch_size(batch_size):
    if batch_size is None:
        return devices.choose_batch_size()
    return inputs.check_whole(batch_size, name="batch_size", low=1)


def skip_epochs(data, count):
    """Brings training data to where so many epochs of `fit` leave them: to the order and the views that come next.

    Args:
        data: tf.data.Dataset, as from `load_dataset` or `load_arrays`, or ViewBatches. Not yet used.
        count: int.
    """
    if isinstance(data, tf.data.Dataset):
        for _ in range(ITERATORS_PER_EPOCH * count):
            iter(data)  # each iterator has an order of its own; nothing is read until it is asked for something
    else:
        for _ in range(count):
            data.on_epoch_end()


def choose_cache(count, image_size):
    """Where decoded images are kept between epochs.

    Args:
        count: int. Number of images.
        image_size: int. Side, pixels.

    Returns:
        str. `"memory"` or `"disk"`.
    """
    size = count * image_size * image_size * 3
    return "memory" if size < MEMORY_SHARE * psutil.virtual_memory().available else "disk"


def _choose_buffer(count, image_size, place):
    """How many of some images a shuffle holds: those of a cache in memory are held anyway."""
    most = SHUFFLE_BUFFER if place == "memory" else min(SHUFFLE_BUFFER, SHUFFLE_BYTES // (image_size**2 * 3))
    return max(1, min(count, most))


def read_image(path, image_size):
    """Reads and resizes one JPEG or PNG.

    Args:
        path: str tensor.
        image_size: int.

    Returns:
        uint8 tensor `(image_size, image_size, 3)` in 0..255.
    """
    return resize(images.decode(path), image_size)


def resize(image, image_size):
    """Resizes one image without keeping its aspect ratio.

    Args:
        image: uint8 tensor or array `(height, width, 3)`.
        image_size: int. Side, pixels.

    Returns:
        uint8 tensor `(image_size, image_size, 3)` in 0..255.
    """
    image = tf.image.resize(image, (image_size, image_size), method="bilinear")
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)


def read_images(table, image_size):
    """Reads the images of a few rows, for a figure.

    Args:
        table: pandas.DataFrame with `path`.
        image_size: int. Side of the square images, pixels.

    Returns:
        uint8 array `(len(table), image_size, image_size, 3)` in 0..255.

    Raises:
        ValueError: when the table lacks paths, or the size is none.
        FileNotFoundError: when a file of the table is not there.
    """
    image_size = inputs.check_image_size(image_size)
    if len(table):
        inputs.check_table(table)
    read = [read_image(path, image_size).numpy() for path in table["path"]]
    return np.stack(read) if read else np.empty((0, image_size, image_size, 3), np.uint8)


def augment_image(image, seed, *, image_size, augment="light"):
    """An augmented view of an image: flipped, cropped, lit differently.

    Args:
        image: uint8 tensor `(height, width, 3)`.
        seed: int32 tensor `(2,)`. The same seed gives the same view.
        image_size: int. Side of the view, pixels.
        augment: str. A key of `AUGMENTATIONS`.

    Returns:
        uint8 tensor `(image_size, image_size, 3)`.
    """
    amount = AUGMENTATIONS[augment]
    seeds = tf.random.split(seed, 5)
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.shape(image),
        tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        seed=seeds[0],
        min_object_covered=0.0,
        area_range=(amount.min_area, 1.0),
        aspect_ratio_range=(1 / amount.aspect, amount.aspect),
    )
    view = tf.image.resize(tf.slice(image, begin, size), (image_size, image_size))
    view = tf.image.stateless_random_flip_left_right(view, seeds[1])
    view = tf.image.stateless_random_brightness(view, amount.brightness, seeds[2])
    view = tf.image.stateless_random_contrast(view, 1 - amount.contrast, 1 + amount.contrast, seeds[3])
    if amount.saturation:
        view = _saturated(view, 1 - amount.saturation, 1 + amount.saturation, seeds[4])
    return tf.cast(tf.clip_by_value(tf.round(view), 0, 255), tf.uint8)


def _saturated(view, lowest, highest, seed):
    view = tf.clip_by_value(view, 0, 255) / 255  # saturation is defined on 0..1
    return tf.image.stateless_random_saturation(view, lowest, highest, seed) * 255


def _augmented(dataset, image_size, seed, augment, cores):
    seeds = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).batch(2)
    seeds = seeds.map(lambda pair: tf.cast(pair % 2**31, tf.int32))
    view = partial(augment_image, image_size=image_size, augment=augment)
    return tf.data.Dataset.zip(dataset, seeds).map(
        lambda pair, key: (view(pair[0], key), pair[1]), num_parallel_calls=cores
    )


def _cached(dataset, place):
    if place == "none":
        return dataset
    if place == "memory":
        return dataset.cache()
    if place != "disk":
        allowed = ["auto", "memory", "disk", "none"]
        raise ValueError(f"A cache is one of {allowed}. Received: cache={place!r}")
    # TensorFlow refuses a cache file that another run left unfinished or has open, so each dataset has its own.
    home = settings.home_folder() / "decoded"
    home.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=files.TEMPORARY, dir=home))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return dataset.cache(str(folder / "images"))


def _without_tuning(dataset):
    """The same dataset, working from its first item on as it was told to.

    TensorFlow would look for better numbers while it works, anew in each epoch. On one core, the batches of a small
    set wait longer for that than they take.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return dataset.with_options(options)


def _as_float(images, targets):
    return tf.cast(images, tf.float32), targets
