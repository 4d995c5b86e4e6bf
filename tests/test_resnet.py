"""ResNet-18 is the network that keras-hub has weights for."""

import keras
import numpy as np
import pytest

from tlhelpers import models, resnet
from tlhelpers.datasets import sources

SIDE = 64
STRUCTURE = {
    "input_conv_filters": [64],
    "input_conv_kernel_sizes": [7],
    "stackwise_num_filters": [64, 128, 256, 512],
    "stackwise_num_blocks": [2, 2, 2, 2],
    "stackwise_num_strides": [1, 2, 2, 2],
    "block_type": "basic_block",
    "image_shape": (SIDE, SIDE, 3),
}


@pytest.fixture(scope="module")
def hub():
    """The same network as keras-hub builds it, with random weights and random statistics."""
    import keras_hub

    keras.utils.set_random_seed(0)
    network = keras_hub.models.ResNetBackbone(**STRUCTURE)
    rng = np.random.default_rng(0)
    network.set_weights([w + rng.uniform(0, 0.1, w.shape).astype("float32") for w in network.get_weights()])
    return network


@pytest.mark.slow
def test_weights_of_keras_hub_give_the_same_features(hub):
    inputs = keras.Input((SIDE, SIDE, 3))
    network = resnet.build_resnet18(input_tensor=inputs)
    network.set_weights(hub.get_weights())
    images = np.random.default_rng(1).normal(size=(2, SIDE, SIDE, 3)).astype("float32")
    np.testing.assert_allclose(network(images), hub(images), rtol=1e-4, atol=1e-4)


def test_backbone_takes_the_weights_of_the_preset_and_normalises_its_input(hub, monkeypatch):
    import keras_hub

    asked = []
    monkeypatch.setattr(keras_hub.models.ResNetBackbone, "from_preset", lambda name: asked.append(name) or hub)
    network = models.build_backbone("resnet18", SIDE)
    assert asked == ["resnet_18_imagenet"]
    assert models.count_parameters(network)["total"] == 11_186_112
    images = np.random.default_rng(2).uniform(0, 255, (2, SIDE, SIDE, 3)).astype("float32")
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    normalised = ((images / 255 - mean) / deviation).astype("float32")
    np.testing.assert_allclose(network(images), hub(normalised), rtol=1e-3, atol=1e-3)


def test_preset_that_cannot_be_fetched_is_answered_with_what_to_do(monkeypatch):
    import keras_hub

    def refuse(name):
        raise ConnectionError(f"no way to {name}")

    monkeypatch.setattr(keras_hub.models.ResNetBackbone, "from_preset", refuse)
    with pytest.raises(
        sources.MissingDataError, match=r"resnet_18_imagenet are nowhere to be found\.\n.*keras-hub.*no way to"
    ):
        models.build_backbone("resnet18", SIDE)


def test_last_stage_moves_without_its_statistics():
    network = models.freeze(models.build_backbone("resnet18", SIDE, weights=None))
    moved = models.unfreeze(network, from_block=models.BACKBONES["resnet18"]["partial"])
    assert {layer.name[:6] for layer in moved} == {"stack3"}
    assert not any(layer.name.endswith("bn") for layer in moved)


@pytest.mark.parametrize("options", [{"include_top": True}, {"weights": "imagenet"}])
def test_what_is_not_offered_is_refused(options):
    with pytest.raises(ValueError, match="without a classification layer and without weights"):
        resnet.build_resnet18(input_tensor=keras.Input((SIDE, SIDE, 3)), **options)
