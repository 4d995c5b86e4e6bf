"""Recipes: how a network is trained, one row each; and what a row means to Keras.

A recipe starts from a trained head where the backbone is pretrained, unfreezes a part of the backbone, and keeps
BatchNormalization frozen there. Which ingredients stand in the table was decided on validation images alone.
"""

from dataclasses import dataclass
from functools import partial

import tensorflow as tf

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


class DiscriminativeAdam(keras.optimizers.Adam):
    """Adam that lets some weights take smaller steps than others.

    An update is one operation of TensorFlow for each weight, where Keras has about thirty: with the 158 weights of a
    MobileNetV2 a first step takes half as long.

    Args:
        learning_rate: float or schedule.
        shares: dict from the path of a weight to its share of the learning rate; 1 where it has none.
        **options: as for `keras.optimizers.Adam`, without `amsgrad`; with a `weight_decay` it is AdamW.
    """

    def __init__(self, learning_rate, shares=None, **options):
        super().__init__(learning_rate, **options)
        if self.amsgrad:
            raise ValueError("DiscriminativeAdam has no amsgrad. Received: amsgrad=True")
        self.shares = shares or {}

    def build(self, variables):
        """Looks up the share of each variable."""
        self._share_by_index = [self.shares.get(variable.path, 1.0) for variable in variables]
        super().build(variables)

    def apply(self, grads, trainable_variables=None):
        """Takes one step; what all weights have in common is computed once."""
        step = keras.ops.cast(self.iterations + 1, "float32")
        self._beta_powers = self.beta_1**step, self.beta_2**step
        super().apply(grads, trainable_variables)

    def update_step(self, gradient, variable, learning_rate):
        """Moves one weight, by its share of the step."""
        index = self._get_variable_index(variable)
        share = self._share_by_index[index]
        cast = partial(tf.cast, dtype=variable.dtype)  # what is of another type makes the operation abort
        beta_1_power, beta_2_power = map(cast, self._beta_powers)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=beta_1_power,
            beta2_power=beta_2_power,
            lr=cast(learning_rate if share == 1 else learning_rate * share),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=cast(gradient),
        )

    def get_config(self):
        """The settings, shares included."""
        return super().get_config() | {"shares": self.shares}


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


def warm_up_and_decay(rate, steps, warm_up_steps):
    """A learning rate that rises in a straight line and then falls to zero along half a cosine.

    Args:
        rate: float. The highest rate.
        steps: int. All training steps, those of the warm-up included.
        warm_up_steps: int. At most half of all steps are used.

    Returns:
        keras.optimizers.schedules.LearningRateSchedule.
    """
    warm_up_steps = min(warm_up_steps, steps // 2)
    if not warm_up_steps:
        return keras.optimizers.schedules.CosineDecay(rate, steps)
    return keras.optimizers.schedules.CosineDecay(
        rate / warm_up_steps, steps - warm_up_steps, warmup_target=rate, warmup_steps=warm_up_steps
    )


def rate_shares(backbone, input_learning_rate_share):
    """Each layer's share of the learning rate: small near the image, 1 at the far end.

    Args:
        backbone: keras.Model.
        input_learning_rate_share: float in (0, 1]. The share of the first layer.

    Returns:
        dict from the path of a weight to a float.
    """
    last = len(backbone.layers) - 1
    return {
        weight.path: input_learning_rate_share ** (1 - index / last)
        for index, layer in enumerate(backbone.layers)
        for weight in layer.weights
    }


def build_optimizer(recipe, steps_per_epoch, backbone=None):
    """The optimiser a recipe asks for.

    Args:
        recipe: Recipe.
        steps_per_epoch: int.
        backbone: keras.Model or None. Needed where `input_learning_rate_share` is below 1.

    Returns:
        keras.Optimizer.
    """
    steps = steps_per_epoch * recipe.epochs
    schedule = warm_up_and_decay(recipe.learning_rate, steps, round(steps_per_epoch * recipe.warm_up))
    options = {"weight_decay": _weight_decay(recipe)}
    if recipe.ema is not None:
        options |= {"use_ema": True, "ema_momentum": recipe.ema}
    shares = rate_shares(backbone, recipe.input_learning_rate_share) if recipe.input_learning_rate_share < 1 else {}
    return DiscriminativeAdam(schedule, shares, **options)


def build_head_optimizer(recipe, steps):
    """The optimiser of a head: equal steps where fine-tuning follows, else steps that shrink to nothing.

    Args:
        recipe: Recipe.
        steps: int. All steps of the head's training.

    Returns:
        keras.Optimizer.
    """
    if recipe.unfrozen is not None:
        return keras.optimizers.Adam(recipe.head_learning_rate)
    schedule = keras.optimizers.schedules.CosineDecay(recipe.head_learning_rate, steps)
    return keras.optimizers.Adam(schedule, weight_decay=_weight_decay(recipe))


def _weight_decay(recipe):
    """None where there is none: Keras puts even a decay of 0.0, and the schedule, into the graph for each weight."""
    return recipe.weight_decay or None


def build_loss(recipe):
    """The loss a recipe asks for, on one-hot targets and logits."""
    return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing)


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
