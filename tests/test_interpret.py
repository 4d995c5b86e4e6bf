"""Looking inside: heat where the evidence stands, maps of the right layers, neighbours that are near."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from builders import settle_statistics
from keras import layers

from tlhelpers import interpret, models, training

SIDE = 64


def draw_images(count=5, side=SIDE, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


IMAGES = draw_images()


@pytest.fixture(scope="module")
def backbone():
    keras.utils.set_random_seed(0)
    network = models.build_backbone("mobilenetv2_035", SIDE, weights=None)
    settle_statistics(network, draw_images(8, seed=1).astype("float32"))
    return models.freeze(network)


@pytest.fixture(scope="module")
def classifier(backbone):
    """A frozen backbone with a pooled head, as the chapters save it."""
    return models.connect(backbone, models.build_head((1280,), 5, seed=0))


@pytest.fixture(scope="module")
def baseline():
    return models.baseline_cnn(SIDE, 5, seed=0)


def colour_detector():
    """Class 0 answers to red, class 1 to blue, in a map of a quarter of the side."""
    inputs = keras.Input((SIDE, SIDE, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.AveragePooling2D(4)(x)
    convolution = layers.Conv2D(2, 1, activation="relu", name="colours")
    x = layers.GlobalAveragePooling2D(name="pooling")(convolution(x))
    outputs = layers.Dense(2, name="logits")
    model = keras.Model(inputs, outputs(x))
    convolution.set_weights([np.array([[[[1, 0], [0, 0], [0, 1]]]], "float32"), np.zeros(2, "float32")])
    outputs.set_weights([np.eye(2, dtype="float32") * 8 - 4, np.zeros(2, "float32")])
    return model


def red_left_and_blue_right():
    image = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    image[0, 8:40, 4:28, 0] = 255
    image[0, 36:60, 40:60, 2] = 200
    return image


def mean_inside(heat, rows, columns):
    return heat[0, rows, columns].mean()


@pytest.mark.parametrize("name", ["classifier", "baseline"])
def test_heat_has_the_size_of_the_picture_and_lies_between_zero_and_one(name, request):
    maps = interpret.grad_cam(request.getfixturevalue(name), IMAGES)
    assert (maps.shape, maps.dtype) == (IMAGES.shape[:3], np.float32)
    assert maps.min() >= 0
    assert set(maps.max(axis=(1, 2))) <= {0, 1}
    assert (maps > 0).any()


@pytest.mark.parametrize(("name", "layer"), [("classifier", "out_relu"), ("baseline", "pool_3")])
def test_the_last_map_is_explained_unless_asked_otherwise(name, layer, request):
    model = request.getfixturevalue(name)
    np.testing.assert_array_equal(interpret.grad_cam(model, IMAGES), interpret.grad_cam(model, IMAGES, layer=layer))


def test_a_head_that_pools_by_itself_is_explained_too(backbone, classifier):
    head = models.build_head(backbone.output_shape[1:], 5, seed=0)
    model = models.connect(backbone, head)
    head.set_weights(classifier.get_layer("head").get_weights())
    np.testing.assert_allclose(interpret.grad_cam(model, IMAGES), interpret.grad_cam(classifier, IMAGES), atol=1e-4)


def test_heat_lies_where_the_class_is_and_not_where_the_other_is():
    model, image = colour_detector(), red_left_and_blue_right()
    left, right = (slice(12, 36), slice(8, 24)), (slice(40, 56), slice(44, 56))
    red, blue = (interpret.grad_cam(model, image, classes=[index]) for index in (0, 1))
    assert mean_inside(red, *left) == pytest.approx(1)
    assert mean_inside(red, *right) == 0
    assert mean_inside(blue, *right) == pytest.approx(1)
    assert mean_inside(blue, *left) == 0


def test_the_predicted_class_is_explained_unless_asked_otherwise():
    model, image = colour_detector(), red_left_and_blue_right()
    predicted = model(image.astype("float32")).numpy().argmax(axis=1)
    assert predicted == [0]
    np.testing.assert_array_equal(interpret.grad_cam(model, image), interpret.grad_cam(model, image, classes=predicted))


def test_a_picture_without_evidence_is_cold_throughout():
    maps = interpret.grad_cam(colour_detector(), np.zeros((1, SIDE, SIDE, 3), np.uint8), classes=[1])
    assert not maps.any()


def test_heat_is_the_published_formula(classifier):
    """Weights by central differences: how far the logit moves when one channel grows everywhere."""
    before = keras.Model(classifier.input, classifier.get_layer("out_relu").output)
    head, features = classifier.get_layer("head"), before(IMAGES[:1].astype("float32")).numpy()
    pooled, step = features.mean(axis=(1, 2)), np.eye(features.shape[-1], dtype="float32")
    chosen = head(pooled).numpy().argmax()
    weights = (head(pooled + step / 20).numpy() - head(pooled - step / 20).numpy())[:, chosen]
    heat = np.maximum((features * weights).sum(axis=-1), 0)
    expected = tf.image.resize(heat[..., np.newaxis], (SIDE, SIDE)).numpy()[..., 0]
    assert expected.max() > 0
    np.testing.assert_allclose(interpret.grad_cam(classifier, IMAGES[:1]), expected / expected.max(), atol=0.05)


def test_half_precision_gives_nearly_the_same_heat(baseline):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        half = models.baseline_cnn(SIDE, 5, seed=0)
    finally:
        keras.config.set_dtype_policy(policy)
    assert half.get_layer("pool_3").output.dtype == "float16"
    classes = [0, 1, 2, 3, 4]
    maps = interpret.grad_cam(half, IMAGES, classes=classes)
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps, interpret.grad_cam(baseline, IMAGES, classes=classes), atol=0.05)
    assert interpret.feature_maps(half, IMAGES, ["pool_3"])["pool_3"].dtype == np.float32


def test_a_loaded_model_is_explained_without_a_warning(baseline, tmp_path, recwarn):
    training.save_model(baseline, tmp_path / "model.keras")
    loaded = training.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(interpret.grad_cam(loaded, IMAGES), interpret.grad_cam(baseline, IMAGES), atol=1e-4)
    interpret.feature_maps(loaded, IMAGES, ["pool_3", "conv_1"])
    assert [str(warning.message) for warning in recwarn if "structure" in str(warning.message)] == []


def test_pictures_are_explained_one_by_one_whatever_the_batch(classifier, monkeypatch):
    together = interpret.grad_cam(classifier, IMAGES)
    monkeypatch.setattr(interpret, "BATCH", 2)
    np.testing.assert_allclose(interpret.grad_cam(classifier, IMAGES), together, atol=1e-4)
    alone = interpret.grad_cam(classifier, IMAGES[3:4])
    np.testing.assert_allclose(alone, together[3:4], atol=1e-4)


def test_explaining_leaves_the_model_as_it_was(classifier):
    before, logits = classifier.get_weights(), classifier(IMAGES.astype("float32")).numpy()
    flags = [layer.trainable for layer in classifier.layers]
    interpret.grad_cam(classifier, IMAGES)
    interpret.feature_maps(classifier, IMAGES, ["Conv1_relu"])
    for one, two in zip(before, classifier.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert [layer.trainable for layer in classifier.layers] == flags
    np.testing.assert_array_equal(classifier(IMAGES.astype("float32")), logits)


def test_no_picture_gives_no_map(classifier):
    assert interpret.grad_cam(classifier, IMAGES[:0]).shape == (0, SIDE, SIDE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "conv_9"}, r"'Conv1'.*Received: 'conv_9'"),
        ({"layer": "pooling"}, r"4-D output. Received: 'pooling' with \(None, 1280\)"),
        ({"layer": "block_4_expand_relu"}, "only way.*Received: layer='block_4_expand_relu'"),
        ({"classes": [0, 1]}, r"one class per image: \(5,\). Received: classes.shape=\(2,\)"),
        ({"classes": 0}, r"Received: classes.shape=\(\)"),
    ],
)
def test_what_cannot_be_explained_is_an_error(classifier, options, message):
    with pytest.raises(ValueError, match=message):
        interpret.grad_cam(classifier, IMAGES, **options)


def test_a_network_without_a_map_cannot_be_explained():
    with pytest.raises(ValueError, match=r"takes images, .* Received: shape=\(None, 12\)"):
        interpret.grad_cam(models.build_head((12,), 3), IMAGES)


@pytest.mark.parametrize("names", [["conv_1", "pool_3"], ["hidden"], ["pool_3", "conv_1"]])
def test_feature_maps_are_the_outputs_of_the_named_layers_in_order(baseline, names, monkeypatch):
    monkeypatch.setattr(interpret, "BATCH", 2)
    maps = interpret.feature_maps(baseline, IMAGES, names)
    assert list(maps) == names
    for name, values in maps.items():
        layer = baseline.get_layer(name)
        expected = keras.Model(baseline.input, layer.output)(IMAGES.astype("float32"))
        assert (values.shape, values.dtype) == ((len(IMAGES), *layer.output.shape[1:]), np.float32)
        np.testing.assert_allclose(values, expected, atol=1e-4)


def test_maps_of_an_unknown_layer_name_the_known_ones(baseline):
    with pytest.raises(ValueError, match=r"'conv_1', 'pool_1'.*Received: 'conv_9'"):
        interpret.feature_maps(baseline, IMAGES, ["conv_1", "conv_9"])


def test_the_strongest_channels_are_those_that_differ_from_place_to_place():
    maps = np.zeros((4, 4, 5))
    maps[..., 0] = 100
    maps[0, :, 1] = 1
    maps[0, :, 3] = 8
    maps[0, :, 4] = -4
    assert interpret.strongest_channels(maps, 3).tolist() == [3, 4, 1]
    assert interpret.strongest_channels(maps, 5).tolist() == [3, 4, 1, 0, 2]


def two_groups(count=20, width=60, seed=0):
    rng = np.random.default_rng(seed)
    centres = np.repeat(rng.normal(0, 1, (2, width)), count, axis=0)
    return (centres + rng.normal(0, 0.05, (2 * count, width))).astype("float32")


def test_a_map_keeps_neighbours_together():
    points = interpret.embed_2d(two_groups(), seed=0)
    assert (points.shape, points.dtype) == ((40, 2), np.float32)
    distances = np.linalg.norm(points[:, np.newaxis] - points, axis=-1)
    np.fill_diagonal(distances, np.inf)
    assert (distances.argmin(axis=1) // 20 == np.arange(40) // 20).all()


def test_a_seed_fixes_the_map():
    features = two_groups(seed=1)
    np.testing.assert_array_equal(interpret.embed_2d(features, seed=3), interpret.embed_2d(features, seed=3))


@pytest.mark.parametrize("shape", [(4, 100), (9, 3)])
def test_few_pictures_or_features_still_make_a_map(shape):
    points = interpret.embed_2d(np.random.default_rng(0).normal(size=shape), seed=0)
    assert points.shape == (shape[0], 2)
    assert np.isfinite(points).all()


def test_three_pictures_make_no_map():
    with pytest.raises(ValueError, match=r"at least four images\. Received: 3"):
        interpret.embed_2d(np.eye(3), seed=0)


def test_neighbours_come_nearest_first_by_angle_and_not_by_length():
    features = np.array([[1, 0], [0, 5], [-1, 0], [3, 3]], "float32")
    indices, similarity = interpret.nearest_neighbours(features, np.array([[10, 0], [0, 0.1]], "float32"), 3)
    assert indices[0].tolist() == [0, 3, 1]
    assert indices[1, :2].tolist() == [1, 3]
    assert similarity.dtype == np.float32
    np.testing.assert_allclose(similarity[0], [1, np.sqrt(0.5), 0], atol=1e-6)


def test_no_query_has_no_neighbours():
    indices, similarity = interpret.nearest_neighbours(np.eye(3), np.empty((0, 3)), 2)
    assert indices.shape == similarity.shape == (0, 2)


@pytest.mark.parametrize("count", [0, 4])
def test_there_are_no_more_neighbours_than_pictures(count):
    with pytest.raises(ValueError, match=f"between 1 and 3. Received: count={count}"):
        interpret.nearest_neighbours(np.eye(3), np.eye(3), count)


def small_norm_network(mean, variance):
    """One BatchNormalization on the three colours, pretrained on pictures with that mean and variance."""
    inputs = keras.Input((SIDE, SIDE, 3))
    norm = layers.BatchNormalization(epsilon=0.0, name="norm")
    model = keras.Model(inputs, norm(inputs))
    norm.moving_mean.assign(np.full(3, mean))
    norm.moving_variance.assign(np.full(3, variance))
    return model


@pytest.mark.parametrize("batch", [64, 12])
def test_the_distance_of_a_domain_counts_its_shift_and_its_stretch_in_deviations_of_the_pretraining(batch, monkeypatch):
    monkeypatch.setattr(interpret, "STATISTICS_BATCH", batch)
    images = np.zeros((20, SIDE, SIDE, 3), np.float32)
    images[10:] = 8.0  # mean 4, deviation 4
    distances = interpret.domain_distance(small_norm_network(mean=1.0, variance=4.0), images)
    assert list(distances.index) == ["norm"]
    assert distances["norm"] == pytest.approx(np.hypot((4 - 1) / 2, 4 / 2 - 1))


@pytest.mark.slow
def test_a_backbone_is_traced_once_for_all_domains(monkeypatch):
    traced, network = [], small_norm_network(mean=1.0, variance=4.0)
    moments = tf.nn.moments
    monkeypatch.setattr(tf.nn, "moments", lambda *arguments: traced.append(1) or moments(*arguments))
    distances = [interpret.domain_distance(network, IMAGES[:count]).mean() for count in (5, 3)]
    network.get_layer("norm").moving_mean.assign(np.full(3, 9.0))
    assert len(traced) == 1
    assert len({*distances, interpret.domain_distance(network, IMAGES[:3]).mean()}) == 3


@pytest.mark.slow
def test_pictures_of_the_pretraining_have_no_distance_and_others_have_some(backbone):
    pretraining = draw_images(8, seed=1)
    near, far = (interpret.domain_distance(backbone, images) for images in (pretraining, pretraining // 4))
    norms = [layer.name for layer in backbone.layers if isinstance(layer, layers.BatchNormalization)]
    assert list(near.index) == norms
    assert near.max() < 0.05
    assert far.mean() > 5 * near.mean()


def test_a_distance_needs_statistics_and_pictures(backbone, baseline):
    with pytest.raises(ValueError, match="Received: 0 such layers, 5 images"):
        interpret.domain_distance(baseline, IMAGES)
    with pytest.raises(ValueError, match="Received: 52 such layers, 0 images"):
        interpret.domain_distance(backbone, IMAGES[:0])


def nest(backbone, kind):
    """A classifier that holds a backbone as one layer, as Keras' guides build it."""
    head = [layers.GlobalAveragePooling2D(), layers.Dense(3, kernel_initializer=keras.initializers.GlorotUniform(1))]
    if kind == "sequential":
        return keras.Sequential([keras.Input((SIDE, SIDE, 3)), backbone, *head])
    inputs = keras.Input((SIDE, SIDE, 3))
    x = backbone(inputs, training=False)
    if kind == "twice":
        middle = keras.Model(inputs, x, name="middle")
        x = middle(inputs)
    for layer in head:
        x = layer(x)
    return keras.Model(inputs, x)


