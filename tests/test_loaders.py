"""Batches: shapes, ranges, seeds, caches, and that no image is lost on the way."""

import itertools
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import psutil
import pytest
import tensorflow as tf
from builders import draw_flower, encode

from tlhelpers import devices, loaders, settings

SIDE = 32


def collect(dataset, epochs=1):
    """The images and targets of each epoch: list of pairs of arrays."""
    result = []
    for _ in range(epochs):
        batches = [(images.numpy(), targets.numpy()) for images, targets in dataset]
        result.append(tuple(np.concatenate(column) for column in zip(*batches, strict=True)))
    return result


def load(table, epochs=1, **options):
    return collect(loaders.load_dataset(table, SIDE, **({"batch_size": 4, "cache": "none"} | options)), epochs)


def assert_same(first, second):
    for one, other in zip(itertools.chain(*first), itertools.chain(*second), strict=True):
        np.testing.assert_array_equal(one, other)


def as_multiset(images, targets):
    return sorted((image.tobytes(), int(target)) for image, target in zip(images, targets, strict=True))


@pytest.mark.parametrize("image_size", [32, 64])
@pytest.mark.parametrize("options", [{}, {"shuffle": True}, {"augment": "light"}])
def test_batches_are_float_images_in_0_to_255_and_int_targets(table, image_size, options):
    batches = list(loaders.load_dataset(table, image_size, batch_size=4, **options))
    assert [images.shape for images, _ in batches] == [(4, image_size, image_size, 3)] * 3 + [
        (3, image_size, image_size, 3)
    ]
    assert [targets.shape for _, targets in batches] == [(4,)] * 3 + [(3,)]
    for images, targets in batches:
        assert images.dtype == tf.float32
        assert targets.dtype == tf.int32
        assert 0 <= images.numpy().min() < 60
        assert 160 < images.numpy().max() <= 255


@pytest.mark.parametrize(("gpus", "count"), [([], devices.CPU_BATCH_SIZE), ([{}], devices.GPU_BATCH_SIZE)])
def test_a_loader_that_is_told_no_batch_size_takes_the_devices(table, monkeypatch, gpus, count):
    monkeypatch.setattr(devices, "list_gpus", lambda: gpus)
    many = table.loc[table.index.repeat(5)].reset_index(drop=True)
    assert len(many) > devices.GPU_BATCH_SIZE
    arrays = loaders.load_arrays(np.zeros((len(many), 2)), np.zeros(len(many)))
    for data in (loaders.load_dataset(many, 8), arrays):
        assert len(next(iter(data))[0]) == count


def test_batches_follow_the_table_unless_shuffled(table):
    shuffled_rows = table.sample(frac=1, random_state=1)
    [(images, targets)] = load(shuffled_rows)
    np.testing.assert_array_equal(targets, shuffled_rows["target"])
    np.testing.assert_array_equal(images, loaders.read_images(shuffled_rows, SIDE))


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("augment", [None, "light", "strong"])
def test_the_same_seed_gives_the_same_batches_twice(table, shuffle, augment):
    options = {"shuffle": shuffle, "augment": augment, "seed": 7, "epochs": 2}
    assert_same(load(table, **options), load(table, **options))


def test_classes_are_mixed_in_a_table_much_larger_than_the_shuffle_buffer(table, monkeypatch):
    monkeypatch.setattr(loaders, "SHUFFLE_BUFFER", 2)
    sorted_by_class = pd.concat([table.head(1)] * 40 + [table.tail(1)] * 40, ignore_index=True)
    [(_, targets)] = load(sorted_by_class, shuffle=True)
    first_half = (targets[:40] == targets.max()).mean()
    assert 0.2 < first_half < 0.8
    [(_, targets)] = load(sorted_by_class)
    np.testing.assert_array_equal(targets, sorted_by_class["target"])


@pytest.mark.parametrize("option", [{"shuffle": True}, {"augment": "light"}, {"augment": "strong"}])
def test_another_seed_gives_other_batches(table, option):
    [(first, _)], [(second, _)] = (load(table, seed=seed, **option) for seed in (0, 1))
    assert (first != second).any()


def test_the_seed_changes_nothing_without_chance(table):
    assert_same(load(table, seed=0), load(table, seed=1))


