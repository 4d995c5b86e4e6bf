"""Archives, opened safely and whole or not at all: ZIP files, numbered files as of MNIST, tables of pixels."""

import errno
import gzip
import math
import shutil
import stat
import zipfile
import zlib
from pathlib import PurePosixPath

import numpy as np
import pandas as pd
from PIL import Image

from tlhelpers import files, layouts, settings
from tlhelpers.layouts import BadArchiveError

MAX_EXTRACTED_BYTES = 4 * 2**30
MAX_COMPRESSION_RATIO = 200
NOT_THE_ARCHIVE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)  # what a disk says: full, or closed
IDX_BYTES = b"\x00\x00\x08"  # how a file of unsigned bytes begins; the number of dimensions follows


def extract_archives(archives, destination, study):
    """Extracts what a study comes in, safely and whole or not at all.

    Args:
        archives: list of Path. A ZIP file of images, or files of numbers, see `write_numbered_images`.
        destination: Path. The folder to make.
        study: Study. Must find one folder per class in it.

    Raises:
        BadArchiveError: when a file is truncated, damaged or of another format, holds members that leave the folder,
            links or absurdly compressed data, or lacks a class of the study.
        OSError: when the disk is full or may not be written.
    """
    with files.atomic_folder(destination) as folder:
        if study.label_names and not study.tables:
            for part, (images, labels) in zip(
                study.places, zip(archives[::2], archives[1::2], strict=True), strict=True
            ):
                write_numbered_images(images, labels, folder, study.places[part], study.label_names)
        else:
            for archive in archives:
                extract_zip(archive, folder)
            if study.pixel_table:
                for table in sorted(folder.rglob(study.pixel_table.name)):
                    write_pixel_table(table, folder, study)
        layouts.find_image_folder(folder, study)


