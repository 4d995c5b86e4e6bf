"""The networks: a CNN from scratch, a pretrained backbone with a new head, and what to unfreeze.

Every model takes RGB images in 0..255, rescales them itself and ends in one layer of logits.
"""

from functools import partial

from keras import layers

from tlhelpers import resnet
from tlhelpers import weights as weight_files
from tlhelpers.inputs import check_image_size, check_model, check_whole
from tlhelpers.keras_settings import keras

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of images in 0..1

# `rescaling` brings images in 0..255 into the range the weights expect; None where the network does so itself.
# `partial` is the block from which partial fine-tuning starts: about the last half of the blocks. `depths` are layers
# whose pooled outputs say more together than the last one alone. `blue_first` weights were trained on blue, green, red.
BACKBONES = {
    "mobilenetv2_100": {
        "builder": partial(keras.applications.MobileNetV2, alpha=1.0),
        "rescaling": {"scale": 1 / 127.5, "offset": -1.0},
        "partial": "block_7",
        "depths": ("block_13_project_BN", "block_16_project_BN", "out_relu"),
    },
    "mobilenetv2_035": {
        "builder": partial(keras.applications.MobileNetV2, alpha=0.35),
        "rescaling": {"scale": 1 / 127.5, "offset": -1.0},
        "partial": "block_7",
        "depths": ("block_13_project_BN", "block_16_project_BN", "out_relu"),
    },
    "resnet18": {
        "builder": resnet.build_resnet18,
        "rescaling": {
            "scale": [1 / (255 * deviation) for deviation in IMAGENET_DEVIATION],
            "offset": [-mean / deviation for mean, deviation in zip(IMAGENET_MEAN, IMAGENET_DEVIATION, strict=True)],
        },
        "partial": "stack3",
        "depths": ("stack2_block1_out", "stack3_block1_out"),
    },
    "resnet50": {
        "builder": keras.applications.ResNet50,
        "rescaling": {"scale": 1.0, "offset": [-123.68, -116.779, -103.939]},
        "blue_first": True,
        "partial": "conv5_block1",
        "depths": ("conv4_block6_out", "conv5_block3_out"),
    },
    "efficientnetv2b0": {
        "builder": keras.applications.EfficientNetV2B0,
        "rescaling": None,
        "partial": "block5a",
        "depths": ("block5e_add", "block6h_add", "top_activation"),
    },
}


def baseline_cnn(image_size=224, num_classes=5, *, dropout=0.5, seed=None):
    """A small convolutional network, trained from scratch.

    Three blocks of convolution and pooling, then a dense layer that holds almost all parameters:
    11,169,605 at 224 pixels and 5 classes.

    Args:
        image_size: int. Side of the square input, pixels; at least 22.
        num_classes: int. Number of classes, at least 2.
        dropout: float in [0, 1). Share of the dense layer's units silenced in training.
        seed: int or None. Seeds the initial weights and the dropout.

    Returns:
        keras.Model. Input `(batch, image_size, image_size, 3)` in 0..255, output logits `(batch, num_classes)`.

    Raises:
        ValueError: when the image is too small for three blocks or there are fewer than two classes.

    Source:
        The network of the published flower study.
    """
    _check_num_classes(num_classes)
    image_size = check_image_size(image_size)
    if image_size < 22:
        raise ValueError(
            f"Three convolution and pooling blocks need at least 22 pixels a side. Received: image_size={image_size}"
        )
    seeds = _seed_sequence(seed)
    inputs = keras.Input((image_size, image_size, 3), name="image")
    x = layers.Rescaling(1 / 255, name="rescaling")(inputs)
    x = _convolutions(x, (32, 64, 128), seeds, padding="valid")
    x = layers.Flatten(name="flatten")(x)
    outputs = _head(x, num_classes, 128, dropout, seeds)
    return keras.Model(inputs, outputs, name="baseline_cnn")


def small_cnn(image_size=28, num_classes=10, *, dropout=0.4, seed=None):
    """Three blocks of convolution and pooling for tiny images, trained from scratch.

    Padding keeps the borders: at 28 pixels the blocks see 28, 14 and 7 pixels a side, and 3 are left. A grey image
    comes as three equal channels.

    Args:
        image_size: int. Side of the square input, pixels; at least 8.
        num_classes, dropout, seed: as for `baseline_cnn`; values are silenced before and after the dense layer.

    Returns:
        keras.Model, as `baseline_cnn`.

    Raises:
        ValueError: as `baseline_cnn`.

    Source:
        The network of the published Fashion-MNIST study: three Conv-ReLU-MaxPool layers, a fully connected
        classifier and dropout; the sizes are ours.
    """
    _check_num_classes(num_classes)
    image_size = check_image_size(image_size)
    if image_size < 8:
        raise ValueError(f"Three poolings need at least 8 pixels a side. Received: image_size={image_size}")
    seeds = _seed_sequence(seed)
    inputs = keras.Input((image_size, image_size, 3), name="image")
    x = layers.Rescaling(1 / 255, name="rescaling")(inputs)
    x = _convolutions(x, (32, 64, 128), seeds, padding="same")
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dropout(dropout, seed=next(seeds), name="flatten_dropout")(x)
    outputs = _head(x, num_classes, 128, dropout, seeds)
    return keras.Model(inputs, outputs, name="small_cnn")


