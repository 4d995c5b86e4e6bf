"""Plans: which experiments the book runs, for its records and for the grids of its chapters.

A plan is a dict from a cell, a tuple that names it in words and numbers, to its Experiment.
"""

from dataclasses import replace

from tlhelpers import profiles
from tlhelpers.datasets import splits
from tlhelpers.experiments import recipes
from tlhelpers.experiments.runner import Experiment

FEWER_SEEDS = range(3)
SEEDS = range(splits.FOLDS)
ABLATION_SEEDS = range(2)

# Grids train on smaller images than the recorded models, so that there is time for many runs.
GRID_TRAIN_SIZE, GRID_TEST_SIZE = 96, 128
GRID_PER_CLASS = 50
RECORDED_BACKBONE = "mobilenetv2_100"
DEPTHS = {"last 6 layers": 6, "from the middle on": "partial", "everything": "all"}
WAYS = {"from scratch": "scratch_augmented", "frozen": "frozen_linear", "full fine-tuning": "full"}
DOMAINS = ("flowers", "cats_dogs", "fashion_mnist", "deepweeds", "fer2013")

# The case studies' recorded models: study, networks, strategies, and what their recipes have instead.
CASE_NETWORKS = ("mobilenetv2_100", "efficientnetv2b0")
GENTLE = {
    "train_image_size": 96,
    "test_image_size": 112,
    "read_size": 112,
    "augment": "light",
}  # for images without detail
CASES = (
    ("cats_dogs", CASE_NETWORKS, ("frozen_linear", "partial", "full"), {}),
    ("fer2013", CASE_NETWORKS, ("frozen_linear", "partial", "full"), GENTLE),
)

# What each variant of the recipe `full` has instead. The first is the recipe itself.
ABLATIONS = {
    "the recipe": {},
    "gentle augmentation": {"augment": "light"},
    "no augmentation": {"augment": None},
    "no label smoothing": {"label_smoothing": 0.0},
    "no warm-up": {"warm_up": 0.0},
    "no test-time augmentation": {"flips": False},
    "tested at the training image size": {"test_image_size": GRID_TRAIN_SIZE},
    "discriminative learning rates": {"input_learning_rate_share": 0.1},
    "weight decay": {"weight_decay": 0.05},
    "EMA of weights": {"ema": 0.99},
    "a third of the learning rate": {"learning_rate": 1e-4},
    "three times the learning rate": {"learning_rate": 1e-3},
    "twice the epochs": {"epochs": 2 * recipes.RECIPES["full"].epochs},
    "larger images": {"train_image_size": 128, "test_image_size": 176, "read_size": 176},
}
# Recorded under an older name of the variant.
RECORDED_AS = {
    "no test-time augmentation": "one-look",
    "tested at the training image size": "tested-at-the-training-size",
    "discriminative learning rates": "smaller-steps-near-the-picture",
    "EMA of weights": "averaged-weights",
    "a third of the learning rate": "a-third-of-the-rate",
    "three times the learning rate": "three-times-the-rate",
}


def plan_models():
    """The models of the careful study on photographs, fold by fold.

    Returns:
        dict from network, strategy and seed to an Experiment.
    """
    plan = [
        ("mobilenetv2_100", "full", SEEDS),
        ("mobilenetv2_100", "full_longer", SEEDS),
        ("mobilenetv2_100", "frozen_depths", SEEDS),
        ("mobilenetv2_100", "frozen_linear", SEEDS),
        ("mobilenetv2_035", "frozen_linear", SEEDS),
        ("efficientnetv2b0", "frozen_linear", SEEDS),
        ("mobilenetv2_100", "partial", SEEDS),
        ("mobilenetv2_035", "full", SEEDS),
        ("mobilenetv2_035", "partial", SEEDS),
        ("efficientnetv2b0", "full", FEWER_SEEDS),
        ("baseline_cnn", "scratch_augmented", SEEDS),
        ("mobilenetv2_100", "scratch", FEWER_SEEDS),
    ]
    cells = [(network, strategy, seed) for network, strategy, seeds in plan for seed in seeds]
    return {cell: Experiment(cell[0], recipes.get_recipe(cell[1]), cell[2]) for cell in cells}


