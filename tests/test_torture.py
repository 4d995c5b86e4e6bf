"""Torture: work killed at random moments, and pictures damaged in random ways. `make torture` does more of both."""

import functools
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
import zipfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torture_works
from builders import Website, draw_flower, encode, write_archive
from PIL import Image

from tlhelpers import devices
from tlhelpers.book import pool
from tlhelpers.datasets import manifest

ALL_KILLS = sum(torture_works.WORKS.values())
DOWNLOAD_BYTES = 3_000_000
UNUSABLE = ("empty", "too_large", "too_small", "truncated", "not_an_image", "unreadable")
MOST_MEMORY = 3 * 2**30  # of a process that looks at pictures; the largest that is allowed takes a third of it


@pytest.fixture(scope="module")
def starter():
    """What starts processes quickly: one that has loaded the libraries already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])]))
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torture_works"])
        yield context


@pytest.fixture(scope="module")
def surroundings_of_work(tmp_path_factory):
    """A mirror, and a server that sends a file slowly: what the environment says of them."""
    mirror = tmp_path_factory.mktemp("mirror")
    write_archive(mirror / "flowers-recognition.zip", per_class=12)
    content = np.random.default_rng(0).bytes(DOWNLOAD_BYTES)
    with Website() as server:
        server.pages["archive.bin"], server.pause = content, 0.01
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield {
            "TLHELPERS_MIRROR": str(mirror),
            "TLHELPERS_QUIET": "1",
            "TORTURE_URL": f"{server.url}/archive.bin",
            "TORTURE_SHA256": hashlib.sha256(content).hexdigest(),
        }
        server.shutdown()
        thread.join()


class Work:
    """One piece of work that can be started, killed and finished, always in the same folder."""

    def __init__(self, name, folder, environment, context):
        self.name, self.folder, self.context = name, folder, context
        self.environment = environment | {
            f"TLHELPERS_{place}": str(folder / path)
            for place, path in {"HOME": "home", "BUILD": "", "RUNS": "runs", "MODELS": "models"}.items()
        }

    def begin_anew(self):
        """Empties the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()

    def start(self):
        """Starts it: the process, and where the result will come from."""
        receiver, sender = self.context.Pipe(duplex=False)
        facts = (self.name, str(self.folder), self.environment, sender)
        process = self.context.Process(target=torture_works.start, args=facts)
        process.start()
        sender.close()
        return process, receiver

    def finish(self):
        """Runs to the end: what came out."""
        process, receiver = self.start()
        result = receiver.recv()
        process.join()
        return result

    def kill_after(self, seconds):
        """Starts and kills it, with all it has started: whether it was still at work."""
        process, _ = self.start()
        process.join(seconds)
        at_work = process.is_alive()
        if at_work:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:  # it has no group of its own yet
                process.kill()
        process.join()
        return at_work