def build_backbone(name, image_size=224, *, weights="imagenet"):
    """A convolutional backbone without its classification layer, rescaling included.

    Args:
        name: str. A key of `BACKBONES`.
        image_size: int. Side of the square input, pixels; at least 32.
        weights: str or None. `"imagenet"` for weights pretrained on photographs, `"pocket"` for those that travel
            with the book, pretrained on synthetic images (`mobilenetv2_035` only), None for random ones.

    Returns:
        keras.Model. Input `(batch, image_size, image_size, 3)` in 0..255,
        output features `(batch, side, side, width)`, where side is a 32nd of `image_size`, rounded up.

    Raises:
        ValueError: when the backbone or the weights have an unknown name, or the size is none.

    Source:
        Sandler et al. 2018, https://arxiv.org/abs/1801.04381; Tan and Le 2021, https://arxiv.org/abs/2104.00298.
    """
    _check_backbone(name)
    offered = sorted(kind for kind, names in weight_files.WEIGHT_FILES.items() if name in names)
    if weights not in (*offered, None):
        raise ValueError(f"Weights of {name} are one of {offered} or None. Received: weights={weights!r}")
    row, image_size = BACKBONES[name], check_image_size(image_size)
    inputs = keras.Input((image_size, image_size, 3), name="image")
    rescaled = layers.Rescaling(**row["rescaling"], name="rescaling")(inputs) if row["rescaling"] else inputs
    network = row["builder"](input_tensor=rescaled, include_top=False, weights=None)
    backbone = keras.Model(inputs, network.output, name=name)
    if weights:
        weight_files.load_backbone_weights(backbone, weight_files.WEIGHT_FILES[weights][name])
        if row.get("blue_first"):
            _turn_round(backbone)
    return backbone


def build_head(feature_shape, num_classes=5, *, hidden=128, dropout=0.3, standardize=False, seed=None):
    """The published head: pooling, a dense layer, dropout, logits.

    Args:
        feature_shape: tuple of int. `(height, width, channels)`, or `(channels,)` when already pooled; then the number
            of channels alone does, too.
        num_classes: int. Number of classes, at least 2.
        hidden: int. Units of the dense layer; 0 leaves it out (a linear classifier).
        dropout: float in [0, 1).
        standardize: bool. Whether each feature is brought to mean 0 and variance 1 first, by a layer called
            `"standardization"` that is to be adapted to the training features.
        seed: int or None. Seeds the initial weights and the dropout.

    Returns:
        keras.Model. From features to logits `(batch, num_classes)`.

    Raises:
        ValueError: when there are fewer than two classes, or the features are of another shape.
    """
    _check_num_classes(num_classes)
    feature_shape = (feature_shape,) if isinstance(feature_shape, int) else tuple(feature_shape)
    if len(feature_shape) not in (1, 3):
        raise ValueError(f"Features are (height, width, channels) or (channels,). Received: {feature_shape=}")
    inputs = keras.Input(feature_shape, name="features")
    x = inputs
    if len(feature_shape) == 3:
        x = layers.GlobalAveragePooling2D(name="pooling")(x)
    if standardize:
        x = layers.Normalization(name="standardization")(x)
    outputs = _head(x, num_classes, hidden, dropout, _seed_sequence(seed))
    return keras.Model(inputs, outputs, name="head")


def pooled(backbone, depths=()):
    """A backbone followed by global average pooling: images to one feature vector each.

    Args:
        backbone: keras.Model with an output `(batch, height, width, channels)`.
        depths: sequence of str. Names of layers whose outputs are pooled and put one behind the other; none means
            the backbone's output alone.

    Returns:
        keras.Model with an output `(batch, channels)`. Weights are shared.

    Raises:
        ValueError: when the backbone does not end in a feature map.
    """
    check_model(backbone, name="backbone")
    if len(backbone.output_shape) != 4:
        raise ValueError(
            "A backbone ends in a feature map, (batch, height, width, channels). "
            f"Received: {backbone.name!r} with the output {backbone.output_shape}"
        )
    if depths:
        parts = [layers.GlobalAveragePooling2D()(backbone.get_layer(name).output) for name in depths]
        outputs = layers.Concatenate(name="_".join(("pooling", *depths)))(
            parts
        )  # the name tells its features from others
    else:
        outputs = layers.GlobalAveragePooling2D(name="pooling")(backbone.output)
    return keras.Model(backbone.input, outputs, name=f"{backbone.name}_pooled")


