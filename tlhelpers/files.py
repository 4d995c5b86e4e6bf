"""Small promises about files: hashed, written whole or not at all, progress shown."""

import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tqdm.auto import tqdm

from tlhelpers import settings

CHUNK_BYTES = 1 << 20
TEMPORARY = ".tlhelpers-"  # how names of temporary files and folders begin, so that their rests are known as ours
RESTS = (f"*/{TEMPORARY}*", "downloads/tmp*")  # ours, and what pooch downloads into
RESTS_KEPT_DAYS = 7  # longer than any work goes on without a new file


def sha256_of(path):
    """The SHA-256 of a file, as 64 hexadecimal digits."""
    return digest_of(path, "sha256")


def digest_of(path, algorithm):
    """A digest of a file, as hexadecimal digits; `algorithm` is a name that hashlib knows."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of_text(text):
    """The SHA-256 of a text's UTF-8 bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def sha256_of_files(paths, root):
    """The SHA-256 over some files, their names included.

    Args:
        paths: iterable of Path. Their order counts; folders among them are left out.
        root: Path. The folder from which their names start.

    Returns:
        str, 64 hexadecimal digits.
    """
    return sha256_of_text("\n".join(f"{path.relative_to(root)} {sha256_of(path)}" for path in paths if path.is_file()))


@contextlib.contextmanager
def atomic_file(path):
    """Yields a temporary path beside `path` that replaces it when the block ends without an error.

    A run that is killed half-way leaves the old file, or none, never half of the new one.

    Args:
        path: Path. The file to write; missing parent folders are made.

    Yields:
        Path. The temporary file, with the suffixes of `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=TEMPORARY, suffix="".join(path.suffixes), dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path):
    """Yields a temporary folder beside `path` that is renamed to it when the block ends without an error.

    Args:
        path: Path. The folder to make. When another process made it meanwhile, theirs is kept.

    Yields:
        Path. The temporary folder.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        try:
            if not path.exists():
                temporary.rename(path)
        except OSError:  # a folder in the way is reported as FileExistsError or as ENOTEMPTY
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_rests(folder):
    """Removes what killed work has left in the folders of a cache: temporary files and folders a week old.

    Args:
        folder: Path. The cache; need not exist.
    """
    oldest = time.time() - RESTS_KEPT_DAYS * 24 * 3600
    for rest in [rest for pattern in RESTS for rest in folder.glob(pattern)]:
        with contextlib.suppress(FileNotFoundError):  # another process has just removed or renamed it
            if rest.stat().st_mtime > oldest:
                continue
            if rest.is_dir():
                shutil.rmtree(rest, ignore_errors=True)
            else:
                rest.unlink()


def write_text(path, text):
    """Writes `text` (UTF-8) to `path`, whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def note_path(path):
    """Where something is said about a file, in JSON beside it.

    Args:
        path: Path.

    Returns:
        Path.
    """
    return Path(path).with_suffix(".json")


def progress(iterable, *, description, total=None, unit="it", unit_scale=False):
    """Wraps `iterable` in a progress bar on standard output (never on stderr, where it reads as a fault)."""
    return tqdm(
        iterable,
        desc=description,
        total=total,
        unit=unit,
        unit_scale=unit_scale,
        file=sys.stdout,
        leave=False,
        disable=settings.is_quiet(),
    )
