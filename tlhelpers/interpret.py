"""What a trained network looks at, what its layers return for an image, and which images it finds alike."""

import functools

import numpy as np
import pandas as pd
import tensorflow as tf
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from tlhelpers import inputs, models
from tlhelpers.keras_settings import keras

BATCH = 16
STATISTICS_BATCH = 64  # no gradient, and each layer's output is needed once
PCA_DIMENSIONS = 50
PERPLEXITY = 30


def grad_cam(model, images, *, layer=None, classes=None):
    """Where in an image the evidence for a class stands: Grad-CAM.

    The gradient of the class's logit, averaged over the places of a feature map, weighs the map's channels; their
    weighted sum, without what speaks against the class, is the heat. It is as coarse as the feature map and
    is enlarged to the size of the image.

    Args:
        model: keras.Model. From images in 0..255 to logits.
        images: array `(n, height, width, 3)` in 0..255.
        layer: str or None. Name of the layer whose output is explained; None takes the last one with an output
            `(batch, height, width, channels)`.
        classes: int array `(n,)` or None. The classes to explain; None takes those that the model predicts.

    Returns:
        float32 array `(n, height, width)` in 0..1. The hottest place of each image is 1; an image in which
        nothing speaks for the class is 0 throughout.

    Raises:
        ValueError: when the layer is unknown or has no map, when it is not the only way from the image to the
            logits, when the images are none that the model takes, or when there is not one class per image.

    Source:
        Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391.
    """
    images = _check_images(model, images)
    classes = _check_classes(model, classes, len(images))
    model = models.flatten(model)
    before, after = _cut(model, _find_map(model, layer))
    maps = np.zeros(np.shape(images)[:3], np.float32)
    for part in _batches(len(images)):
        batch = tf.convert_to_tensor(images[part], tf.float32)
        chosen = None if classes is None else tf.convert_to_tensor(classes[part], tf.int32)
        heat = _heat(tf.cast(before(batch, training=False), tf.float32), after, chosen)
        heat = tf.image.resize(heat[..., tf.newaxis], maps.shape[1:])[..., 0].numpy()
        top = heat.max(axis=(1, 2), keepdims=True)
        maps[part] = np.divide(heat, top, out=np.zeros_like(heat), where=top > 0)
    return maps


def feature_maps(model, images, layers):
    """The outputs of some layers, all from one pass.

    Args:
        model: keras.Model. From images in 0..255 to anything.
        images: array `(n, height, width, 3)` in 0..255.
        layers: sequence of str. Names of layers.

    Returns:
        dict from a layer's name to a float32 array `(n, …)`, in the order of `layers`.

    Raises:
        ValueError: when the model has no layer of that name, or the images are none that it takes.
    """
    images = _check_images(model, images)
    model = models.flatten(model)
    outputs = [_find_layer(model, name).output for name in layers]
    network = keras.Model(model.inputs[0], outputs)
    batches = [
        keras.tree.flatten(network(tf.convert_to_tensor(images[part], tf.float32), training=False))
        for part in _batches(len(images))
    ]
    joined = (np.concatenate([np.asarray(output, np.float32) for output in one]) for one in zip(*batches, strict=True))
    return dict(zip(layers, joined, strict=True))


def strongest_channels(feature_map, count):
    """The channels whose answer differs most from place to place.

    Args:
        feature_map: float array `(height, width, channels)`.
        count: int. How many channels to choose.

    Returns:
        int array `(count,)`. Indices of channels, the one with the largest standard deviation first.
    """
    spread = np.asarray(feature_map).std(axis=(0, 1))
    return np.argsort(-spread, kind="stable")[:count]


def domain_distance(backbone, images):
    """How unlike images are to those that a backbone was pretrained on, layer by layer.

    Every `BatchNormalization` keeps the mean and the variance that each of its channels had during pretraining. What
    the same channel gives for other images is held against them: the distance between the two normal distributions
    (Fréchet's), in standard deviations of pretraining, as a root mean square over the channels of a layer. No image
    of the pretraining is needed. What the classes are plays no part.

    Args:
        backbone: keras.Model. From images in 0..255, with `BatchNormalization` as pretraining left it.
        images: array `(n, height, width, 3)` in 0..255; a few hundred.

    Returns:
        pandas.Series of float, 0 or more, by the names of the layers, the one next to the image first. Its mean is
        one number for the backbone.

    Raises:
        ValueError: when the backbone has no `BatchNormalization`, or there is no image.

    Source:
        After Li et al. 2016, https://arxiv.org/abs/1603.04779, who find a domain in these statistics.
    """
    images = _check_images(backbone, images)
    backbone = models.flatten(backbone)
    norms = [layer for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)]
    if not norms or len(images) == 0:
        raise ValueError(
            "A distance needs a backbone with BatchNormalization and at least one image. "
            f"Received: {len(norms)} such layers, {len(images)} images"
        )
    measure = _compile_moments(backbone.inputs[0], tuple(layer.input for layer in norms))
    batches = (images[part] for part in _batches(len(images), STATISTICS_BATCH))
    measured = zip(*[measure(tf.convert_to_tensor(batch, tf.float32)) for batch in batches], strict=True)
    distances = [_distance(layer, *_pool(moments)) for layer, moments in zip(norms, measured, strict=True)]
    return pd.Series(distances, index=[layer.name for layer in norms], name="distance")