def check_whole(folder):
    """Raises when a file that bears its final name is not whole."""
    for path in folder.rglob("*"):
        hidden = any(part.startswith((".", "next", "tmp")) for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden and path.suffix in READERS:
            READERS[path.suffix](path)


def read_arrays(path):
    with np.load(path, allow_pickle=False) as arrays:
        return [arrays[name] for name in arrays.files]


READERS = {
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".ipynb": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".npy": lambda path: np.load(path, allow_pickle=False),
    ".npz": read_arrays,
    ".keras": lambda path: zipfile.ZipFile(path).testzip(),
    ".bin": lambda path: path.stat().st_size == DOWNLOAD_BYTES or pytest.fail(f"{path} is not whole"),
}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", [work.__name__ for work in torture_works.WORKS])
def test_killed_work_is_finished_by_the_next_start(name, tmp_path, request, starter, surroundings_of_work):
    work = Work(name, tmp_path / "place", surroundings_of_work, starter)
    rng = np.random.default_rng(sum(map(ord, name)))
    work.begin_anew()
    work.finish()  # what is only slow the first time
    work.begin_anew()
    started = time.perf_counter()
    expected = work.finish()
    seconds = time.perf_counter() - started
    shares = {piece.__name__: share for piece, share in torture_works.WORKS.items()}
    kills = max(1, round(request.config.getoption("--kills") * shares[name] / ALL_KILLS))
    killed = 0
    while killed < kills:
        work.begin_anew()
        for _ in range(rng.integers(1, 4)):
            killed += work.kill_after(rng.uniform(0.02, 1) * seconds)
            check_whole(work.folder)
        assert work.finish() == expected
    print(f"{name}: {killed} kills, {seconds:.1f} s undisturbed")


def sample_files():
    """Pictures in every format that readers bring, as bytes."""
    pixels = draw_flower("rose", 0)
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    yield "plain.jpg", encode(pixels)
    yield "fine.jpg", encode(pixels, quality=95, progressive=True)
    yield "turned.jpg", encode(pixels, exif=exif)
    yield "plain.png", encode(pixels, "PNG")
    for name, mode, image_format in (
        ("ink.jpg", "CMYK", "JPEG"),
        ("grey.jpg", "L", "JPEG"),
        ("palette.png", "P", "PNG"),
        ("veil.png", "RGBA", "PNG"),
        ("deep.png", "I;16", "PNG"),
        ("moving.gif", "P", "GIF"),
        ("plain.bmp", "RGB", "BMP"),
        ("plain.webp", "RGB", "WEBP"),
        ("plain.tif", "RGB", "TIFF"),
    ):
        stream = io.BytesIO()
        converted = image.convert("L").convert("I").point(lambda value: value * 200) if mode == "I;16" else image
        converted.convert(mode).save(stream, image_format)
        yield name, stream.getvalue()


def mutate(content, rng):
    """A damaged copy of a file: bytes changed, cut, doubled, overwritten or put in."""
    damaged = bytearray(content)
    for _ in range(rng.integers(1, 6)):
        place = int(rng.integers(0, min(len(damaged), (len(damaged), 64)[int(rng.integers(0, 2))]) or 1))
        length = int(rng.integers(1, 64))
        way = rng.integers(0, 6)
        if way == 0:
            damaged[place] = int(rng.integers(0, 256))
        elif way == 1:
            damaged[place] ^= 1 << int(rng.integers(0, 8))
        elif way == 2 and place > 16:
            del damaged[place:]
        elif way == 3:
            damaged[place:place] = damaged[place : place + length]
        elif way == 4:
            damaged[place : place + length] = rng.bytes(length)
        else:
            damaged[place : place + 4] = b"\xff\xff\xff\xff"
    return bytes(damaged)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_every_damaged_picture_gets_a_verdict_and_what_is_readable_reaches_the_network(tmp_path, request, starter):
    rng = np.random.default_rng(0)
    samples = list(sample_files())
    paths = []
    for number in range(request.config.getoption("--mutations")):
        name, content = samples[number % len(samples)]
        paths.append(tmp_path / f"{number:05}-{name}")
        paths[-1].write_bytes(mutate(content, rng))
    for label in ("one", "other"):  # a sound picture in each class: without one there is no manifest
        paths.append(tmp_path / f"{label}.jpg")
        paths[-1].write_bytes(samples[0][1])
    labels = ["one", "other"] * (len(paths) // 2 - 1)
    listed = pd.DataFrame({"path": paths, "label": [*labels[: len(paths) - 2], "one", "other"], "part": ""})
    look = functools.partial(torture_works.look_at_pictures, listed)
    with ProcessPoolExecutor(1, starter) as apart:
        found, peak = apart.submit(pool.run_on, set(devices.list_cores()), dict(os.environ), look).result()
    assert set(found) <= {*manifest.READABLE, *UNUSABLE}
    counts = {verdict: found.count(verdict) for verdict in sorted(set(found))}
    assert 0 < sum(verdict in manifest.READABLE for verdict in found) < len(found) == len(paths)
    assert peak < MOST_MEMORY
    print(f"{len(paths)} damaged pictures: {counts}, at most {peak / 2**20:.0f} MiB in a process")
