"""The networks: parameter counts, shapes, what trains and what must never move."""

import keras
import numpy as np
import pytest
from builders import settle_statistics
from keras import layers

from tlhelpers import models

SIDE = 64
STATISTICS = ("moving_mean", "moving_variance")


def draw_images(count=8, side=SIDE, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (count, side, side, 3)).astype("float32")


IMAGES, TARGETS = draw_images(), np.arange(8) % 5


@pytest.fixture(scope="module")
def built():
    keras.utils.set_random_seed(0)
    network = models.build_backbone("mobilenetv2_035", SIDE, weights=None)
    settle_statistics(network, draw_images(seed=1))
    return network, network.get_weights()


@pytest.fixture
def backbone(built):
    """A frozen small MobileNetV2 in the same state for every test."""
    network, weights = built
    network.set_weights(weights)
    return models.freeze(network)


@pytest.fixture
def head(backbone):
    return models.build_head(backbone.output_shape[1:], 5, seed=0)


def fit(model, inputs, targets=TARGETS, *, epochs=1, learning_rate=0.05):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(learning_rate), loss, jit_compile=False)
    model.fit(inputs, targets, batch_size=4, epochs=epochs, verbose=0)


def copy_weights(network, kind=layers.Layer):
    """Every array of the layers of one kind, by path."""
    chosen = [layer for layer in network.layers if isinstance(layer, kind)]
    return {weight.path: weight.numpy().copy() for layer in chosen for weight in layer.weights}


def run(model, inputs):
    """The model's output, without the seconds that tracing `predict` takes."""
    return keras.ops.convert_to_numpy(model(inputs, training=False))


def names_of_changed(network, before):
    after = copy_weights(network)
    return {path for path in before if before[path].tobytes() != after[path].tobytes()}


def all_layers(model):
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from all_layers(layer)


def test_the_baseline_has_the_published_number_of_parameters():
    counts = models.count_parameters(models.baseline_cnn(224, 5))
    assert counts == {"total": 11_169_605, "trainable": 11_169_605}


def test_the_frozen_network_trains_the_published_number_of_parameters():
    network = models.freeze(models.build_backbone("mobilenetv2_100", 32, weights=None))
    assert network.name == "mobilenetv2_100"
    assert network.output_shape == (None, 1, 1, 1280)
    assert models.count_parameters(network) == {"total": 2_257_984, "trainable": 0}
    model = models.connect(network, models.build_head(network.output_shape[1:], 5))
    assert models.count_parameters(model) == {"total": 2_257_984 + 164_613, "trainable": 164_613}


@pytest.mark.parametrize(("hidden", "count"), [(128, 164_613), (16, 1280 * 16 + 16 + 16 * 5 + 5), (0, 1280 * 5 + 5)])
def test_the_head_is_as_large_as_its_hidden_layer_makes_it(hidden, count):
    assert models.count_parameters(models.build_head((1280,), 5, hidden=hidden))["total"] == count


@pytest.mark.parametrize(("image_size", "num_classes"), [(22, 2), (32, 5), (48, 102), (65, 3)])
def test_the_baseline_gives_one_logit_per_class(image_size, num_classes):
    model = models.baseline_cnn(image_size, num_classes)
    assert model.input_shape == (None, image_size, image_size, 3)
    assert model(draw_images(2, image_size)).shape == (2, num_classes)


@pytest.mark.parametrize(("image_size", "side"), [(8, 1), (28, 3), (48, 6)])
def test_the_small_network_pads_its_borders_and_gives_one_logit_per_class(image_size, side):
    model = models.small_cnn(image_size, 10)
    assert model.get_layer("pool_3").output.shape == (None, side, side, 128)
    assert model(draw_images(2, image_size)).shape == (2, 10)


def test_the_small_network_draws_its_weights_from_the_seed():
    first, again, other = (models.small_cnn(28, 10, seed=seed).get_weights() for seed in (0, 0, 1))
    assert all((one == two).all() for one, two in zip(first, again, strict=True))
    assert not all((one == two).all() for one, two in zip(first, other, strict=True))


def test_pictures_too_small_for_the_small_network_are_refused():
    with pytest.raises(ValueError, match=r"at least 8 pixels a side\. Received: image_size=7"):
        models.small_cnn(7)
    with pytest.raises(ValueError, match="at least two classes"):
        models.small_cnn(28, 1)


