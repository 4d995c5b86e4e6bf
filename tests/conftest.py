"""What every test stands on: an empty cache, no mirror, no network, no display, and images drawn on the spot."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ["TLHELPERS_QUIET"] = "1"

import io
import socket
import threading
import zipfile

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from PIL import Image
from smoke_book import build_pages, execute_chapters

from tlhelpers import garden, queries, studies


def pytest_addoption(parser):
    """Adds the option that writes down what deterministic cells give, to be read before it is committed."""
    parser.addoption("--update-expected", action="store_true", help="rewrite tests/expected_outputs.json")


CLASS_NAMES = tuple(sorted(garden.TARGETS))


def draw_flower(label, index, size=72):
    """A drawn flower: uint8 array `(size, size, 3)`."""
    return garden.draw_flower(label, 0, index, size)


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


@pytest.fixture(autouse=True)
def _own_surroundings(tmp_path, monkeypatch):
    """Gives each test an empty cache and an empty working folder, and closes its figures."""
    for name in ("TLHELPERS_MIRROR", "TLHELPERS_PROFILE", "TLHELPERS_RUNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TLHELPERS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TLHELPERS_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("TLHELPERS_EXPORTS", str(tmp_path / "exports"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    yield
    plt.close("all")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Refuses connections that leave this machine."""
    connect = socket.socket.connect

    def connect_locally(self, address):
        local = self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "localhost", "::1")
        if not local:
            raise OSError(f"the tests stay on this machine; refused {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_locally)


@pytest.fixture
def flowers():
    """The flower study."""
    return studies.get_study("flowers")


@pytest.fixture
def folder(tmp_path):
    """A folder for records, not made yet."""
    return tmp_path / "records"


@pytest.fixture
def quick_queries(monkeypatch):
    """Draws fewer samples, and lets no record ask for the commit, which takes longer than all else."""
    monkeypatch.setattr(queries, "BOOTSTRAP_SAMPLES", 200)
    monkeypatch.setenv("PATH", "")


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A mirror that holds a small drawn flower archive under its upstream name."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    write_archive(folder / "flowers-recognition.zip")
    monkeypatch.setenv("TLHELPERS_MIRROR", str(folder))
    return folder


@pytest.fixture
def table(tmp_path):
    """Fifteen written JPEG files, three per class, with the columns that readers of images use."""
    rows = []
    for target, label in enumerate(sorted(CLASS_NAMES)):
        for index in range(3):
            path = tmp_path / f"{label} {index} ü.jpg"
            path.write_bytes(encode(draw_flower(label, index)))
            rows.append({"path": str(path), "label": label, "target": target, "sha256": f"{label}-{index}"})
    return pd.DataFrame(rows)


@pytest.fixture
def website(monkeypatch):
    """A mirror over HTTP on this machine."""
    from builders import Website

    with Website() as server:
        monkeypatch.setenv("TLHELPERS_MIRROR", server.url)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def surroundings(tmp_path_factory):
    """The folder below which the chapters are executed for the tests."""
    return tmp_path_factory.mktemp("book")


@pytest.fixture(scope="session")
def executed(surroundings):
    """All chapters, executed in order with the smoke profile."""
    return execute_chapters(surroundings)


@pytest.fixture(scope="session")
def site(executed, surroundings):
    """The folder of the built site."""
    return build_pages(surroundings).parent