def test_augmentation_differs_between_epochs(table):
    [(first, first_targets), (second, second_targets)] = load(table, augment="light", epochs=2)
    np.testing.assert_array_equal(first_targets, second_targets)
    changed = [(one != other).any() for one, other in zip(first, second, strict=True)]
    assert all(changed)


def test_flipped_images_are_mirrored_left_to_right(table):
    [(plain, targets)] = load(table)
    [(flipped, same_targets)] = load(table, flipped=True)
    np.testing.assert_array_equal(flipped, plain[:, :, ::-1])
    np.testing.assert_array_equal(targets, same_targets)


def test_views_are_cut_from_images_read_larger_than_they_are(table, monkeypatch):
    sizes = []
    read = loaders.read_image
    monkeypatch.setattr(loaders, "read_image", lambda path, size: sizes.append(size) or read(path, size))
    [(views, _)] = load(table, augment="strong", read_size=2 * SIDE)
    assert (sizes, views.shape[1]) == ([2 * SIDE], SIDE)
    load(table, read_size=2 * SIDE)
    assert sizes[-1] == SIDE


def test_an_unknown_augmentation_names_the_known_ones(table):
    with pytest.raises(ValueError, match=r"None or one of \['light', 'strong'\]. Received: augment=True"):
        load(table, augment=True)


def test_strong_augmentation_changes_colours_and_light_does_not():
    red = tf.constant(np.full((24, 24, 3), (150, 50, 50), np.uint8))
    kept = {"light": 0, "strong": 0}
    for augment in kept:
        for seed in range(20):
            view = loaders.augment_image(red, tf.constant([seed, 0]), image_size=24, augment=augment).numpy()[12, 12]
            kept[augment] += view[1] == view[2] and abs(int(view[0]) - int(view[1]) - 100) <= 1
    assert kept["light"] == 20
    assert kept["strong"] < 5


def test_augmentation_keeps_shape_range_and_most_of_the_light(table):
    [(plain, _)] = load(table)
    [(augmented, _)] = load(table, augment="light")
    assert augmented.shape == plain.shape
    assert augmented.min() >= 0
    assert augmented.max() <= 255
    assert (augmented == augmented.round()).all()
    shift = np.abs(augmented.mean(axis=(1, 2, 3)) - plain.mean(axis=(1, 2, 3)))
    assert 0 < shift.max() < 60


def test_shuffling_reorders_between_epochs(table):
    [(_, first), (_, second)] = load(table, shuffle=True, epochs=2)
    assert first.tolist() != sorted(first)
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize("batch_size", [1, 4, 15, 100])
@pytest.mark.parametrize("shuffle", [False, True])
def test_no_image_is_lost_or_repeated_in_an_epoch(table, batch_size, shuffle):
    expected = as_multiset(loaders.read_images(table, SIDE).astype(np.float32), table["target"])
    assert len(set(expected)) == len(table)
    for epoch in load(table, batch_size=batch_size, shuffle=shuffle, epochs=2):
        assert as_multiset(*epoch) == expected


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_a_cache_gives_the_same_batches_as_none(table, cache):
    options = {"shuffle": True, "augment": "light", "epochs": 2}
    assert_same(load(table, cache=cache, **options), load(table, cache="none", **options))


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_the_second_epoch_reads_no_image_file(table, cache):
    dataset = loaders.load_dataset(table, SIDE, cache=cache)
    first = collect(dataset)
    for path in table["path"]:
        open(path, "wb").close()
    assert_same(collect(dataset), first)


def test_without_a_cache_every_epoch_reads_the_files(table):
    dataset = loaders.load_dataset(table, SIDE, cache="none")
    collect(dataset)
    open(table["path"][3], "wb").close()
    with pytest.raises(tf.errors.InvalidArgumentError):
        collect(dataset)


def test_the_disk_cache_lives_in_the_cache_folder(table):
    load(table, cache="disk")
    size = sum(path.stat().st_size for path in settings.home_folder().rglob("*") if path.is_file())
    assert size >= len(table) * SIDE * SIDE * 3


def test_a_run_broken_off_leaves_the_disk_cache_usable(table):
    unfinished = iter(loaders.load_dataset(table, SIDE, batch_size=1, cache="disk"))
    next(unfinished)
    assert list(settings.home_folder().rglob("*.lockfile"))
    assert_same(load(table, cache="disk"), load(table))