def connect(backbone, head, depths=()):
    """The whole classifier: backbone, pooling where the head expects pooled features, head.

    Args:
        backbone: keras.Model, as from `build_backbone`.
        head: keras.Model, as from `build_head`. Its weights are shared, not copied.
        depths: sequence of str. As for `pooled`.

    Returns:
        keras.Model. From images in 0..255 to logits.
    """
    features = pooled(backbone, depths) if len(head.input_shape) == 2 else backbone
    return keras.Model(backbone.input, head(features.output), name=f"{backbone.name}_classifier")


def freeze(backbone):
    """Freezes every layer of a backbone, those of networks inside it too, and returns it."""
    backbone.trainable = False
    for layer in list_layers(backbone):  # Keras passes the flag on only when the backbone's own changes
        layer.trainable = False
    return backbone


def unfreeze(backbone, *, last=None, from_block=None, batch_norm="frozen"):
    """Unfreezes the end of a network; everything before it stays frozen.

    Layers are counted and found inside of networks that the network holds as one layer, too, as in a `Sequential` of a
    backbone and a head.

    BatchNormalization layers stay frozen unless asked otherwise: only `trainable = False` keeps their
    moving statistics in place under `fit`. Calling the backbone with `training=False` does not.

    Args:
        backbone: keras.Model, a backbone or a whole classifier.
        last: int or None. How many layers to unfreeze, counted from the end.
        from_block: str or None. Or: unfreeze from the first layer whose name starts so, such as `"block_16"`.
        batch_norm: str. `"frozen"`, or `"updating"` to let the unfrozen part's BatchNormalization train.

    Returns:
        list of keras.Layer. The layers that now train.

    Raises:
        ValueError: when not exactly one of `last` and `from_block` is given, or it names no layer.

    Source:
        https://github.com/keras-team/keras/issues/20285 (training=False is overridden under `fit`).
    """
    found = list_layers(backbone)
    start = _first_unfrozen(found, last, from_block)
    if batch_norm not in ("frozen", "updating"):
        raise ValueError(f"batch_norm is 'frozen' or 'updating'. Received: batch_norm={batch_norm!r}")
    backbone.trainable = True  # and the networks inside it, whose own flag would hold their layers back
    for index, layer in enumerate(found):
        is_batch_norm = isinstance(layer, layers.BatchNormalization)
        layer.trainable = index >= start and not (is_batch_norm and batch_norm == "frozen")
    return [layer for layer in found if layer.trainable and layer.weights]


def list_layers(model):
    """The layers of a network in their order, with those of networks inside it in the place of these.

    Args:
        model: keras.Model.

    Returns:
        list of keras.Layer. Inputs of inner networks are left out.
    """
    found = []
    for layer in model.layers:
        inner = list_layers(layer) if _nests(layer) else [layer]
        found += [part for part in inner if part is layer or not isinstance(part, layers.InputLayer)]
    return found


def flatten(model):
    """The same network with all feature maps in one graph, from the images to the outputs, and copies of the weights.

    Args:
        model: keras.Model, which may hold others as layers, in any depth. Heads, which make no map, stay as they are.

    Returns:
        keras.Model. The same one where no network inside makes a feature map.

    Raises:
        ValueError: when it is not built, or two inner networks have layers of one name.
    """
    check_model(model)
    if not any(map(_nests_maps, model.layers)):
        return model
    shared = _flatten_sharing(model)
    try:
        flat = keras.models.clone_model(shared)
    except ValueError as error:
        raise ValueError(
            f"Layers of networks inside a network have different names ({error}). Received: model={model.name!r}"
        ) from error
    flat.set_weights(shared.get_weights())
    return flat


def _flatten_sharing(model):
    """The flat network with the very layers of the model, which then stand in several graphs."""

    def call(layer, *arguments, **options):
        if not _nests_maps(layer):
            return layer(*arguments, **options)
        return _flatten_sharing(layer).call(*arguments)  # layer by layer, where `layer(...)` would be one step

    ends = [side[0] if len(side) == 1 else side for side in (model.inputs, model.outputs)]
    whole = keras.Model(*ends, name=model.name)  # of a Sequential, too
    return keras.models.clone_model(whole, clone_function=lambda layer: layer, call_function=call)


def _nests(layer):
    return bool(getattr(layer, "layers", None))


