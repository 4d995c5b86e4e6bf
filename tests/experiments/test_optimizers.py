"""Optimisers: the learning rate that a recipe asks for, step by step and layer by layer."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from tlhelpers import models
from tlhelpers.experiments import optimizers, recipes

NETWORK = "mobilenetv2_035"


def rates(schedule, steps):
    return [float(schedule(step)) for step in steps]


def test_the_rate_rises_in_a_line_and_falls_to_zero_along_a_cosine():
    schedule = optimizers.warm_up_and_decay(1e-3, 110, 10)
    assert rates(schedule, [0, 5, 10]) == pytest.approx([1e-4, 5.5e-4, 1e-3])
    assert rates(schedule, [60, 110]) == pytest.approx([5e-4, 0], abs=1e-9)


def test_without_a_warm_up_the_first_step_is_the_longest():
    assert rates(optimizers.warm_up_and_decay(1e-3, 100, 0), [0, 50, 100]) == pytest.approx([1e-3, 5e-4, 0], abs=1e-9)


def test_a_training_as_short_as_its_warm_up_still_decays():
    assert rates(optimizers.warm_up_and_decay(1e-3, 10, 10), [5, 10]) == pytest.approx([1e-3, 0], abs=1e-9)


def test_layers_near_the_picture_get_a_smaller_share_of_the_rate():
    backbone = models.build_backbone(NETWORK, 32, weights=None)
    shares = optimizers.rate_shares(backbone, 0.1)
    assert set(shares) == {weight.path for weight in backbone.weights}
    assert 0.1 < shares["Conv1/kernel"] < 0.11
    assert shares["Conv1/kernel"] < shares["block_8_expand/kernel"] < shares["Conv_1/kernel"] < 1
    assert shares["block_8_expand/kernel"] == pytest.approx(0.1**0.5, rel=0.1)


def first_steps(shares):
    """How far each of two weights moves in one step along the gradients 1 and 1000."""
    first, second = (keras.Variable([1.0], name=name) for name in ("first", "second"))
    optimizer = optimizers.DiscriminativeAdam(0.01, {first.path: shares[0], second.path: shares[1]})
    optimizer.build([first, second])
    optimizer.apply([keras.ops.array([1.0]), keras.ops.array([1000.0])])
    return [1 - float(weight.numpy()[0]) for weight in (first, second)]


def test_a_weight_moves_by_its_share_of_the_rate():
    assert first_steps([1.0, 1.0]) == pytest.approx([0.01, 0.01], rel=1e-4)
    assert first_steps([0.1, 1.0]) == pytest.approx([0.001, 0.01], rel=1e-4)


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1}, {"clipnorm": 0.5}])
def test_steps_of_equal_shares_are_those_of_keras(options):
    ends = []
    for optimizer in (keras.optimizers.Adam, optimizers.DiscriminativeAdam):
        weight, generator = keras.Variable(np.linspace(-1, 1, 12).reshape(3, 4)), np.random.default_rng(0)
        chosen = optimizer(optimizers.warm_up_and_decay(0.1, 5, 2), **options)
        chosen.build([weight])
        for _ in range(5):
            chosen.apply([keras.ops.array(generator.normal(size=(3, 4)), "float32")])
        ends.append(weight.numpy())
    assert ends[1] == pytest.approx(ends[0], abs=1e-6)
    assert abs(ends[0] - np.linspace(-1, 1, 12).reshape(3, 4)).min() > 1e-3


def test_amsgrad_is_refused_and_not_ignored():
    with pytest.raises(ValueError, match=r"no amsgrad.*Received: amsgrad=True"):
        optimizers.DiscriminativeAdam(0.01, amsgrad=True)


def operations_of_a_step(weights):
    """How many operations the graph of a step has."""
    weights = [keras.Variable(np.ones((3, 4)), name=f"weight_{index}") for index in range(weights)]
    optimizer = optimizers.DiscriminativeAdam(0.01)
    optimizer.build(weights)
    step = tf.function(lambda: optimizer.apply([keras.ops.ones((3, 4)) for _ in weights]))
    return len(step.get_concrete_function().graph.get_operations())


@pytest.mark.slow
def test_another_weight_makes_a_step_a_few_operations_longer():
    assert (operations_of_a_step(20) - operations_of_a_step(10)) / 10 <= 15


def test_an_optimiser_keeps_the_settings_of_its_recipe():
    recipe = replace(recipes.get_recipe("full"), weight_decay=0.02, ema=0.9)
    optimizer = optimizers.build_optimizer(recipe, 10)
    assert (optimizer.weight_decay, optimizer.use_ema, optimizer.ema_momentum) == (0.02, True, 0.9)
    assert not optimizer.shares
    slower = optimizers.build_optimizer(
        replace(recipe, input_learning_rate_share=0.5), 10, models.build_backbone(NETWORK, 32, weights=None)
    )
    assert slower.shares["Conv1/kernel"] == pytest.approx(0.5, rel=0.01)


def test_no_decay_leaves_nothing_to_compute():
    recipe = recipes.get_recipe("full")
    assert recipe.weight_decay == 0
    assert optimizers.build_optimizer(recipe, 10).weight_decay is None
    assert optimizers.build_head_optimizer(replace(recipe, unfrozen=None), 10).weight_decay is None
