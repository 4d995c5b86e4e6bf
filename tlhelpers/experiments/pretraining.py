"""How the pocket backbone learns to see: synthetic species, and questions about each image.

`python -m tlhelpers.experiments.pretraining` trains it from scratch and writes `data/pocket/`; it can be stopped and
started again.

Every image shows a species of its own, made up by `flowers.draw_species`, never one of the five classes of the
flower study. The network answers questions about it: which form, how many petals, which colour. One linear layer per
question stands on the pooled features, so that whatever answers the questions is in the features.
"""

import json
import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import PIL
import tensorflow as tf
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tlhelpers import devices, files, loaders, models, parallel, settings, training, weights
from tlhelpers.experiments import records
from tlhelpers.keras_settings import keras
from tlhelpers.synthetic import canvas, collection, flowers

BACKBONE = "mobilenetv2_035"
WEIGHTS_FILE = weights.WEIGHT_FILES["pocket"][BACKBONE]
PICTURES = 60_000
VALIDATION_PICTURES = 1_000
PICTURE_SEED = 0
PICTURE_SIZE = 128
PROBE_SEED = 7001  # images of its own: neither pretraining nor the chapters see them
PROBE_PER_CLASS = 60
CARD_TEST_PER_CLASS = 200
UNSEEN = -1  # the answer where a form does not show what is asked for

# Smaller than the chapters' images, which makes it twice as quick.
IMAGE_SIZE = 96
EPOCHS = 5
BATCH_SIZE = 64
PEAK_LEARNING_RATE = 2e-3
WEIGHT_DECAY = 1e-4
# Keras' own 0.999 needs thousands of steps before the moving statistics mean anything.
BATCH_NORM_MOMENTUM = 0.99


@dataclass(frozen=True)
class Question:
    """Something to read off an image, answered by one of a few intervals.

    Args:
        name: str.
        value: function from a Species to a float.
        edges: tuple of float. The inner borders of the intervals.
        forms: tuple of str. The forms of flowers that show it.
    """

    name: str
    value: callable
    edges: tuple
    forms: tuple = ("rays", "rosette", "cup")

    @property
    def num_answers(self):
        """How many intervals there are."""
        return len(self.edges) + 1

    def answer(self, species):
        """The interval's index, int; `UNSEEN` when the species' form does not show it."""
        form = next(iter(species.forms))
        return int(np.digitize(self.value(species), self.edges)) if form in self.forms else UNSEEN


QUESTIONS = (
    Question("form", lambda species: list(flowers.FORM_RANGES).index(next(iter(species.forms))), (1, 2)),
    Question("petals", lambda species: species.petals[0], (5, 7, 10, 14, 19, 25, 31)),
    Question("rings", lambda species: species.rings[0], (2, 3, 4, 5)),
    Question("width", lambda species: np.mean(species.width), (0.12, 0.18, 0.26, 0.36, 0.5, 0.7, 0.9)),
    Question("tip", lambda species: np.mean(species.tip), (0.4, 0.5, 0.6, 0.7), ("rays", "cup")),
    Question("disc", lambda species: np.mean(species.disc), (0.05, 0.15, 0.25, 0.35, 0.45), ("rays",)),
    Question("disc_hue", lambda species: species.disc_hue[0], tuple(np.arange(1, 8) / 8), ("rays",)),
    Question("disc_value", lambda species: species.disc_hue[2], (0.35, 0.55, 0.75), ("rays",)),
    Question("hue", lambda species: species.hues[0][0], tuple(np.arange(1, 12) / 12)),
    Question("saturation", lambda species: species.hues[0][1], (0.15, 0.35, 0.6, 0.8)),
    Question("value", lambda species: species.hues[0][2], (0.65, 0.8, 0.9)),
    Question("leaf", lambda species: np.mean(species.leaf), (0.2, 0.35, 0.5, 0.65)),
)


def draw_pictures(folder, indices, *, seed=PICTURE_SEED):
    """Draws one image each of some species into a folder. Images that are there already stay.

    Args:
        folder: Path.
        indices: sequence of int. Which species, see `flowers.draw_species`.
        seed: int.

    Returns:
        pandas.DataFrame with `path` (str) and `target` (int, the species' index).
    """
    folder.mkdir(parents=True, exist_ok=True)
    draw = partial(_draw_picture, folder=folder, seed=seed)
    paths = list(parallel.map_over_cores(draw, indices, description="Drawing species"))
    return pd.DataFrame({"path": paths, "target": list(indices)})


