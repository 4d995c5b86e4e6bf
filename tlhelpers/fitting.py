"""Following a recipe: from a table of images to a trained network and its predictions."""

import time
from dataclasses import dataclass, field
from typing import NamedTuple

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from tlhelpers import devices, explain, loaders, manifest, models, recipes, training

DISTANCE_IMAGES = 256  # with others the distance moves by some hundredths of itself


@dataclass
class Fitted:
    """What following a recipe leaves.

    Args:
        model: keras.Model. From images of the recipe's `test_size` in 0..255 to logits.
        parameters: dict, as from `models.count_parameters`, counted as the last stage trained them.
        history: dict of lists, one value per epoch of the last stage.
        seconds: dict of float. Wall-clock seconds per stage.
        details: dict. What was measured on the way, such as `core_seconds`: how long cores have worked on all
            stages, on kept features when they were computed, and before an interruption.
    """

    model: keras.Model
    parameters: dict
    history: dict
    seconds: dict
    details: dict = field(default_factory=dict)


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
        batch_size: int or None. None means that of a CPU.
        resume_folder: Path or None. Where an interrupted run keeps its state.

    Returns:
        Fitted.
    """
    data = _Data(recipe, table, num_classes, batch_size or devices.CPU_BATCH_SIZE, seed)
    if network == "baseline_cnn":
        model = models.baseline_cnn(recipe.train_size, num_classes, seed=seed)
        stages, details, fitted = [_fit(recipe, model, data, None, resume_folder)], {}, model
    else:
        classifier = _build_classifier(recipe, network, weights, data)
        stages, details = _fit_classifier(recipe, network, classifier, data, resume_folder)
        model, fitted = classifier.model, classifier.resized(recipe.test_size).model
    return Fitted(
        model=fitted,
        parameters=models.count_parameters(model),
        history=stages[-1].history,
        seconds={part: seconds for stage in stages for part, seconds in stage.seconds.items()},
        details=details | {"core_seconds": sum(sum(stage.core_seconds.values()) for stage in stages)},
    )


def predict(recipe, model, table):
    """The class probabilities of a table's images, averaged over an image and its mirror image if the recipe says so.

    Args:
        recipe: Recipe.
        model: keras.Model. From images of the recipe's `test_size` to logits.
        table: pandas.DataFrame with `path`, `sha256` and `target`.

    Returns:
        float32 array `(len(table), classes)`; rows sum to one.
    """
    logits = [
        training.extract_features(model, table, recipe.test_size, flipped=flipped, cache=False)[0]
        for flipped in recipe.looks
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

    def resized(self, image_size):
        """The same network for images of another size: convolutions and pooling take any."""
        backbone = models.build_backbone(self.network, image_size, weights=None)
        backbone.set_weights(self.backbone.get_weights())
        return _Classifier(self.network, models.freeze(backbone), self.head, self.depths)


def _build_classifier(recipe, network, weights, data):
    backbone = models.build_backbone(network, recipe.train_size, weights=weights if recipe.pretrained else None)
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


class _Data:
    """The images of one run, as a recipe wants to see them."""

    def __init__(self, recipe, table, num_classes, batch_size, seed):
        self.recipe, self.table, self.num_classes = recipe, table, num_classes
        self.batch_size, self.seed = batch_size, seed
        self.rows = {part: manifest.rows_of(table, part) for part in ("train", "validation")}
        self.rows["train"] = pd.concat([self.rows["train"]] * recipe.passes)
        self.steps = -(-len(self.rows["train"]) // batch_size)

    def load(self, part):
        """A dataset of images and one-hot targets: training images shuffled and augmented, others as they are."""
        options = {"batch_size": self.batch_size, "seed": self.seed}
        if part == "train":
            options |= {"shuffle": True, "augment": self.recipe.augment, "read_size": self.recipe.read_size}
        dataset = loaders.load_dataset(self.rows[part], self.recipe.train_size, **options)
        return dataset.map(lambda images, targets: (images, tf.one_hot(targets, self.num_classes)))

    def one_hot(self, part):
        """The targets of one part, float32 `(n, classes)`."""
        return keras.utils.to_categorical(self.rows[part]["target"], self.num_classes)


def _fit_classifier(recipe, network, classifier, data, resume_folder):
    """Trains the head, then what is unfrozen; returns the stages and what has become of the old features."""
    stages = [_fit_head(recipe, classifier, data)] if recipe.pretrained else []
    if recipe.unfrozen is None:
        return stages, {"domain_distance": _domain_distance(recipe, classifier, data)}
    before = {weight.path: weight.numpy() for weight in classifier.backbone.weights}
    old_head = classifier.head.get_weights()
    recipes.unfreeze(classifier.backbone, recipe, network)
    stages.append(_fit(recipe, classifier.model, data, classifier.backbone, resume_folder))
    if not recipe.pretrained:
        return stages, {}
    return stages, {
        "weight_distance": _weight_distance(classifier.backbone, before),
        "old_head_accuracy": _old_head_accuracy(recipe, classifier, old_head, data),
    }


def _fit_head(recipe, classifier, data):
    """Trains a head on frozen features, seen from both sides where the recipe predicts from both."""
    head, asked = classifier.head, (classifier.extractor, data.table, recipe.train_size)
    extracted = [training.extract_features(*asked, flipped=flipped) for flipped in recipe.looks]
    rows = {part: data.table.index.get_indexer(data.rows[part].index) for part in data.rows}
    inputs = np.concatenate([features[rows["train"]] for features, _ in extracted])
    if recipe.several_depths:
        head.get_layer("standardization").adapt(inputs)
    optimizer = recipes.build_head_optimizer(recipe, -(-len(inputs) // data.batch_size) * recipe.head_epochs)
    head.compile(optimizer, loss=recipes.build_loss(recipe), metrics=["accuracy"])
    clock = _Clock()
    history = head.fit(
        inputs,
        np.tile(data.one_hot("train"), (len(recipe.looks), 1)),
        validation_data=(extracted[0][0][rows["validation"]], data.one_hot("validation")),
        batch_size=data.batch_size,
        epochs=recipe.head_epochs,
        verbose=0,
    ).history
    seconds, core_seconds = clock.read()
    feature_cores = sum(training.extraction_core_seconds(*asked, flipped=flipped) for flipped in recipe.looks)
    return _Stage(
        history,
        {"features": sum(seconds for _, seconds in extracted), "head": seconds},
        {"features": feature_cores, "head": core_seconds},
    )


def _fit(recipe, model, data, backbone, resume_folder):
    """Trains what is unfrozen."""
    optimizer = recipes.build_optimizer(recipe, data.steps, backbone)
    model.compile(optimizer, loss=recipes.build_loss(recipe), metrics=["accuracy"])
    resume = training.Resume(resume_folder) if resume_folder else None
    stop = keras.callbacks.EarlyStopping("val_loss", patience=recipe.patience or 0, restore_best_weights=True)
    callbacks = [callback for callback, wanted in ((resume, resume), (stop, recipe.patience)) if wanted]
    validation = data.load("validation")
    clock = _Clock()
    optimizer.build(model.trainable_variables)  # `fit` traces its step twice when a variable is made on the way:
    model.evaluate(validation.take(1), verbose=0)  # this makes those of the metrics
    history = model.fit(
        data.load("train"),
        validation_data=validation,
        epochs=recipe.epochs,
        shuffle=False,  # the dataset shuffles itself
        callbacks=callbacks,
        verbose=0,
    ).history
    if resume:
        return _Stage(resume.history, {"training": resume.seconds}, {"training": resume.core_seconds})
    seconds, core_seconds = clock.read()
    return _Stage(history, {"training": seconds}, {"training": core_seconds})


def _domain_distance(recipe, classifier, data):
    """How unlike the training images are to those of the pretraining: the mean over the backbone's layers."""
    rows = data.rows["train"].drop_duplicates("path")
    chosen = rows.sample(min(DISTANCE_IMAGES, len(rows)), random_state=data.seed)
    images = loaders.read_images(chosen, recipe.train_size)
    return float(explain.domain_distance(classifier.backbone, images).mean())


def _weight_distance(backbone, before):
    """How far the weights that train have moved, relative to their length."""
    pairs = [(weight.numpy(), before[weight.path]) for weight in backbone.trainable_weights]
    moved = sum(np.sum((after - start) ** 2) for after, start in pairs)
    return float(np.sqrt(moved / sum(np.sum(start**2) for _, start in pairs)))


def _old_head_accuracy(recipe, classifier, old_head, data):
    """What the head that was trained on the frozen features makes of the features as they are now."""
    rows = data.rows["validation"]
    features, _ = training.extract_features(classifier.extractor, rows, recipe.train_size, cache=False)
    head = keras.models.clone_model(classifier.head)
    head.set_weights(old_head)
    return float((training.predict_probabilities(head, features).argmax(axis=1) == rows["target"]).mean())
