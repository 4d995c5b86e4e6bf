"""Plans: every cell its own record, choices on validation, and small sets shown more often."""

from dataclasses import replace

import pytest

from tlhelpers import profiles
from tlhelpers.datasets import splits
from tlhelpers.experiments import grids, recipes, sweeps
from tlhelpers.results import claims

PLANS = {name: sweep.plan for name, sweep in sweeps.SWEEPS.items()}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
def test_no_two_cells_share_a_record(plan):
    names = [experiment.name for experiment in plan().values()]
    assert len(set(names)) == len(names) > 0


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
def test_every_cell_ends_with_the_seed_of_its_experiment(plan):
    assert all(cell[-1] == experiment.seed for cell, experiment in plan().items())


@pytest.mark.parametrize("name", sorted(PLANS.keys() - {"models", "cases"}))
def test_grids_never_look_at_a_test_image(name):
    assert {experiment.evaluated_on for experiment in PLANS[name]().values()} == {"validation"}


def test_the_recorded_models_are_those_of_the_careful_study():
    folds = {}
    for (network, strategy, seed), experiment in grids.plan_models().items():
        assert (experiment.protocol, experiment.profile, experiment.evaluated_on) == ("careful", "full", "test")
        assert (experiment.network, experiment.recipe) == (network, recipes.get_recipe(strategy))
        folds.setdefault(f"{network}-{strategy}", []).append(seed)
    few = {"efficientnetv2b0-full": [0, 1, 2], "mobilenetv2_100-scratch": [0, 1, 2]}
    assert folds == {model: list(range(splits.FOLDS)) for model in folds} | few


def test_the_case_studies_are_trained_with_the_recipes_of_the_flowers_on_photographs():
    cells = grids.plan_cases()
    strategies = dict.fromkeys(("cats_dogs", "fer2013"), ("frozen_linear", "partial", "full"))
    assert {cell[:3] for cell in cells} == {
        (study, network, strategy)
        for study, several in strategies.items()
        for network in ("mobilenetv2_100", "efficientnetv2b0")
        for strategy in several
    }
    for (study, network, strategy, seed), one in cells.items():
        changes = grids.GENTLE if study == "fer2013" else {}
        assert one.recipe == replace(recipes.get_recipe(strategy), **changes)
        assert (one.study, one.network, one.seed) == (study, network, seed)
        assert (one.protocol, one.profile, one.evaluated_on) == ("careful", "full", "test")


def test_the_grid_of_depths_pairs_every_depth_with_every_rate():
    pocket = profiles.POCKET
    cells = grids.plan_depths(pocket, "mobilenetv2_035", protocol="published", seed=2)
    assert list(cells) == [(depth, rate) for depth in pocket.grid_depths for rate in pocket.grid_rates]
    for (depth, rate), experiment in cells.items():
        assert (experiment.recipe.unfrozen, experiment.recipe.learning_rate) == (grids.DEPTHS[depth], rate)
        assert experiment.recipe.epochs == pocket.grid_epochs
        assert (experiment.protocol, experiment.seed, experiment.profile) == ("published", 2, "pocket")


def test_where_the_last_layers_move_drawings_have_a_view_for_each_epoch_and_photographs_new_ones():
    for profile in (profiles.POCKET, profiles.SMOKE):
        views = {depth: one.recipe.views for (depth, _), one in grids.plan_depths(profile, "mobilenetv2_035").items()}
        assert views == {"last 6 layers": profile.grid_epochs, "everything": 0}
    assert {one.recipe.views for one in grids.plan_depths(profiles.FULL, "mobilenetv2_100").values()} == {0}


def test_the_grid_of_sizes_shows_a_small_set_more_often():
    cells = grids.plan_sizes(profiles.FULL, "mobilenetv2_100")
    assert {experiment.network for (way, _), experiment in cells.items() if way == "from scratch"} == {"baseline_cnn"}
    assert {size: cells["frozen", size].recipe.passes for size in (5, 20, 50, 200)} == {5: 10, 20: 2, 50: 1, 200: 1}
    assert len({experiment.recipe.epochs for (way, _), experiment in cells.items() if way == "from scratch"}) == 1
    assert all(experiment.per_class == size for (_, size), experiment in cells.items())


def test_a_training_too_short_to_stop_early_is_not_judged_on_the_way_by_what_it_is_evaluated_on():
    patience = {}
    for profile in (profiles.POCKET, profiles.FULL):
        cells = grids.plan_sizes(profile, "mobilenetv2_035")
        patience[profile.name] = {one.recipe.patience for (way, _), one in cells.items() if way == "from scratch"}
    assert patience == {"pocket": {None}, "full": {6}}


def test_domains_are_compared_with_one_network_and_one_recipe_per_way():
    cells = grids.plan_domains(profiles.FULL, "mobilenetv2_100", seed=1)
    assert list(cells) == [(study, way) for study in grids.DOMAINS for way in ("frozen", "full fine-tuning")]
    for way in profiles.FULL.domain_ways:
        alike = {(one.network, one.recipe, one.per_class, one.seed) for (_, w), one in cells.items() if w == way}
        assert len(alike) == 1
    assert all(one.study == study for (study, _), one in cells.items())
    assert {one.recipe.unfrozen for (_, way), one in cells.items() if way == "frozen"} == {None}
    measuring = {way for (_, way), one in cells.items() if one.measures_distance}
    assert measuring == {"frozen"}


def test_an_ablation_changes_what_its_name_says_and_nothing_else():
    cells = grids.plan_ablations(seeds=[0])
    base = vars(cells["the recipe", 0].recipe)
    for (words, _), experiment in cells.items():
        changed = {name: value for name, value in vars(experiment.recipe).items() if value != base[name]}
        assert changed.keys() - {"strategy"} == grids.ABLATIONS[words].keys()


def test_a_plan_over_folds_adds_the_seed_to_each_cell():
    cells = grids.over_folds(grids.plan_depths)
    one = grids.plan_depths(profiles.FULL, grids.RECORDED_BACKBONE, seed=1)
    assert {cell[:-1]: experiment for cell, experiment in cells.items() if cell[-1] == 1} == one


def test_photographs_are_trained_at_every_depth_and_in_every_way():
    assert profiles.FULL.grid_depths == tuple(grids.DEPTHS)
    assert profiles.FULL.grid_ways == tuple(grids.WAYS)


def test_the_claim_about_forgetting_asks_for_cells_that_the_grid_of_depths_has():
    models = {f"{one.network}-{one.recipe.strategy}" for one in PLANS["depths"]().values()}
    assert {claims.SLOW, claims.FAST} <= models
