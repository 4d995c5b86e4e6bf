"""Keras as this package needs it, whatever `~/.keras/keras.json` says: channels last, single precision, TensorFlow.

Modules take `keras` from here. Which backend Keras loads is settled before, when `tlhelpers` is imported.
"""

import keras

OTHER_BACKENDS = ("jax", "numpy", "openvino", "torch")

if (backend := keras.backend.backend()) in OTHER_BACKENDS:
    raise ImportError(
        "tlhelpers computes with Keras on TensorFlow; import it before Keras, or unset KERAS_BACKEND. "
        f"Received: Keras on {backend}"
    )
keras.config.set_image_data_format("channels_last")
keras.config.set_floatx("float32")
