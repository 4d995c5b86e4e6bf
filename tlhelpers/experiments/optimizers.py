"""Optimisers: how the learning rate of a recipe rises and falls, differs from layer to layer, and what is minimised."""

from functools import partial

import tensorflow as tf

from tlhelpers.keras_settings import keras


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