def load_quiz(table, questions, image_size, *, seed=PICTURE_SEED, **options):
    """A dataset of images and the answers to questions about them.

    Args:
        table: pandas.DataFrame, as from `draw_pictures`.
        questions: sequence of Question.
        image_size: int. Side of the square images, pixels.
        seed: int. That of the images; it also orders them.
        **options: as for `loaders.load_dataset`.

    Returns:
        tf.data.Dataset of images, as from `load_dataset`, and a dict from each question's name to int32 `(batch,)`.
    """
    species = [flowers.draw_species(seed, index) for index in table["target"]]
    answers = np.array([[question.answer(one) for question in questions] for one in species], dtype=np.int32)
    columns = {question.name: tf.constant(answers[:, i]) for i, question in enumerate(questions)}
    numbered = table.assign(target=range(len(table)))
    dataset = loaders.load_dataset(numbered, image_size, seed=seed, **options)
    return dataset.map(lambda images, rows: (images, {name: tf.gather(c, rows) for name, c in columns.items()}))


def build_quiz(backbone, questions):
    """A backbone with one linear layer per question on its pooled features.

    Args:
        backbone: keras.Model, as from `build_backbone`.
        questions: sequence of Question.

    Returns:
        keras.Model. From images to a dict from each question's name to logits.
    """
    features = models.pooled(backbone)
    outputs = {one.name: keras.layers.Dense(one.num_answers, name=one.name)(features.output) for one in questions}
    return keras.Model(features.input, outputs, name=f"{backbone.name}_quiz")


def quiz_losses(questions):
    """Cross-entropy for every question, images without an answer left out: a dict from name to loss."""
    return {
        one.name: keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=UNSEEN) for one in questions
    }


def set_batch_norm_momentum(backbone, momentum=BATCH_NORM_MOMENTUM):
    """Sets the momentum of every BatchNormalization, so that moving statistics follow a short training; returns it."""
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = momentum
    return backbone


def load_probe(image_size=PICTURE_SIZE, *, test_per_class=PROBE_PER_CLASS):
    """Synthetic images of the five flowers, which nothing else uses, to measure features on.

    Args:
        image_size: int. Pixels; drawn at `PICTURE_SIZE` and resized.
        test_per_class: int.

    Returns:
        tuple of float32 images `(n, image_size, image_size, 3)`, int targets `(n,)` and bool `(n,)`, which train.
    """
    count = PROBE_PER_CLASS + test_per_class
    jobs = [(name, PROBE_SEED, index) for name in sorted(flowers.TARGETS) for index in range(count)]
    encoded = list(parallel.map_over_cores(_draw_encoded, jobs, description="Drawing flowers"))
    pictures = np.stack([tf.io.decode_jpeg(content, channels=3).numpy() for content in encoded])
    images = tf.image.resize(pictures, (image_size, image_size)).numpy()
    rows = np.arange(len(jobs))
    return images, rows // count, rows % count < PROBE_PER_CLASS


def probe_accuracy(extractor, probe):
    """How far a linear classifier on a network's features gets with a few images of the five flowers.

    Args:
        extractor: keras.Model, as from `models.pooled`, for images of the probe's size.
        probe: as from `load_probe`.

    Returns:
        float in 0..1. Accuracy on the images that do not train.
    """
    images, targets, train = probe
    features = training.predict_outputs(extractor, images)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    classifier.fit(features[train], targets[train])
    return float(classifier.score(features[~train], targets[~train]))


def learning_rate(epoch):
    """The rate of an epoch: half the highest in the first, then down along a cosine."""
    cosine = 0.5 * (1 + math.cos(math.pi * epoch / EPOCHS))
    return PEAK_LEARNING_RATE * (0.5 if epoch == 0 else cosine)


class Probe(keras.callbacks.Callback):
    """Measures the features after every epoch, as `probe_accuracy` in the logs.

    Args:
        backbone: keras.Model, the one in training, whatever its image size.
        probe: as from `load_probe`.
    """

    def __init__(self, backbone, probe):
        super().__init__()
        self._source = backbone
        self._copy = models.pooled(models.build_backbone(backbone.name, probe[0].shape[1], weights=None))
        self._probe = probe

    def on_epoch_end(self, epoch, logs=None):
        """Adds the accuracy to the logs."""
        self._copy.set_weights(self._source.get_weights())
        logs["probe_accuracy"] = probe_accuracy(self._copy, self._probe)
        print(f"epoch {epoch + 1}: loss {logs['loss']:.2f}, probe accuracy {logs['probe_accuracy']:.3f}", flush=True)


def picture_folder():
    """Where the synthetic species are kept; changes with their seed and with the code that draws them."""
    code = [files.sha256_of(module.__file__) for module in (flowers, canvas, collection)]
    key = files.sha256_of_text("\n".join([*code, str(PICTURE_SEED), PIL.__version__]))[:16]
    return settings.home_folder() / "pretraining" / f"pictures-{key}"


