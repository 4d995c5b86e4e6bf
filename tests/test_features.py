"""Features: computed once, in order, kept under a key that changes with whatever changes them, and shared out."""

import itertools
import os
import signal
import threading
import time

import keras
import numpy as np
import pytest
from builders import settle_statistics

from tlhelpers import features, loaders, models, settings

SIDE = 32


def build_network(seed=0, name="pooling"):
    """A tiny network with BatchNormalization whose statistics are not the initial ones."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    x = keras.layers.Conv2D(4, 3, strides=2)(x)
    x = keras.layers.BatchNormalization(momentum=0.5)(x)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D(name=name)(x))
    model(np.random.default_rng(seed).uniform(0, 255, (8, SIDE, SIDE, 3)), training=True)
    return model


@pytest.fixture
def network():
    return build_network()


@pytest.fixture
def small_batches(monkeypatch):
    """Fifteen rows make three full batches and a smaller one."""
    monkeypatch.setattr(features, "EXTRACTION_BATCH", 4)


def predict(model, table):
    return model.predict(loaders.read_images(table, SIDE).astype("float32"), verbose=0)


def forbid_reading(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("an image was read again")

    monkeypatch.setattr(loaders, "load_dataset", refuse)


@pytest.mark.usefixtures("small_batches")
def test_features_are_what_predict_gives_row_by_row(network, table):
    found, _ = features.extract_features(network, table, SIDE)
    assert found.shape == (15, 4)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, predict(network, table), rtol=0, atol=1e-4)
    assert np.ptp(found, axis=0).min() > 1e-2


@pytest.mark.slow
def test_features_of_a_real_backbone_are_what_predict_gives(table):
    keras.utils.set_random_seed(0)
    backbone = models.build_backbone("mobilenetv2_035", 96, weights=None)
    images = loaders.read_images(table, 96).astype("float32")
    settle_statistics(backbone, images)
    extractor = models.pooled(models.freeze(backbone))
    found, _ = features.extract_features(extractor, table, 96)
    expected = extractor.predict(images, verbose=0)
    assert expected.std() > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.usefixtures("small_batches")
def test_rows_of_features_follow_the_table(network, table):
    order = np.random.default_rng(0).permutation(15)
    found, _ = features.extract_features(network, table, SIDE)
    shuffled, _ = features.extract_features(network, table.iloc[order], SIDE)
    np.testing.assert_allclose(shuffled, found[order], rtol=0, atol=1e-5)


@pytest.mark.usefixtures("small_batches")
def test_feature_maps_keep_their_shape(table):
    model = build_network()
    maps = keras.Model(model.input, model.layers[-2].output)
    found, _ = features.extract_features(maps, table, SIDE)
    assert found.shape == (15, 15, 15, 4)
    np.testing.assert_allclose(found, predict(maps, table), rtol=0, atol=1e-4)


def test_a_second_call_reads_the_cache(network, table, monkeypatch):
    first = np.array(features.extract_features(network, table, SIDE)[0])
    forbid_reading(monkeypatch)
    np.testing.assert_array_equal(features.extract_features(network, table, SIDE)[0], first)


def test_a_network_built_anew_with_equal_weights_reads_the_cache(network, table, monkeypatch):
    features.extract_features(network, table, SIDE)
    forbid_reading(monkeypatch)
    assert features.extract_features(build_network(), table, SIDE)[0].shape == (15, 4)


def change_weights(model, table):
    model.layers[2].bias.assign_add(np.ones(4))
    return model, table, SIDE


def change_statistics(model, table):
    model.layers[3].moving_mean.assign_add(np.ones(4))
    return model, table, SIDE


@pytest.mark.parametrize(
    "change",
    [
        change_weights,
        change_statistics,
        lambda model, table: (model, table.iloc[::-1], SIDE),
        lambda model, table: (model, table.iloc[:9], SIDE),
        lambda model, table: (keras.Model(model.input, model.layers[-2].output), table, SIDE),
    ],
    ids=["weights", "moving statistics", "order", "rows", "last layer"],
)
def test_whatever_changes_the_features_changes_the_key(network, table, monkeypatch, change):
    features.extract_features(network, table, SIDE)
    forbid_reading(monkeypatch)
    with pytest.raises(AssertionError, match="read again"):
        features.extract_features(*change(network, table))


def test_the_image_size_is_part_of_the_key(table, monkeypatch):
    model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D()])
    features.extract_features(model, table, 16)
    forbid_reading(monkeypatch)
    with pytest.raises(AssertionError, match="read again"):
        features.extract_features(model, table, 32)


def test_changed_weights_give_changed_features(network, table):
    first = np.array(features.extract_features(network, table, SIDE)[0])
    second, _ = features.extract_features(*change_statistics(network, table))
    assert np.abs(first - second).min() > 0.1


def test_without_the_cache_nothing_is_written_or_read(network, table, monkeypatch):
    found, _ = features.extract_features(network, table, SIDE, cache=False)
    assert not list(settings.home_folder().rglob("*"))
    np.testing.assert_array_equal(features.extract_features(network, table, SIDE)[0], found)
    forbid_reading(monkeypatch)
    with pytest.raises(AssertionError, match="read again"):
        features.extract_features(network, table, SIDE, cache=False)


def test_an_extraction_broken_off_leaves_no_cache(network, table):
    open(table["path"][14], "wb").close()
    with pytest.raises(Exception, match=r"[Ii]nput"):
        features.extract_features(network, table, SIDE)
    assert not list(settings.home_folder().rglob("*.npy"))


def test_pooling_averages_the_map():
    backbone = models.build_backbone("mobilenetv2_035", 64, weights=None)
    extractor = models.pooled(backbone)
    assert extractor.output_shape == (None, 1280)
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    expected = keras.ops.convert_to_numpy(backbone(images)).mean(axis=(1, 2))
    np.testing.assert_allclose(extractor(images), expected, rtol=1e-4, atol=1e-7)
    assert extractor.get_layer("Conv_1") is backbone.get_layer("Conv_1")


def test_the_seconds_of_the_first_computation_are_kept_with_the_features(network, table):
    _, seconds = features.extract_features(network, table, SIDE)
    assert seconds > 0
    assert features.extract_features(network, table, SIDE)[1] == seconds


def test_the_core_seconds_of_the_first_computation_are_kept_with_the_features(network, table):
    features.extract_features(network, table, SIDE)
    spent = features.extraction_core_seconds(network, table, SIDE)
    assert spent > 0
    features.extract_features(network, table, SIDE)
    assert features.extraction_core_seconds(network, table, SIDE) == spent


def test_features_that_were_not_kept_have_no_core_seconds(network, table):
    features.extract_features(network, table, SIDE, cache=False)
    with pytest.raises(ValueError, match=r"Received: image_size=.*none kept"):
        features.extraction_core_seconds(network, table, SIDE)


def test_features_kept_without_their_core_seconds_are_computed_again(network, table):
    features.extract_features(network, table, SIDE)
    [note] = (settings.home_folder() / "features").glob("*.json")
    note.write_text("12.5")
    assert features.extract_features(network, table, SIDE)[1] != 12.5
    assert features.extraction_core_seconds(network, table, SIDE) > 0


def test_a_frozen_network_is_traced_once_when_it_is_first_called_with_the_weights_of_before(network, table):
    call = features.compile_frozen(network)
    assert call.experimental_get_tracing_count() == 0
    expected = predict(network, table)
    network.set_weights([weight + 1 for weight in network.get_weights()])
    images = loaders.read_images(table, SIDE).astype("float32")
    for count in (2, 15):
        np.testing.assert_allclose(call(images[:count]), expected[:count], rtol=0, atol=1e-4)
    assert call.experimental_get_tracing_count() == 1


def test_views_are_random_differ_from_each_other_and_are_the_same_for_a_seed(network, table):
    views, seconds = features.extract_views(network, table, SIDE, count=2, seed=3)
    plain, _ = features.extract_features(network, table, SIDE)
    assert seconds > 0
    assert [(view.shape, view.dtype) for view in views] == [((15, 4), np.float16)] * 2
    for one, other in itertools.combinations([*views, plain], 2):
        assert np.abs(one.astype(float) - other).max() > 0.01
    again, _ = features.extract_views(network, table, SIDE, count=2, seed=3)
    assert all(np.array_equal(one, other) for one, other in zip(views, again, strict=True))


def test_views_are_computed_once_and_more_of_them_take_up_the_first(network, table, monkeypatch):
    first, _ = features.extract_views(network, table, SIDE, count=2)
    asked = []
    load_dataset = loaders.load_dataset
    monkeypatch.setattr(
        loaders, "load_dataset", lambda *a, **options: asked.append(options["seed"]) or load_dataset(*a, **options)
    )
    views, _ = features.extract_views(network, table, SIDE, count=3)
    assert asked == [2]
    np.testing.assert_array_equal(views[0], first[0])


@pytest.mark.parametrize(("count", "room"), [(3, 240), (0, 10_000)])
def test_views_that_do_not_fit_are_refused_with_how_many_do(network, table, count, room):
    fitting = room // 120  # 15 images, 4 features, 2 bytes
    with pytest.raises(ValueError, match=rf"between 1 and {fitting} views fit into {room:,} bytes.*count={count}"):
        features.extract_views(network, table, SIDE, count=count, max_bytes=room)
    assert not list(settings.home_folder().rglob("*.npy"))


def make_batches(**options):
    views = [np.arange(10, dtype="float16").reshape(10, 1) + 100 * view for view in range(3)]
    return features.ViewBatches(views, np.arange(10), batch_size=4, **options)


def read_epoch(batches):
    pairs = [batches[index] for index in range(len(batches))]
    batches.on_epoch_end()
    seen, targets = (np.concatenate(part) for part in zip(*pairs, strict=True))
    return seen.ravel(), targets


def test_every_epoch_shows_each_image_once_and_another_view_of_it():
    batches = make_batches()
    epochs = [read_epoch(batches) for _ in range(3)]
    for seen, targets in epochs:
        assert sorted(targets) == list(range(10))
        assert seen.dtype == np.float32
        np.testing.assert_array_equal(seen % 100, targets)
    shown = [dict(zip(targets, seen // 100, strict=True)) for seen, targets in epochs]
    assert all({one[image] for one in shown} == {0, 1, 2} for image in range(10))
    assert not np.array_equal(epochs[0][1], epochs[1][1])


def test_orders_follow_the_seed_and_none_is_the_tables_own():
    orders = [read_epoch(make_batches(seed=seed))[1].tolist() for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert read_epoch(make_batches(shuffle=False))[1].tolist() == list(range(10))


def test_skipped_epochs_leave_batches_where_read_ones_do():
    read, skipped = make_batches(), make_batches()
    read_epoch(read), read_epoch(read)
    loaders.skip_epochs(skipped, 2)
    for one, other in zip(read_epoch(read), read_epoch(skipped), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_features_shared_out_over_processes_are_those_of_this_one(network, table, monkeypatch):
    monkeypatch.setattr(features, "PART_IMAGES", 4)
    monkeypatch.setattr(features, "EXTRACTION_BATCH", 4)
    found = features.extract_features_parallel(network, table, SIDE, jobs=2)
    np.testing.assert_allclose(found, features.extract_features(network, table, SIDE)[0], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_worker_killed_half_way_changes_no_feature(network, table, tmp_path, monkeypatch):
    import distributed

    table = table.loc[table.index.repeat(40)].assign(sha256=lambda rows: [f"{index}" for index in range(len(rows))])
    monkeypatch.setattr(features, "PART_IMAGES", 20)
    expected, _ = features.extract_features(network, table, SIDE, cache=False)
    options = {"threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": None}
    with distributed.LocalCluster(n_workers=2, local_directory=str(tmp_path), **options) as cluster:
        [victim, _] = [worker.process.pid for worker in cluster.workers.values()]
        killed = []
        killer = threading.Thread(target=kill_when_some_are_done, args=(victim, killed))
        killer.start()
        found = features.extract_features_parallel(network, table, SIDE, cluster=cluster.scheduler_address)
        killer.join()
    assert killed == [victim]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def kill_when_some_are_done(process, killed):
    """Kills a process when three of thirty parts are kept, and says so."""
    kept = settings.home_folder() / "features"
    for _ in range(6000):
        if len(list(kept.glob("*.npy"))) >= 3:
            os.kill(process, signal.SIGKILL)
            killed.append(process)
            return
        time.sleep(0.01)
