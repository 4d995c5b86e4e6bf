"""Reading pictures: the loader against a bare loop that reads, decodes and resizes, and against Keras' own."""

import os
import subprocess
import sys

import keras
import pytest
import tensorflow as tf

from tlhelpers import devices, loaders

SIZE = 224
ROUNDS = {"rounds": 15, "warmup_rounds": 1}
PROGRAM = """
import os, sys, time
os.sched_setaffinity(0, list(map(int, sys.argv[2].split(","))))
import pandas as pd
from tlhelpers import loaders
table = pd.read_csv(sys.argv[1])
for rows in (table.head(64), table):  # the first is for what is only done once
    started = time.perf_counter()
    for _ in loaders.load_dataset(rows, 224, cache="none"):
        pass
print(time.perf_counter() - started)
"""
MEMORY = """
import sys
import pandas as pd, psutil
from tlhelpers import loaders
rows = pd.concat([pd.read_csv(sys.argv[1])] * int(sys.argv[2]))
data = loaders.load_dataset(rows, 224, shuffle=True, cache="disk").repeat(2)
print(max(psutil.Process().memory_info().rss for _ in data))
"""


def count(dataset):
    """Goes through a dataset once."""
    return sum(1 for _ in dataset)


@pytest.fixture(scope="module")
def rows(table):
    """A thousand pictures at most."""
    return table.sample(min(1000, len(table)), random_state=0)


@pytest.mark.benchmark(group="first pass of the loader")
def test_bare_loop(benchmark, rows):
    paths = tf.data.Dataset.from_tensor_slices(rows["path"].to_numpy(dtype=str))
    read = paths.map(lambda path: loaders.read_image(path, SIZE), num_parallel_calls=devices.available_cores())
    benchmark.pedantic(lambda: read.reduce(0, lambda done, _: done + 1).numpy(), **ROUNDS)
    benchmark.extra_info["images"] = len(rows)


@pytest.mark.benchmark(group="first pass of the loader")
def test_first_pass(benchmark, rows):
    benchmark.pedantic(lambda: count(loaders.load_dataset(rows, SIZE)), **ROUNDS)
    benchmark.extra_info["images"] = len(rows)


@pytest.fixture(scope="module")
def folder(rows, link_by_class, tmp_path_factory):
    """The same pictures in one folder for each class."""
    return link_by_class(tmp_path_factory.mktemp("classes"), rows)


@pytest.mark.benchmark(group="later passes")
def test_keras_without_a_cache(benchmark, folder, rows):
    dataset = keras.utils.image_dataset_from_directory(folder, image_size=(SIZE, SIZE), seed=0, verbose=False)
    benchmark.pedantic(lambda: count(dataset.prefetch(2)), **ROUNDS)
    benchmark.extra_info["images"] = len(rows)


@pytest.mark.benchmark(group="later passes")
def test_later_pass(benchmark, rows):
    dataset = loaders.load_dataset(rows, SIZE, shuffle=True)
    benchmark.pedantic(lambda: count(dataset), **ROUNDS)
    benchmark.extra_info["images"] = len(rows)


@pytest.fixture
def run_program(rows, tmp_path):
    """Runs a program on the table of pictures, in a process of its own: the number it prints last."""
    rows.to_csv(tmp_path / "rows.csv", index=False)

    def run(program, argument):
        command = [sys.executable, "-c", program, str(tmp_path / "rows.csv"), str(argument)]
        finished = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
        return float(finished.stdout.split()[-1])

    return run


@pytest.mark.benchmark(group="cores of the loader")
@pytest.mark.parametrize("cores", [2**power for power in range(9) if 2**power <= devices.available_cores()])
def test_cores(benchmark, rows, run_program, cores):
    chosen = ",".join(map(str, devices.list_cores()[:cores]))
    seconds = benchmark.pedantic(run_program, (PROGRAM, chosen))
    # its own seconds stand for those of the process, most of which goes into starting it
    benchmark.extra_info |= {"images": len(rows), "cores": cores, "seconds": seconds}


@pytest.mark.benchmark(group="memory of the loader")
@pytest.mark.parametrize("times", [1, 10])
def test_memory(benchmark, rows, run_program, times):
    held = benchmark.pedantic(run_program, (MEMORY, times))
    benchmark.extra_info |= {"images": times * len(rows), "mebibytes": held / 2**20}