def extract_zip(archive, folder):
    """Extracts a ZIP file after looking at its members.

    Args:
        archive: Path.
        folder: Path.

    Raises:
        BadArchiveError: as `extract_archives`.
    """
    check_is_zip(archive)
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            _check_members(archive, members)
            for member in files.progress(members, description=f"Extracting {archive.name}"):
                opened.extract(member, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        if getattr(error, "errno", None) in NOT_THE_ARCHIVE:
            raise
        raise BadArchiveError(
            f"An archive extracts without an error; this one is truncated or damaged ({error}). "
            f"Download it again. Received: archive={str(archive)!r}"
        ) from error


def read_numbers(path):
    """Reads a file of bytes in the IDX format, packed with gzip.

    Args:
        path: Path.

    Returns:
        uint8 array of the shape that the file gives.

    Raises:
        BadArchiveError: when the file is damaged, of another format, or holds more or less than its shape says.

    Source:
        The format is described with the first data set in it, http://yann.lecun.com/exdb/mnist/.
    """
    try:
        with gzip.open(path) as stream:
            content = stream.read(MAX_EXTRACTED_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise BadArchiveError(
            f"A file of numbers is packed with gzip and whole ({error}). Received: {str(path)!r}"
        ) from error
    dimensions = content[3] if content[:3] == IDX_BYTES and len(content) > 3 else 0
    start = 4 + 4 * dimensions
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4))
    if not dimensions or len(content) != start + math.prod(shape):
        raise BadArchiveError(
            "A file of numbers begins with the IDX mark of bytes and holds as many as its shape says. "
            f"Received: {len(content):,} bytes, shape={shape} in {str(path)!r}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def write_numbered_images(images, labels, folder, place, label_names):
    """Writes numbered images and labels as one PNG file each, class by class.

    Args:
        images: Path. An IDX file, uint8 `(n, height, width)`.
        labels: Path. An IDX file, uint8 `(n,)`.
        folder: Path.
        place: Place. Where this part stands.
        label_names: sequence of str. The class of label 0, 1, and so on.

    Raises:
        BadArchiveError: when a file is damaged, the shapes do not fit each other, or a label has no class.
    """
    pixels, targets = read_numbers(images), read_numbers(labels)
    if pixels.ndim != 3 or targets.shape != pixels.shape[:1]:
        raise BadArchiveError(
            "Images have the shape (n, height, width) and labels (n,). "
            f"Received: {pixels.shape} in {str(images)!r} and {targets.shape} in {str(labels)!r}"
        )
    if targets.max(initial=0) >= len(label_names):
        raise BadArchiveError(
            f"A label is between 0 and {len(label_names) - 1}. Received: {targets.max()} in {str(labels)!r}"
        )
    for name in label_names:
        (folder / place.folder.format(label=name)).mkdir(parents=True, exist_ok=True)
    for index, target in files.progress(list(enumerate(targets)), description=f"Writing {images.name}"):
        path = folder / place.folder.format(label=label_names[target]) / f"{index:05d}.png"
        Image.fromarray(pixels[index]).save(path)


def write_pixel_table(table, folder, study):
    """Writes the images of a table as one PNG file each, part by part and class by class.

    Args:
        table: Path. A CSV file as `Study.pixel_table` describes it.
        folder: Path.
        study: Study.

    Raises:
        BadArchiveError: when the table is damaged, an image has another number of pixels or values outside 0..255,
            or a label or part is unknown.
    """
    layout = study.pixel_table
    columns = [layout.label_column, layout.pixel_column, layout.part_column]
    try:
        rows = pd.read_csv(table, dtype=str, usecols=columns, keep_default_na=False)
    except (ValueError, OSError) as error:  # pandas' own errors are ValueErrors
        raise BadArchiveError(
            f"A table of pixels has the columns {columns} ({error}). Received: {str(table)!r}"
        ) from error
    labels = {str(index): name for index, name in enumerate(study.class_names)}
    for name, known in ((layout.label_column, labels), (layout.part_column, layout.parts)):
        unknown = sorted(set(rows[name]) - set(known))
        if unknown:
            raise BadArchiveError(f"{name} is one of {sorted(known)}. Received: {unknown[:5]} in {str(table)!r}")
    for place in study.places.values():
        for name in study.class_names:
            (folder / place.folder.format(label=name)).mkdir(parents=True, exist_ok=True)
    records = files.progress(rows.to_dict("records"), description=f"Writing {table.name}")
    for index, row in enumerate(records):
        part, begins = layout.parts[row[layout.part_column]]
        inner = study.places[part].folder.format(label=labels[row[layout.label_column]])
        pixels = _read_pixels(row[layout.pixel_column], layout.side, f"row {index} of {str(table)!r}")
        Image.fromarray(pixels).save(folder / inner / f"{begins}{index}.png")


def _read_pixels(text, side, where):
    """A square grey image from its values in a text, uint8 `(side, side)`."""
    try:
        values = np.array(text.split(), dtype=np.int64)
    except ValueError as error:
        raise BadArchiveError(f"Grey values are whole numbers ({error}). Received: {where}") from error
    if len(values) != side * side:
        raise BadArchiveError(f"An image has {side} x {side} pixels. Received: {len(values)} values in {where}")
    if values.min() < 0 or values.max() > 255:
        raise BadArchiveError(f"Grey values are 0..255. Received: {values.min()} to {values.max()} in {where}")
    return values.astype(np.uint8).reshape(side, side)


def check_is_zip(archive):
    """Raises a BadArchiveError when a file is no whole ZIP file."""
    with open(archive, "rb") as stream:
        start = stream.read(64).lstrip()
    if start[:1] == b"<":
        raise BadArchiveError(
            "An archive is a ZIP file; this one is a web page, as a login or error page saves itself. "
            f"Download it again. Received: archive={str(archive)!r}"
        )
    if not zipfile.is_zipfile(archive):
        raise BadArchiveError(
            "An archive is a whole ZIP file; this one is empty, truncated or of another format. "
            f"Received: archive={str(archive)!r}"
        )


def _check_members(archive, members):
    total = 0
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in "".join(path.parts[:1]):
            raise BadArchiveError(
                f"A member of an archive stays inside its folder. Received: {member.filename!r} in {str(archive)!r}"
            )
        if stat.S_ISLNK(member.external_attr >> 16):
            raise BadArchiveError(
                f"An archive holds files and no links. Received: {member.filename!r} in {str(archive)!r}"
            )
        total += member.file_size
        compressed = max(member.compress_size, 1)
        if member.file_size > 2**20 and member.file_size / compressed > MAX_COMPRESSION_RATIO:
            raise BadArchiveError(
                f"A member unpacks to at most {MAX_COMPRESSION_RATIO} times its packed size. "
                f"Received: {member.filename!r} in {str(archive)!r}"
            )
    limit = min(MAX_EXTRACTED_BYTES, shutil.disk_usage(_existing_parent(settings.home_folder())).free)
    if total > limit:
        raise BadArchiveError(
            f"An archive unpacks to at most {limit:,} bytes here. Received: {total:,} in {str(archive)!r}"
        )


def _existing_parent(path):
    return next(folder for folder in [path, *path.parents] if folder.exists())
