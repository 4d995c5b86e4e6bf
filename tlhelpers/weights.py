"""Pretrained weights: where they come from, and whether they are the official ones.

Places are asked in one order: the book itself for the pocket backbone, `TLHELPERS_MIRROR`, the cache, upstream.
"""

import hashlib
import json
import zipfile

import numpy as np

from tlhelpers import files, settings
from tlhelpers.datasets import downloads
from tlhelpers.datasets.downloads import MissingDataError
from tlhelpers.files import BadArchiveError

WEIGHTS_URL = "https://storage.googleapis.com/tensorflow/keras-applications/"
# By how a file's name begins.
UPSTREAM_FOLDERS = {"mobilenet_v2_": "mobilenet_v2/", "efficientnetv2-": "efficientnet_v2/", "resnet50_": "resnet/"}

# By what they were pretrained on, then by backbone. The `pocket` ones travel with the book.
WEIGHT_FILES = {
    "imagenet": {
        "mobilenetv2_100": "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
        "mobilenetv2_035": "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5",
        "efficientnetv2b0": "efficientnetv2-b0_notop.h5",
        "resnet18": "resnet_18_imagenet",
        "resnet50": "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
    },
    "pocket": {"mobilenetv2_035": "mobilenetv2_035.npz"},
}

# Weights that keras-hub keeps under a name of its own.
PRESETS = (WEIGHT_FILES["imagenet"]["resnet18"],)

# The card beside the pocket weights says what they learned from, at what cost, and their digest.
CARD_FILE = "card.json"

# SHA-256 over the arrays of the ImageNet weights in layer order, so that the same weights are recognised in any
# container; as float32 or, where editions that store half precision are in use, as float16.
WEIGHTS_SHA256 = {
    WEIGHT_FILES["imagenet"]["mobilenetv2_100"]: "c009b1f1262c1f55420ed4f95d0f338acb97548930c6f6c8f3383b79544088a8",
    WEIGHT_FILES["imagenet"]["mobilenetv2_035"]: "cea55efc9877ca3885be4994427a90914d259e7e8d759d90f36f7bb16e1725a7",
    WEIGHT_FILES["imagenet"]["efficientnetv2b0"]: "87c5eff9c99a8069faad4810492c009bbd74954b88356795de89314b041508f2",
}
# Where only the makers' checksum of the file is known.
WEIGHTS_MD5 = {WEIGHT_FILES["imagenet"]["resnet50"]: "4d473c1dd8becc155b73f8504c6f6626"}
HALF_PRECISION = (WEIGHT_FILES["imagenet"]["efficientnetv2b0"],)


def find_weights(name):
    """Finds a weight file: in the book, or, asked in this order, the mirror, the cache and upstream.

    Args:
        name: str. The file name of the weights, the upstream one where they have one.

    Returns:
        Path.

    Raises:
        MissingDataError: when no source has it; the message names the ways to provide it.
        BadArchiveError: when the mirror's copy does not match its checksum.
    """
    if name in WEIGHT_FILES["pocket"].values():
        return _embedded_file(name)
    found = downloads.find_nearby(f"weights/{name}")
    if found:
        return found
    destination = downloads.cache_path(name)
    url = weights_url(name)
    try:
        return downloads.download(url, destination)
    except OSError as error:
        raise MissingDataError(
            f"The ImageNet weights {name} are nowhere to be found.\n"
            "Provide them in one of these ways:\n"
            f"  - connect to the internet: they come from {url} (it said: {error})\n"
            "  - set TLHELPERS_MIRROR to a folder or URL that holds them under weights/\n"
            f"  - put the file into {destination.parent}"
        ) from error


def weights_url(name):
    """Where Keras publishes a weight file."""
    folder = next(folder for prefix, folder in UPSTREAM_FOLDERS.items() if name.startswith(prefix))
    return f"{WEIGHTS_URL}{folder}{name}"


def load_backbone_weights(backbone, name):
    """Loads pretrained weights into a backbone and checks that they are the official ones, or those of the card.

    Args:
        backbone: keras.Model.
        name: str. The file name of the weights.

    Raises:
        MissingDataError: when no source has the file.
        BadArchiveError: when the file is damaged or holds other weights.
    """
    if name in PRESETS:
        _load_preset(backbone, name)
        return
    path = find_weights(name)
    if name in WEIGHTS_MD5 and (md5 := files.digest_of(path, "md5")) != WEIGHTS_MD5[name]:
        raise BadArchiveError(f"{name} has the MD5 {WEIGHTS_MD5[name]}. Received: {md5} for {str(path)!r}")
    try:
        _read_weights(backbone, path)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BadArchiveError(
            f"A weight file fits its backbone and is whole ({error}). Received: {str(path)!r}"
        ) from error
    pocket = name in WEIGHT_FILES["pocket"].values()
    expected = load_card()["arrays_sha256"] if pocket else WEIGHTS_SHA256.get(name)
    received = digest_of_weights(backbone, half_precision=name in HALF_PRECISION)
    if expected is not None and received != expected:
        raise BadArchiveError(
            f"The arrays of {name} have the SHA-256 {expected}. Received: {received} from {str(path)!r}"
        )


def save_backbone_weights(backbone, path):
    """Saves the weights of a backbone as plain arrays in layer order: read sooner than what Keras saves.

    Args:
        backbone: keras.Model.
        path: Path, ending in `.npz`.
    """
    with files.atomic_file(path) as temporary:
        np.savez(temporary, *backbone.get_weights())


def _read_weights(backbone, path):
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            backbone.set_weights([arrays[name] for name in arrays.files])
    else:
        backbone.load_weights(str(path))


def _load_preset(backbone, name):
    """Takes over the weights of a ResNet preset; keras-hub fetches, verifies and caches them."""
    try:
        import keras_hub

        preset = keras_hub.models.ResNetBackbone.from_preset(name)
    except Exception as error:  # keras-hub raises what its HTTP library raises
        raise MissingDataError(
            f"The weights of the preset {name} are nowhere to be found.\n"
            "They come through keras-hub: install it (`pip install keras-hub`) and connect to the internet "
            f"(it said: {type(error).__name__}: {error})"
        ) from error
    backbone.set_weights(preset.get_weights())


def load_card():
    """The card of the pocket backbone: what it learned from, at what cost, and how good it is.

    Returns:
        dict, see `pretraining.write_pocket`.

    Raises:
        MissingDataError: when the book came without it.
        BadArchiveError: when it is damaged.
    """
    path = _embedded_file(CARD_FILE)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadArchiveError(
            f"The card of the pocket backbone is whole JSON ({error}). Received: {str(path)!r}"
        ) from error


def digest_of_weights(model, *, half_precision=False):
    """The SHA-256 over a model's arrays in layer order, whatever file they came from.

    Args:
        model: keras.Model.
        half_precision: bool. Whether the arrays are rounded to float16 first, so that an edition that was stored
            so is the same.

    Returns:
        str, 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for array in model.get_weights():
        digest.update(array.astype("<f2" if half_precision else "<f4").tobytes())
    return digest.hexdigest()


def _embedded_file(name):
    path = settings.pocket_folder() / name
    if not path.is_file():
        raise MissingDataError(
            "The pocket backbone and its card come with the book; clone it again, or train them with `make pocket`. "
            f"Received: no file {str(path)!r}"
        )
    return path