def test_a_network_of_weights_that_expect_blue_first_is_turned_round_once(monkeypatch):
    loaded = {}

    def load(backbone, name):
        loaded[name] = backbone.get_layer("conv1_conv").get_weights()[0]

    monkeypatch.setattr(models.weight_files, "load_backbone_weights", load)
    network = models.build_backbone("resnet50", 32)
    [kernel] = loaded.values()
    np.testing.assert_array_equal(network.get_layer("conv1_conv").get_weights()[0], kernel[:, :, ::-1])
    assert list(loaded) == ["resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"]
    assert models.count_parameters(network)["total"] == 23_587_712


def test_the_last_stage_of_the_resnet_moves_without_its_statistics():
    network = models.freeze(models.build_backbone("resnet50", 32, weights=None))
    moved = models.unfreeze(network, from_block=models.BACKBONES["resnet50"]["partial"])
    assert {layer.name[:5] for layer in moved} == {"conv5"}
    assert not any("bn" in layer.name for layer in moved)


@pytest.mark.slow
def test_logits_are_not_squashed_to_probabilities(backbone, head):
    for model in (models.baseline_cnn(32, 5, seed=0), models.connect(backbone, head)):
        images = draw_images(8, model.input_shape[1])
        logits = keras.ops.convert_to_numpy(model(images))
        assert (logits < 0).any()
        assert np.abs(logits.sum(axis=1) - 1).min() > 1e-3


@pytest.mark.parametrize(("image_size", "side"), [(48, 2), (96, 3)])
def test_a_backbone_gives_a_map_of_features_a_32nd_of_the_image(image_size, side):
    network = models.build_backbone("mobilenetv2_035", image_size, weights=None)
    assert network.input_shape == (None, image_size, image_size, 3)
    assert network.name == "mobilenetv2_035"
    assert network.output_shape == (None, side, side, 1280)


@pytest.mark.parametrize("num_classes", [2, 5, 102])
@pytest.mark.parametrize("feature_shape", [(2, 2, 12), (12,)])
def test_a_head_takes_maps_or_pooled_features(feature_shape, num_classes):
    network = models.build_head(feature_shape, num_classes)
    assert network(np.zeros((3, *feature_shape))).shape == (3, num_classes)


@pytest.mark.parametrize("shape", [slice(1, None), slice(-1, None)])
def test_connecting_pools_where_the_head_expects_it_and_shares_the_weights(backbone, shape):
    head = models.build_head(backbone.output_shape[shape], 3, seed=0)
    model = models.connect(backbone, head)
    assert model.output_shape == (None, 3)
    features = run(backbone, IMAGES)
    expected = head(features.mean(axis=(1, 2)) if len(head.input_shape) == 2 else features)
    np.testing.assert_allclose(run(model, IMAGES), expected, rtol=1e-4, atol=1e-4)
    head.set_weights([np.zeros_like(weight) for weight in head.get_weights()])
    assert not run(model, IMAGES).any()


@pytest.mark.parametrize(
    "build", [lambda seed: models.baseline_cnn(32, 3, seed=seed), lambda seed: models.build_head((12,), 3, seed=seed)]
)
def test_a_seed_fixes_the_initial_weights(build):
    first, again, other, unseeded = (build(seed).get_weights() for seed in (1, 1, 2, None))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    kernels = [array for array in first if array.ndim > 1]
    for arrays in (other, unseeded):
        for one, two in zip(kernels, (array for array in arrays if array.ndim > 1), strict=True):
            assert (one != two).any()


def test_layers_of_one_seed_differ_from_each_other():
    model = models.build_head((8,), 8, hidden=8, seed=1)
    hidden, logits = (model.get_layer(name).kernel.numpy() for name in ("hidden", "logits"))
    assert (hidden != logits).any()


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_dropout_acts_in_training_only(rate):
    model = models.build_head((12,), 3, dropout=rate, seed=0)
    features = np.random.default_rng(0).normal(size=(4, 12))
    assert model.get_layer("dropout").rate == rate
    assert (model(features, training=True) != model(features)).numpy().any() == (rate > 0)
    np.testing.assert_array_equal(model(features), model(features))


