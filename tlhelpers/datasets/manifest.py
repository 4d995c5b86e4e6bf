"""One row per image: path, label, hash, verdict, duplicate group."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from tlhelpers import devices, files, images, parallel, settings
from tlhelpers.datasets import duplicates, layouts, sources, studies
from tlhelpers.images import READER_VERSION, REFUSED, convert, open_image

__all__ = ["READABLE", "READER_VERSION", "REFUSED", "build_manifest", "fingerprint", "load_manifest", "open_image"]

MIN_SIDE = 16
COLUMNS = ("path", "label", "part", "sha256", "width", "height", "verdict", "reason")
NO_TEXT = "its name is not UTF-8"

# Verdicts under which an image can be read. `converted` ones were written anew as upright 8-bit RGB;
# `two_classes` ones, or duplicates of theirs, are filed under more than one class.
READABLE = ("ok", "converted", "two_classes")


def load_manifest(study):
    """The manifest of a study's images, built on first use.

    Args:
        study: Study.

    Returns:
        pandas.DataFrame with one row per file, by part, class and path: `path` (str, absolute), `label` (class name),
        `part` (the official part, or an empty string), `sha256`, `width` and `height` (pixels, 0 when unreadable),
        `verdict`, `reason`, `group` (int; files that are exact or near duplicates of each other share it). Its
        `attrs["doubt"]` says why near duplicates were left out, where they were.

    Raises:
        MissingDataError: when no source has the images.
        BadArchiveError: when the archive is damaged, unsafe or of another study.
        ValueError: when a class has no readable image.
    """
    folder = sources.prepare_images(study)
    cache = settings.home_folder() / "manifests" / f"{study.name}-{_folder_key(folder, study)}.json"
    manifest = _read_kept(cache)
    if manifest is None:
        listed = layouts.list_images(folder, study, tables_folder=sources.find_tables(study, folder))
        manifest = build_manifest(
            listed,
            study.class_names,
            near_duplicate_bits=study.near_duplicate_bits,
            near_duplicates=study.near_duplicates,
        )
        content = {"doubt": manifest.attrs["doubt"], "columns": manifest.to_dict("list")}
        files.write_text(cache, json.dumps(content))
    if manifest.attrs["doubt"]:
        print(
            f"Near duplicates are left out, identical files alone are kept together: {manifest.attrs['doubt']}. "
            "That speaks against the method and not against the pictures. "
            'describe_folder(..., near_duplicates="on") goes by it nevertheless, "off" never looks for them.'
        )
    return manifest


def build_manifest(
    listed,
    class_names,
    *,
    near_duplicate_bits=studies.NEAR_DUPLICATE_BITS,
    near_duplicates=studies.BY_HASH,
    workers=None,
):
    """Decodes every listed file and finds the duplicates among them.

    Args:
        listed: pandas.DataFrame with `path`, `label` and `part`, as from `layouts.list_images`.
        class_names: sequence of str. The classes in label order.
        near_duplicate_bits: int or None. See `duplicates.group_duplicates`.
        near_duplicates: str. `studies.BY_HASH`, or one of `studies.NEAR_DUPLICATES`, see
            `duplicates.find_duplicates`.
        workers: int or None. Processes to use; None means one per core.

    Returns:
        pandas.DataFrame, see `load_manifest`.

    Raises:
        ValueError: when there are fewer than two classes or one of them has no readable image.
    """
    if len(class_names) < 2:
        raise ValueError(f"A manifest needs at least two classes. Received: class_names={list(class_names)}")
    inspect = partial(inspect_image, hashed=near_duplicate_bits is not None and near_duplicates != "off")
    inspected = parallel.map_over_cores(inspect, list(listed["path"]), description="Reading images", workers=workers)
    rows, hashes = [], []
    for (path, label, part), (facts, image_hash) in zip(listed.itertuples(index=False), inspected, strict=True):
        own_path = str(path) if files.is_text(path) else files.shown_name(path)  # such a file is read as a copy
        rows.append({"path": facts.pop("readable_path", own_path), "label": label, "part": part, **facts})
        hashes.append(image_hash)
    manifest = _convert_refused(pd.DataFrame(rows, columns=COLUMNS))
    _check_classes(manifest, class_names)
    return _mark_duplicates(manifest, hashes, near_duplicate_bits, near_duplicates)


def inspect_image(path, *, hashed=True):
    """Reads one file and says what it is. What is no upright 8-bit RGB or grey JPEG or PNG is written anew.

    Args:
        path: Path.
        hashed: bool. Whether the perceptual hash is wanted.

    Returns:
        tuple of a dict (`sha256`, `width`, `height`, `verdict`, `reason`, and `readable_path` when converted)
        and a perceptual hash (bool array `(2, 64)`, or None when unreadable or not wanted).
    """
    path = Path(path)
    verdict, reason, upright = open_image(path)
    facts = {"sha256": _sha256_of(path), "width": 0, "height": 0, "verdict": verdict, "reason": reason}
    if upright is None:
        return facts, None
    facts |= {"width": upright.width, "height": upright.height}
    if min(upright.size) < MIN_SIDE:
        reason = f"a side is shorter than {MIN_SIDE} pixels"
        return facts | {"verdict": "too_small", "reason": reason}, None
    if verdict == "converted":
        facts["readable_path"] = str(convert(upright, facts["sha256"]))
    elif not files.is_text(path):
        facts |= {"verdict": "converted", "reason": NO_TEXT, "readable_path": str(_copy(path, facts["sha256"]))}
    return facts, duplicates.perceptual_hash(upright) if hashed else None


def fingerprint(table):
    """The SHA-256 over the sorted hashes of a table's files: which images these are, whatever their order."""
    return files.sha256_of_text("\n".join(sorted(table["sha256"])))


