"""One row per image: path, label, hash, verdict, duplicate group."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import imagehash
import numpy as np
import pandas as pd
from PIL import Image, ImageOps
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from tlhelpers import devices, files, layouts, settings, sources, studies

MANIFEST_VERSION = 3
MIN_SIDE = 16
MAX_PIXELS = 100_000_000
REFUSED = "damaged in a way that only some readers forgive"
COLUMNS = ("path", "label", "part", "sha256", "width", "height", "verdict", "reason")
COMPARED_AT_ONCE = 4096  # perceptual hashes; a square of theirs is 64 MiB

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
        `verdict`, `reason`, `group` (int; files that are exact or near duplicates of each other share it).

    Raises:
        MissingDataError: when no source has the images.
        BadArchiveError: when the archive is damaged, unsafe or of another study.
        ValueError: when a class has no readable image.
    """
    folder = sources.prepare_images(study)
    cache = settings.home_folder() / "manifests" / f"{study.name}-{_folder_key(folder, study)}.csv"
    if cache.is_file():
        return pd.read_csv(cache, keep_default_na=False)
    listed = layouts.list_images(folder, study, tables_folder=sources.find_tables(study, folder))
    manifest = build_manifest(listed, study.class_names, near_duplicate_bits=study.near_duplicate_bits)
    with files.atomic_file(cache) as temporary:
        manifest.to_csv(temporary, index=False)
    return manifest


def build_manifest(listed, class_names, *, near_duplicate_bits=studies.NEAR_DUPLICATE_BITS, workers=None):
    """Decodes every listed file and finds the duplicates among them.

    Args:
        listed: pandas.DataFrame with `path`, `label` and `part`, as from `layouts.list_images`.
        class_names: sequence of str. The classes in label order.
        near_duplicate_bits: int or None. See `group_duplicates`.
        workers: int or None. Processes to use; None means one per core.

    Returns:
        pandas.DataFrame, see `load_manifest`.

    Raises:
        ValueError: when there are fewer than two classes or one of them has no readable image.
    """
    if len(class_names) < 2:
        raise ValueError(f"A manifest needs at least two classes. Received: class_names={list(class_names)}")
    inspect = partial(inspect_image, hashed=near_duplicate_bits is not None)
    inspected = devices.map_over_cores(inspect, list(listed["path"]), description="Reading images", workers=workers)
    rows, hashes = [], []
    for (path, label, part), (facts, image_hash) in zip(listed.itertuples(index=False), inspected, strict=True):
        readable_path = facts.pop("readable_path", str(path))
        rows.append({"path": readable_path, "label": label, "part": part, **facts})
        hashes.append(image_hash)
    manifest = _convert_refused(pd.DataFrame(rows, columns=COLUMNS))
    _check_classes(manifest, class_names)
    manifest["group"] = group_duplicates(manifest["sha256"], hashes, near_duplicate_bits=near_duplicate_bits)
    return _mark_two_classes(manifest)


def inspect_image(path, *, hashed=True):
    """Reads one file and says what it is. What is no upright 8-bit RGB or grey JPEG or PNG is written anew.

    Args:
        path: Path.
        hashed: bool. Whether the perceptual hash is wanted.

    Returns:
        tuple of a dict (`sha256`, `width`, `height`, `verdict`, `reason`, and `readable_path` when converted)
        and a perceptual hash (bool array `(2, 64)`, or None when unreadable or not wanted).
    """
    facts = {"sha256": files.sha256_of(path), "width": 0, "height": 0, "verdict": "ok", "reason": ""}
    verdict, reason, upright = open_image(path)
    if upright is None:
        return facts | {"verdict": verdict, "reason": reason}, None
    facts |= {"width": upright.width, "height": upright.height}
    if min(upright.size) < MIN_SIDE:
        reason = f"a side is shorter than {MIN_SIDE} pixels"
        return facts | {"verdict": "too_small", "reason": reason}, None
    if reason:
        facts |= {"verdict": "converted", "reason": reason, "readable_path": str(convert(upright, facts["sha256"]))}
    return facts, perceptual_hash(upright) if hashed else None


def open_image(path, *, decode=True):
    """Opens one file and says whether it is a picture that can be used.

    Args:
        path: Path.
        decode: bool. Whether the pixels of a picture that every reader takes as it is are wanted, too.

    Returns:
        tuple of a verdict (`"ok"`, `"converted"` when every reader but this one would see other pixels, or what is
        wrong), a reason (str, empty when ok), and an upright RGB image (PIL.Image.Image), or None where there is none
        or none is wanted.
    """
    if path.stat().st_size == 0:
        return "empty", "the file has no bytes", None
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                return "too_large", f"{image.width}x{image.height} is over {MAX_PIXELS:,} pixels", None
            reason = _why_convert(path, image)
            if not (decode or reason):
                return "ok", "", None
            image.load()
            return "converted" if reason else "ok", reason, _as_upright_rgb(image)
    except (OSError, SyntaxError, ValueError, RuntimeError, Image.DecompressionBombError) as error:
        return *_verdict_of(error), None


def convert(image, sha256):
    """Writes an image anew, so that every reader sees the same pixels.

    Args:
        image: PIL.Image.Image, upright RGB.
        sha256: str. The digest of the file it comes from.

    Returns:
        Path. A PNG file in the cache folder.
    """
    path = settings.home_folder() / "converted" / f"{sha256}.png"
    with files.atomic_file(path) as temporary:
        image.save(temporary)
    return path


def perceptual_hash(image):
    """The pHash and the dHash of an image, bool array `(2, 64)`."""
    return np.stack([imagehash.phash(image).hash.ravel(), imagehash.dhash(image).hash.ravel()])