def _nests_maps(layer):
    """Whether a layer is a network that makes feature maps, as a backbone does and a head does not."""
    parts = [part for part in list_layers(layer) if not isinstance(part, layers.InputLayer)] if _nests(layer) else []
    return any(len(output.shape) == 4 for part in parts for output in keras.tree.flatten(part.output))


def partial_block(name):
    """The block of a backbone from which partial fine-tuning starts, as `unfreeze` takes it.

    Args:
        name: str. A key of `BACKBONES`.

    Returns:
        str.

    Raises:
        ValueError: when there is no such backbone.
    """
    _check_backbone(name)
    return BACKBONES[name]["partial"]


def split_backbone(backbone):
    """Cuts a partly unfrozen backbone where its frozen beginning ends.

    The beginning gives the same output for an image in every epoch, so it needs to run only once.
    Both parts share their weights with `backbone`.

    Args:
        backbone: keras.Model with some trainable layers, as left by `unfreeze`.

    Returns:
        tuple of two keras.Model: the frozen beginning and the rest, which takes the beginning's output.

    Raises:
        ValueError: when nothing is unfrozen, or when no single tensor connects the two parts.
    """
    inner = [layer.name for layer in backbone.layers if _nests(layer)]
    if inner:
        raise ValueError(
            "A backbone is split between layers of its own, and holds no network as one of them: split the inner one. "
            f"Received: {backbone.name!r} with {inner}"
        )
    trainable = [i for i, layer in enumerate(backbone.layers) if layer.trainable and layer.weights]
    if not trainable:
        raise ValueError("A backbone is split at its first unfrozen layer. Received: a frozen backbone")
    cut = backbone.layers[trainable[0] - 1]
    beginning = keras.Model(backbone.input, cut.output, name=f"{backbone.name}_beginning")
    try:
        rest = keras.Model(cut.output, backbone.output, name=f"{backbone.name}_rest")
    except ValueError as error:
        first = backbone.layers[trainable[0]].name
        raise ValueError(
            "A backbone is split where one tensor connects its parts, as at the start of a block. "
            f"Received: a backbone whose first unfrozen layer is {first!r}"
        ) from error
    return beginning, rest


def count_parameters(model):
    """Parameters of a model.

    Args:
        model: keras.Model.

    Returns:
        dict with `total` and `trainable`, both int.
    """
    return {
        "total": int(model.count_params()),
        "trainable": int(sum(weight.shape.num_elements() for weight in model.trainable_weights)),
    }


def _convolutions(x, widths, seeds, *, padding):
    """One 3 x 3 convolution with ReLU and one pooling per width."""
    for index, filters in enumerate(widths, start=1):
        options = {"padding": padding, "kernel_initializer": keras.initializers.GlorotUniform(next(seeds))}
        x = layers.Conv2D(filters, 3, activation="relu", name=f"conv_{index}", **options)(x)
        x = layers.MaxPooling2D(name=f"pool_{index}")(x)
    return x


def _turn_round(backbone):
    """Exchanges the channels of the first convolution once, instead of those of every image."""
    first = next(layer for layer in backbone.layers if isinstance(layer, layers.Conv2D))
    kernel, *bias = first.get_weights()
    first.set_weights([kernel[:, :, ::-1], *bias])


def _head(x, num_classes, hidden, dropout, seeds):
    if hidden:
        initializer = keras.initializers.GlorotUniform(next(seeds))
        x = layers.Dense(hidden, activation="relu", kernel_initializer=initializer, name="hidden")(x)
    x = layers.Dropout(dropout, seed=next(seeds), name="dropout")(x)
    initializer = keras.initializers.GlorotUniform(next(seeds))
    return layers.Dense(num_classes, kernel_initializer=initializer, dtype="float32", name="logits")(x)


def _seed_sequence(seed):
    while True:
        yield seed
        seed = None if seed is None else seed + 1


def _check_backbone(name):
    if name not in BACKBONES:
        raise ValueError(f"A backbone is one of {sorted(BACKBONES)}. Received: name={name!r}")


def _check_num_classes(num_classes):
    if not isinstance(num_classes, int) or num_classes < 2:
        raise ValueError(f"A classifier needs at least two classes. Received: num_classes={num_classes!r}")


def _first_unfrozen(found, last, from_block):
    if (last is None) == (from_block is None):
        raise ValueError(f"Give either last or from_block. Received: last={last!r}, from_block={from_block!r}")
    names = [layer.name for layer in found]
    if last is not None:
        return len(names) - check_whole(last, name="last", low=1, high=len(names))
    for index, name in enumerate(names):
        if name == from_block or name.startswith(from_block + "_"):
            return index
    blocks = sorted({"_".join(name.split("_")[:2]) for name in names if name.startswith("block_")})
    raise ValueError(f"from_block is a layer's name or one of {blocks}. Received: from_block={from_block!r}")
