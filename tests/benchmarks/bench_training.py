"""Training: a head on features computed once, and moving layers behind views computed once, against the usual loops."""

import math

import keras
import pytest

from tlhelpers import devices, features, loaders, models
from tlhelpers.datasets import splits
from tlhelpers.experiments import trainer

EPOCHS = 10
RATE = 1e-3
MOVING = {"layers": {"last": 6}, "blocks": {"from_block": "block_13"}}  # what the source lets move, and more
FINE_TUNING_SIZE, READ_SIZE = 160, 224
FINE_TUNING_EPOCHS, FINE_TUNING_LEARNING_RATE, VIEWS = 16, 1e-4, 4
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def compile_model(model, rate=RATE, **options):
    model.compile(keras.optimizers.Adam(rate), LOSS, metrics=["accuracy"], **options)
    return model


def compile_moving(model, train):
    """A rate that falls to zero, as in the book: one that stays leaves the last accuracy to chance."""
    steps = FINE_TUNING_EPOCHS * math.ceil(len(train) / devices.CPU_BATCH_SIZE)
    return compile_model(model, keras.optimizers.schedules.CosineDecay(FINE_TUNING_LEARNING_RATE, steps))


def measure(benchmark, train, *, images, rounds=1, setup=None):
    """Measures a training, and keeps beside its seconds the validation accuracy it ends with."""
    history = benchmark.pedantic(train, rounds=rounds, setup=setup)
    benchmark.extra_info |= {"images": images, "accuracy": history["val_accuracy"][-1]}


@pytest.fixture(scope="module")
def size(study):
    return study.image_size


@pytest.fixture(scope="module")
def folders(table, link_by_class, tmp_path_factory):
    """The same pictures as the usual loop wants them: a folder for each part and class."""
    root = tmp_path_factory.mktemp("folders")
    for part in ("train", "validation"):
        link_by_class(root / part, splits.rows_of(table, part))
    return root


@pytest.mark.benchmark(group="frozen training")
def test_usual_loop(benchmark, folders, load_backbone, table, study, size):
    def train():
        options = {"image_size": (size, size), "batch_size": 32, "seed": 0, "verbose": False}
        data = {
            part: keras.utils.image_dataset_from_directory(folders / part, **options).cache()
            for part in ("train", "validation")
        }
        backbone = load_backbone(size)
        inputs = keras.Input((size, size, 3))
        x = keras.layers.GlobalAveragePooling2D()(backbone(inputs, training=False))
        outputs = keras.layers.Dense(study.num_classes)(keras.layers.Dropout(0.2)(x))
        model = compile_model(keras.Model(inputs, outputs))
        shuffled = data["train"].shuffle(50).prefetch(2)
        return model.fit(
            shuffled, validation_data=data["validation"].prefetch(2), epochs=EPOCHS, shuffle=False, verbose=0
        ).history

    measure(benchmark, train, images=len(table))


def fit_head(table, found, num_classes, *, seed=0):
    """Trains a head on features, as the usual loop trains it on images."""
    head = models.build_head(found.shape[1:], num_classes, hidden=0, dropout=0.2, seed=seed)
    parts = {part: (table["split"] == part).to_numpy() for part in ("train", "validation")}
    data = {
        part: loaders.load_arrays(found[rows], table["target"].to_numpy()[rows], shuffle=part == "train", seed=seed)
        for part, rows in parts.items()
    }
    compile_model(head, steps_per_execution=trainer.STEPS_AT_ONCE)
    history = head.fit(data["train"], validation_data=data["validation"], epochs=EPOCHS, shuffle=False, verbose=0)
    return head, history.history


@pytest.mark.benchmark(group="frozen training")
def test_features_once(benchmark, load_backbone, table, study, size, forget):
    def train():
        found, _ = features.extract_features(models.pooled(load_backbone(size)), table, size)
        return fit_head(table, found, study.num_classes)[1]

    measure(benchmark, train, images=len(table), rounds=2, setup=forget)


@pytest.mark.benchmark(group="one more head")
def test_one_more_head(benchmark, load_backbone, table, study, size):
    found, _ = features.extract_features(models.pooled(load_backbone(size)), table, size)
    measure(benchmark, lambda: fit_head(table, found, study.num_classes, seed=1)[1], images=len(table), rounds=3)


@pytest.fixture(params=MOVING)
def classifier(benchmark, load_backbone, table, study, request):
    """A backbone of which the last part moves, with a head that is trained."""
    benchmark.group = f"fine-tuning the last {request.param}"
    backbone = load_backbone(FINE_TUNING_SIZE)
    found, _ = features.extract_features(models.pooled(backbone), table, FINE_TUNING_SIZE)
    head, _ = fit_head(table, found, study.num_classes)
    models.unfreeze(backbone, **MOVING[request.param])
    return backbone, head


def test_whole_network(benchmark, classifier, table):
    train, validation = (splits.rows_of(table, part) for part in ("train", "validation"))
    model = compile_moving(models.connect(*classifier), train)

    def fit():
        options = {"shuffle": True, "augment": "strong", "read_size": READ_SIZE}
        return model.fit(
            loaders.load_dataset(train, FINE_TUNING_SIZE, **options),
            validation_data=loaders.load_dataset(validation, FINE_TUNING_SIZE),
            epochs=FINE_TUNING_EPOCHS,
            shuffle=False,
            verbose=0,
        ).history

    measure(benchmark, fit, images=len(table))
    benchmark.extra_info["epochs"] = FINE_TUNING_EPOCHS


def test_views_once(benchmark, classifier, table):
    train, validation = (splits.rows_of(table, part) for part in ("train", "validation"))
    backbone, head = classifier
    beginning, rest = models.split_backbone(backbone)
    model = compile_moving(models.connect(rest, head), train)

    def fit():
        views, _ = features.extract_views(beginning, train, FINE_TUNING_SIZE, count=VIEWS, read_size=READ_SIZE)
        seen, _ = features.extract_features(beginning, validation, FINE_TUNING_SIZE)
        return model.fit(
            features.ViewBatches(views, train["target"]),
            validation_data=features.ViewBatches([seen], validation["target"], shuffle=False),
            epochs=FINE_TUNING_EPOCHS,
            shuffle=False,
            verbose=0,
        ).history

    measure(benchmark, fit, images=len(table))
    benchmark.extra_info |= {"epochs": FINE_TUNING_EPOCHS, "views": VIEWS}
