"""A `keras.json` or environment of other days changes neither shapes, nor dtypes, nor numbers."""

import json
import os
import subprocess
import sys

import pytest

CODE = """
import numpy as np
import tlhelpers as tl
from tlhelpers.keras_settings import keras
model = tl.small_cnn(16, 3, seed=0)
answer = model(np.full((1, 16, 16, 3), 99.0))
print("RESULT", keras.backend.backend(), model.count_params(), answer.dtype.name, float(abs(np.asarray(answer)).sum()))
"""


def run(home, code=CODE, **environment):
    """What a process with its own home folder prints and says on stderr."""
    settings = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"} | environment
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=settings | {"HOME": str(home)})


def result_of(done):
    return [line for line in done.stdout.splitlines() if line.startswith("RESULT")]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    done = run(tmp_path_factory.mktemp("home"))
    assert result_of(done), done.stderr
    return result_of(done)


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        json.dumps({"image_data_format": "channels_first", "floatx": "float16", "backend": "torch"}),
        json.dumps({"image_dim_ordering": "tf", "floatx": "float64", "backend": "theano"}),
        "{broken",
    ],
)
def test_a_keras_json_changes_nothing(tmp_path, expected, config):
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text(config)
    assert result_of(run(tmp_path)) == expected


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "said"), [("jax", 1), ("", 0)])
def test_another_backend_is_set_aside_and_that_is_said(tmp_path, expected, backend, said):
    done = run(tmp_path, KERAS_BACKEND=backend)
    assert result_of(done) == expected
    assert done.stderr.count("tlhelpers computes with TensorFlow") == said


@pytest.mark.slow
def test_keras_that_runs_on_something_else_already_is_refused_with_the_reason(tmp_path):
    code = "import keras; keras.backend.backend = lambda: 'numpy'; import tlhelpers as tl; tl.small_cnn(16, 3)"
    done = run(tmp_path, code)
    assert done.returncode != 0
    assert "import it before Keras, or unset KERAS_BACKEND. Received: Keras on numpy" in done.stderr
