"""The hardware: precision by compute capability, seeds, memory growth, and the line that says so."""

import json
import random
import subprocess
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from tlhelpers import devices, profiles


def gpu(*capability):
    return {"name": "a GPU", "compute_capability": capability or None}


@pytest.fixture(autouse=True)
def _restore_precision():
    policy = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(policy)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [])


@pytest.mark.parametrize(
    ("gpus", "precision"),
    [
        ([], "float32"),
        ([gpu(6, 1)], "float32"),
        ([gpu(7, 0)], "mixed_float16"),
        ([gpu(7, 5)], "mixed_float16"),
        ([gpu(10, 0)], "mixed_float16"),
        ([gpu(7, 5), gpu(6, 1)], "float32"),
        ([gpu(7, 5), gpu(8, 0)], "mixed_float16"),
        ([gpu()], "float32"),
        ([gpu(7, 5), gpu()], "float32"),
    ],
)
def test_precision_follows_the_weakest_gpu(gpus, precision):
    chosen, reason = devices.choose_precision(gpus)
    assert chosen == precision
    assert reason


def test_the_reason_for_float32_tells_a_cpu_from_an_old_gpu():
    assert "CPU" in devices.choose_precision([])[1]
    assert "GPU" in devices.choose_precision([gpu(6, 1)])[1]


@pytest.mark.parametrize("precision", ["float16", "", None, "bfloat16"])
def test_an_unknown_precision_names_the_allowed_ones(precision):
    with pytest.raises(ValueError, match=r"\['auto', 'float32', 'mixed_float16'\]. Received: precision="):
        devices.prepare_device(precision=precision)


def test_an_unknown_precision_changes_nothing():
    random.seed(5)
    state = random.getstate()
    with pytest.raises(ValueError, match="precision"):
        devices.prepare_device(precision="float8")
    assert random.getstate() == state


def draw_everything():
    """One number of each generator a chapter may use."""
    return (
        random.random(),  # noqa: S311
        np.random.random(),  # noqa: NPY002
        keras.random.uniform((3,)).numpy().tolist(),
        keras.initializers.GlorotUniform()((3,)).numpy().tolist(),
        tf.random.uniform((3,)).numpy().tolist(),
    )


def test_two_calls_with_one_seed_give_equal_random_numbers():
    devices.prepare_device(3)
    first = draw_everything()
    devices.prepare_device(3)
    assert draw_everything() == first


def test_another_seed_gives_other_random_numbers():
    devices.prepare_device(3)
    first = draw_everything()
    devices.prepare_device(4)
    assert all(one != other for one, other in zip(first, draw_everything(), strict=True))


@pytest.mark.parametrize("deterministic", [True, False])
def test_determinism_is_asked_for_only_when_wanted(monkeypatch, deterministic):
    calls = []
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: calls.append(True))
    devices.prepare_device(deterministic=deterministic)
    assert calls == [True] * deterministic


def test_a_machine_without_gpu_computes_in_float32(no_gpu):
    device = devices.prepare_device(2)
    assert (device.kind, device.precision, device.seed) == ("CPU", "float32", 2)
    assert device.count == devices.available_cores() >= 1
    assert device.memory_gib > 0
    assert device.name
    assert device.batch_size == devices.CPU_BATCH_SIZE
    assert keras.config.dtype_policy().name == "float32"


def test_a_modern_gpu_computes_in_mixed_precision(no_gpu, monkeypatch):
    monkeypatch.setattr(devices, "list_gpus", lambda: [gpu(7, 5), gpu(7, 5)])
    device = devices.prepare_device()
    assert (device.kind, device.count, device.name) == ("GPU", 2, "a GPU")
    assert device.precision == keras.config.dtype_policy().name == "mixed_float16"


def test_the_caller_may_overrule_the_precision(no_gpu):
    device = devices.prepare_device(precision="mixed_float16")
    assert keras.config.dtype_policy().name == device.precision == "mixed_float16"
    assert "caller" in device.reason


def test_gpus_grow_their_memory_instead_of_taking_all_of_it(monkeypatch):
    grown = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["first", "second"])
    monkeypatch.setattr(devices, "list_gpus", list)
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda *arguments: grown.append(arguments))
    devices.prepare_device()
    assert grown == [("first", True), ("second", True)]