def test_the_disk_cache_keeps_no_targets_of_another_table(table):
    load(table, cache="disk")
    relabelled = table.assign(target=4 - table["target"])
    [(_, targets)] = load(relabelled, cache="disk")
    np.testing.assert_array_equal(targets, relabelled["target"])


def test_the_disk_cache_is_gone_when_the_process_ends(table, monkeypatch):
    at_exit = []
    register = SimpleNamespace(register=lambda *arguments, **options: at_exit.append(partial(*arguments, **options)))
    monkeypatch.setattr(loaders, "atexit", register)
    load(table, cache="disk")
    for call in at_exit:
        call()
    assert not [path for path in settings.home_folder().rglob("*") if path.is_file()]


def test_an_empty_table_is_an_error(table):
    with pytest.raises(ValueError, match=r"at least one row .* Received: an empty table"):
        loaders.load_dataset(table.iloc[:0])


@pytest.mark.parametrize("batch_size", [0, -1])
def test_an_empty_batch_is_an_error(table, batch_size):
    with pytest.raises(ValueError, match=f"whole number, at least 1. Received: batch_size={batch_size}"):
        loaders.load_dataset(table, batch_size=batch_size)


@pytest.mark.parametrize("size", [0, -5, 64.0, (64, 32), "64"])
def test_what_is_no_size_is_an_error(table, size):
    for load_some in (loaders.load_dataset, loaders.read_images):
        with pytest.raises(ValueError, match=r"is the side of square images.*Received: image_size="):
            load_some(table, size)


def test_a_size_may_be_written_as_keras_does(table):
    assert loaders.load_dataset(table, (16, 16)).element_spec[0].shape[1:] == (16, 16, 3)
    assert loaders.read_images(table.head(1), (16, 16)).shape == (1, 16, 16, 3)


@pytest.mark.parametrize(
    ("change", "received"),
    [
        (lambda table: str(table["path"].iloc[0]), "table of type str"),
        (lambda table: table.drop(columns="target"), r"table without \['target'\]"),
        (lambda table: table.assign(target=np.nan), "target of shape"),
        (lambda table: table.assign(target="rose"), "target of shape"),
        (lambda table: table.assign(target=-1), "target of shape"),
    ],
)
def test_what_is_no_table_of_images_is_an_error(table, change, received):
    with pytest.raises(ValueError, match=f"Received: {received}"):
        loaders.load_dataset(change(table))


def test_a_file_that_is_gone_is_named_before_anything_is_read(table):
    gone = pd.concat([table, table.head(1).assign(path="/nowhere/x.jpg")])
    for load_some in (loaders.load_dataset, loaders.read_images):
        with pytest.raises(FileNotFoundError, match=r"1 that do not, /nowhere/x\.jpg"):
            load_some(gone, 16)


def test_an_unknown_cache_names_the_allowed_ones(table):
    with pytest.raises(ValueError, match=r"\['auto', 'memory', 'disk', 'none'\]. Received: cache='ram'"):
        loaders.load_dataset(table, cache="ram")


@pytest.mark.parametrize(("available", "place"), [(4 * 3000 + 1, "memory"), (4 * 3000, "disk"), (0, "disk")])
def test_images_are_cached_in_memory_when_they_take_under_a_quarter_of_it(monkeypatch, available, place):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": available}))
    assert loaders.choose_cache(10, 10) == place


@pytest.mark.parametrize(("available", "on_disk"), [(10**12, False), (0, True)])
def test_auto_uses_the_cache_that_fits(table, monkeypatch, available, on_disk):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": available}))
    load(table, cache="auto")
    written = [path for path in settings.home_folder().rglob("*") if path.is_file()]
    assert bool(written) == on_disk


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_grey_files_are_read_as_rgb(tmp_path, image_format):
    grey = draw_flower("rose", 0)[..., 0]
    path = tmp_path / "grey"
    path.write_bytes(encode(grey, image_format))
    image = loaders.read_image(str(path), 72).numpy()
    assert image.shape == (72, 72, 3)
    np.testing.assert_array_equal(image, np.repeat(image[..., :1], 3, axis=2))
    assert np.abs(image[..., 0].astype(int) - grey).mean() < (1 if image_format == "PNG" else 12)


def test_pixels_of_a_png_of_the_same_size_come_through_exactly(tmp_path):
    pixels = draw_flower("tulip", 1)
    path = tmp_path / "exact.png"
    path.write_bytes(encode(pixels, "PNG"))
    np.testing.assert_array_equal(loaders.read_image(str(path), 72), pixels)