def state_folder():
    """Where an unfinished pretraining keeps its state; changes with what it learns from and for how long."""
    facts = [
        picture_folder().name,
        BACKBONE,
        PICTURES,
        IMAGE_SIZE,
        EPOCHS,
        BATCH_SIZE,
        PEAK_LEARNING_RATE,
        WEIGHT_DECAY,
    ]
    facts += [(question.name, *question.edges, *question.forms) for question in QUESTIONS]
    return settings.home_folder() / "pretraining" / f"state-{files.sha256_of_text(str(facts))[:16]}"


def pretrain(folder):
    """Trains the pocket backbone from scratch. A killed run goes on after its last finished epoch.

    Args:
        folder: Path. For the state.

    Returns:
        tuple of a keras.Model, the trained backbone for images of the drawn size, and a dict with `history`
        (dict of lists, one value per epoch) and `seconds` (float, in all epochs).
    """
    keras.utils.set_random_seed(PICTURE_SEED)
    backbone = set_batch_norm_momentum(models.build_backbone(BACKBONE, IMAGE_SIZE, weights=None))
    quiz = build_quiz(backbone, QUESTIONS)
    quiz.compile(
        optimizer=keras.optimizers.AdamW(PEAK_LEARNING_RATE, weight_decay=WEIGHT_DECAY), loss=quiz_losses(QUESTIONS)
    )
    train = draw_pictures(picture_folder(), range(PICTURES))
    held_out = draw_pictures(picture_folder(), range(PICTURES, PICTURES + VALIDATION_PICTURES))
    options = {"batch_size": BATCH_SIZE, "cache": "none"}
    # Keras passes the current rate too, which ours does not depend on.
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch, _: learning_rate(epoch))
    resume = training.Resume(folder, every_seconds=0)
    quiz.fit(
        load_quiz(train, QUESTIONS, IMAGE_SIZE, shuffle=True, augment="light", **options),
        validation_data=load_quiz(held_out, QUESTIONS, IMAGE_SIZE, **options),
        epochs=EPOCHS,
        shuffle=False,  # the dataset shuffles itself
        callbacks=[schedule, Probe(backbone, load_probe()), resume],
        verbose=0 if settings.is_quiet() else 2,
    )
    pocket = models.build_backbone(BACKBONE, PICTURE_SIZE, weights=None)
    pocket.set_weights(backbone.get_weights())
    return pocket, {"history": resume.history, "seconds": resume.seconds}


def write_pocket(backbone, log, device):
    """Writes the weights and their card into `settings.pocket_folder()`.

    Args:
        backbone: keras.Model, as from `pretrain`.
        log: dict, as from `pretrain`.
        device: Device. What it was trained on.
    """
    folder = settings.pocket_folder()
    probe = load_probe(backbone.input_shape[1], test_per_class=CARD_TEST_PER_CLASS)
    accuracy = probe_accuracy(models.pooled(backbone), probe)
    card = {
        "backbone": BACKBONE,
        "file": WEIGHTS_FILE,
        "arrays_sha256": weights.digest_of_weights(backbone),
        "parameters": backbone.count_params(),
        "licence": "MIT",
        "pictures": PICTURES,
        "learned_from": f"{PICTURES} drawn pictures, one of each species; no photograph, no other network",
        "questions": {question.name: question.num_answers for question in QUESTIONS},
        "image_size": IMAGE_SIZE,
        "probe": {"seed": PROBE_SEED, "train_per_class": PROBE_PER_CLASS, "test_per_class": CARD_TEST_PER_CLASS},
        "probe_accuracy": round(accuracy, 4),
        "seconds": round(log["seconds"]),
        "hardware": devices.hardware_facts(device),
        "versions": records.package_versions(),
        "trained_on": records.today(),
        "history": log["history"],
    }
    weights.save_backbone_weights(backbone, folder / WEIGHTS_FILE)
    files.write_text(folder / weights.CARD_FILE, json.dumps(records.rounded(card), indent=1) + "\n")


def _draw_picture(index, *, folder, seed):
    path = folder / f"{index:06d}.jpg"
    if not path.is_file():
        pixels = flowers.draw_flower(flowers.draw_species(seed, index), seed, index, PICTURE_SIZE)
        with files.atomic_file(path) as temporary:
            temporary.write_bytes(collection.encode(pixels))
    return str(path)


def _draw_encoded(job):
    return collection.encode(flowers.draw_flower(*job, PICTURE_SIZE))


def main():
    """The command line."""
    device = devices.prepare_device(PICTURE_SEED, precision="float32", deterministic=False)
    backbone, log = pretrain(state_folder())
    write_pocket(backbone, log, device)
    print(f"Written: {settings.pocket_folder() / WEIGHTS_FILE}")


if __name__ == "__main__":
    main()
