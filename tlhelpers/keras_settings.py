"""Keras as this package needs it, whatever `~/.keras/keras.json` says: channels last, single precision, TensorFlow.

Modules take `keras` from here. Which backend Keras loads is settled before, when `tlhelpers` is imported.
"""

import keras

BACKEND = "tensorflow"

if keras.backend.backend() != BACKEND:
    raise ImportError(
        f"tlhelpers computes with Keras on {BACKEND}; import it before Keras, or unset KERAS_BACKEND. "
        f"Received: Keras on {keras.backend.backend()}"
    )
keras.config.set_image_data_format("channels_last")
keras.config.set_floatx("float32")