def test_the_backbone_rescales_0_to_255_to_minus_1_to_1(backbone):
    assert backbone.layers[1] is backbone.get_layer("rescaling")
    np.testing.assert_allclose(backbone.get_layer("rescaling")(np.array([0.0, 127.5, 255.0])), [-1, 0, 1], atol=1e-6)


def test_the_baseline_rescales_0_to_255_to_0_to_1():
    model = models.baseline_cnn(32, 2)
    assert model.layers[1] is model.get_layer("rescaling")
    np.testing.assert_allclose(model.get_layer("rescaling")(np.array([0.0, 127.5, 255.0])), [0, 0.5, 1], atol=1e-6)


def test_the_backbone_is_keras_own_network_behind_a_rescaling(backbone):
    images = draw_images(4, seed=3)
    own = keras.applications.MobileNetV2((SIDE, SIDE, 3), alpha=0.35, include_top=False, weights=None)
    own.set_weights(backbone.get_weights())
    # Step by step: the last bits of the rescaled images differ by processor, and grow on their way through the layers.
    rescaled = run(backbone.get_layer("rescaling"), images)
    preprocessed = keras.applications.mobilenet_v2.preprocess_input(images.copy())
    np.testing.assert_allclose(rescaled, preprocessed, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(run(backbone, images), run(own, rescaled), rtol=1e-4, atol=1e-4)


def test_freezing_leaves_nothing_to_train(backbone):
    models.unfreeze(backbone, last=30, batch_norm="updating")
    assert models.freeze(backbone) is backbone
    assert not backbone.trainable_weights
    assert not any(layer.trainable for layer in backbone.layers)


def test_freezing_again_through_another_model_freezes(backbone):
    whole = keras.Model(backbone.input, backbone.output)
    models.freeze(whole)
    models.unfreeze(backbone, last=6)
    models.freeze(whole)
    assert not any(layer.trainable for layer in backbone.layers)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"last": 1}, []),
        ({"last": 3}, ["Conv_1"]),
        ({"last": 6}, ["block_16_project", "Conv_1"]),
        ({"from_block": "Conv_1"}, ["Conv_1"]),
        ({"from_block": "block_16_project"}, ["block_16_project", "Conv_1"]),
        ({"from_block": "block_16"}, ["block_16_expand", "block_16_depthwise", "block_16_project", "Conv_1"]),
        (
            {"last": 6, "batch_norm": "updating"},
            ["block_16_project", "block_16_project_BN", "Conv_1", "Conv_1_bn"],
        ),
    ],
)
def test_unfreezing_trains_exactly_these_layers(backbone, options, names):
    returned = models.unfreeze(backbone, **options)
    assert [layer.name for layer in returned] == names
    owners = {weight.path.split("/")[-2] for weight in backbone.trainable_weights}
    assert owners == set(names)


def test_unfreezing_from_a_block_is_not_misled_by_names_that_start_alike(backbone):
    names = [layer.name for layer in models.unfreeze(backbone, from_block="block_1")]
    assert names[:2] == ["block_1_expand", "block_1_depthwise"]


def test_unfreezing_replaces_what_was_unfrozen_before(backbone):
    models.unfreeze(backbone, from_block="block_10", batch_norm="updating")
    models.unfreeze(backbone, last=6)
    assert [weight.path.split("/")[-2] for weight in backbone.trainable_weights] == ["block_16_project", "Conv_1"]