def embed_2d(features, *, seed):
    """A map of images in two dimensions that keeps neighbours together: t-SNE after PCA.

    Distances between far points of such a map, and the sizes of its groups, mean nothing.

    Args:
        features: float array `(n, width)`, one row per image; at least four.
        seed: int.

    Returns:
        float32 array `(n, 2)`.

    Raises:
        ValueError: when there are fewer than four rows.

    Source:
        van der Maaten & Hinton 2008, https://www.jmlr.org/papers/v9/vandermaaten08a.html.
    """
    features = np.asarray(features, np.float32)
    if len(features) < 4:
        raise ValueError(f"A map of neighbours needs at least four images. Received: {len(features)}")
    pca = PCA(min(PCA_DIMENSIONS, *features.shape), random_state=seed)
    tsne = TSNE(init="pca", perplexity=min(PERPLEXITY, (len(features) - 1) / 3), random_state=seed)
    with threadpool_limits(1):  # several threads wait for each other at every step, and sum in another order
        return tsne.fit_transform(pca.fit_transform(features)).astype(np.float32)


def nearest_neighbours(features, queries, count):
    """The rows most alike to each query, by the cosine of the angle between them.

    Args:
        features: float array `(n, width)`.
        queries: float array `(q, width)`.
        count: int in 1..n. Neighbours per query.

    Returns:
        tuple of an int array `(q, count)`, indices of rows of `features`, the nearest first, and a float32 array
        `(q, count)`, their cosine similarity in -1..1.

    Raises:
        ValueError: when `count` is out of range.
    """
    if not 1 <= count <= len(features):
        raise ValueError(f"count is between 1 and {len(features)}. Received: count={count}")
    if len(queries) == 0:
        return np.empty((0, count), int), np.empty((0, count), np.float32)
    index = NearestNeighbors(n_neighbors=count, metric="cosine").fit(features)
    distances, indices = index.kneighbors(queries)
    return indices, (1 - distances).astype(np.float32)


def _check_images(model, images):
    """Images that a model takes, as an array; none of them is fine."""
    shape = inputs.check_model(model).input_shape
    if len(shape) != 4:
        raise ValueError(f"A model that is explained takes images, (n, height, width, channels). Received: {shape=}")
    if len(images) == 0:
        return np.empty((0, *(side or 1 for side in shape[1:])), np.uint8)
    return inputs.check_images(images, size=None if None in shape[1:3] else shape[1:3], channels=shape[-1])


def _check_classes(model, classes, count):
    """One class of a model for each image, or None."""
    if classes is None:
        return None
    if np.shape(classes) != (count,):
        raise ValueError(f"classes holds one class per image: {(count,)}. Received: classes.shape={np.shape(classes)}")
    return inputs.check_labels(classes, classes=model.output_shape[-1], name="classes")


@functools.lru_cache(maxsize=1)
def _compile_moments(inputs, outputs):
    """A call from images to mean and variance of each channel of some layers in each image: traced once."""
    network = keras.Model(inputs, list(outputs))

    @tf.function(input_signature=[tf.TensorSpec(inputs.shape, tf.float32)])
    def measure(images):
        seen = keras.tree.flatten(network(images, training=False))
        return [tf.nn.moments(tf.cast(one, tf.float32), list(range(1, one.shape.rank - 1))) for one in seen]

    return measure


def _pool(moments):
    """Mean and variance of each channel over all images, from those of each image, batch by batch."""
    means, variances = (np.concatenate(values).astype(np.float64) for values in zip(*moments, strict=True))
    mean = means.mean(axis=0)
    return mean, np.maximum((variances + means**2).mean(axis=0) - mean**2, 0)


def _distance(layer, mean, variance):
    """Root mean square over channels of the distance between what a layer has seen and what it sees."""
    usual = keras.ops.convert_to_numpy(layer.moving_mean)
    # the layer divides so: channels that hardly vary count little
    variances = keras.ops.convert_to_numpy(layer.moving_variance), variance
    before, now = (np.sqrt(value + layer.epsilon) for value in variances)
    shift = (mean - usual) / before
    stretch = now / before - 1
    return float(np.sqrt(np.mean(shift**2 + stretch**2)))


def _heat(features, after, classes):
    """Unscaled heat `(n, height, width)` of one batch, from the output of the explained layer."""
    with tf.GradientTape() as tape:
        tape.watch(features)
        logits = after(features, training=False)
        chosen = tf.argmax(logits, axis=1) if classes is None else classes
        score = tf.gather(logits, chosen, axis=1, batch_dims=1)
    weights = tf.reduce_mean(tape.gradient(score, features), axis=(1, 2), keepdims=True)
    return tf.nn.relu(tf.reduce_sum(weights * features, axis=-1))


def _cut(model, layer):
    """The network up to a layer's output, and from there on."""
    before = keras.Model(model.inputs[0], layer.output)
    try:
        return before, keras.Model(layer.output, model.outputs[0])
    except ValueError as error:
        raise ValueError(
            "A layer is explained where its output is the only way from the image to the logits, as at the end of a "
            f"block. Received: layer={layer.name!r}"
        ) from error


def _find_layer(model, name):
    for layer in model.layers:
        if layer.name == name:
            return layer
    raise ValueError(f"A layer is one of {[layer.name for layer in model.layers]}. Received: {name!r}")


def _find_map(model, name):
    """The layer of that name, or the last one, whose output is a map."""
    if name is None:
        for layer in reversed(model.layers):
            if len(layer.output.shape) == 4:
                return layer
        raise ValueError("Grad-CAM needs a layer with a 4-D output. Received: a model without one")
    layer = _find_layer(model, name)
    if len(layer.output.shape) != 4:
        raise ValueError(f"Grad-CAM needs a layer with a 4-D output. Received: {name!r} with {layer.output.shape}")
    return layer


def _batches(count, size=BATCH):
    return [slice(start, start + size) for start in range(0, count, size)]
