"""Features, as frozen layers return them: computed once and kept, on this machine or shared out over others."""

import functools
import json
import math
import shutil
import time
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import tensorflow as tf

from tlhelpers import devices, files, identity, inputs, loaders, parallel, settings, training
from tlhelpers.keras_settings import keras

EXTRACTION_BATCH = 32
PART_IMAGES = 16 * EXTRACTION_BATCH  # what a worker takes at a time: some seconds of work
COLUMNS = ("path", "sha256", "target")  # what a table of images has
MAX_BYTES = 16 * 2**30  # of the views of one training set


def extract_features(
    model,
    table,
    image_size,
    *,
    flipped=False,
    augment=None,
    read_size=None,
    seed=0,
    dtype="float32",
    cache=True,
    call=None,
):
    """Runs images through a frozen network, once.

    The result is kept in the cache folder under a key made of the network, the images, how they are shown, and what
    reads them, see `identity`, so that further heads and seeds start at once.

    Args:
        model: keras.Model. From images in 0..255 to features.
        table: pandas.DataFrame with `path`, `sha256` and `target`, as from `split_manifest`.
        image_size: int. Side of the square images, pixels.
        flipped: bool. Whether the images are mirrored left to right.
        augment: str or None. A key of `loaders.AUGMENTATIONS`: one random view of each image.
        read_size: int or None. As for `load_dataset`.
        seed: int. Seeds the views.
        dtype: str. `"float32"`, or `"float16"` for half the space.
        cache: bool. Whether to keep the features on disk and use those kept before.
        call: callable or None. What `compile_frozen` has made of the model, where it is at hand.

    Returns:
        tuple of an array `(len(table), …)`, row by row as `table`, and the wall-clock seconds its computation took,
        now or when it was kept.

    Raises:
        ValueError: when the table is empty or lacks a column.
    """
    inputs.check_table(table, columns=COLUMNS, on_disk=False)  # features may have been kept longer than the files
    image_size = inputs.check_image_size(image_size)
    shown = {"flipped": flipped, "augment": augment, "read_size": read_size, "seed": seed}
    path = _feature_path(model, table, _name_view(image_size, dtype, **shown))
    cost = _read_cost(path)
    if cache and cost and path.is_file():
        return np.load(path, mmap_mode="r", allow_pickle=False), cost["seconds"]
    started, core_started = time.perf_counter(), time.process_time()
    dataset = loaders.load_dataset(table, image_size, batch_size=EXTRACTION_BATCH, cache="none", **shown)
    features = _run_through(call or compile_frozen(model), dataset, (len(table), *model.output_shape[1:]), dtype)
    cost = {"seconds": time.perf_counter() - started, "core_seconds": time.process_time() - core_started}
    if cache:
        files.write_text(files.note_path(path), json.dumps(cost))
        with files.atomic_file(path) as temporary:
            np.save(temporary, features, allow_pickle=False)
    return features, cost["seconds"]


def extraction_core_seconds(model, table, image_size, *, flipped=False):
    """The seconds that cores have worked on features which `extract_features` keeps.

    Args:
        model: keras.Model, as given to `extract_features`.
        table: pandas.DataFrame, as given to it.
        image_size: int, as given to it.
        flipped: bool, as given to it.

    Returns:
        float.

    Raises:
        ValueError: when no such features are kept.
    """
    cost = _read_cost(_feature_path(model, table, _name_view(image_size, "float32", flipped=flipped)))
    if not cost:
        raise ValueError(f"Core seconds are known of kept features. Received: image_size={image_size}, none kept")
    return cost["core_seconds"]


def extract_views(model, table, image_size, *, count, augment="strong", read_size=None, seed=0, max_bytes=MAX_BYTES):
    """Runs several random views of each image through frozen layers, once, for many epochs of what follows them.

    Args:
        model: keras.Model. From images in 0..255 to features, as the beginning from `split_backbone`.
        table: pandas.DataFrame with `path`, `sha256` and `target`.
        image_size: int. Side of the views, pixels.
        count: int, at least 1. Views of each image.
        augment: str. A key of `loaders.AUGMENTATIONS`.
        read_size: int or None. As for `load_dataset`.
        seed: int. Seeds the first view; the next ones follow.
        max_bytes: int. What the views may take on disk.

    Returns:
        tuple of a list of `count` float16 arrays `(len(table), …)`, which stay on disk until they are read, and the
        wall-clock seconds of their computation.

    Raises:
        ValueError: when the views take more than they may, or than the disk has.
    """
    inputs.check_table(table, columns=COLUMNS, on_disk=False)
    count = inputs.check_whole(count, name="count")
    size = 2 * len(table) * math.prod(model.output_shape[1:])
    home = settings.home_folder()
    home.mkdir(parents=True, exist_ok=True)
    limit = min(max_bytes, shutil.disk_usage(home).free)
    if not 1 <= count <= limit // size:
        raise ValueError(
            f"A view of {len(table)} images takes {size:,} bytes here, so that between 1 and {limit // size} views fit "
            f"into {limit:,} bytes. Received: count={count}"
        )
    options = {"augment": augment, "read_size": read_size, "dtype": "float16"}
    call = compile_frozen(model)
    views = [extract_features(model, table, image_size, seed=seed + i, call=call, **options) for i in range(count)]
    return [features for features, _ in views], sum(seconds for _, seconds in views)


