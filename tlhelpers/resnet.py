"""ResNet-18, which keras.applications lacks: layer by layer as keras-hub orders it, so that its weights fit."""

from keras import Model, layers, utils

STAGES = (64, 128, 256, 512)
BLOCKS = 2


def build_resnet18(*, input_tensor, include_top=False, weights=None):
    """The convolutional part of ResNet-18.

    keras-hub builds the same network, but as one piece behind an input of its own: it could not be unfrozen layer by
    layer after a rescaling.

    Args:
        input_tensor: KerasTensor `(batch, height, width, 3)`, normalised.
        include_top: bool. Only False is offered.
        weights: None. Pretrained ones are loaded by `weights.load_backbone_weights`.

    Returns:
        keras.Model with an output `(batch, height / 32, width / 32, 512)`.

    Raises:
        ValueError: when a classification layer or weights are asked for.

    Source:
        He et al. 2016, https://arxiv.org/abs/1512.03385.
    """
    if include_top or weights:
        raise ValueError(
            "ResNet-18 comes without a classification layer and without weights. "
            f"Received: include_top={include_top}, weights={weights!r}"
        )
    x = layers.ZeroPadding2D(3, name="conv1_pad")(input_tensor)
    x = _normalized(x, 64, 7, 2, "conv1", padding="valid")
    x = layers.Activation("relu", name="conv1_relu")(x)
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool1_pool")(x)
    for stage, filters in enumerate(STAGES):
        for block in range(BLOCKS):
            narrows = stage > 0 and block == 0
            x = _block(x, filters, f"stack{stage}_block{block}", stride=2 if narrows else 1, projects=narrows)
    return Model(utils.get_source_inputs(input_tensor), x, name="resnet18")


def _block(x, filters, name, *, stride, projects):
    """Two convolutions, and a way around them."""
    shortcut = _normalized(x, filters, 1, stride, f"{name}_0") if projects else x
    if stride > 1:
        x = layers.ZeroPadding2D(1, name=f"{name}_1_pad")(x)
    x = _normalized(x, filters, 3, stride, f"{name}_1", padding="valid" if stride > 1 else "same")
    x = layers.Activation("relu", name=f"{name}_1_relu")(x)
    x = _normalized(x, filters, 3, 1, f"{name}_2")
    x = layers.Add(name=f"{name}_add")([shortcut, x])
    return layers.Activation("relu", name=f"{name}_out")(x)


def _normalized(x, filters, size, stride, name, *, padding="same"):
    x = layers.Conv2D(filters, size, strides=stride, padding=padding, use_bias=False, name=f"{name}_conv")(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)