def test_an_oblong_image_is_squeezed_to_a_square(tmp_path):
    path = tmp_path / "oblong.png"
    left, right = np.full((40, 50, 3), 10, np.uint8), np.full((40, 50, 3), 200, np.uint8)
    path.write_bytes(encode(np.concatenate([left, right], axis=1), "PNG"))
    image = loaders.read_image(str(path), 20).numpy()
    assert image.shape == (20, 20, 3)
    assert (image[:, :9] == 10).all()
    assert (image[:, 11:] == 200).all()


def test_a_figure_gets_its_images_in_row_order(table):
    rows = table.iloc[[7, 2, 9]]
    images = loaders.read_images(rows, SIDE)
    assert images.dtype == np.uint8
    assert images.shape == (3, SIDE, SIDE, 3)
    np.testing.assert_array_equal(images[1], loaders.read_image(table["path"][2], SIDE))


def test_a_seed_fixes_the_view_of_an_image():
    image = tf.constant(draw_flower("daisy", 0))
    view = [loaders.augment_image(image, tf.constant(seed), image_size=72).numpy() for seed in ([1, 2], [1, 2], [2, 1])]
    assert view[0].dtype == np.uint8
    assert view[0].shape == (72, 72, 3)
    np.testing.assert_array_equal(view[0], view[1])
    assert (view[0] != view[2]).any()


def test_views_are_flipped_about_half_of_the_time():
    ramp = tf.constant(np.broadcast_to(np.arange(0, 240, 10, dtype=np.uint8)[:, None], (24, 24, 3)))
    views = [loaders.augment_image(ramp, tf.constant([seed, 0]), image_size=24).numpy() for seed in range(40)]
    flipped = sum(int(view[12, 0, 0]) > int(view[12, -1, 0]) for view in views)
    assert 8 <= flipped <= 32


def test_arrays_come_in_batches_and_in_their_order():
    x, y = np.arange(20, dtype="float32").reshape(10, 2), np.arange(10)
    batches = list(loaders.load_arrays(x, y, batch_size=4))
    assert [len(targets) for _, targets in batches] == [4, 4, 2]
    [(found, targets)] = collect(loaders.load_arrays(x, y, batch_size=4))
    np.testing.assert_array_equal(found, x)
    np.testing.assert_array_equal(targets, y)
    assert (found.dtype, targets.dtype) == (x.dtype, y.dtype)


def test_shuffled_arrays_have_another_order_in_each_epoch_which_the_seed_decides():
    x = np.arange(50)
    orders = [
        [tuple(targets) for _, targets in collect(loaders.load_arrays(x, x, shuffle=True, seed=seed), 2)]
        for seed in (0, 0, 1)
    ]
    assert orders[0] == orders[1] != orders[2]
    assert len({*orders[0], *orders[2], tuple(x)}) == 5
    assert all(sorted(order) == list(x) for order in orders[0])


@pytest.mark.parametrize("rows", [(0, 0), (3, 4)])
def test_arrays_of_no_or_of_different_length_are_refused(rows):
    with pytest.raises(ValueError, match=rf"one length.*Received: {rows[0]} and {rows[1]} rows"):
        loaders.load_arrays(*map(np.zeros, rows))


HELD = """
import sys
import pandas as pd, psutil
from tlhelpers import loaders
loaders.SHUFFLE_BYTES = 2**20
rows = pd.concat([pd.read_csv(sys.argv[1])] * int(sys.argv[2]))
data = loaders.load_dataset(rows, 128, shuffle=True, cache=sys.argv[3])
print(max(psutil.Process().memory_info().rss for _ in data) / 2**20)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("cache", "grows"), [("none", False), ("disk", False), ("memory", True)])
def test_memory_does_not_grow_with_the_pictures_unless_they_are_kept_in_memory(table, tmp_path, cache, grows):
    table.to_csv(tmp_path / "rows.csv", index=False)
    held = {}
    for times in (30, 300):  # 450 pictures, and 4,500 that take 211 MiB
        command = [sys.executable, "-c", HELD, str(tmp_path / "rows.csv"), str(times), cache]
        finished = subprocess.run(command, check=True, capture_output=True, text=True)
        held[times] = float(finished.stdout)
    assert (held[300] - held[30] > 100) == grows