def test_all_layers_may_be_unfrozen(backbone):
    models.unfreeze(backbone, last=len(backbone.layers), batch_norm="updating")
    assert len(backbone.trainable_weights) == len(backbone.weights) - 2 * 52
    assert not any(weight.path.endswith(STATISTICS) for weight in backbone.trainable_weights)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b: models.baseline_cnn(21), r"at least 22 pixels a side. Received: image_size=21"),
        (lambda b: models.baseline_cnn(32, 1), r"at least two classes. Received: num_classes=1"),
        (lambda b: models.build_head((12,), 1), r"at least two classes. Received: num_classes=1"),
        (
            lambda b: models.build_backbone("vgg16"),
            r"\['efficientnetv2b0', .*, 'resnet18', 'resnet50'\]. Received: name='vgg16'",
        ),
        (
            lambda b: models.build_backbone("mobilenetv2_035", 32, weights="noisy"),
            r"mobilenetv2_035 are one of \['imagenet', 'pocket'\] or None. Received: weights='noisy'",
        ),
        (
            lambda b: models.build_backbone("mobilenetv2_100", 32, weights="pocket"),
            r"mobilenetv2_100 are one of \['imagenet'\] or None. Received: weights='pocket'",
        ),
        (lambda b: models.unfreeze(b), r"either last or from_block. Received: last=None, from_block=None"),
        (
            lambda b: models.unfreeze(b, last=3, from_block="block_16"),
            r"either last or from_block. Received: last=3, from_block='block_16'",
        ),
        (lambda b: models.unfreeze(b, last=0), r"at least 1, at most 155. Received: last=0"),
        (lambda b: models.unfreeze(b, last=156), r"at least 1, at most 155. Received: last=156"),
        (lambda b: models.unfreeze(b, from_block="block_17"), r"'block_16'.*Received: from_block='block_17'"),
        (lambda b: models.unfreeze(b, from_block=""), r"'block_1'.*Received: from_block=''"),
        (
            lambda b: models.unfreeze(b, last=6, batch_norm="on"),
            r"'frozen' or 'updating'. Received: batch_norm='on'",
        ),
    ],
)
def test_a_bad_argument_names_the_allowed_values(backbone, call, message):
    with pytest.raises(ValueError, match=message):
        call(backbone)


def test_a_bad_argument_unfreezes_nothing(backbone):
    for options in ({"last": 0}, {"from_block": "block_99"}, {"last": 6, "batch_norm": "on"}):
        with pytest.raises(ValueError, match="Received"):
            models.unfreeze(backbone, **options)
    assert not backbone.trainable_weights


@pytest.mark.slow
def test_moving_statistics_are_bit_identical_after_fine_tuning(backbone, head):
    models.unfreeze(backbone, last=6)
    everything, norms = copy_weights(backbone), copy_weights(backbone, layers.BatchNormalization)
    assert len(norms) == 52 * 4
    fit(models.connect(backbone, head), IMAGES, epochs=2)
    changed = names_of_changed(backbone, everything)
    assert not changed & set(norms)
    assert changed == {"block_16_project/kernel", "Conv_1/kernel"}


@pytest.mark.slow
def test_updating_moves_statistics_and_scales_of_the_unfrozen_part_only(backbone, head):
    models.unfreeze(backbone, last=6, batch_norm="updating")
    before = copy_weights(backbone, layers.BatchNormalization)
    fit(models.connect(backbone, head), IMAGES, epochs=2)
    expected = {
        f"{name}/{weight}"
        for name in ("block_16_project_BN", "Conv_1_bn")
        for weight in ("gamma", "beta", "moving_mean", "moving_variance")
    }
    assert names_of_changed(backbone, before) == expected


@pytest.mark.slow
def test_calling_with_training_false_does_not_hold_moving_statistics_under_fit(backbone, head):
    """The recipe the book warns of; should a Keras version mend it, this says so."""
    models.unfreeze(backbone, last=6, batch_norm="updating")
    before = copy_weights(backbone, layers.BatchNormalization)
    inputs = keras.Input((SIDE, SIDE, 3))
    fit(keras.Model(inputs, head(backbone(inputs, training=False))), IMAGES)
    changed = names_of_changed(backbone, before)
    statistics = {path for path in changed if path.endswith(STATISTICS)}
    assert statistics == {f"{name}/{s}" for name in ("block_16_project_BN", "Conv_1_bn") for s in STATISTICS}


@pytest.mark.parametrize("options", [{"last": 6}, {"from_block": "block_15"}, {"last": 155}])
def test_beginning_and_rest_give_the_output_of_the_whole(backbone, options):
    models.unfreeze(backbone, **options)
    beginning, rest = models.split_backbone(backbone)
    whole = run(backbone, IMAGES)
    assert whole.std() > 0.1
    parts = run(rest, run(beginning, IMAGES))
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-5)


def test_the_beginning_holds_no_trainable_layer_and_the_rest_all_of_them(backbone):
    trained = models.unfreeze(backbone, last=6)
    beginning, rest = models.split_backbone(backbone)
    assert not beginning.trainable_weights
    assert beginning.layers[-1].name == "block_16_depthwise_relu"
    assert [layer for layer in rest.layers if layer.trainable and layer.weights] == trained
    assert len(beginning.layers) + len(rest.layers) - 1 == len(backbone.layers)


