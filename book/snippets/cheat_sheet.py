"""The code of the cheat sheet: a frozen backbone, then fine-tuning."""

import keras

HEAD_LEARNING_RATE, FINE_TUNING_LEARNING_RATE = 1e-3, 1e-4


def build_model(classes, image_size=224, weights="imagenet"):
    """A frozen backbone with a new head, and the backbone."""
    backbone = keras.applications.MobileNetV2(
        input_shape=(image_size, image_size, 3),
        include_top=False,
        weights=weights,
        pooling="avg",
    )
    backbone.trainable = False
    inputs = keras.Input((image_size, image_size, 3))  # pixels in 0..255
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    logits = keras.layers.Dense(classes)(backbone(scaled))
    return keras.Model(inputs, logits), backbone


def compile_model(model, learning_rate):
    """Compiles; once more after each change of `trainable`."""
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )


def unfreeze(backbone, first="block_7_expand"):
    """Trains what follows a layer, but no BatchNormalization."""
    names = [layer.name for layer in backbone.layers]
    start = names.index(first)
    backbone.trainable = True
    for index, layer in enumerate(backbone.layers):
        normalizes = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = index >= start and not normalizes


def train(train_data, validation_data, classes, epochs=(15, 8), **options):
    """The head first, then the later part of the backbone."""
    model, backbone = build_model(classes, **options)
    compile_model(model, HEAD_LEARNING_RATE)
    model.fit(train_data, validation_data=validation_data, epochs=epochs[0])
    unfreeze(backbone)
    compile_model(
        model, FINE_TUNING_LEARNING_RATE
    )  # compile again after every change
    model.fit(train_data, validation_data=validation_data, epochs=epochs[1])
    return model
