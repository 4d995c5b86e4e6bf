"""Packs: the records of a study in two files, `<study>.json` with what is told and `<study>.npz` with the arrays.

Every array stands once, under a digest of its content: the records of one fold share the hashes of their test images
and the true classes. Predictions keep every bit; their bytes stand apart by significance, which compresses better.
"""

import hashlib
import json
import zipfile
import zlib
from pathlib import Path

import numpy as np

from tlhelpers import files

TEST_ID, PROBABILITIES = "test_id", ("y_prob", "validation_prob")
# What reading a damaged JSON or NPZ file raises.
DAMAGE = (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error)


def pack_path(folder, study):
    """Where the facts of a study's pack stand below a folder, a Path; the arrays stand beside, as `.npz`."""
    return Path(folder) / f"{study}.json"


def read_pack(folder, study, is_wanted=lambda name: True, *, arrays=True):
    """The packed records of a study.

    Args:
        folder: Path. The folder of the pack.
        study: str. The study's name.
        is_wanted: function from a record's name, `<study>/<protocol>/<model>/seed-<k>`, to whether it is read.
        arrays: bool. Whether the arrays are read, too; the second file is not even opened otherwise.

    Returns:
        dict from a record's name to a dict of its fields; empty where there is no pack.

    Raises:
        ValueError: when a file is damaged, or the arrays are missing.
    """
    told = {name: facts for name, facts in _read_facts(folder, study).items() if is_wanted(name)}
    kept = _read_arrays(folder, study, told) if arrays and told else {}
    return {
        name: {key: value for key, value in facts.items() if key != "arrays"}
        | {array: kept[digest] for array, digest in facts["arrays"].items() if kept}
        for name, facts in told.items()
    }


def add_to_pack(folder, study, new):
    """Adds records to the pack of a study; a record of the same name is replaced.

    The arrays come first and keep what the facts still name, so that the pack is whole at every moment.

    Args:
        folder: Path. The folder of the pack.
        study: str. The study's name.
        new: dict from a record's name to a tuple: dict of facts, dict of arrays.

    Raises:
        ValueError: when the pack that is there is damaged.
    """
    path = pack_path(folder, study)
    told = _read_facts(folder, study)
    arrays = _read_arrays(folder, study, told, decode=False) if told else {}
    for name, (facts, given) in new.items():
        encoded = {array: _encode(array, values) for array, values in given.items()}
        digests = {array: _digest_of(values) for array, values in encoded.items()}
        told[name] = facts | {"arrays": digests}
        arrays |= {digests[array]: values for array, values in encoded.items()}
    with files.atomic_file(path.with_suffix(".npz")) as temporary:
        np.savez_compressed(temporary, **dict(sorted(arrays.items())))
    files.write_text(path, json.dumps(dict(sorted(told.items())), indent=1, ensure_ascii=False) + "\n")


def damaged(path, error):
    """The ValueError that says that a pack, whose JSON file is at `path`, is not whole."""
    return ValueError(f"A study's records are a whole JSON file with its NPZ beside it ({error}). Received: {path}")


def _read_facts(folder, study):
    """What the JSON file of a pack holds: a dict from a record's name to a dict; empty where there is none."""
    path = pack_path(folder, study)
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if not all(isinstance(facts["arrays"], dict) for facts in told.values()):
            raise TypeError("a record without arrays")
        return told
    except FileNotFoundError:
        return {}
    except DAMAGE as error:
        raise damaged(path, error) from error


def _read_arrays(folder, study, told, *, decode=True):
    """The arrays that some facts name: a dict from a digest to an array, as it is kept or decoded."""
    named = {digest: array for facts in told.values() for array, digest in facts["arrays"].items()}
    path = pack_path(folder, study)
    try:
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as kept:
            return {digest: _decode(name, kept[digest]) if decode else kept[digest] for digest, name in named.items()}
    except DAMAGE as error:
        raise damaged(path, error) from error


def _encode(name, array):
    """An array as it is kept: hashes as bytes, probabilities as one plane of bytes for each of their four bytes."""
    if name == TEST_ID:
        return np.char.encode(array, "utf-8")
    if name in PROBABILITIES:
        planes = np.ascontiguousarray(array, dtype="<f4")[..., np.newaxis].view(np.uint8)
        return np.ascontiguousarray(np.moveaxis(planes, -1, 0))
    return array


def _decode(name, array):
    if name == TEST_ID:
        return np.char.decode(array, "utf-8")
    if name in PROBABILITIES:
        return np.ascontiguousarray(np.moveaxis(array, 0, -1)).view("<f4")[..., 0]
    return array


def _digest_of(array):
    form = f"{array.dtype.str} {array.shape} ".encode()
    return hashlib.sha256(form + np.ascontiguousarray(array).tobytes()).hexdigest()[:32]
