"""Archives, opened safely and whole or not at all: ZIP files, numbered files as of MNIST, tables of pixels."""

import contextlib
import errno
import gzip
import lzma
import math
import re
import shutil
import stat
import struct
import unicodedata
import zipfile
import zlib
from pathlib import PurePosixPath

import numpy as np
import pandas as pd
from PIL import Image

from tlhelpers import files, settings
from tlhelpers.datasets import layouts
from tlhelpers.files import BadArchiveError

MAX_EXTRACTED_BYTES = 4 * 2**30
MAX_COMPRESSION_RATIO = 200
MAX_NAME_BYTES = 255  # what file systems take
# What a disk says: full, closed, or that it does not take a name.
NOT_THE_ARCHIVE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG, errno.EIO)
# What reading a damaged archive raises.
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    IndexError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)
ENCRYPTED, UTF8_NAME = 0x1, 0x800  # flags of a member
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)  # that can be read here
AES = 99  # stands where a method would
RESOURCES = "__MACOSX"  # the folder in which macOS packs what it knows of files, beside the files themselves
# How files begin that are now and then renamed to `.zip`.
FORMATS = {
    b"\x1f\x8b": "a gzip or tar.gz file",
    b"BZh": "a bzip2 or tar.bz2 file",
    b"\xfd7zXZ\x00": "an xz or tar.xz file",
    b"\x28\xb5\x2f\xfd": "a Zstandard file",
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"%PDF": "a PDF file",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89PNG": "a PNG image",
    b"\x89HDF": "an HDF5 file",
    b"version https://git-lfs": "a pointer of Git LFS and not the file itself",
}
ARCHIVE_SUFFIXES = (".zip", ".rar", ".7z", ".tar", ".tgz", ".gz", ".bz2", ".xz")
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
        if _is_numbered(study):
            for part, (images, labels) in zip(
                study.places, zip(archives[::2], archives[1::2], strict=True), strict=True
            ):
                write_numbered_images(images, labels, folder, study.places[part], study.label_names)
        else:
            for archive in archives:
                extract_zip(archive, folder, study)
            if study.pixel_table:
                for table in sorted(folder.rglob(study.pixel_table.name)):
                    write_pixel_table(table, folder, study)
        layouts.find_image_folder(folder, study)


def extract_zip(archive, folder, study):
    """Extracts a ZIP file after looking at its members, every one of them, or none.

    Names are read as the packing program meant them: with backslashes between folders, in UTF-8 that is not declared,
    with class folders in other capitals. Of members whose names differ in capitals alone the later ones get a name of
    their own, and so do names that no file system takes. Members that are the same twice are extracted once.

    Args:
        archive: Path.
        folder: Path.
        study: Study.

    Raises:
        BadArchiveError: as `extract_archives`.
    """
    with _opened(archive) as opened:
        members = _plan_members(archive, opened.infolist(), study)
        _check_members(archive, members.values())
        for path, member in files.progress(members.items(), description=f"Extracting {archive.name}"):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with opened.open(member) as source, target.open("xb") as written:
                    shutil.copyfileobj(source, written)
            except FileExistsError as error:
                raise BadArchiveError(
                    f"Each member of an archive becomes a file of its own. Received: {member.filename!r}, the name of "
                    f"which another one has here, in {str(archive)!r}"
                ) from error


def check_archive(archive, study):
    """Looks at the table of contents of a ZIP file, under any name, and asks whether a study can come from it.

    Args:
        archive: Path.
        study: Study.

    Raises:
        BadArchiveError: when it cannot; the message says why.
        OSError: when the file may not be read.
    """
    with _opened(archive) as opened:
        members = opened.infolist()
        _check_contents(archive, members, study)
        _check_members(archive, _plan_members(archive, members, study).values())


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
    """Raises a BadArchiveError when a file is no whole ZIP file; the message says what it is instead."""
    with open(archive, "rb") as stream:
        start = stream.read(512)
    what = next((words for mark, words in FORMATS.items() if start.startswith(mark)), None)
    if start[257:262] == b"ustar":
        what = "a tar archive"
    if start.lstrip().startswith((b"<", b"\xef\xbb\xbf<")):
        what = "a web page, as a login or error page saves itself"
    if what or not zipfile.is_zipfile(archive):
        raise BadArchiveError(
            f"An archive is a whole ZIP file; this one is {what or 'empty, truncated or of another format'}. "
            f"{'Download it again' if not what or 'page' in what else 'Unpack it, and pack it as a ZIP file'}. "
            f"Received: archive={str(archive)!r}"
        )


@contextlib.contextmanager
def _opened(archive):
    """A ZIP file that is open; what goes wrong with it is a BadArchiveError."""
    check_is_zip(archive)
    try:
        with zipfile.ZipFile(archive) as opened:
            yield opened
    except BadArchiveError:
        raise
    except DAMAGED as error:
        if getattr(error, "errno", None) in NOT_THE_ARCHIVE:
            raise
        raise BadArchiveError(
            f"An archive extracts without an error; this one is truncated or damaged ({error}). "
            f"Download it again. Received: archive={str(archive)!r}"
        ) from error


def _is_numbered(study):
    """Whether a study comes in files of numbers, and not in a ZIP file."""
    return bool(study.label_names) and not study.tables


def _name_of(member):
    """The name of a member with `/` between folders.

    Windows' own programs wrote backslashes. In names of old encodings, a backslash after a letter beyond ASCII can be
    the second half of that letter; then the name has slashes, too.
    """
    name = member.filename
    if not member.flag_bits & UTF8_NAME and not name.isascii():
        try:
            name = name.encode("cp437").decode("utf-8")
        except UnicodeError:
            if "/" in name:
                name = re.sub(r"(?<=[^\x00-\x7f])\\", "_", name)
    return name.replace("\\", "/")


