"""Following a recipe: from a table of images to a trained network and its predictions."""

import functools
import time
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd
import tensorflow as tf

from tlhelpers import devices, features, identity, loaders, models, training
from tlhelpers.datasets import splits
from tlhelpers.experiments import optimizers, recipes
from tlhelpers.keras_settings import keras

STEPS_AT_ONCE = 16  # a step of a head takes less time than to ask for it


@dataclass
class Fitted:
    """What following a recipe leaves.

    Args:
        model: keras.Model. From images of the recipe's `test_image_size` in 0..255 to logits.
        parameters: dict, as from `models.count_parameters`, counted as the last stage trained them.
        history: dict of lists, one value per epoch of the last stage.
        seconds: dict of float. Wall-clock seconds per stage.
        details: dict. What was measured on the way, such as `core_seconds`: how long cores have worked on all
            stages, on kept features when they were computed, and before an interruption.
        head: keras.Model or None. Its last part, from features to logits, where the rest is frozen.
        extractor: keras.Model or None. That rest, where its features of all images, at the recipe's `test_image_size`,
            are kept.
    """

    model: keras.Model
    parameters: dict
    history: dict
    seconds: dict
    details: dict = field(default_factory=dict)
    head: keras.Model = None
    extractor: keras.Model = None

    @functools.cached_property
    def call(self):
        """What `features.compile_frozen` makes of the model."""
        return features.compile_frozen(self.model)


class _Stage(NamedTuple):
    """What a stage leaves: its history, and per part its seconds and those of the cores."""

    history: dict
    seconds: dict
    core_seconds: dict


class _Clock:
    """Wall-clock seconds and core seconds since it was made."""

    def __init__(self):
        self._started, self._core_started = time.perf_counter(), time.process_time()

    def read(self):
        return time.perf_counter() - self._started, time.process_time() - self._core_started


def fit_recipe(recipe, network, table, num_classes, *, weights="imagenet", seed=0, batch_size=None, resume_folder=None):
    """Trains a network as a recipe says.

    Args:
        recipe: Recipe.
        network: str. `"baseline_cnn"` or a key of `models.BACKBONES`.
        table: pandas.DataFrame, as from `split_manifest`.
        num_classes: int.
        weights: str. The weights of a pretrained backbone.
        seed: int. Seeds initial weights, order, views and dropout.
        batch_size: int or None. None means that of a CPU. Halved until a batch fits into memory.
        resume_folder: Path or None. Where an interrupted run keeps its state.

    Returns:
        Fitted.
    """

    def fit(batch_size):
        return _fit_recipe(recipe, network, weights, _Data(recipe, table, num_classes, batch_size, seed), resume_folder)

    return training.fit_in_memory(fit, batch_size or devices.CPU_BATCH_SIZE)


def _fit_recipe(recipe, network, weights, data, resume_folder):
    if network == "baseline_cnn":
        model = models.baseline_cnn(recipe.train_image_size, data.num_classes, seed=data.seed)
        stages, details, tested = [_fit(recipe, model, data, None, resume_folder)], {}, {"model": model}
    else:
        classifier = _build_classifier(recipe, network, weights, data)
        stages, details = _fit_classifier(recipe, network, classifier, data, resume_folder)
        model, tested = classifier.model, classifier.tested(recipe)
    return Fitted(
        **tested,
        parameters=models.count_parameters(model),
        history=stages[-1].history,
        seconds={part: seconds for stage in stages for part, seconds in stage.seconds.items()},
        details=details
        | {
            "core_seconds": sum(sum(stage.core_seconds.values()) for stage in stages),
            "batch_size": data.batch_size,
        },
    )


def predict(recipe, fitted, table, split):
    """The class probabilities of one split's images, averaged over an image and its mirror image if the recipe says so.

    Args:
        recipe: Recipe.
        fitted: Fitted, trained as the recipe says.
        table: pandas.DataFrame, as from `split_manifest`: the images that it was trained with.
        split: str. A value of the column `split`.

    Returns:
        float32 array `(images, classes)`; rows sum to one.
    """
    rows = (table["split"] == split).to_numpy()
    if fitted.extractor:
        options = [{"flipped": flipped} for flipped in recipe.mirrored]
        seen = [features.extract_features(fitted.extractor, table, recipe.test_image_size, **one)[0] for one in options]
        return np.mean([training.predict_probabilities(fitted.head, one[rows]) for one in seen], axis=0)
    options = {"cache": False, "call": fitted.call}
    logits = [
        features.extract_features(fitted.model, table[rows], recipe.test_image_size, flipped=flipped, **options)[0]
        for flipped in recipe.mirrored
    ]
    return np.mean([keras.ops.convert_to_numpy(keras.ops.softmax(one)) for one in logits], axis=0)


