"""Pieces of work that can be killed in the middle: each goes on where an earlier start of it has stopped.

Every function takes a folder that holds all it leaves, and returns a text that names what came out.
"""

import hashlib
import os
import resource
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from builders import STUDY, make_record, write_notebook

from tlhelpers import features, files, loaders, models, predictions, training
from tlhelpers.book import execution, staging
from tlhelpers.datasets import downloads, manifest, sources, studies
from tlhelpers.experiments import records
from tlhelpers.synthetic import collection

SIDE = 32
EPOCHS = 6
PAGES = {
    "_toc.yml": "format: jb-book\nroot: index\nchapters:\n  - file: other\n",
    "_config.yml": "title: A book\nexecute:\n  execute_notebooks: 'off'\n",
    "index.md": "# First\n\nText.\n",
    "other.md": "# Second\n\nMore text.\n",
}


def digest(*parts):
    """A digest of arrays, texts and the contents of files."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            found.update(part.read_bytes())
        elif isinstance(part, str):
            found.update(part.encode())
        else:
            found.update(np.round(np.asarray(part, dtype=np.float64), 4).tobytes())
    return found.hexdigest()


def digest_below(folder):
    """A digest of all files below a folder, with their names."""
    return files.sha256_of_files(sorted(folder.rglob("*")), folder)


def look_at_pictures(listed):
    """The verdicts on listed pictures, and the most bytes that one of the processes held which looked at them.

    Reads the readable ones as a training does. To be called in a process of its own: the peak is that of its life.
    """
    table = manifest.build_manifest(listed, sorted(set(listed["label"])), near_duplicate_bits=None, workers=2)
    for path in table["path"][table["verdict"].isin(manifest.READABLE)]:
        assert loaders.read_image(path, SIDE).shape == (SIDE, SIDE, 3)
    lives = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return list(table["verdict"]), max(resource.getrusage(life).ru_maxrss for life in lives) * 1024


def download(folder):
    """A file from a server that takes its time."""
    url, checksum = os.environ["TORTURE_URL"], os.environ["TORTURE_SHA256"]
    return digest(downloads.download(url, folder / "downloads" / "archive.bin", checksum=checksum))


def extract(folder):
    """An archive of a mirror."""
    return digest_below(sources.prepare_images(STUDY))


def read_manifest(folder):
    """The manifest of an archive's pictures."""
    table = manifest.load_manifest(STUDY)
    return digest(*table["sha256"], *table["verdict"], table["group"])


def draw(folder):
    """A drawn edition."""
    collection.FILES_PER_CLASS = 40
    return digest_below(collection.draw_study(studies.get_study("flowers", drawn=True)))


def save_record(folder):
    """A record, one over the other."""
    for wrong in (1, 2, 3):
        path = records.save_record(make_record(wrong=wrong), folder / "records")
    record = records.load_record(path)
    return digest(record.y_prob, record.y_true, *record.test_id)


def build_network():
    """A tiny network with weights that are always the same."""
    keras.utils.set_random_seed(0)
    images = keras.Input((SIDE, SIDE, 3))
    seen = keras.layers.Conv2D(4, 3, strides=2, activation="relu")(keras.layers.Rescaling(1 / 255)(images))
    return keras.Model(images, keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(seen)))


def list_pictures():
    """A table of the mirror's pictures."""
    place = sources.prepare_images(STUDY)
    paths = sorted(place.rglob("*.jpg"))
    targets = [STUDY.class_names.index(path.parent.name) for path in paths]
    return pd.DataFrame({"path": list(map(str, paths)), "target": targets, "sha256": list(map(str, paths))})


def extract_features(folder):
    """Features, and three views of them."""
    network, table = build_network(), list_pictures()
    plain, _ = features.extract_features(network, table, SIDE)
    views, _ = features.extract_views(network, table, SIDE, count=3)
    return digest(plain, *views)


def train(folder):
    """A training with dropout on shuffled, augmented pictures, its state kept after every epoch."""
    keras.utils.set_random_seed(0)
    model = models.baseline_cnn(SIDE, 5, seed=0)
    model.compile(keras.optimizers.Adam(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    data = loaders.load_dataset(list_pictures(), SIDE, shuffle=True, augment="strong")
    resume = training.Resume(folder / "state", data=data, every_seconds=0)
    model.fit(data, epochs=EPOCHS, shuffle=False, callbacks=[resume], verbose=0)
    return digest([round(loss, 2) for loss in resume.history["loss"]])


def predict(folder):
    """A table of predictions."""
    model, table = folder / "model.keras", folder / "out.csv"
    if not model.is_file():
        training.save_model(build_network(), model)
    if not table.is_file():
        predictions.predict_folder(model, sources.prepare_images(STUDY), table, batch_size=4)
    return digest(table)


def execute(folder):
    """A chapter."""
    source = write_notebook(folder / "source.ipynb", "import time", "time.sleep(0.5)", "COUNT + 1")
    execution.execute_chapter(source, folder / "executed" / "chapter.ipynb", {"COUNT": 2}, folder=folder)
    return digest("3") if '"3"' in (folder / "executed" / "chapter.ipynb").read_text(encoding="utf-8") else "wrong"


def build_site(folder):
    """The site of a small book."""
    for name, text in PAGES.items():
        files.write_text(folder / "source" / name, text)
    site = staging.build_site().parent
    return digest(*[path.name for path in sorted(site.rglob("*")) if path.suffix in (".html", ".js")])


# What is tortured, and how many of two hundred kills each piece of work gets: as many as it is quick.
WORKS = {
    download: 40,
    extract: 36,
    read_manifest: 30,
    draw: 16,
    save_record: 24,
    extract_features: 14,
    train: 18,
    predict: 12,
    execute: 8,
    build_site: 6,
}


def start(name, folder, environment, connection):
    """Does one piece of work in a process of its own, and sends what came out."""
    os.setsid()  # so that a kill reaches all it has started
    os.environ.update(environment)
    work = next(work for work in WORKS if work.__name__ == name)
    connection.send(work(Path(folder)))
