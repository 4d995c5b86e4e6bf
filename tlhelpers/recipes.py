"""Recipes: how a network is trained, one row each; and the few lines of Keras that follow a row.

A recipe starts from a trained head where the backbone is pretrained, lets a part of the backbone move, and keeps
BatchNormalization frozen there. Which ingredients stand in the table was decided on validation images alone.
"""

import time
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf

from tlhelpers import devices, loaders, manifest, models, training

SCRATCH_BATCH_NORM_MOMENTUM = 0.9  # Keras' own 0.999 needs thousands of steps before the averages mean anything


@dataclass(frozen=True)
class Recipe:
    """How one network is trained.

    Args:
        strategy: str. Its name among the strategies of a study, such as `"full"`.
        unfrozen: str or int or None. What moves: None for the head alone, `"all"`, `"partial"` for the backbone's
            own row in `models.BACKBONES`, a block's name, or how many layers counted from the end.
        pretrained: bool. Whether the backbone brings weights.
        train_size: int. Side of the images that training sees, pixels.
        test_size: int. Side of the images that are predicted, pixels. Random crops show things larger than whole
            images do; larger test images make up for it.
        hidden: int. Units of the head's dense layer; 0 leaves it out.
        dropout: float in [0, 1).
        head_epochs: int. Passes of the head over the frozen features.
        head_rate: float. The head's learning rate.
        epochs: int. Passes with the unfrozen layers.
        rate: float. The learning rate after the warm-up; from there it falls to zero along a cosine.
        warm_up: float. Epochs in which the rate rises to `rate`.
        input_rate_share: float in (0, 1]. The first layer's share of the rate; between the first and the last
            layer the share grows geometrically. 1 gives every layer the same rate.
        weight_decay: float.
        label_smoothing: float in [0, 1).
        augment: str or None. A key of `loaders.AUGMENTATIONS`.
        ema: float or None. Momentum of the moving average of the weights that is kept in the end.
        patience: int or None. Epochs without a lower validation loss after which training stops and the best
            weights are taken back.
        flips: bool. Whether an image and its mirror image are predicted and their probabilities averaged.

    Source:
        Discriminative rates: Howard and Ruder 2018, https://arxiv.org/abs/1801.06146. Larger test images: Touvron et
        al. 2019, https://arxiv.org/abs/1906.06423. Label smoothing: Szegedy et al. 2016,
        https://arxiv.org/abs/1512.00567.
    """

    strategy: str
    unfrozen: str | int | None
    pretrained: bool = True
    train_size: int = 160
    test_size: int = 224
    hidden: int = 0
    dropout: float = 0.2
    head_epochs: int = 15
    head_rate: float = 1e-3
    epochs: int = 8
    rate: float = 3e-4
    warm_up: float = 1.0
    input_rate_share: float = 1.0
    weight_decay: float = 0.0
    label_smoothing: float = 0.1
    augment: str | None = "strong"
    ema: float | None = None
    patience: int | None = None
    flips: bool = True


RECIPES = {
    recipe.strategy: recipe
    for recipe in (
        Recipe("frozen_linear", None, train_size=288, test_size=288, head_epochs=30),
        Recipe("partial", "partial"),
        Recipe("full", "all"),
        Recipe("scratch", "all", pretrained=False, epochs=60, rate=2e-3, weight_decay=1e-4, patience=15),
        Recipe("scratch_augmented", "all", pretrained=False, train_size=224, epochs=20, rate=1e-3, patience=6),
    )
}


@dataclass
class Fitted:
    """What following a recipe leaves.

    Args:
        model: keras.Model. From images of the recipe's `test_size` in 0..255 to logits.
        history: dict of lists, one value per epoch of the last stage.
        seconds: dict of float. Wall-clock seconds per stage.
        details: dict. What was measured on the way.
    """

    model: keras.Model
    history: dict
    seconds: dict
    details: dict = field(default_factory=dict)


class DiscriminativeAdamW(keras.optimizers.AdamW):
    """AdamW that lets some weights take smaller steps than others.

    Args:
        learning_rate: float or schedule.
        shares: dict from the path of a weight to its share of the learning rate; 1 where it has none.
        **options: as for `keras.optimizers.AdamW`.
    """

    def __init__(self, learning_rate, shares=None, **options):
        super().__init__(learning_rate, **options)
        self.shares = shares or {}

    def build(self, variables):
        """Looks up the share of each variable."""
        self._share_by_index = [self.shares.get(variable.path, 1.0) for variable in variables]
        super().build(variables)

    def update_step(self, gradient, variable, learning_rate):
        """Takes one step, shortened by the weight's share."""
        share = self._share_by_index[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * share)

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


