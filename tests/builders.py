"""Made up for the tests: records of ten pictures, a world in which all claims about flowers hold, and a mirror."""

import dataclasses
import hashlib
import http.server
import io
import time
import zipfile

import nbformat
import numpy as np
import pandas as pd
from nbformat import v4
from PIL import Image

from tlhelpers import settings
from tlhelpers.book import execution
from tlhelpers.datasets import studies
from tlhelpers.experiments import records
from tlhelpers.results.claims import BASELINE, FAST, FROZEN, FULL, LAST6, PARTIAL, SLOW, UNTRAINED
from tlhelpers.synthetic import flowers

STUDY = studies.get_study("flowers")
CLASS_NAMES = tuple(sorted(flowers.TARGETS))
HARDWARE = {"kind": "CPU", "name": "a processor", "count": 2, "memory_gib": 16.0, "precision": "float32"}
GPU = {"kind": "GPU", "name": "a GPU", "count": 1, "memory_gib": 80.0, "precision": "float32"}
PER_CLASS = 40
OVERFITTING = {
    "loss": [1.4, 1.1, 0.9, 0.7, 0.5, 0.3],
    "val_loss": [1.2, 1.0, 0.9, 0.95, 1.0, 1.1],
    "accuracy": [0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
    "val_accuracy": [0.5, 0.6, 0.65, 0.66, 0.67, 0.66],
}
SMOOTH = {
    "loss": [0.8, 0.6, 0.5, 0.4, 0.35, 0.3],
    "val_loss": [0.5, 0.4, 0.35, 0.33, 0.32, 0.322],
    "accuracy": [0.7, 0.8, 0.85, 0.88, 0.9, 0.92],
    "val_accuracy": [0.8, 0.84, 0.86, 0.88, 0.875, 0.89],
}
# Of 40 pictures per class: 66, 24, 18, 8 and 100 errors of 200, so that the quoted accuracies are met.
BASELINE_ERRORS = {
    "daisy": {"rose": 10, "tulip": 2},
    "dandelion": {"sunflower": 8, "daisy": 2},
    "rose": {"tulip": 12, "daisy": 7},
    "sunflower": {"daisy": 5},
    "tulip": {"rose": 14, "daisy": 6},
}
SHARED_ERRORS = {"dandelion": {"daisy": 2}, "sunflower": {"daisy": 2}}
FROZEN_ERRORS = {**SHARED_ERRORS, "daisy": {"tulip": 4}, "rose": {"tulip": 7}, "tulip": {"rose": 9}}
LAST6_ERRORS = {**SHARED_ERRORS, "daisy": {"tulip": 4}, "rose": {"tulip": 4}, "tulip": {"rose": 6}}
PARTIAL_ERRORS = {**SHARED_ERRORS, "tulip": {"rose": 4}}
UNTRAINED_ERRORS = {name: {"daisy": 25} for name in STUDY.class_names[1:]}
# A world in which all holds that records can decide.
WORLD = {
    BASELINE: {"errors": BASELINE_ERRORS, "history": OVERFITTING, "trainable": 11_170_000},
    FROZEN: {"errors": FROZEN_ERRORS, "history": SMOOTH, "right": 0.6, "wrong": 0.8},
    LAST6: {"errors": LAST6_ERRORS, "right": 0.95, "wrong": 0.5},
    UNTRAINED: {"errors": UNTRAINED_ERRORS},
    PARTIAL: {"errors": PARTIAL_ERRORS, "seconds": 100},
    FULL: {"errors": PARTIAL_ERRORS, "seconds": 200},
    SLOW: {"errors": PARTIAL_ERRORS, "details": {"old_head_accuracy": 0.88, "recipe": {"learning_rate": 1e-4}}},
    FAST: {"errors": PARTIAL_ERRORS, "details": {"old_head_accuracy": 0.4, "recipe": {"learning_rate": 1e-2}}},
}


PARAMETERS_CELL = v4.new_code_cell("COUNT = 1", metadata={"tags": ["parameters"]})


def make_table(per_class=4):
    """A split table, of which half are test images."""
    rows = []
    for target, label in enumerate(STUDY.class_names):
        for index in range(per_class):
            split = ("train", "validation", "test", "test")[index % 4]
            rows.append({"label": label, "target": target, "sha256": f"{label}{index}", "split": split})
    return pd.DataFrame(rows)


def make_record(*, seed=0, wrong=1, **changes):
    """A record of ten test images of which `wrong` are misread."""
    table = make_table()
    target = table.loc[table["split"] == "test", "target"].to_numpy()
    predicted = np.where(np.arange(10) < wrong, (target + 1) % 5, target)
    y_prob = 0.8 * np.eye(5)[predicted] + 0.04
    facts = {
        "protocol": "careful",
        "network": "mobilenetv2_100",
        "strategy": "frozen",
        "profile": "full",
        "seed": seed,
        "image_size": 224,
        "parameters": {"total": 10, "trainable": 3},
        "history": {"loss": [1 / 3, 0.1], "accuracy": [0.5, 0.9]},
        "seconds": {"training": 12.5},
        "hardware": HARDWARE,
        "validation_prob": np.full((5, 5), 0.2),
    }
    return records.make_record(study=STUDY, table=table, y_prob=y_prob, **(facts | changes))


def make_fold(seed, *, wrong=1, **changes):
    """A record whose test images are those of no other seed."""
    record = make_record(seed=seed, wrong=wrong)
    changes = {"test_id": np.array([f"{name}-{(7 * seed) % 5}" for name in record.test_id])} | changes
    return dataclasses.replace(record, **changes)


def save_several(folder):
    """Saves four records of two models, protocols and seeds."""
    for protocol, strategy, seed in [
        ("careful", "frozen", 0),
        ("careful", "frozen", 1),
        ("careful", "last6", 0),
        ("published", "frozen", 0),
    ]:
        records.save_record(make_record(protocol=protocol, strategy=strategy, seed=seed), folder)


def make_test_table(pictures):
    """Test images of every class; other `pictures` are other images."""
    rows = [
        {"label": label, "target": target, "sha256": f"{pictures} {label} {index}", "split": "test"}
        for target, label in enumerate(STUDY.class_names)
        for index in range(PER_CLASS)
    ]
    return pd.DataFrame(rows)


def make_predictions(errors, right, wrong):
    """Probabilities: of each class, the first pictures are misread as `errors` says."""
    rows = []
    for target, label in enumerate(STUDY.class_names):
        misread = [name for name, count in errors.get(label, {}).items() for _ in range(count)]
        predicted = [*map(STUDY.class_names.index, misread), *[target] * PER_CLASS][:PER_CLASS]
        for index in predicted:
            confidence = right if index == target else wrong
            rows.append(np.where(np.arange(5) == index, confidence, (1 - confidence) / 4))
    return np.array(rows)


def make_run(
    model,
    *,
    errors,
    history=SMOOTH,
    trainable=160_000,
    seconds=10,
    right=0.9,
    wrong=0.6,
    seed=0,
    pictures="",
    hardware=GPU,
    protocol="careful",
    details=None,
):
    network, strategy = model.split("-", 1)
    return records.make_record(
        study=STUDY,
        table=make_test_table(pictures),
        y_prob=make_predictions(errors, right, wrong),
        protocol=protocol,
        network=network,
        strategy=strategy,
        profile="full",
        seed=seed,
        image_size=224,
        parameters={"total": 20_000_000, "trainable": trainable},
        history=history,
        seconds={"features": 1, "training": seconds},
        hardware=hardware,
        details=details or {},
    )


def make_world(changes=None, models=tuple(WORLD), **all_changes):
    """One run of each of some models; `changes` maps a model to what is otherwise in it."""
    return {model: [make_run(model, **WORLD[model] | all_changes | (changes or {}).get(model, {}))] for model in models}


def make_seeds(model, errors_by_seed, **changes):
    """Runs of one model under the careful protocol: each seed has pictures of its own."""
    return [
        make_run(model, **WORLD[model] | {"errors": errors, "seed": seed, "pictures": f"fold {seed}"} | changes)
        for seed, errors in enumerate(errors_by_seed)
    ]


class Website(http.server.ThreadingHTTPServer):
    """Serves `pages` (path: bytes) and keeps a list of requests.

    It can fail: `refused` maps a path to an error status, `broken` ones promise more bytes than there are, `cut` maps a
    path to how many bytes are sent, `moved` one to where it has gone, and every 64 KiB take `pause` seconds.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages, self.requests, self.broken, self.refused = {}, [], set(), {}
        self.cut, self.moved, self.pause = {}, {}, 0.0

    @property
    def url(self):
        """The mirror's address."""
        return f"http://127.0.0.1:{self.server_port}/data"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.removeprefix("/data/")
        self.server.requests.append(name)
        content = self.server.pages.get(name)
        if name in self.server.moved:
            self.send_response(302)
            self.send_header("Location", self.server.moved[name])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if content is None or name in self.server.refused:
            self.send_error(self.server.refused.get(name, 404))
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content) + 1000 * (name in self.server.broken)))
        self.end_headers()
        content = content[: self.server.cut.get(name)]
        for start in range(0, len(content), 1 << 16):
            self.wfile.write(content[start : start + (1 << 16)])
            time.sleep(self.server.pause)

    def log_message(self, *arguments):
        pass