class ViewBatches(keras.utils.PyDataset):
    """Batches of views for `fit`: every epoch shows another view of each image, in another order.

    Args:
        views: list of arrays `(n, …)`, one per view, as from `extract_views`.
        targets: array `(n, …)`.
        batch_size: int, at least 1.
        shuffle: bool. Whether each epoch has another order.
        seed: int. Seeds the orders: two runs see the same batches.
    """

    def __init__(self, views, targets, *, batch_size=32, shuffle=True, seed=0):
        super().__init__()
        self.views, self.targets, self.batch_size = views, np.asarray(targets), batch_size
        self.shuffle, self.seed, self.epoch = shuffle, seed, 0
        self._deal()
        identity.note_data(self, [_digest_of_view(view) for view in views], self.targets.tolist(), batch_size, seed)

    def __len__(self):
        return -(-len(self.targets) // self.batch_size)

    def __getitem__(self, index):
        rows = self._rows[index * self.batch_size : (index + 1) * self.batch_size]
        shown = (rows + self.epoch) % len(self.views)
        batch = np.stack([self.views[view][row] for view, row in zip(shown, rows, strict=True)])
        return batch.astype("float32"), self.targets[rows]

    def on_epoch_end(self):
        """Goes on to the views and the order of the next epoch."""
        self.epoch += 1
        self._deal()

    def _deal(self):
        rows = np.arange(len(self.targets))
        self._rows = np.random.default_rng((self.seed, self.epoch)).permutation(rows) if self.shuffle else rows


def extract_features_parallel(model, table, image_size, *, jobs=None, cluster=None):
    """Shares a frozen pass over many images out over processes, or over the machines of a Dask cluster.

    Each part is kept in the cache folder of whoever computes it, so that a pass that was stopped goes on where it was.
    Parts of a worker that dies are given to another one.

    Args:
        model: keras.Model. From images in 0..255 to features.
        table: pandas.DataFrame with `path`, `sha256` and `target`. The workers of a cluster see its files at the same
            paths, and the cache folder too.
        image_size: int. Side of the square images, pixels.
        jobs: int or None. Processes on this machine; None means one per core.
        cluster: str or None. The address of a Dask scheduler, such as `"tcp://host:8786"`.

    Returns:
        float32 array `(len(table), …)`, row by row as `table`.

    Raises:
        ValueError: when the table is empty or lacks a column.
    """
    inputs.check_table(table, columns=COLUMNS, on_disk=False)
    image_size = inputs.check_image_size(image_size)
    saved = settings.home_folder() / "shared" / f"{identity.digest_of_network(model)[:16]}.keras"
    if not saved.is_file():
        training.save_model(model, saved)
    rows = table[list(COLUMNS)]
    parts = [rows.iloc[start : start + PART_IMAGES].to_dict("list") for start in range(0, len(rows), PART_IMAGES)]
    with parallel.share_out(jobs, cluster) as threads:
        tasks = (joblib.delayed(_extract_part)(saved, part, image_size, threads) for part in parts)
        done = joblib.Parallel(return_as="generator")(tasks)
        return np.concatenate(list(files.progress(done, description="Extracting features", total=len(parts))))


def compile_frozen(model):
    """A compiled inference call with the weights as constants.

    What is constant TensorFlow folds: normalisation into convolutions. On two cores this is a third faster than
    `model.predict`. It is traced once, whatever the size of a batch, when it is first called.

    Args:
        model: keras.Model of one input and one output.

    Returns:
        callable from a float32 batch, as the model takes it, to a tensor of its outputs.
    """
    trainable = [variable.numpy() for variable in model.trainable_variables]
    non_trainable = [variable.numpy() for variable in model.non_trainable_variables]

    @tf.function(input_signature=[tf.TensorSpec(model.input_shape, tf.float32)])
    def call(images):
        constants = [[tf.constant(value) for value in values] for values in (trainable, non_trainable)]
        outputs, _ = model.stateless_call(*constants, images, training=False)
        return outputs

    return call


def _extract_part(saved, part, image_size, threads):
    """What a worker does: the features of some rows, a dict because joblib would leave a table with one worker."""
    model, call = _load_frozen(saved, threads)
    return np.asarray(extract_features(model, pd.DataFrame(part), image_size, call=call)[0])


@functools.lru_cache(maxsize=1)
def _load_frozen(saved, threads):
    """A saved model, and what `compile_frozen` makes of it, once in a worker's life."""
    devices.limit_threads(threads)
    model = training.load_model(saved)
    return model, compile_frozen(model)


def _run_through(call, dataset, shape, dtype):
    """Fills one array batch by batch, so that the features are never in memory twice."""
    features = np.empty(shape, dtype=dtype)
    start = 0
    total = -(-shape[0] // EXTRACTION_BATCH)
    for images, _ in files.progress(dataset, description="Extracting features", total=total, unit="batch"):
        batch = call(images).numpy()
        features[start : start + len(batch)] = batch
        start += len(batch)
    return features


def _digest_of_view(view):
    """Kept views are named by what they were made from; to read gigabytes for their digest would take too long."""
    return Path(view.filename).name if isinstance(view, np.memmap) else identity.digest_of_arrays(view)


def _name_view(image_size, dtype, *, flipped=False, augment=None, read_size=None, seed=0):
    """How images are shown and kept, in words; the plain view is its size alone."""
    facts = [str(image_size)] + ["flipped"] * flipped + [dtype] * (dtype != "float32")
    if augment:
        facts.append(f"{augment} view {seed} of {read_size or image_size}")
    return " ".join(facts)


def _feature_path(model, table, view):
    facts = [identity.digest_of_network(model), identity.digest_of_reader(), view, list(table["sha256"])]
    return settings.home_folder() / "features" / f"{identity.digest_of(*facts)[:16]}.npy"


def _read_cost(path):
    """What features have cost; None where nothing says so, as in a cache of an earlier version."""
    note = files.note_path(path)
    cost = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else None
    return cost if isinstance(cost, dict) else None
