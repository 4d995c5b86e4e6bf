"""The hardware at hand: GPU memory, precision, seeds, and a line that says what was chosen and why."""

import ctypes
import os
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

MIXED_PRECISION_CAPABILITY = (7, 0)
CPU_BATCH_SIZE = 32
GPU_BATCH_SIZE = 64
# Options of the C library's mallopt, as malloc.h numbers them: M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD.
MEMORY_OPTIONS = {-8: 1, -3: 2**31 - 1, -1: 2**31 - 1}
GPU_NODES = (
    "/dev/nvidiactl",
    "/dev/kfd",
    "/dev/dxg",
)  # what the drivers of GPUs leave: NVIDIA, AMD, Windows below Linux


@dataclass(frozen=True)
class Device:
    """What a chapter runs on.

    Args:
        kind: str. `"GPU"` or `"CPU"`.
        name: str. The device's own name.
        count: int. GPUs, or CPU cores this process may use.
        memory_gib: float. Memory of the machine, GiB.
        precision: str. Keras' dtype policy.
        reason: str. Why that precision.
        seed: int. The seed of Python, NumPy and Keras.
    """

    kind: str
    name: str
    count: int
    memory_gib: float
    precision: str
    reason: str
    seed: int

    @property
    def batch_size(self):
        """Images per training step."""
        return GPU_BATCH_SIZE if self.kind == "GPU" else CPU_BATCH_SIZE


def choose_batch_size():
    """How many images a training step takes on this machine, int: more where TensorFlow sees a GPU."""
    return GPU_BATCH_SIZE if list_gpus() else CPU_BATCH_SIZE


def list_gpus():
    """The GPUs TensorFlow sees.

    Returns:
        list of dict with `name` (str) and `compute_capability` (tuple of int, or None).
    """
    if sys.platform == "linux" and not any(Path(node).exists() for node in GPU_NODES):
        return []  # and TensorFlow, which takes seconds to load, is not asked

    import tensorflow as tf

    gpus = []
    for gpu in tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(gpu)
        gpus.append(
            {
                "name": details.get("device_name", gpu.name),
                "compute_capability": details.get("compute_capability"),
            }
        )
    return gpus


def choose_precision(gpus):
    """Mixed precision where every GPU computes float16 faster than float32, float32 elsewhere.

    Args:
        gpus: list of dict, as from `list_gpus`.

    Returns:
        tuple of two str: Keras' dtype policy and the reason.
    """
    if not gpus:
        return "float32", "float16 is slower on a CPU"
    capabilities = [gpu["compute_capability"] or (0, 0) for gpu in gpus]
    if min(capabilities) >= MIXED_PRECISION_CAPABILITY:
        return "mixed_float16", "the GPU has float16 matrix units"
    return "float32", "the GPU gains nothing from float16"


def cpu_name():
    """The processor's name as the system reports it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            names = [line.split(":", 1)[1].strip() for line in stream if "model name" in line]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def available_cores():
    """How many CPU cores this process may use."""
    return len(list_cores())


def list_cores():
    """The CPU cores this process may use: a list of int."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def keep_memory():
    """Lets the C library keep freed memory for the next step instead of handing it back to the system.

    A training step frees and asks for the same large blocks over and over; with the defaults of the GNU C library the
    system clears each page anew, which costs a third of the time of training on a CPU. Other systems have no
    such setting, and nothing happens there.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for option, value in MEMORY_OPTIONS.items():
        set_option(option, value)


def limit_threads(count):
    """Limits TensorFlow to a number of cores; before its first computation, and once.

    Args:
        count: int or None. None leaves it all there are.
    """
    if count is None:
        return
    import tensorflow as tf

    if tf.config.threading.get_intra_op_parallelism_threads() != count:
        tf.config.threading.set_intra_op_parallelism_threads(count)
        tf.config.threading.set_inter_op_parallelism_threads(count)


def prepare_device(seed=0, *, precision="auto", deterministic=True):
    """Prepares the hardware for a chapter: memory growth, precision, seeds.

    Args:
        seed: int. Seeds Python, NumPy and Keras.
        precision: str. `"auto"`, `"float32"` or `"mixed_float16"`.
        deterministic: bool. Whether operations must give the same bits on every run.

    Returns:
        Device.

    Raises:
        ValueError: when `precision` is not one of the above.
    """
    import keras
    import tensorflow as tf

    keep_memory()
    allowed = ["auto", "float32", "mixed_float16"]
    if precision not in allowed:
        raise ValueError(f"A precision is one of {allowed}. Received: precision={precision!r}")
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
    gpus = list_gpus()
    chosen, reason = choose_precision(gpus)
    if precision != "auto":
        chosen, reason = precision, "the caller asks for it"
    keras.config.set_dtype_policy(chosen)
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    return Device(
        kind="GPU" if gpus else "CPU",
        name=gpus[0]["name"] if gpus else cpu_name(),
        count=len(gpus) or tf.config.threading.get_intra_op_parallelism_threads() or available_cores(),
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        precision=chosen,
        reason=reason,
        seed=seed,
    )


def describe_choices(profile, device):
    """A one-line table of what was chosen, and why.

    Args:
        profile: Profile.
        device: Device.

    Returns:
        pandas.DataFrame with one row.
    """
    import pandas as pd

    unit = "GPU" if device.kind == "GPU" else "core"
    row = {
        "profile": f"{profile.name} ({profile.reason})",
        "device": f"{device.name}, {device.count} {unit}{'s' * (device.count != 1)}",
        "memory": f"{device.memory_gib} GiB",
        "precision": f"{device.precision} ({device.reason})",
        "batch": device.batch_size,
        "seed": device.seed,
    }
    return pd.DataFrame([row])


def strategy():
    """How training is spread over the GPUs of this machine.

    A model that is built and compiled inside of `strategy().scope()` trains on all of them, each on its share of a
    batch.

    Returns:
        tf.distribute.Strategy. `MirroredStrategy` where there are several GPUs, TensorFlow's default elsewhere.
    """
    import tensorflow as tf

    gpus = tf.config.list_logical_devices("GPU")
    return tf.distribute.MirroredStrategy(gpus) if len(gpus) > 1 else tf.distribute.get_strategy()


def hardware_facts(device):
    """What a record says of the hardware.

    Args:
        device: Device.

    Returns:
        dict of JSON values.
    """
    facts = asdict(device)
    return {key: facts[key] for key in ("kind", "name", "count", "memory_gib", "precision")}