def checksums_of(content, name):
    """The line of a mirror's checksum file about some bytes."""
    return f"{hashlib.sha256(content).hexdigest()}  {name}\n".encode()


def cached(name):
    """Where the cache keeps a download."""
    return settings.home_folder() / "downloads" / name


def write_notebook(path, *sources_):
    notebook = v4.new_notebook(cells=[PARAMETERS_CELL, *map(v4.new_code_cell, sources_)])
    notebook.metadata["kernelspec"] = {"name": execution.KERNEL, "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)
    return path


def executed_cell(*outputs):
    return v4.new_notebook(cells=[v4.new_code_cell("1", outputs=list(outputs))])


def stream(name, text):
    return v4.new_output("stream", name=name, text=text)


def draw_flower(label, index, size=72):
    """A drawn flower: uint8 array `(size, size, 3)`."""
    return flowers.draw_flower(label, 0, index, size)


def encode(pixels, image_format="JPEG", **options):
    """The bytes of an image file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, image_format, **options)
    return stream.getvalue()


def write_archive(path, *, per_class=8, extra=None, prefix="flowers"):
    """A ZIP in the layout of the flower archive; `extra` maps further member names to bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for label in CLASS_NAMES:
            for index in range(per_class):
                archive.writestr(f"{prefix}/{label}/{index:04d}.jpg", encode(draw_flower(label, index)))
        for name, content in (extra or {}).items():
            archive.writestr(name, content)
    return path


def settle_statistics(network, images):
    """Sets the moving statistics of a Keras model to those of a batch: random weights then give usual outputs."""
    norms = [layer for layer in network.layers if hasattr(layer, "moving_mean")]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    network(images, training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def wait_for(condition, seconds=300):
    """Waits until something is true, and returns it; at last whatever it is. A busy machine takes its time."""
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return found