def plan_cases():
    """The models of the case studies that no chapter has room for, under the careful protocol.

    Returns:
        dict from study, network, strategy and seed to an Experiment.
    """
    return {
        (study, network, strategy, seed): Experiment(
            network, replace(recipes.get_recipe(strategy), **changes), seed, study=study
        )
        for study, networks, strategies, changes in CASES
        for strategy in strategies
        for network in networks
        for seed in FEWER_SEEDS
    }


def plan_depths(profile, network, *, protocol="careful", seed=0):
    """The grid of how much of a backbone is unfrozen, and at what learning rate: few images, judged on validation.

    Args:
        profile: Profile. Its `grid_depths`, `grid_rates` and `grid_epochs` are the grid's. Synthetic images pass
            frozen layers once for all learning rates, in one augmented view for each epoch.
        network: str. A key of `models.BACKBONES`.
        protocol: str. `"published"` or `"careful"`.
        seed: int.

    Returns:
        dict from a depth in words and a rate to an Experiment.
    """
    recipe = _small("full", epochs=profile.grid_epochs)
    cells = {(words, rate): (DEPTHS[words], rate) for words in profile.grid_depths for rate in profile.grid_rates}
    return {
        cell: Experiment(
            network,
            replace(
                recipe,
                strategy=f"depth-{part}-rate-{rate:g}",
                unfrozen=part,
                learning_rate=rate,
                views=profile.grid_epochs if profile.drawn and part != "all" else 0,
            ),
            seed,
            protocol=protocol,
            profile=profile.name,
            per_class=GRID_PER_CLASS,
            evaluated_on="validation",
        )
        for cell, (part, rate) in cells.items()
    }


def plan_sizes(profile, network, *, protocol="careful", seed=0):
    """The grid of how many training images a class has, for several strategies, evaluated on validation.

    Args:
        profile: Profile. Its `grid_ways`, `grid_per_class`, `grid_epochs` and `grid_scratch_epochs` are the grid's.
        network: str. The pretrained backbone, a key of `models.BACKBONES`.
        protocol: str. `"published"` or `"careful"`.
        seed: int.

    Returns:
        dict from a strategy in words and the training images per class to an Experiment.
    """
    changes = {
        "from scratch": {
            "augment": None,
            "test_image_size": GRID_TRAIN_SIZE,
            "epochs": profile.grid_scratch_epochs,
            "patience": _patience(WAYS["from scratch"], profile.grid_scratch_epochs),
        },
        "frozen": {"train_image_size": GRID_TEST_SIZE},
        "full fine-tuning": {"epochs": profile.grid_epochs},
    }
    recipe_of = {way: _small(WAYS[way], **changes[way]) for way in profile.grid_ways}
    return {
        (way, per_class): Experiment(
            "baseline_cnn" if way == "from scratch" else network,
            replace(recipe, strategy=f"{WAYS[way]}-{per_class}-per-class", passes=_passes(per_class)),
            seed,
            protocol=protocol,
            profile=profile.name,
            per_class=per_class,
            evaluated_on="validation",
        )
        for way, recipe in recipe_of.items()
        for per_class in profile.grid_per_class
    }


def plan_domains(profile, network, *, protocol="careful", seed=0):
    """The comparison of domains: every study with one backbone, frozen or moving, evaluated on validation.

    Args:
        profile: Profile. Its `domain_ways`, `domain_per_class` and `grid_epochs` are the comparison's.
        network: str. A key of `models.BACKBONES`.
        protocol: str. `"published"` or `"careful"`.
        seed: int.

    Returns:
        dict from a study and a strategy in words to an Experiment.
    """
    changes = {
        "frozen": {"train_image_size": GENTLE["test_image_size"]},
        "full fine-tuning": {"epochs": profile.grid_epochs},
    }
    return {
        (study, way): Experiment(
            network,
            replace(_small(WAYS[way], **GENTLE | changes[way]), strategy=f"domain-{WAYS[way]}"),
            seed,
            study=study,
            protocol=protocol,
            profile=profile.name,
            per_class=profile.domain_per_class,
            evaluated_on="validation",
            measures_distance=way == "frozen",
        )
        for study in DOMAINS
        for way in profile.domain_ways
    }