def rate_shares(backbone, input_rate_share):
    """Each layer's share of the learning rate: small near the picture, 1 at the far end.

    Args:
        backbone: keras.Model.
        input_rate_share: float in (0, 1]. The share of the first layer.

    Returns:
        dict from the path of a weight to a float.
    """
    last = len(backbone.layers) - 1
    return {
        weight.path: input_rate_share ** (1 - index / last)
        for index, layer in enumerate(backbone.layers)
        for weight in layer.weights
    }


def build_optimizer(recipe, steps_per_epoch, backbone=None):
    """The optimiser a recipe asks for.

    Args:
        recipe: Recipe.
        steps_per_epoch: int.
        backbone: keras.Model or None. Needed where `input_rate_share` is below 1.

    Returns:
        keras.Optimizer.
    """
    steps = steps_per_epoch * recipe.epochs
    schedule = warm_up_and_decay(recipe.rate, steps, round(steps_per_epoch * recipe.warm_up))
    options = {"weight_decay": recipe.weight_decay}
    if recipe.ema is not None:
        options |= {"use_ema": True, "ema_momentum": recipe.ema}
    shares = rate_shares(backbone, recipe.input_rate_share) if recipe.input_rate_share < 1 else {}
    return DiscriminativeAdamW(schedule, shares, **options)


def follow(recipe, network, table, num_classes, *, weights="imagenet", seed=0, batch_size=None, resume_folder=None):
    """Trains a network as a recipe says.

    Args:
        recipe: Recipe.
        network: str. `"baseline_cnn"` or a key of `models.BACKBONES`.
        table: pandas.DataFrame, as from `split_manifest`.
        num_classes: int.
        weights: str. The weights of a pretrained backbone.
        seed: int. Seeds initial weights, order, views and dropout.
        batch_size: int or None. None means that of a CPU.
        resume_folder: Path or None. Where an interrupted run keeps its state.

    Returns:
        Fitted.
    """
    batch_size = batch_size or devices.CPU_BATCH_SIZE
    data = _Data(recipe, table, num_classes, batch_size, seed)
    if network == "baseline_cnn":
        model = models.baseline_cnn(recipe.train_size, num_classes, seed=seed)
        history, seconds = _fit(recipe, model, data, None, resume_folder)
        return Fitted(model, history, {"training": seconds})
    backbone = models.build_backbone(network, recipe.train_size, weights=weights if recipe.pretrained else None)
    head = models.build_head(
        backbone.output_shape[-1:], num_classes, hidden=recipe.hidden, dropout=recipe.dropout, seed=seed
    )
    history, seconds = _fit_head(recipe, models.freeze(backbone), head, data) if recipe.pretrained else ({}, {})
    start = {weight.path: weight.numpy() for weight in backbone.weights}, head.get_weights()
    if recipe.unfrozen is not None:
        unfreeze(backbone, recipe, network)
        model = models.connect(backbone, head)
        history, seconds["training"] = _fit(recipe, model, data, backbone, resume_folder)
    details = _forgetting(recipe, backbone, head, start, data) if recipe.pretrained and recipe.unfrozen else {}
    parameters = models.count_parameters(models.connect(backbone, head))
    model = _at_test_size(recipe, network, backbone, head)
    return Fitted(model, history, seconds, details | {"parameters": parameters})