def group_duplicates(sha256, hashes, *, near_duplicate_bits=studies.NEAR_DUPLICATE_BITS):
    """Groups files that are the same to the byte or nearly the same to the eye.

    Two images are near duplicates when both their pHash and their dHash differ in at most
    `near_duplicate_bits` of 64 bits; groups are the connected components.

    Args:
        sha256: sequence of str.
        hashes: sequence of bool arrays `(2, 64)`, None for a file that is no image.
        near_duplicate_bits: int or None. None groups identical files alone.

    Returns:
        int array `(n,)`. The group of each file.
    """
    count = len(sha256)
    codes = pd.factorize(np.asarray(sha256))[0]
    order = np.argsort(codes, kind="stable")
    same = np.flatnonzero(np.diff(codes[order]) == 0)
    pairs = [np.stack([order[same], order[same + 1]])]
    readable = np.array([i for i, image_hash in enumerate(hashes) if image_hash is not None], dtype=int)
    if len(readable) and near_duplicate_bits is not None:
        signs = np.stack([hashes[i] for i in readable]).astype(np.float32) * 2 - 1
        pairs += [readable[found] for found in _near_pairs(signs, near_duplicate_bits)]
    first, second = np.concatenate(pairs, axis=1)
    graph = coo_matrix((np.ones(len(first)), (first, second)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def _near_pairs(signs, bits):
    """Pairs of rows whose hashes, given as signs `(n, kinds, 64)`, are near: int arrays `(2, pairs)`."""
    length = signs.shape[2]
    for start in range(0, len(signs), COMPARED_AT_ONCE):
        block, rest = signs[start : start + COMPARED_AT_ONCE], signs[start:]
        near = np.ones((len(block), len(rest)), dtype=bool)
        for kind in range(signs.shape[1]):
            near &= (length - block[:, kind] @ rest[:, kind].T) / 2 <= bits
        yield np.stack(np.nonzero(np.triu(near, 1))) + start


def fingerprint(table):
    """The SHA-256 over the sorted hashes of a table's files: which images these are, whatever their order."""
    return files.sha256_of_text("\n".join(sorted(table["sha256"])))


def _convert_refused(manifest):
    """Writes images anew that the reader of training images refuses, though they look sound to this one.

    What it refuses even then, such as a picture a million pixels wide, is unreadable.
    """
    from tlhelpers import loaders  # TensorFlow takes seconds to load, and a manifest is made once

    sound = manifest.index[manifest["verdict"].isin(("ok", "converted"))]
    paths = list(manifest.loc[sound, "path"])
    with ThreadPoolExecutor(devices.available_cores()) as pool:
        taken = files.progress(pool.map(loaders.can_read, paths), description="Checking images", total=len(paths))
        refused = [index for index, fine in zip(sound, taken, strict=True) if not fine]
    for index in refused:
        row = manifest.loc[index]
        if row["verdict"] == "ok":
            row["path"] = str(convert(open_image(Path(row["path"]))[2], row["sha256"]))
        readable = row["verdict"] == "ok" and loaders.can_read(row["path"])
        row["verdict"], row["reason"] = "converted" if readable else "unreadable", REFUSED
        manifest.loc[index] = row
    return manifest


def _mark_two_classes(manifest):
    """Marks every file of a duplicate group that spans several classes."""
    readable = manifest["verdict"].isin(READABLE)
    classes = manifest[readable].groupby("group")["label"].nunique()
    mixed = readable & manifest["group"].isin(classes[classes > 1].index)
    manifest.loc[mixed, "verdict"] = "two_classes"
    manifest.loc[mixed, "reason"] = "the same picture stands under several classes"
    return manifest


def _why_convert(path, image):
    """Why an image has to be written anew, or an empty string."""
    if image.getexif().get(0x0112, 1) != 1:
        return "rotated by its EXIF tag"
    if image.mode not in ("RGB", "L"):
        return f"colour mode {image.mode}"
    if image.format not in ("JPEG", "PNG"):
        return f"format {image.format}"
    if image.format == "PNG" and path.suffix.lower() in (".jpg", ".jpeg"):
        return "format PNG under a JPEG name"
    return ""


def _as_upright_rgb(image):
    """An upright 8-bit RGB image of any readable one; 16-bit grey is scaled to 8 bits."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16") or upright.mode in ("I", "F"):
        values = np.asarray(upright, dtype=np.float64)
        upright = Image.fromarray((values / max(values.max(), 1) * 255).astype(np.uint8))
    return upright.convert("RGB")


def _verdict_of(error):
    text = str(error) or type(error).__name__
    if isinstance(error, Image.DecompressionBombError):
        return "too_large", text
    if "truncated" in text.lower() or "broken data stream" in text:
        return "truncated", "the image data breaks off"
    if "cannot identify" in text:
        return "not_an_image", "no image format is recognised"
    return "unreadable", text.splitlines()[0]


def _check_classes(manifest, class_names):
    readable = set(manifest.loc[manifest["verdict"].isin(READABLE), "label"])
    empty = [name for name in class_names if name not in readable]
    if empty:
        received = manifest["verdict"].value_counts().to_dict() or "no files"
        raise ValueError(f"Every class has at least one readable image. Missing: {empty}. Received: {received}")


def _folder_key(folder, study):
    """Names a folder's state: its path, how it is read, and every file's size and time of change."""
    facts = [
        f"version {MANIFEST_VERSION}, {study.near_duplicate_bits} bits, {study.places}, {study.tables}",
        str(folder),
    ]
    for entry in sorted(Path(folder).rglob("*")):
        if entry.is_file():
            status = entry.stat()
            facts.append(f"{entry.relative_to(folder)} {status.st_size} {status.st_mtime_ns}")
    return files.sha256_of_text("\n".join(facts))[:16]