@dataclass
class _Classifier:
    """A backbone with its head, and the depths that the head looks at."""

    network: str
    backbone: keras.Model
    head: keras.Model
    depths: tuple

    @property
    def model(self):
        """From images to logits."""
        return models.connect(self.backbone, self.head, self.depths)

    @property
    def extractor(self):
        """From images to what the head sees."""
        return models.pooled(self.backbone, self.depths)

    def tested(self, recipe):
        """What predicts at the size at which the recipe tests, as `Fitted` names it; convolutions take any size."""
        frozen = not self.backbone.trainable_weights
        if frozen and recipe.test_image_size == recipe.train_image_size:
            return {"model": self.model, "head": self.head, "extractor": self.extractor}
        backbone = models.build_backbone(self.network, recipe.test_image_size, weights=None)
        backbone.set_weights(self.backbone.get_weights())
        return {"model": models.connect(models.freeze(backbone), self.head, self.depths)}


def _build_classifier(recipe, network, weights, data):
    stays = recipe.pretrained and recipe.unfrozen is None
    build = _build_once if stays else models.build_backbone
    backbone = build(network, recipe.train_image_size, weights=weights if recipe.pretrained else None)
    depths = models.BACKBONES[network]["depths"] if recipe.several_depths else ()
    head = models.build_head(
        models.pooled(backbone, depths).output_shape[1:],
        data.num_classes,
        hidden=recipe.hidden,
        dropout=recipe.dropout,
        standardize=recipe.several_depths,
        seed=data.seed,
    )
    return _Classifier(network, models.freeze(backbone), head, depths)


# The backbone of runs of which none moves it: to build it takes longer than some hundred images take.
_build_once = functools.lru_cache(maxsize=1)(models.build_backbone)


@functools.lru_cache(maxsize=1)
def _compile_extractor(backbone, depths):
    """What `features.compile_frozen` makes of a backbone as it is; traced once, or never where features are kept."""
    return features.compile_frozen(models.pooled(backbone, depths))


