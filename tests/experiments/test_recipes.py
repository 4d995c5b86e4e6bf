"""Recipes: their names, and the layers that they unfreeze."""

from dataclasses import replace

import keras
import pytest

from tlhelpers import models
from tlhelpers.experiments import recipes

NETWORK = "mobilenetv2_035"


def test_every_recipe_stands_under_the_name_of_its_strategy():
    assert {name: recipe.strategy for name, recipe in recipes.RECIPES.items()} == {
        name: name for name in recipes.RECIPES
    }


def test_an_unknown_recipe_names_the_known_ones():
    with pytest.raises(ValueError, match=r"one of \['frozen_depths', .*'full', .*Received: strategy='half'"):
        recipes.get_recipe("half")


def test_the_statistics_of_a_network_from_scratch_have_a_short_memory():
    backbone = models.build_backbone(NETWORK, 32, weights=None)
    recipes.unfreeze(backbone, recipes.get_recipe("scratch"), NETWORK)
    norms = [layer for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {(layer.momentum, layer.trainable) for layer in norms} == {(recipes.SCRATCH_BATCH_NORM_MOMENTUM, True)}


@pytest.mark.parametrize(("unfrozen", "first"), [(6, "Conv_1"), ("block_16", "block_16_expand"), ("all", "Conv1")])
def test_a_recipe_names_what_moves_by_count_block_or_all(unfrozen, first):
    backbone = models.freeze(models.build_backbone(NETWORK, 32, weights=None))
    recipes.unfreeze(backbone, replace(recipes.get_recipe("full"), unfrozen=unfrozen), NETWORK)
    assert backbone.trainable_weights[0].path.startswith(f"{first}/") or unfrozen == 6
    assert all("bn" not in weight.path.lower() for weight in backbone.trainable_weights)