def plan_ablations(seeds=ABLATION_SEEDS):
    """The recipe `full` with one ingredient changed at a time, at width 0.35, on all training photographs.

    Args:
        seeds: sequence of int.

    Returns:
        dict from a variant in words and a seed to an Experiment; fold by fold.
    """
    return {
        (words, seed): Experiment(
            "mobilenetv2_035",
            replace(_small("full", **changes), strategy=f"full-{RECORDED_AS.get(words, words.replace(' ', '-'))}"),
            seed,
            evaluated_on="validation",
        )
        for seed in seeds
        for words, changes in ABLATIONS.items()
    }


def plan_stand_ins(profile, study, network, per_class, *, protocol="careful", seed=0):
    """Small models that take the place of those of other chapters: the same layers, trained in less time.

    Args:
        profile: Profile. Its epochs and rates are theirs.
        study: Study.
        network: str. The pretrained backbone, a key of `models.BACKBONES`.
        per_class: int. Training images of each class.
        protocol: str. `"published"` or `"careful"`.
        seed: int.

    Returns:
        dict from a network and a strategy, as chapters save their models, to an Experiment.
    """
    size = study.image_size
    shared = {
        "train_image_size": size,
        "test_image_size": size,
        "read_size": size,
        "label_smoothing": 0.0,
        "augment": None,
    }
    head = shared | {
        "hidden": 128,
        "dropout": 0.5,
        "head_epochs": profile.head_epochs,
        "head_learning_rate": profile.head_learning_rate,
    }
    tuned = {
        "epochs": profile.fine_tuning_epochs,
        "learning_rate": profile.fine_tuning_learning_rate,
        "warm_up": 0.0,
        "views": 1,
    }
    scratch = {"pretrained": False, "epochs": profile.baseline_epochs, "learning_rate": 1e-3}
    models = {
        ("baseline_cnn", "scratch"): shared | scratch | {"unfrozen": "all"},
        (network, "frozen"): head | {"unfrozen": None},
        (network, profile.fine_tuned): head | tuned | {"unfrozen": profile.unfrozen},
    }
    asked = {"study": study.name, "protocol": protocol, "profile": profile.name, "per_class": per_class}
    return {
        (name, strategy): Experiment(name, recipes.Recipe(f"small_{strategy}", flips=False, **settings), seed, **asked)
        for (name, strategy), settings in models.items()
    }


def over_folds(plan):
    """A plan for photographs, once for each of several folds.

    Args:
        plan: Callable. `plan_depths`, `plan_sizes` or `plan_domains`.

    Returns:
        dict from the plan's cells, each with a seed at its end, to an Experiment.
    """
    plans = {seed: plan(profiles.FULL, RECORDED_BACKBONE, seed=seed) for seed in FEWER_SEEDS}
    return {(*cell, seed): experiment for seed, cells in plans.items() for cell, experiment in cells.items()}


def _patience(strategy, epochs):
    """None where a training is too short to stop early: its best epoch would be one of what it is evaluated on."""
    patience = recipes.get_recipe(strategy).patience
    return patience if epochs > patience else None


def _passes(per_class):
    """How often a set is shown in an epoch, so that a few images make as many steps as `GRID_PER_CLASS` a class."""
    return max(1, round(GRID_PER_CLASS / per_class))


def _small(strategy, **changes):
    sizes = {"train_image_size": GRID_TRAIN_SIZE, "test_image_size": GRID_TEST_SIZE, "read_size": GRID_TEST_SIZE}
    return replace(recipes.get_recipe(strategy), **sizes | changes)