def test_training_the_rest_changes_the_backbone(backbone, head):
    models.unfreeze(backbone, last=6)
    before, everything = run(backbone, IMAGES), copy_weights(backbone)
    beginning, rest = models.split_backbone(backbone)
    fit(models.connect(rest, head), run(beginning, IMAGES))
    assert np.abs(run(backbone, IMAGES) - before).max() > 1e-4
    assert names_of_changed(backbone, everything) == {"block_16_project/kernel", "Conv_1/kernel"}


@pytest.mark.parametrize("last", [None, 2])
def test_a_backbone_without_trainable_layers_cannot_be_split(backbone, last):
    if last:
        models.unfreeze(backbone, last=last)
    with pytest.raises(ValueError, match=r"first unfrozen layer. Received: a frozen backbone"):
        models.split_backbone(backbone)


def test_a_cut_inside_a_residual_block_names_the_layer(backbone):
    models.unfreeze(backbone, from_block="block_15_depthwise")
    with pytest.raises(ValueError, match=r"block.* Received: .*'block_15_depthwise'"):
        models.split_backbone(backbone)


def test_no_model_holds_a_lambda_layer(backbone, head):
    models.unfreeze(backbone, last=6)
    pooled_head = models.build_head(backbone.output_shape[-1:], 5)
    parts = models.split_backbone(backbone)
    for model in (models.baseline_cnn(32, 5), models.connect(backbone, head), models.connect(parts[1], pooled_head)):
        kinds = {type(layer) for layer in all_layers(model)}
        assert layers.Dense in kinds
        assert layers.Lambda not in kinds


@pytest.mark.slow
def test_a_classifier_saved_and_loaded_in_safe_mode_predicts_the_same(backbone, head, tmp_path):
    for index, model in enumerate((models.connect(backbone, head), models.baseline_cnn(32, 5))):
        images = draw_images(4, model.input_shape[1])
        path = tmp_path / f"{index}.keras"
        model.save(path)
        loaded = keras.models.load_model(path, safe_mode=True)
        np.testing.assert_array_equal(run(loaded, images), run(model, images))


def test_parameters_are_counted_as_frozen_now(backbone, head):
    model = models.connect(backbone, head)
    frozen = models.count_parameters(model)
    models.unfreeze(backbone, last=6)
    thawed = models.count_parameters(model)
    assert thawed["total"] == frozen["total"] == backbone.count_params() + head.count_params()
    assert frozen["trainable"] == head.count_params()
    assert thawed["trainable"] - frozen["trainable"] == sum(w.numpy().size for w in backbone.trainable_weights) > 0


@pytest.mark.parametrize(
    ("name", "width", "parameters"),
    [("mobilenetv2_035", 1280, 410_208), ("mobilenetv2_100", 1280, 2_257_984), ("efficientnetv2b0", 1280, 5_919_312)],
)
def test_every_backbone_has_its_width_its_parameters_and_the_layers_its_row_names(name, width, parameters):
    backbone = models.build_backbone(name, 64, weights=None)
    assert (backbone.output_shape, backbone.count_params()) == ((None, 2, 2, width), parameters)
    row = models.BACKBONES[name]
    first = backbone.layers.index(models.unfreeze(backbone, from_block=row["partial"])[0])
    assert 0.25 < first / len(backbone.layers) < 0.75
    pooled = models.pooled(backbone, row["depths"])
    depths = [backbone.get_layer(depth).output.shape[-1] for depth in row["depths"]]
    assert pooled.output_shape == (None, sum(depths))
    assert depths[-1] == width


def test_pooled_depths_are_the_means_of_their_maps_side_by_side(backbone):
    depths = ("block_13_project_BN", "out_relu")
    maps = [run(keras.Model(backbone.input, backbone.get_layer(name).output), IMAGES) for name in depths]
    expected = np.concatenate([one.mean(axis=(1, 2)) for one in maps], axis=1)
    np.testing.assert_allclose(run(models.pooled(backbone, depths), IMAGES), expected, rtol=1e-4, atol=1e-5)


def test_features_of_other_depths_are_kept_apart(backbone):
    names = {models.pooled(backbone, depths).layers[-1].name for depths in ((), ("out_relu",), ("Conv_1", "out_relu"))}
    assert len(names) == 3


