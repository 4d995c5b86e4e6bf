"""Records: what one trained model left, saved and found again.

A record is called `<study>/<protocol>/<network>-<strategy>/seed-<k>`. One that a training leaves is a JSON file of that
name with an NPZ of its predictions beside it; those that the project keeps are packed, see `packs`.
"""

import datetime
import importlib.metadata
import json
import platform
import subprocess
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from tlhelpers import files, inputs, metrics, settings
from tlhelpers.datasets import manifest, splits, studies
from tlhelpers.experiments import packs

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
        validation_true: int array `(m,)`, empty where the protocol has no validation set or none was kept.
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

    @property
    def name(self):
        """The record's name, `<study>/<protocol>/<model>/seed-<k>`."""
        return f"{self.study}/{self.protocol}/{self.model}/seed-{self.seed}"


TESTED = ("test_id", "y_true", "y_prob")
ARRAYS = (*TESTED, "validation_true", "validation_prob")
NO_PREDICTIONS = {
    "test_id": np.empty(0, "<U64"),
    "y_true": np.empty(0, np.int64),
    "y_prob": np.empty((0, 0), np.float32),
}


def make_record(*, study, table, y_prob, validation_prob=None, **facts):
    """Fills in what can be derived: metrics, counts, versions, time.

    Args:
        study: Study.
        table: pandas.DataFrame, as from `splits.split_manifest`.
        y_prob: float array `(n, classes)`, row by row as the test rows of `table`.
        validation_prob: float array `(m, classes)`, row by row as the validation rows of `table`; dropped where
            the protocol has no validation set of its own.
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
    path = record_path(folder, record.name)
    facts, arrays = _split(record)
    with files.atomic_file(path.with_suffix(".npz")) as temporary:
        np.savez_compressed(temporary, **arrays)
    files.write_text(path, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    return path


def record_path(folder, name):
    """Where the JSON file of a record that is not packed stands below a folder, by the record's name: a Path."""
    return Path(folder) / f"{name}.json"


def load_record(path, *, predictions=True):
    """Loads one record that is not packed.

    Args:
        path: Path. Its JSON file.
        predictions: bool. Whether its arrays are read, too; without them they are empty.

    Returns:
        Record.

    Raises:
        ValueError: when the JSON or the NPZ is damaged.
    """
    path = Path(path)
    try:
        fields = json.loads(path.read_text(encoding="utf-8")) | NO_PREDICTIONS
        if predictions:
            with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
                fields |= {name: arrays[name] for name in ARRAYS if name in arrays or name in TESTED}
        return Record(**fields)
    except packs.DAMAGE as error:
        raise ValueError(f"A record is a whole JSON file with its NPZ beside it ({error}). Received: {path}") from error


def load_records(study, *, folder=None, protocol="*", model="*", predictions=True):
    """Loads a study's records.

    Args:
        study: str or Study. A study's name, or a study of one's own.
        folder: Path or None. None means the committed records.
        protocol: str. A protocol, or `"*"`.
        model: str. `<network>-<strategy>`, or `"*"`.
        predictions: bool. Whether their arrays are read, too; without them they are empty.

    Returns:
        list of Record, sorted by name.

    Raises:
        ValueError: when there is no such study or a record is damaged.
    """
    name = study.name if isinstance(study, studies.Study) else studies.get_study(study).name
    folder = Path(folder or settings.records_folder())

    def is_wanted(record):
        _, its_protocol, its_model, _ = record.split("/")
        return fnmatchcase(its_protocol, protocol) and fnmatchcase(its_model, model)

    return list(_load(folder, name, is_wanted, predictions).values())


def find_records(names, folder, *, predictions=True):
    """Finds records by their names.

    Args:
        names: iterable of str, such as `"flowers/careful/mobilenetv2_100-full/seed-0"`.
        folder: Path. Where the records stand.
        predictions: bool. As for `load_records`.

    Returns:
        dict from a name to its Record, for those that are there.

    Raises:
        ValueError: when a record is damaged.
    """
    wanted = set(names)
    found = {}
    for study in sorted({name.partition("/")[0] for name in wanted}):
        found |= _load(Path(folder), study, wanted.__contains__, predictions)
    return found


def pack_records(folder):
    """Packs the records that trainings have left below a folder: two files a study, see `packs`.

    Args:
        folder: Path. Such as `settings.records_folder()`.

    Returns:
        int. How many were packed.

    Raises:
        ValueError: when a record or a pack is damaged; nothing is removed then.
        BlockingIOError: when another process packs there.
    """
    folder = Path(folder)
    loose = {
        study: _list_loose(folder, study) for study in sorted({p.parts[-4] for p in folder.glob("*/*/*/seed-*.json")})
    }
    if not loose:
        return 0
    with files.only_one(settings.home_folder() / "packing.lock", f"Another process packs records. Received: {folder}"):
        for study, paths in loose.items():
            packs.add_to_pack(folder, study, {name: _split(load_record(path)) for name, path in paths.items()})
            for path in paths.values():
                _remove_loose(path, folder)
    return sum(map(len, loose.values()))


def _split(record):
    """What a record's JSON holds and its arrays: two dicts."""
    facts = {name: value for name, value in asdict(record).items() if name not in ARRAYS}
    return rounded(facts), {name: getattr(record, name) for name in ARRAYS}


def _load(folder, study, is_wanted, predictions):
    """The records of a study, packed or not, whose names are wanted; one that is not packed is the newer one."""
    loose = {name: path for name, path in _list_loose(folder, study).items() if is_wanted(name)}
    found = {name: load_record(path, predictions=predictions) for name, path in loose.items()}
    packed = packs.read_pack(folder, study, lambda name: is_wanted(name) and name not in loose, arrays=predictions)
    for name, fields in packed.items():
        try:
            found[name] = Record(**NO_PREDICTIONS | fields)
        except TypeError as error:
            raise packs.damaged(packs.pack_path(folder, study), error) from error
    return {name: found[name] for name in sorted(found, key=PurePosixPath)}


def _list_loose(folder, study):
    """The JSON files of a study's records that are not packed: a dict from a record's name to its Path."""
    found = sorted((folder / study).glob("*/*/seed-*.json"))
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in found}


def _remove_loose(path, folder):
    """Removes a record's files, and the folders that they leave empty."""
    path.unlink()
    path.with_suffix(".npz").unlink()
    for parent in path.parents:
        if parent == folder or any(parent.iterdir()):
            break
        parent.rmdir()


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