def _spell(path, study):
    """A path whose folders are spelled as the study spells them, whatever their capitals."""
    folders = {place.folder.format(label=label) for place in study.places.values() for label in study.class_names}
    wanted = {part for folder in folders for part in PurePosixPath(folder).parts}
    if study.tables:
        wanted |= {study.tables.images, *PurePosixPath(study.tables.pattern).parent.parts}
    spelled = {name.casefold(): name for name in wanted}
    parts = [part if part in wanted else spelled.get(part.casefold(), part) for part in path.parent.parts]
    return PurePosixPath(*parts, path.name)


def _shorten(part):
    """A name that file systems take; two long ones never become the same."""
    if len(part.encode("utf-8")) <= MAX_NAME_BYTES:
        return part
    suffix = PurePosixPath(part).suffix
    return _distinguish(part[:40], part, suffix if len(suffix) <= 8 else "")


def _distinguish(stem, name, suffix):
    return f"{stem}-{files.sha256_of_text(name)[:8]}{suffix}"


def _plan_members(archive, members, study):
    """Where each member goes: dict from a PurePosixPath to its ZipInfo."""
    planned, named, taken = {}, {}, set()
    for member in members:
        name = _name_of(member)
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", name):
            raise BadArchiveError(
                f"A member of an archive stays inside its folder. Received: {member.filename!r} in {str(archive)!r}"
            )
        if name.endswith("/") or RESOURCES in path.parts:
            continue
        if not path.parts:
            raise BadArchiveError(f"A member of an archive has a name. Received: {name!r} in {str(archive)!r}")
        same = named.setdefault(name, member)
        if same is not member:
            if (same.CRC, same.file_size) != (member.CRC, member.file_size):
                raise BadArchiveError(
                    "Two members of an archive have different names, or are the same file twice. "
                    f"Received: two different ones named {name!r} in {str(archive)!r}"
                )
            continue
        path = _spell(PurePosixPath(*map(_shorten, path.parts)), study)
        key = unicodedata.normalize("NFC", str(path)).casefold()
        if key in taken:
            path = path.with_name(_distinguish(path.stem[:40], name, path.suffix))
        taken.add(key)
        planned[path] = member
    both = planned.keys() & {folder for path in planned for folder in path.parents}
    if both:
        raise BadArchiveError(
            f"A name in an archive is that of a file or of a folder. Received: both, {str(min(both))!r} "
            f"in {str(archive)!r}"
        )
    return planned


def _check_contents(archive, members, study):
    """Raises a BadArchiveError when a ZIP file lacks, by the names of its members, what a study needs."""
    if _is_numbered(study):
        raise BadArchiveError(
            f"{study.title} comes in the files {list(study.archives)}. Received: archive={str(archive)!r}"
        )
    names = [name for name in map(_name_of, members) if not name.endswith("/")]
    paths = [_spell(PurePosixPath(name), study) for name in names if RESOURCES not in PurePosixPath(name).parts]
    present, folders = {path.name for path in paths}, {name for path in paths for name in path.parent.parts}
    if study.pixel_table and study.pixel_table.name in present:
        return
    if study.tables:
        tables = {PurePosixPath(study.tables.pattern.format(part=part, fold=0)).name for part in study.tables.parts}
        missing = sorted(tables - present) + [name for name in [study.tables.images] if name not in folders]
    else:
        missing = [name for name in study.class_names if name not in folders]
    if missing:
        inner = sorted(name for name in present if name.lower().endswith(ARCHIVE_SUFFIXES))
        why = f"it holds other archives, which are to be unpacked first: {inner[:3]}" if inner else "it lacks them"
        raise BadArchiveError(
            f"An archive of this study has images in {missing}; {why}. Received: archive={str(archive)!r}"
        )


def _check_members(archive, members):
    """Raises a BadArchiveError when some members cannot be extracted, or had better not be."""
    total = 0
    for member in members:
        where = f"{member.filename!r} in {str(archive)!r}"
        if member.flag_bits & ENCRYPTED or member.compress_type == AES:
            raise BadArchiveError(
                f"An archive opens without a password; this one is protected by one. Received: {where}"
            )
        if member.volume:
            raise BadArchiveError(f"An archive is one file; this one is the last of several parts. Received: {where}")
        if member.compress_type not in METHODS:
            method = zipfile.compressor_names.get(member.compress_type, f"method {member.compress_type}")
            raise BadArchiveError(
                f"An archive is packed with Deflate, bzip2 or LZMA; this one is packed with {method.capitalize()}. "
                f"Unpack it, and pack it anew. Received: {where}"
            )
        if stat.S_ISLNK(member.external_attr >> 16):
            raise BadArchiveError(f"An archive holds files and no links. Received: {where}")
        total += member.file_size
        compressed = max(member.compress_size, 1)
        if member.file_size > 2**20 and member.file_size / compressed > MAX_COMPRESSION_RATIO:
            raise BadArchiveError(
                f"A member unpacks to at most {MAX_COMPRESSION_RATIO} times its packed size. Received: {where}"
            )
    limit = min(MAX_EXTRACTED_BYTES, shutil.disk_usage(_existing_parent(settings.home_folder())).free)
    if total > limit:
        raise BadArchiveError(
            f"An archive unpacks to at most {limit:,} bytes here. Received: {total:,} in {str(archive)!r}"
        )


def _existing_parent(path):
    return next(folder for folder in [path, *path.parents] if folder.exists())
