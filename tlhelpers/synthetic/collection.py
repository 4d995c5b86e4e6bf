"""The synthetic edition of a study: synthetic images in one folder per class, faults and all.

Real collections hold unreadable files, copies, and images in the wrong folder. So does this one, and `plan_files`
says which file is what.
"""

import io
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import PIL
from PIL import Image

from tlhelpers import files, parallel, settings
from tlhelpers.synthetic import animals, canvas, clothes, faces, flowers, weeds

PICTURE_SEED = 2026
FILES_PER_CLASS = 300

# Who draws a study: the module, and its function of class, seed, index and size.
ARTISTS = {
    "flowers": (flowers, flowers.draw_flower),
    "fashion_mnist": (clothes, clothes.draw_garment),
    "fashion_half": (clothes, clothes.draw_garment),
    "cats_dogs": (animals, animals.draw_animal),
    "deepweeds": (weeds, weeds.draw_weed),
    "fer2013": (faces, faces.draw_face),
}

# How many files of each class are not what they seem.
FAULTS = {
    "mislabelled": 6,
    "exact duplicate": 2,
    "near duplicate": 2,
    "two classes": 1,
    "empty": 1,
    "truncated": 1,
    "not an image": 1,
}
COPIES = ("exact duplicate", "near duplicate", "two classes")
UNREADABLE = ("empty", "truncated", "not an image")


def draw_study(study, *, seed=None):
    """Draws a study's synthetic images into the cache folder, once.

    Args:
        study: Study. A key of `ARTISTS`.
        seed: int or None. The same seed gives the same files; None means `PICTURE_SEED`.

    Returns:
        Path. The folder that holds one subfolder of images per class.
    """
    seed = PICTURE_SEED if seed is None else seed
    module, draw = ARTISTS[study.name]
    code = [files.sha256_of(path) for path in (__file__, canvas.__file__, module.__file__)]
    per_class = {name: study.drawn_counts.get(name, FILES_PER_CLASS) for name in study.class_names}
    facts = [*code, str(per_class), str(seed), str(study.drawn_size), PIL.__version__]
    key = files.sha256_of_text("\n".join(facts))[:16]
    destination = settings.home_folder() / "images" / f"{study.name}-drawn" / key
    if not files.is_whole(destination):
        with files.atomic_folder(destination) as folder:
            plan = plan_files(study.class_names, per_class=per_class, seed=seed)
            draw_files(folder, plan, partial(draw, seed=seed, size=study.drawn_size))
    return destination


def is_drawn(folder):
    """Whether a folder, a Path, is one that `draw_study` has made, or is inside one."""
    images = (settings.home_folder() / "images").resolve()
    folder = folder.resolve()
    return folder.is_relative_to(images) and any(part.endswith("-drawn") for part in folder.relative_to(images).parts)


def plan_files(class_names, *, per_class=FILES_PER_CLASS, seed=PICTURE_SEED):
    """What each file of a synthetic collection is.

    Args:
        class_names: sequence of str.
        per_class: int, or dict from a class to int. Files in each class folder.
        seed: int.

    Returns:
        pandas.DataFrame with `file` (str, `<label>/<number>.jpg`), `label`, `species` (the class that is drawn),
        `index` (int, which image of that class) and `fault` (a key of `FAULTS`, or an empty string).

    Raises:
        ValueError: when a class is too small to hold the faults.
    """
    extra = sum(FAULTS[fault] for fault in (*COPIES, *UNREADABLE))
    counts = per_class if isinstance(per_class, dict) else dict.fromkeys(class_names, per_class)
    if min(counts.values()) < 2 * (extra + FAULTS["mislabelled"]):
        raise ValueError(
            f"A class holds at least {2 * (extra + FAULTS['mislabelled'])} files, so that most are what they seem. "
            f"Received: per_class={per_class}"
        )
    rng = np.random.default_rng(seed)
    originals = [row for name in class_names for row in _plan_originals(rng, name, class_names, counts[name] - extra)]
    faulty = [row for name in class_names for row in _plan_faults(rng, name, class_names, originals)]
    plan = pd.DataFrame(originals + faulty)
    number = plan.groupby("label").cumcount().map("{:04d}".format)
    return plan.assign(file=plan["label"] + "/" + number + ".jpg")


def draw_files(folder, plan, draw):
    """Draws the files of a plan, the faulty ones too.

    Args:
        folder: Path.
        plan: pandas.DataFrame, as from `plan_files`.
        draw: callable, picklable. From a class and `index=` to a uint8 array `(size, size, 3)`.
    """
    for label in plan["label"].unique():
        (Path(folder) / label).mkdir(parents=True)
    write = partial(_draw_file, folder=Path(folder), draw=draw)
    list(parallel.map_over_cores(write, plan.to_dict("records"), description="Drawing pictures"))


def encode(pixels, *, quality=flowers.JPEG_QUALITY, **options):
    """A uint8 image as the bytes of a JPEG file; `options` are those of Pillow's encoder."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality, **options)
    return stream.getvalue()


def _plan_originals(rng, name, class_names, count):
    others = [other for other in class_names if other != name]
    wrong = set(rng.choice(count, FAULTS["mislabelled"], replace=False).tolist())
    for index in range(count):
        if index in wrong:
            # an index of its own, so that it is no copy of an image in the right folder
            species = str(rng.choice(others))
            yield _row(name, species, count * (1 + class_names.index(name)) + index, "mislabelled")
        else:
            yield _row(name, name, index, "")


def _plan_faults(rng, name, class_names, originals):
    """Copies of sound images and files that are no images."""
    sound = [row for row in originals if row["label"] == row["species"]]
    for fault in COPIES:
        own = fault != "two classes"
        sources = [row for row in sound if (row["label"] == name) == own]
        for place in rng.choice(len(sources), FAULTS[fault], replace=False):
            yield _row(name, sources[place]["species"], sources[place]["index"], fault)
    for fault in UNREADABLE:
        for number in range(FAULTS[fault]):
            yield _row(name, name, number, fault)


def _row(label, species, index, fault):
    return {"label": label, "species": species, "index": index, "fault": fault}


def _draw_file(row, *, folder, draw):
    path, fault = folder / row["file"], row["fault"]
    pixels = draw(row["species"], index=row["index"])
    content = encode(pixels)
    if fault == "near duplicate":
        smaller = Image.fromarray(pixels).resize((len(pixels) * 7 // 8,) * 2, Image.Resampling.LANCZOS)
        content = encode(np.asarray(smaller), quality=60)
    elif fault == "empty":
        content = b""
    elif fault == "truncated":
        content = content[: len(content) // 2]
    elif fault == "not an image":
        content = b"<html><body>429 Too Many Requests</body></html>\n"
    path.write_bytes(content)