class _Data:
    """The images of one run, as a recipe wants to see them."""

    def __init__(self, recipe, table, num_classes, batch_size, seed):
        self.recipe, self.table, self.num_classes = recipe, table, num_classes
        self.batch_size, self.seed = batch_size, seed
        self.rows = {part: splits.rows_of(table, part) for part in ("train", "validation")}
        self.rows["train"] = pd.concat([self.rows["train"]] * recipe.passes)
        self.steps = -(-len(self.rows["train"]) // batch_size)
        # Where only the part that is evaluated in the end could be looked at on the way, it is not without need.
        self.validated = recipe.patience is not None or (table["split"] == "validation").any()

    def load(self, part):
        """A dataset of images and one-hot targets: training images shuffled and augmented, others as they are."""
        options = {"batch_size": self.batch_size, "seed": self.seed}
        if part == "train":
            options |= {"shuffle": True, "augment": self.recipe.augment, "read_size": self.recipe.read_size}
        dataset = loaders.load_dataset(self.rows[part], self.recipe.train_image_size, **options)
        one_hot = dataset.map(lambda images, targets: (images, tf.one_hot(targets, self.num_classes)))
        return identity.note_data(one_hot, dataset.made_from, self.num_classes)

    def one_hot(self, part):
        """The targets of one part, float32 `(n, classes)`."""
        return keras.utils.to_categorical(self.rows[part]["target"], self.num_classes)


class _Views:
    """The features that the frozen beginning of a network returns for the images of one run."""

    def __init__(self, data, beginning):
        recipe = data.recipe
        self.steps, self._data = data.steps, data
        options = {"count": recipe.views, "augment": recipe.augment, "read_size": recipe.read_size, "seed": data.seed}
        train, _ = features.extract_views(beginning, data.rows["train"], recipe.train_image_size, **options)
        self._seen = {"train": train}
        self.validated = data.validated
        if self.validated:
            validation, _ = features.extract_features(beginning, data.rows["validation"], recipe.train_image_size)
            self._seen["validation"] = [validation]

    def load(self, part):
        """Batches of one part: training views shuffled, another view in each epoch."""
        options = {"batch_size": self._data.batch_size, "seed": self._data.seed, "shuffle": part == "train"}
        return features.ViewBatches(self._seen[part], self._data.one_hot(part), **options)


def _fit_classifier(recipe, network, classifier, data, resume_folder):
    """Trains the head, then what is unfrozen; returns the stages and what has become of the old features."""
    stages = [_fit_head(recipe, classifier, data)] if recipe.pretrained else []
    if recipe.unfrozen is None:
        return stages, {}
    before = {weight.path: weight.numpy() for weight in classifier.backbone.weights}
    old_head = classifier.head.get_weights()
    recipes.unfreeze(classifier.backbone, recipe, network)
    stages.append(_fit_unfrozen(recipe, classifier, data, resume_folder))
    if not recipe.pretrained:
        return stages, {}
    return stages, {
        "weight_distance": _weight_distance(classifier.backbone, before),
        "old_head_accuracy": _old_head_accuracy(recipe, classifier, old_head, data),
    }


def _fit_unfrozen(recipe, classifier, data, resume_folder):
    """Trains what is unfrozen: the whole network on images, or its unfrozen part on features of augmented views."""
    if not recipe.views:
        return _fit(recipe, classifier.model, data, classifier.backbone, resume_folder)
    beginning, rest = models.split_backbone(classifier.backbone)
    clock = _Clock()
    views = _Views(data, beginning)
    seconds, core_seconds = clock.read()
    stage = _fit(recipe, models.connect(rest, classifier.head), views, rest, resume_folder)
    return _Stage(stage.history, {"views": seconds} | stage.seconds, {"views": core_seconds} | stage.core_seconds)


def _fit_head(recipe, classifier, data):
    """Trains a head on frozen features, seen from both sides where the recipe predicts from both."""
    head, asked = classifier.head, (classifier.extractor, data.table, recipe.train_image_size)
    call = _compile_extractor(classifier.backbone, classifier.depths)
    extracted = [features.extract_features(*asked, flipped=flipped, call=call) for flipped in recipe.mirrored]
    rows = {part: data.table.index.get_indexer(data.rows[part].index) for part in data.rows}
    inputs = np.concatenate([seen[rows["train"]] for seen, _ in extracted])
    if recipe.several_depths:
        head.get_layer("standardization").adapt(inputs)
    optimizer = optimizers.build_head_optimizer(recipe, -(-len(inputs) // data.batch_size) * recipe.head_epochs)
    head.compile(optimizer, loss=optimizers.build_loss(recipe), metrics=["accuracy"], steps_per_execution=STEPS_AT_ONCE)
    clock = _Clock()
    targets = np.tile(data.one_hot("train"), (len(recipe.mirrored), 1))
    sizes = {"batch_size": data.batch_size}
    validation = None
    if recipe.unfrozen is None and data.validated:  # of a head that is trained further, nobody asks how it came about
        validation = loaders.load_arrays(extracted[0][0][rows["validation"]], data.one_hot("validation"), **sizes)
    history = head.fit(
        loaders.load_arrays(inputs, targets, shuffle=True, seed=data.seed, **sizes),
        validation_data=validation,
        epochs=recipe.head_epochs,
        shuffle=False,  # the dataset shuffles itself
        callbacks=[training.TraceOnce()],
        verbose=0,
    ).history
    seconds, core_seconds = clock.read()
    feature_cores = sum(features.extraction_core_seconds(*asked, flipped=flipped) for flipped in recipe.mirrored)
    return _Stage(
        history,
        {"features": sum(seconds for _, seconds in extracted), "head": seconds},
        {"features": feature_cores, "head": core_seconds},
    )


def _fit(recipe, model, data, backbone, resume_folder):
    """Trains what is unfrozen."""
    optimizer = optimizers.build_optimizer(recipe, data.steps, backbone)
    model.compile(optimizer, loss=optimizers.build_loss(recipe), metrics=["accuracy"])
    train, validation = data.load("train"), data.load("validation") if data.validated else None
    stop = None
    if recipe.patience:
        stop = keras.callbacks.EarlyStopping("val_loss", patience=recipe.patience, restore_best_weights=True)
    start = training.TraceOnce()
    if resume_folder:
        start = training.Resume(resume_folder, data=train, early_stopping=stop)
    clock = _Clock()
    history = model.fit(
        train,
        validation_data=validation,
        epochs=recipe.epochs,
        shuffle=False,  # the dataset shuffles itself
        callbacks=[callback for callback in (stop, start) if callback],
        verbose=0,
    ).history
    if resume_folder:
        return _Stage(start.history, {"training": start.seconds}, {"training": start.core_seconds})
    seconds, core_seconds = clock.read()
    return _Stage(history, {"training": seconds}, {"training": core_seconds})


def _weight_distance(backbone, before):
    """How far the weights that train have moved, relative to their length."""
    pairs = [(weight.numpy(), before[weight.path]) for weight in backbone.trainable_weights]
    moved = sum(np.sum((after - start) ** 2) for after, start in pairs)
    return float(np.sqrt(moved / sum(np.sum(start**2) for _, start in pairs)))


def _old_head_accuracy(recipe, classifier, old_head, data):
    """What the head that was trained on the frozen features makes of the features as they are now."""
    rows = data.rows["validation"]
    seen, _ = features.extract_features(classifier.extractor, rows, recipe.train_image_size, cache=False)
    head = keras.models.clone_model(classifier.head)
    head.set_weights(old_head)
    return float((training.predict_probabilities(head, seen).argmax(axis=1) == rows["target"]).mean())
