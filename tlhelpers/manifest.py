"""One row per image: path, label, hash, verdict, duplicate group; and the splits made from them."""

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path

import imagehash
import numpy as np
import pandas as pd
from PIL import Image, ImageOps
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold, StratifiedShuffleSplit, train_test_split

from tlhelpers import devices, files, layouts, loaders, settings, sources, studies

MANIFEST_VERSION = 3
FOLDS = 5
VALIDATION_SHARE = 0.1
SPLIT_SEED = 0
LEFT_OUT = "left out"
MIN_SIDE = 16
MAX_PIXELS = 100_000_000
PROTOCOLS = ("published", "careful")
SPLITS = ("train", "validation", "test")
REFUSED = "damaged in a way that only some readers forgive"
COLUMNS = ("path", "label", "part", "sha256", "width", "height", "verdict", "reason")
COMPARED_AT_ONCE = 4096  # perceptual hashes; a square of theirs is 64 MiB

# Verdicts under which an image can be read. `converted` ones were written anew as upright 8-bit RGB;
# `two_classes` ones, or duplicates of theirs, are filed under more than one class.
READABLE = ("ok", "converted", "two_classes")
USABLE = {"published": READABLE, "careful": ("ok", "converted")}


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


def split_manifest(manifest, study, *, protocol="careful", seed=0):
    """Assigns the usable images of a manifest to training, validation and test.

    `published` follows the source: a stratified fifth for testing (of drawings, for training), all readable files,
    duplicates or not; the source validates on its test part, so there is no validation part of its own.
    `careful` keeps duplicates together and leaves out images filed under two classes: fold `seed` of five is the
    test part, and a tenth of all images is cut from the rest for validation.
    Of drawn pictures the fold is the training part and the rest tests, see `Study.fold_part`.

    Where a study has official parts, these are the splits. A missing validation part is cut from the training
    part by the seed; `published` does so only where the source did. `careful` then leaves out of validation and
    test what has a duplicate in the parts before.

    Args:
        manifest: pandas.DataFrame, as from `load_manifest`.
        study: Study.
        protocol: str. `"published"` or `"careful"`.
        seed: int. `published`: seeds the shuffle. `careful`: the fold, 0 to 4. Official parts: seeds the cut.

    Returns:
        pandas.DataFrame. The usable rows of `manifest` with `target` (int, index of the class) and `split`
        (`"train"`, `"validation"` or `"test"`) beside the other columns.

    Raises:
        ValueError: when the protocol is unknown or there is no such fold.
    """
    check_protocol(protocol, seed)
    usable = manifest[manifest["verdict"].isin(USABLE[protocol])].reset_index(drop=True)
    usable["target"] = usable["label"].map({name: i for i, name in enumerate(study.class_names)})
    if usable["part"].any():
        return _official_split(usable, study, protocol, seed)
    split = _published_split if protocol == "published" else _careful_split
    return usable.assign(split=split(usable, study, seed))


def check_protocol(protocol, seed):
    """Raises a ValueError when there is no such protocol, or `careful` has no such fold."""
    if protocol not in PROTOCOLS:
        raise ValueError(f"A protocol is one of {list(PROTOCOLS)}. Received: protocol={protocol!r}")
    if seed < 0 or (protocol == "careful" and seed >= FOLDS):
        raise ValueError(
            f"A seed is 0 or more; the careful protocol has the folds 0 to {FOLDS - 1}. Received: seed={seed}"
        )


def rows_of(table, split):
    """The rows of one split.

    Args:
        table: pandas.DataFrame, as from `split_manifest`.
        split: str. `"train"`, `"validation"` or `"test"`. Where a protocol has no validation part, as
            `published`, its test part stands in, as in the source.

    Returns:
        pandas.DataFrame.

    Raises:
        ValueError: when there is no such split.
    """
    if split not in SPLITS:
        raise ValueError(f"A split is one of {list(SPLITS)}. Received: split={split!r}")
    if split == "validation" and not (table["split"] == "validation").any():
        split = "test"
    return table[table["split"] == split]


