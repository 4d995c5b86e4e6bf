"""Recipes: how a network is trained, one row each.

A recipe starts from a trained head where the backbone is pretrained, unfreezes a part of the backbone, and keeps
BatchNormalization frozen there. Which ingredients stand in the table was decided on validation images alone.
"""

from dataclasses import dataclass

from tlhelpers import inputs, models
from tlhelpers.keras_settings import keras

SCRATCH_BATCH_NORM_MOMENTUM = 0.9  # Keras' own 0.999 needs thousands of steps before the averages mean anything


@dataclass(frozen=True)
class Recipe(inputs.OldNames):
    """How one network is trained.

    Args:
        strategy: str. Its name among the strategies of a study, such as `"full"`.
        unfrozen: str or int or None. What is trained: None for the head alone, `"all"`, `"partial"` for the backbone's
            own row in `models.BACKBONES`, a block's name, or how many layers counted from the end.
        pretrained: bool. Whether the backbone brings weights.
        train_image_size: int. Side of the images that training sees, pixels.
        test_image_size: int. Side of the images that are predicted, pixels. Random crops show things larger than whole
            images do; larger test images make up for it.
        read_size: int. Side at which training images are read before they are cropped, pixels.
        passes: int. How often an epoch shows every training image: a set of a few makes no epoch.
        several_depths: bool. Whether the head sees pooled features of several levels, standardised, and not of
            the last layer alone.
        hidden: int. Units of the head's dense layer; 0 leaves it out.
        dropout: float in [0, 1).
        head_epochs: int. Passes of the head over the frozen features.
        head_learning_rate: float. The head's learning rate; where nothing is trained after it, the learning rate falls
            from there.
        epochs: int. Passes with the unfrozen layers.
        learning_rate: float. The learning rate after the warm-up; from there it falls to zero along a cosine.
        warm_up: float. Epochs in which the rate rises to `learning_rate`.
        input_learning_rate_share: float in (0, 1]. The first layer's share of the rate; between the first and the last
            layer the share grows geometrically. 1 gives every layer the same rate.
        weight_decay: float.
        label_smoothing: float in [0, 1).
        augment: str or None. A key of `loaders.AUGMENTATIONS`.
        views: int. How many random views of each training image pass the frozen beginning once, before training, so
            that an epoch trains on one of them; 0 takes a new view through the whole network every time.
        ema: float or None. Momentum of the moving average of the weights that is kept in the end.
        patience: int or None. Epochs without a lower validation loss after which training stops and the best
            weights are taken back.
        flips: bool. Whether an image and its mirror image are predicted and their probabilities averaged.

    Source:
        Discriminative rates: Howard and Ruder 2018, https://arxiv.org/abs/1801.06146. Larger test images: Touvron et
        al. 2019, https://arxiv.org/abs/1906.06423. Label smoothing: Szegedy et al. 2016,
        https://arxiv.org/abs/1512.00567.
    """

    OLD = {  # noqa: RUF012 - not a field
        "train_size": "train_image_size",
        "test_size": "test_image_size",
        "head_rate": "head_learning_rate",
        "rate": "learning_rate",
        "input_rate_share": "input_learning_rate_share",
    }

    strategy: str
    unfrozen: str | int | None
    pretrained: bool = True
    train_image_size: int = 160
    test_image_size: int = 224
    read_size: int = 224
    passes: int = 1
    several_depths: bool = False
    hidden: int = 0
    dropout: float = 0.2
    head_epochs: int = 15
    head_learning_rate: float = 1e-3
    epochs: int = 8
    learning_rate: float = 3e-4
    warm_up: float = 1.0
    input_learning_rate_share: float = 1.0
    weight_decay: float = 0.0
    label_smoothing: float = 0.1
    augment: str | None = "strong"
    views: int = 0
    ema: float | None = None
    patience: int | None = None
    flips: bool = True

    @property
    def mirrored(self):
        """Test-time augmentation: for each prediction of an image, whether its mirror image is predicted."""
        return (False, True) if self.flips else (False,)


RECIPES = {
    recipe.strategy: recipe
    for recipe in (
        Recipe("frozen_linear", None, train_image_size=288, test_image_size=288, head_epochs=30),
        Recipe(
            "frozen_depths",
            None,
            train_image_size=288,
            test_image_size=288,
            several_depths=True,
            hidden=1024,
            dropout=0.5,
            head_epochs=10,
            weight_decay=1e-4,
        ),
        Recipe("partial", "partial", test_image_size=256),
        Recipe("full", "all", test_image_size=256),
        Recipe("full_longer", "all", test_image_size=256, epochs=16),
        Recipe(
            "scratch",
            "all",
            pretrained=False,
            train_image_size=128,
            test_image_size=192,
            read_size=192,
            epochs=24,
            learning_rate=2e-3,
            weight_decay=1e-4,
        ),
        Recipe(
            "scratch_augmented",
            "all",
            pretrained=False,
            train_image_size=224,
            epochs=20,
            learning_rate=1e-3,
            patience=6,
        ),
    )
}


def get_recipe(strategy):
    """The recipe of a strategy.

    Args:
        strategy: str. A key of `RECIPES`.

    Returns:
        Recipe.

    Raises:
        ValueError: when there is no such recipe.
    """
    if strategy not in RECIPES:
        raise ValueError(f"A recipe is one of {sorted(RECIPES)}. Received: strategy={strategy!r}")
    return RECIPES[strategy]


def unfreeze(backbone, recipe, network):
    """Unfreezes the part of a backbone that a recipe names.

    A network without pretrained weights trains its BatchNormalization too, with averages that follow quickly.

    Args:
        backbone: keras.Model.
        recipe: Recipe.
        network: str. A key of `models.BACKBONES`.
    """
    unfrozen = models.BACKBONES[network]["partial"] if recipe.unfrozen == "partial" else recipe.unfrozen
    batch_norm = "frozen" if recipe.pretrained else "updating"
    if unfrozen == "all":
        models.unfreeze(backbone, last=len(backbone.layers), batch_norm=batch_norm)
    elif isinstance(unfrozen, int):
        models.unfreeze(backbone, last=unfrozen, batch_norm=batch_norm)
    else:
        models.unfreeze(backbone, from_block=unfrozen, batch_norm=batch_norm)
    if not recipe.pretrained:
        for layer in backbone.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = SCRATCH_BATCH_NORM_MOMENTUM