def test_a_standardised_head_sees_features_of_mean_zero_and_variance_one():
    features = np.random.default_rng(0).normal(5, 3, (500, 4)).astype("float32")
    head = models.build_head((4,), hidden=0, standardize=True)
    layer = head.get_layer("standardization")
    layer.adapt(features)
    standard = keras.ops.convert_to_numpy(layer(features))
    np.testing.assert_allclose(standard.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(standard.std(axis=0), 1, atol=1e-3)


def nest(depth=1):
    """A classifier that holds a small network with BatchNormalization as one layer, in some depth."""
    keras.utils.set_random_seed(0)
    inside = [keras.layers.Conv2D(4, 3, name="inner_conv"), keras.layers.BatchNormalization(name="inner_norm")]
    network = keras.Sequential([keras.Input((8, 8, 3)), *inside], name="inner")
    for level in range(1, depth):
        network = keras.Sequential([keras.Input((8, 8, 3)), network], name=f"around_{level}")
    return keras.Sequential([keras.Input((8, 8, 3)), network, keras.layers.Flatten(), keras.layers.Dense(2)])


def fit_once(model):
    """The statistics of each BatchNormalization inside, before and after an epoch."""
    norms = [layer for layer in models.list_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]
    before = [layer.moving_mean.numpy() for layer in norms]
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(np.random.default_rng(0).normal(5, 3, (8, 8, 8, 3)), np.arange(8) % 2, verbose=0)
    return before, [layer.moving_mean.numpy() for layer in norms]


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize(("batch_norm", "moves"), [("frozen", False), ("updating", True)])
def test_batch_normalization_inside_stays_as_it_was_unless_asked_otherwise(tmp_path, depth, loaded, batch_norm, moves):
    model = nest(depth=depth)
    if loaded:
        model.save(tmp_path / "model.keras")
        model = keras.saving.load_model(tmp_path / "model.keras")
    models.freeze(model)
    trained = models.unfreeze(model, last=4, batch_norm=batch_norm)
    assert "inner_conv" in {layer.name for layer in trained}
    before, after = fit_once(model)
    assert len(before) == 1
    assert np.array_equal(before[0], after[0]) is not moves


def test_layers_inside_are_counted_from_the_end_and_found_by_name():
    model = nest()
    first, *_ = models.unfreeze(model, from_block="inner_norm", batch_norm="updating")
    assert first.name == "inner_norm"
    assert not model.get_layer("inner").get_layer("inner_conv").trainable
    assert len(models.unfreeze(model, last=1)) == 1
    models.freeze(model)
    assert model.trainable_weights == []


def test_a_flat_network_computes_what_the_nested_one_does():
    model, x = nest(depth=3), np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3))
    flat = models.flatten(model)
    assert not any(hasattr(layer, "layers") for layer in flat.layers)
    np.testing.assert_allclose(flat(x), model(x), rtol=1e-5)
    assert models.flatten(flat) is flat


def test_a_network_that_holds_the_backbone_as_one_layer_is_not_split_or_pooled():
    model = nest()
    models.unfreeze(model, last=2)
    with pytest.raises(ValueError, match=r"split the inner one\. Received: .* with \['inner'\]"):
        models.split_backbone(model)
    with pytest.raises(ValueError, match=r"ends in a feature map.*Received: .* with the output \(None, 2\)"):
        models.pooled(model)


@pytest.mark.parametrize("size", [(64, 64), 64])
def test_a_size_may_be_written_as_keras_does(size):
    assert models.build_backbone("mobilenetv2_035", size, weights=None).input_shape == (None, 64, 64, 3)
    assert models.baseline_cnn(size).input_shape == (None, 64, 64, 3)


@pytest.mark.parametrize("size", [0, 64.0, (64, 48), "64"])
def test_what_is_no_size_is_refused(size):
    with pytest.raises(ValueError, match="Received: image_size="):
        models.build_backbone("mobilenetv2_035", size, weights=None)


def test_pooled_features_are_their_number_too():
    assert models.build_head(1280, 3).input_shape == (None, 1280)
    with pytest.raises(ValueError, match=r"Received: feature_shape=\(7, 7\)"):
        models.build_head((7, 7), 3)