def unfreeze(backbone, recipe, network):
    """Lets that part of a backbone move which a recipe names.

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


def predict(recipe, model, table):
    """The class probabilities of a table's images, averaged over an image and its mirror image if the recipe says so.

    Args:
        recipe: Recipe.
        model: keras.Model. From images of the recipe's `test_size` to logits.
        table: pandas.DataFrame with `path`, `sha256` and `target`.

    Returns:
        float32 array `(len(table), classes)`; rows sum to one.
    """
    looks = (False, True) if recipe.flips else (False,)
    logits = [
        training.extract_features(model, table, recipe.test_size, flipped=flipped, cache=False)[0] for flipped in looks
    ]
    return np.mean([keras.ops.convert_to_numpy(keras.ops.softmax(one)) for one in logits], axis=0)


class _Data:
    """The images of one run, as a recipe wants to see them."""

    def __init__(self, recipe, table, num_classes, batch_size, seed):
        self.recipe, self.table, self.num_classes = recipe, table, num_classes
        self.batch_size, self.seed = batch_size, seed
        self.rows = {part: manifest.rows_of(table, part) for part in ("train", "validation")}
        self.steps = -(-len(self.rows["train"]) // batch_size)

    def load(self, part):
        """A dataset of images and one-hot targets: training images shuffled and augmented, others as they are."""
        options = {"batch_size": self.batch_size, "seed": self.seed}
        if part == "train":
            options |= {"shuffle": True, "augment": self.recipe.augment, "read_size": self.recipe.test_size}
        dataset = loaders.load_dataset(self.rows[part], self.recipe.train_size, **options)
        return dataset.map(lambda images, targets: (images, tf.one_hot(targets, self.num_classes)))

    def one_hot(self, part):
        """The targets of one part, float32 `(n, classes)`."""
        return keras.utils.to_categorical(self.rows[part]["target"], self.num_classes)


def _loss(recipe):
    return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing)


def _fit_head(recipe, backbone, head, data):
    """Trains a head on frozen features, seen from both sides where the recipe predicts from both."""
    extractor = models.pooled(backbone)
    looks = (False, True) if recipe.flips else (False,)
    extracted = [
        training.extract_features(extractor, data.table, recipe.train_size, flipped=flipped) for flipped in looks
    ]
    rows = {part: data.table.index.get_indexer(data.rows[part].index) for part in data.rows}
    inputs = np.concatenate([features[rows["train"]] for features, _ in extracted])
    head.compile(keras.optimizers.Adam(recipe.head_rate), loss=_loss(recipe), metrics=["accuracy"])
    started = time.perf_counter()
    history = head.fit(
        inputs,
        np.tile(data.one_hot("train"), (len(looks), 1)),
        validation_data=(extracted[0][0][rows["validation"]], data.one_hot("validation")),
        batch_size=data.batch_size,
        epochs=recipe.head_epochs,
        verbose=0,
    ).history
    seconds = {"features": sum(seconds for _, seconds in extracted), "head": time.perf_counter() - started}
    return history, seconds


def _fit(recipe, model, data, backbone, resume_folder):
    """Trains what is unfrozen; returns the history and the seconds."""
    model.compile(build_optimizer(recipe, data.steps, backbone), loss=_loss(recipe), metrics=["accuracy"])
    resume = training.Resume(resume_folder) if resume_folder else None
    stop = keras.callbacks.EarlyStopping("val_loss", patience=recipe.patience or 0, restore_best_weights=True)
    callbacks = [callback for callback, wanted in ((resume, resume), (stop, recipe.patience)) if wanted]
    started = time.perf_counter()
    history = model.fit(
        data.load("train"),
        validation_data=data.load("validation"),
        epochs=recipe.epochs,
        shuffle=False,  # the dataset shuffles itself
        callbacks=callbacks,
        verbose=0,
    ).history
    if resume:
        return resume.history, resume.seconds
    return history, time.perf_counter() - started


def _forgetting(recipe, backbone, head, start, data):
    """How far the backbone moved, and what the head of the frozen features makes of the features it has now."""
    pairs = [(weight.numpy(), start[0][weight.path]) for weight in backbone.trainable_weights]
    moved = sum(np.sum((after - before) ** 2) for after, before in pairs)
    distance = np.sqrt(moved / sum(np.sum(before**2) for _, before in pairs))
    extractor = models.pooled(backbone)
    features, _ = training.extract_features(extractor, data.rows["validation"], recipe.train_size, cache=False)
    trained = head.get_weights()
    head.set_weights(start[1])
    old_head = training.predict_probabilities(head, features)
    head.set_weights(trained)
    accuracy = float((old_head.argmax(axis=1) == data.rows["validation"]["target"]).mean())
    return {"weight_distance": float(distance), "old_head_accuracy": accuracy}


def _at_test_size(recipe, network, backbone, head):
    """The same network for images of another size: convolutions and pooling take any."""
    larger = models.build_backbone(network, recipe.test_size, weights=None)
    larger.set_weights(backbone.get_weights())
    return models.connect(models.freeze(larger), head)
