"""Predicting a folder of pictures, against the bare model on pictures that are in memory already."""

import numpy as np
import pytest

from tlhelpers import features, loaders, models, predictions, training

IMAGES = 600


@pytest.fixture(scope="module")
def rows(table):
    return table.sample(min(IMAGES, len(table)), random_state=0)


@pytest.fixture(scope="module")
def model(load_backbone, study):
    backbone = load_backbone(study.image_size)
    return models.connect(backbone, models.build_head(backbone.output_shape[1:], study.num_classes, seed=0))


@pytest.mark.benchmark(group="predicting a folder")
def test_bare_model(benchmark, model, rows, study):
    images = loaders.read_images(rows, study.image_size).astype("float32")
    call = features.compile_frozen(model)
    batches = np.array_split(images, range(predictions.BATCH_SIZE, len(images), predictions.BATCH_SIZE))
    benchmark.pedantic(lambda: [call(batch).numpy() for batch in batches], rounds=3, warmup_rounds=1)
    benchmark.extra_info["images"] = len(rows)


@pytest.mark.benchmark(group="predicting a folder")
def test_folder(benchmark, model, rows, link_by_class, tmp_path):
    link_by_class(tmp_path / "pictures", rows)
    training.save_model(model, tmp_path / "model.keras")
    loaded = training.load_model(tmp_path / "model.keras")
    names = predictions.check_class_names(None, loaded.output_shape[-1])
    call = predictions.compile_answers(loaded, loaded.input_shape[1])

    def predict():
        paths = predictions.list_files(tmp_path / "pictures")
        done = predictions.predict_batches(call, loaded.input_shape[1], paths, tmp_path, names)
        return sum(len(rows) for rows in done)

    assert benchmark.pedantic(predict, rounds=3, warmup_rounds=1) == len(rows)
    benchmark.extra_info["images"] = len(rows)