@pytest.mark.slow
@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("kind", ["sequential", "functional", "twice", "loaded"])
def test_a_backbone_inside_is_explained_as_one_whose_layers_stand_in_the_model(backbone, tmp_path, kind):
    model = nest(backbone, "sequential" if kind == "loaded" else kind)
    pooled = models.pooled(backbone)
    flat = keras.Model(pooled.input, model.layers[-1](pooled.output))
    if kind == "loaded":
        model.save(tmp_path / "model.keras")
        model = keras.saving.load_model(tmp_path / "model.keras")
    for options in ({}, {"layer": "block_13_expand_relu", "classes": [0, 1, 2, 0, 1]}):
        np.testing.assert_allclose(
            interpret.grad_cam(model, IMAGES, **options), interpret.grad_cam(flat, IMAGES, **options), atol=1e-3
        )
    names = ["block_3_expand", "out_relu"]
    found, expected = (interpret.feature_maps(one, IMAGES, names) for one in (model, flat))
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-3, atol=1e-3)
    distances = [interpret.domain_distance(one, IMAGES) for one in (model, flat)]
    np.testing.assert_allclose(*distances, rtol=1e-3)


@pytest.mark.parametrize(
    ("images", "options", "said"),
    [
        (IMAGES[0], {}, r"image\[None\]"),
        (IMAGES / 255, {}, "look like 0..1"),
        (IMAGES[..., :1], {}, r"Received: images of shape"),
        (draw_images(side=50), {}, r"\(n, 64, 64, 3\)"),
        (IMAGES, {"classes": [0, 1, 2, 3, 9]}, "0 on to 4.*Received: classes"),
        (IMAGES, {"classes": [-1] * 5}, "Received: classes"),
    ],
)
def test_images_and_classes_that_a_model_does_not_know_are_refused(classifier, images, options, said):
    with pytest.raises(ValueError, match=said):
        interpret.grad_cam(classifier, images, **options)


@pytest.mark.slow
@pytest.mark.filterwarnings("error::UserWarning")
def test_a_loaded_classifier_of_the_book_is_explained_as_it_stands_and_without_a_warning(classifier, tmp_path):
    training.save_model(classifier, tmp_path / "model.keras")
    loaded = training.load_model(tmp_path / "model.keras")
    assert models.flatten(loaded) is loaded
    np.testing.assert_allclose(interpret.grad_cam(loaded, IMAGES), interpret.grad_cam(classifier, IMAGES), atol=1e-4)