def _read_kept(cache):
    """A cached manifest whose rewritten images still exist, else None."""
    try:
        kept = json.loads(cache.read_text(encoding="utf-8"))
        manifest = pd.DataFrame(kept["columns"])
        manifest.attrs["doubt"] = kept["doubt"]
        rewritten = f"{images.converted_folder()}{os.sep}"
        ours = manifest.loc[manifest["path"].str.startswith(rewritten), "path"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none, or a damaged one
        return None
    return manifest if all(map(os.path.isfile, ours)) else None


def _sha256_of(path):
    """The SHA-256 of a file; of one that cannot be read, of its name."""
    try:
        return files.sha256_of(path)
    except OSError:
        return files.sha256_of_text(files.shown_name(path))


def _copy(path, sha256):
    """Copies a file to a name that every reader takes."""
    copied = images.converted_folder() / f"{sha256}{files.shown_name(path.suffix)}"
    with files.atomic_file(copied) as temporary:
        shutil.copyfile(path, temporary)
    return copied


def _convert_refused(manifest):
    """Rewrites images that the reader of training images refuses, though this one reads them.

    An image that is refused even then, such as one a million pixels wide, is unreadable.
    """
    sound = manifest.index[manifest["verdict"].isin(("ok", "converted"))]
    paths = list(manifest.loc[sound, "path"])
    with ThreadPoolExecutor(devices.available_cores()) as pool:
        taken = files.progress(pool.map(images.can_read, paths), description="Checking images", total=len(paths))
        refused = [index for index, fine in zip(sound, taken, strict=True) if not fine]
    for index in refused:
        row = manifest.loc[index]
        if row["verdict"] == "ok":
            row["path"] = str(convert(open_image(Path(row["path"]))[2], row["sha256"]))
        readable = row["verdict"] == "ok" and images.can_read(row["path"])
        row["verdict"], row["reason"] = "converted" if readable else "unreadable", REFUSED
        manifest.loc[index] = row
    return manifest


def _mark_duplicates(manifest, hashes, bits, mode):
    """Adds `group`, and the verdict of those that stand under several classes."""
    readable = manifest["verdict"].isin(READABLE)
    manifest.attrs["doubt"] = ""
    if mode == studies.BY_HASH:
        manifest["group"] = duplicates.group_duplicates(manifest["sha256"], hashes, near_duplicate_bits=bits)
        classes = manifest[readable].groupby("group")["label"].nunique()
        mixed = readable & manifest["group"].isin(classes[classes > 1].index)
    else:
        hashes = [image_hash if fine else None for image_hash, fine in zip(hashes, readable, strict=True)]
        found = duplicates.find_duplicates(manifest, hashes, near_duplicate_bits=bits, mode=mode)
        manifest["group"], manifest.attrs["doubt"] = found.group, found.doubt
        mixed = readable & np.asarray(found.two_classes)
    manifest.loc[mixed, "verdict"] = "two_classes"
    manifest.loc[mixed, "reason"] = "the same picture stands under several classes"
    return manifest


def _check_classes(manifest, class_names):
    readable = set(manifest.loc[manifest["verdict"].isin(READABLE), "label"])
    empty = [name for name in class_names if name not in readable]
    if empty:
        lost = manifest[manifest["label"].isin(empty) & ~manifest["verdict"].isin(READABLE)]
        received = manifest["verdict"].value_counts().to_dict() or "no files"
        why = lost["reason"].value_counts()
        said = "".join(f"\n  {count} of theirs: {reason}" for reason, count in why.head(3).items())
        raise ValueError(f"Every class has at least one readable image. Missing: {empty}. Received: {received}{said}")


def _folder_key(folder, study):
    """Names a folder's state: its path, how it is read, and every file's size and time of change."""
    facts = [
        f"reader {READER_VERSION}, {study.near_duplicate_bits} bits, {study.near_duplicates}, "
        f"{study.class_names}, {study.places}, {study.tables}",
        files.shown_name(folder),
        files.state_of_folder(folder),
    ]
    return files.sha256_of_text("\n".join(facts))[:16]
