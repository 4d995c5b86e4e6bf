"""What every test stands on: an empty cache, no mirror, no network, no display, and images drawn on the spot."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ["TLHELPERS_QUIET"] = "1"

import socket
import threading

import filelock
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from builders import CLASS_NAMES, Website, draw_flower, encode, write_archive
from smoke_book import build_pages, execute_chapters, without_pytest

from tlhelpers.datasets import studies
from tlhelpers.results import queries


def pytest_addoption(parser):
    """Adds options: to write down what deterministic cells give, and to torture for longer."""
    parser.addoption("--update-expected", action="store_true", help="rewrite tests/book/expected_outputs.json")
    parser.addoption("--kills", type=int, default=20, help="how often work is killed, in all (default: %(default)s)")
    parser.addoption("--mutations", type=int, default=500, help="damaged pictures to look at (default: %(default)s)")


@pytest.fixture(autouse=True)
def _own_surroundings(tmp_path, monkeypatch):
    """Gives each test an empty cache and an empty working folder, and closes its figures."""
    for name in ("TLHELPERS_MIRROR", "TLHELPERS_PROFILE", "TLHELPERS_RECORDING", "TLHELPERS_RUNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TLHELPERS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TLHELPERS_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("TLHELPERS_EXPORTS", str(tmp_path / "exports"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    yield
    plt.close("all")


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call():
    """Starts what a test starts as a user would: libraries behave differently where they see that they are tested."""
    with without_pytest():
        return (yield)


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
    with Website() as server:
        monkeypatch.setenv("TLHELPERS_MIRROR", server.url)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def surroundings(request, tmp_path_factory):
    """The folder below which the chapters are executed for the tests: one for all processes that share these out."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if hasattr(request.config, "workerinput") else base) / "book"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def executed(surroundings):
    """All chapters, executed in order with the smoke profile by the process that is the first to ask for them."""
    with filelock.FileLock(surroundings / "executed.lock"):
        return execute_chapters(surroundings)


@pytest.fixture(scope="session")
def site(executed, surroundings):
    """The folder of the site, built by the process that is the first to ask for it."""
    with filelock.FileLock(surroundings / "site.lock"):
        return build_pages(surroundings).parent
