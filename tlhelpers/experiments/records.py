"""Records: what one trained model left, saved and found again.

A record is `<study>/<protocol>/<network>-<strategy>/seed-<k>.json` with an `.npz` of its test predictions beside it.
"""

import datetime
import glob
import importlib.metadata
import json
import platform
import subprocess
import zipfile
import zlib
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from tlhelpers import files, inputs, metrics, settings
from tlhelpers.datasets import manifest, splits, studies

PACKAGES = ("tensorflow", "keras", "numpy", "scikit-learn", "pillow")


@dataclass(frozen=True)
class Record:
    """What one trained model left.

    Args:
        study: str. The study's name.
        protocol: str. `"published"` or `"careful"`.
        network: str. Such as `"mobilenetv2_100"`.
        strategy: str. Such as `"frozen"`.
        profile: str. The profile's name.
        seed: int.
        image_size: int. Pixels.
        counts: dict. Images per split.
        dataset_sha256: str. The fingerprint of the images.
        parameters: dict with `total` and `trainable`.
        history: dict of lists, one value per epoch.
        metrics: dict, as from `metrics.evaluate`.
        seconds: dict. Wall-clock seconds per stage.
        hardware: dict, as from `devices.hardware_facts`.
        versions: dict. Package versions.
        commit: str. The project's git commit, empty outside a checkout.
        recorded_at: str. UTC time, ISO 8601.
        test_id: str array `(n,)`. SHA-256 of each test file.
        y_true: int array `(n,)`.
        y_prob: float32 array `(n, classes)`.
        validation_true: int array `(m,)`, empty where the protocol has no validation part or none was kept.
        validation_prob: float32 array `(m, classes)`, or empty.
        details: dict. What else the run was asked or measured, such as its recipe.
        computed_from: str. A digest of what it was computed from, see `identity.digest_of_run`; empty in records that
            are older than it.
    """

    study: str
    protocol: str
    network: str
    strategy: str
    profile: str
    seed: int
    image_size: int
    counts: dict
    dataset_sha256: str
    parameters: dict
    history: dict
    metrics: dict
    seconds: dict
    hardware: dict
    versions: dict
    commit: str
    recorded_at: str
    test_id: np.ndarray
    y_true: np.ndarray
    y_prob: np.ndarray
    validation_true: np.ndarray = field(default_factory=partial(np.empty, 0, np.int64))
    validation_prob: np.ndarray = field(default_factory=partial(np.empty, 0, np.float32))
    details: dict = field(default_factory=dict)
    computed_from: str = ""

    @property
    def model(self):
        """The model's name, `<network>-<strategy>`."""
        return f"{self.network}-{self.strategy}"


TESTED = ("test_id", "y_true", "y_prob")
ARRAYS = (*TESTED, "validation_true", "validation_prob")
# What reading a damaged JSON or NPZ file raises.
DAMAGE = (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error)


def make_record(*, study, table, y_prob, validation_prob=None, **facts):
    """Fills in what can be derived: metrics, counts, versions, time.

    Args:
        study: Study.
        table: pandas.DataFrame, as from `splits.split_manifest`.
        y_prob: float array `(n, classes)`, row by row as the test rows of `table`.
        validation_prob: float array `(m, classes)`, row by row as the validation rows of `table`; dropped where
            the protocol has no validation part of its own.
        **facts: `protocol`, `network`, `strategy`, `profile`, `seed`, `image_size`, `parameters`, `history`,
            `seconds`, `hardware`, `computed_from`, and `details` where there are any.

    Returns:
        Record.

    Raises:
        ValueError: when the probabilities are none, or not those of the table's images, see `inputs`.
    """
    test = splits.rows_of(table, "test")
    y_true = test["target"].to_numpy(dtype=np.int64)
    classes = {"classes": study.num_classes}
    y_prob = inputs.check_probabilities(y_prob, count=len(test), **classes).astype(np.float32)
    if validation_prob is not None and (table["split"] == "validation").any():
        rows = splits.rows_of(table, "validation")
        checked = inputs.check_probabilities(validation_prob, count=len(rows), name="validation_prob", **classes)
        facts["validation_true"] = rows["target"].to_numpy(dtype=np.int64)
        facts["validation_prob"] = checked.astype(np.float32)
    return Record(
        study=study.name,
        counts={name: int(count) for name, count in table["split"].value_counts().sort_index().items()},
        dataset_sha256=manifest.fingerprint(table),
        metrics=metrics.evaluate(y_true, y_prob, study.class_names),
        versions=package_versions(),
        commit=git_commit(),
        recorded_at=_now().isoformat(timespec="seconds"),
        test_id=test["sha256"].to_numpy(dtype=str),
        y_true=y_true,
        y_prob=y_prob,
        **facts,
    )


def save_record(record, folder):
    """Saves a record, JSON and NPZ, each whole or not at all; the JSON comes last and makes it complete.

    Args:
        record: Record.
        folder: Path. Such as `settings.runs_folder(profile)`.

    Returns:
        Path. The JSON file.
    """
    path = record_path(folder, record)
    with files.atomic_file(path.with_suffix(".npz")) as temporary:
        np.savez_compressed(temporary, **{name: getattr(record, name) for name in ARRAYS})
    facts = {name: value for name, value in asdict(record).items() if name not in ARRAYS}
    files.write_text(path, json.dumps(rounded(facts), indent=1, ensure_ascii=False) + "\n")
    return path


def record_path(folder, record):
    """Where a record stands below a folder."""
    inner = Path(record.study, record.protocol, record.model)
    return Path(folder) / inner / f"seed-{record.seed}.json"


def load_record(path):
    """Loads one record.

    Args:
        path: Path. Its JSON file.

    Returns:
        Record.

    Raises:
        ValueError: when the JSON or the NPZ is damaged.
    """
    path = Path(path)
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
            return Record(**facts, **{name: arrays[name] for name in ARRAYS if name in arrays})
    except DAMAGE as error:
        raise ValueError(f"A record is a whole JSON file with its NPZ beside it ({error}). Received: {path}") from error


def load_records(study, *, folder=None, protocol="*", model="*"):
    """Loads a study's records.

    Args:
        study: str or Study. A study's name, or a study of one's own.
        folder: Path or None. None means the committed records.
        protocol: str. A protocol, or `"*"`.
        model: str. `<network>-<strategy>`, or `"*"`.

    Returns:
        list of Record, sorted by path.

    Raises:
        ValueError: when there is no such study or a record is damaged.
    """
    name = study.name if isinstance(study, studies.Study) else studies.get_study(study).name
    inner = f"{glob.escape(name)}/{protocol}/{model}/seed-*.json"
    return [load_record(path) for path in sorted(Path(folder or settings.records_folder()).glob(inner))]


def package_versions():
    """The versions of Python and of the packages that a number depends on, as a dict of str."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}


def today():
    """Today's date in UTC, as ISO 8601."""
    return _now().date().isoformat()


def rounded(value):
    """Floats to seven significant digits: as exact as float32, and short in a diff."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner) for inner in value]
    return float(f"{value:.7g}") if isinstance(value, float) else value


def _now():
    return datetime.datetime.now(datetime.UTC)


def git_commit():
    """The project's git commit, str; empty outside a checkout."""
    command = ["git", "-C", str(settings.PROJECT_FOLDER), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