def limit_per_class(table, per_class, *, seed=0):
    """Keeps a few training images of each class: the first of a shuffle, so that a smaller set is part of a larger.

    Args:
        table: pandas.DataFrame, as from `split_manifest`.
        per_class: int.
        seed: int. Seeds the shuffle.

    Returns:
        pandas.DataFrame. The rows of the other splits stay.

    Raises:
        ValueError: when some class has fewer training images.
    """
    train = table[table["split"] == "train"].sample(frac=1, random_state=seed)
    smallest = train["label"].value_counts().min()
    if not 1 <= per_class <= smallest:
        raise ValueError(f"A class has between 1 and {smallest} training images here. Received: per_class={per_class}")
    few = train.groupby("label").head(per_class)
    return pd.concat([few, table[table["split"] != "train"]]).sort_index()


def fingerprint(table):
    """The SHA-256 over the sorted hashes of a table's files: which images these are, whatever their order."""
    return files.sha256_of_text("\n".join(sorted(table["sha256"])))


def count_leaks(table):
    """How many test images have a duplicate among the training images.

    Args:
        table: pandas.DataFrame, as from `split_manifest`.

    Returns:
        int.
    """
    train_groups = set(table.loc[table["split"] == "train", "group"])
    return int(table.loc[table["split"] == "test", "group"].isin(train_groups).sum())


def _published_split(usable, study, seed):
    published = len(usable) == study.published_count
    count = study.published_test_count if published else round(len(usable) / FOLDS)
    splitter = StratifiedShuffleSplit(1, test_size=count, random_state=seed)
    _, fold = next(splitter.split(usable, usable["target"]))
    split = np.full(len(usable), _other_part(study), dtype=object)
    split[fold] = study.fold_part
    return split


def _careful_split(usable, study, seed):
    groups = usable.groupby("label")["group"].nunique().reindex(study.class_names, fill_value=0)
    if groups.min() < FOLDS:
        raise ValueError(
            f"The careful protocol needs at least {FOLDS} different images of every class. "
            f"Received: {groups.min()} of {groups.idxmin()!r}"
        )
    target, group = usable["target"].to_numpy(), usable["group"].to_numpy()
    fold = _share_out(tuple(target), tuple(group), FOLDS, SPLIT_SEED)[seed]
    rest = np.setdiff1d(np.arange(len(usable)), fold)
    parts = round(len(rest) / (VALIDATION_SHARE * len(usable)))
    parts = min(parts, np.bincount(target[rest]).max())  # a few images per class give no eight parts
    validation = _share_out(tuple(target[rest]), tuple(group[rest]), parts, SPLIT_SEED + seed)[0]
    split = np.full(len(usable), _other_part(study), dtype=object)
    split[fold] = study.fold_part
    split[rest[validation]] = "validation"
    return split


@lru_cache(maxsize=2 * FOLDS)
def _share_out(target, group, parts, seed):
    """The rows of each of several parts in which the classes have equal shares and groups stay together."""
    folds = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    return [fold for _, fold in folds.split(target, target, group)]


def _official_split(usable, study, protocol, seed):
    folds = study.tables.folds if study.tables else None
    if folds and seed >= folds:
        raise ValueError(f"{study.title} has the folds 0 to {folds - 1}. Received: seed={seed}")
    split = usable["part"].str.split(",").str[seed] if folds else usable["part"].copy()
    if "validation" not in set(split) and (protocol == "careful" or study.validation_count):
        split[_cut_validation(usable[split == "train"], study, seed)] = "validation"
    if protocol == "careful":
        for part, earlier in (("validation", ["train"]), ("test", ["train", "validation"])):
            seen = usable.loc[split.isin(earlier), "group"]
            split[(split == part) & usable["group"].isin(seen)] = LEFT_OUT
    table = usable.assign(split=split)
    return table[split != LEFT_OUT].reset_index(drop=True)


def _cut_validation(train, study, seed):
    """Rows of a training part that validate: as many as the source took, or a tenth; duplicates stay together."""
    groups = train.drop_duplicates("group")
    share = study.validation_count / len(train) if study.validation_count else VALIDATION_SHARE
    _, chosen = train_test_split(
        groups["group"], test_size=round(share * len(groups)), stratify=groups["target"], random_state=seed
    )
    return train.index[train["group"].isin(chosen)]


def _other_part(study):
    return "train" if study.fold_part == "test" else "test"


def _convert_refused(manifest):
    """Writes images anew that the reader of training images refuses, though they look sound to this one.

    What it refuses even then, such as a picture a million pixels wide, is unreadable.
    """
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