def test_where_no_driver_is_there_is_no_gpu_and_tensorflow_is_not_asked(monkeypatch, tmp_path):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: pytest.fail("asked"))
    monkeypatch.setattr(devices.sys, "platform", "linux")
    monkeypatch.setattr(devices, "GPU_NODES", (str(tmp_path / "nvidiactl"),))
    assert devices.list_gpus() == []


def test_gpus_are_listed_with_name_and_capability(monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "GPU_NODES", (str(tmp_path),))
    physical = [tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")] * 2
    details = iter([{"device_name": "Tesla T4", "compute_capability": (7, 5)}, {}])
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: physical)
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device: next(details))
    assert devices.list_gpus() == [
        {"name": "Tesla T4", "compute_capability": (7, 5)},
        {"name": "/physical_device:GPU:0", "compute_capability": None},
    ]


@pytest.mark.parametrize(
    ("kind", "count", "text"),
    [("CPU", 1, "a name, 1 core"), ("CPU", 2, "a name, 2 cores"), ("GPU", 1, "a name, 1 GPU")],
)
def test_the_choices_are_one_row(kind, count, text):
    device = devices.Device(kind, "a name", count, 12.7, "float32", "because", seed=4)
    table = devices.describe_choices(profiles.choose_profile("smoke"), device)
    assert len(table) == 1
    row = table.iloc[0]
    assert row["device"] == text
    assert row["memory"] == "12.7 GiB"
    assert row["precision"] == "float32 (because)"
    assert (row["batch"], row["seed"]) == ({"CPU": 32, "GPU": 64}[kind], 4)
    assert row["profile"].startswith("smoke (")


def test_hardware_facts_are_what_a_record_keeps():
    device = devices.Device("CPU", "a name", 2, 12.7, "float32", "because", seed=4)
    facts = devices.hardware_facts(device)
    assert facts == {"kind": "CPU", "name": "a name", "count": 2, "memory_gib": 12.7, "precision": "float32"}


def test_the_processor_has_a_name_without_proc_cpuinfo(monkeypatch):
    def refuse(*arguments, **options):
        raise OSError

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert devices.cpu_name() == "x86_64"


def test_freed_memory_is_kept_where_the_c_library_can(monkeypatch):
    asked = {}
    library = SimpleNamespace(mallopt=lambda option, value: asked.update({option: value}))
    monkeypatch.setattr(devices.ctypes, "CDLL", lambda name: library)
    devices.keep_memory()
    assert asked == devices.MEMORY_OPTIONS


@pytest.mark.parametrize("error", [OSError, TypeError])
def test_a_system_without_such_a_setting_is_left_alone(monkeypatch, error):
    def refuse(name):
        raise error("no such library")

    monkeypatch.setattr(devices.ctypes, "CDLL", refuse)
    devices.keep_memory()
    monkeypatch.setattr(devices.ctypes, "CDLL", lambda name: SimpleNamespace())
    devices.keep_memory()


@pytest.mark.slow
def test_a_limited_process_says_so_and_may_be_limited_again_to_the_same():
    code = (
        "from tlhelpers import devices\n"
        "devices.limit_threads(1)\n"
        "device = devices.prepare_device()\n"
        "devices.limit_threads(1)\n"
        "print(device.kind, device.count)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() in (["CPU", "1"], ["GPU", "1"])


def test_one_device_trains_with_tensorflows_own_strategy():
    assert devices.strategy() is tf.distribute.get_strategy()


MIRRORED = """
import json, sys
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tlhelpers import devices
if sys.argv[1] == "two":
    tf.config.list_logical_devices = lambda kind: ["CPU:0", "CPU:1"]
strategy = devices.strategy()
keras.utils.set_random_seed(0)
images = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
with strategy.scope():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, activation="relu"), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
history = model.fit(images, images.sum(axis=1), batch_size=8, epochs=3, shuffle=False, verbose=0).history
print(json.dumps([strategy.num_replicas_in_sync, history["loss"]]))
"""


@pytest.mark.slow
def test_several_devices_share_each_batch_and_learn_what_one_does():
    found = {}
    for count in ("one", "two"):
        command = [sys.executable, "-c", MIRRORED, count]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        replicas, found[count] = json.loads(printed.splitlines()[-1])
        assert replicas == {"one": 1, "two": 2}[count]
    assert found["two"] == pytest.approx(found["one"], rel=1e-5)
    assert found["one"][-1] < found["one"][0]
