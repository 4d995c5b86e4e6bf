"""Small promises about files: hashed, written whole or not at all, progress shown."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
import time
import uuid
from pathlib import Path

import filelock
from tqdm.auto import tqdm

from tlhelpers import settings

CHUNK_BYTES = 1 << 20
TEMPORARY = ".tlhelpers-"  # how names of temporary files and folders begin, so that leftovers are known as ours
WHOLE = f"{TEMPORARY}whole.json"  # in a folder that was made at once: how much it held
SYSTEM_NAMES = frozenset(  # what systems and programs put between images, in lower case
    {
        "__macosx",
        "@eadir",
        "#recycle",
        "@recycle",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "icon\r",
    }
)
FULL = (errno.ENOSPC, errno.EDQUOT)  # what an error says of a full disk, whichever folder it is
RESTS_KEPT_DAYS = 7  # longer than any work goes on without a new file


class BadArchiveError(ValueError):
    """An archive is damaged, unsafe, or not the one a study needs."""


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
    temporary = temporary_beside(path, suffix="".join(path.suffixes))
    make_folder(path.parent)
    with _explained(path.parent):
        temporary.touch(exist_ok=False)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path):
    """Yields a temporary folder beside `path` that is renamed to it when the block ends without an error.

    The folder notes how much it holds, see `is_whole`.

    Args:
        path: Path. The folder to make. When another process made it meanwhile, theirs is kept; one that has lost
            something since it was made is replaced.

    Yields:
        Path. The temporary folder.
    """
    path = Path(path)
    temporary = temporary_beside(path)
    with _explained(path.parent):
        temporary.mkdir(parents=True)
    try:
        yield temporary
        write_text(temporary / WHOLE, json.dumps(_measure(temporary)))
        if path.exists() and not is_whole(path):
            _remove_at_once(path)
        try:
            if not path.exists():
                temporary.rename(path)
        except OSError:  # a folder in the way is reported as FileExistsError or as ENOTEMPTY
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def make_folder(path):
    """Makes a folder in which something is kept, unless it is there; the error says what to do where that fails."""
    with _explained(path):
        path.mkdir(parents=True, exist_ok=True)


def is_whole(folder):
    """Whether a folder is there as `atomic_folder` made it: as many files and as many bytes as then.

    Args:
        folder: Path.

    Returns:
        bool. False as well when the folder does not say how much it held.
    """
    try:
        noted = json.loads((Path(folder) / WHOLE).read_text(encoding="utf-8"))
        return noted == _measure(folder)
    except (OSError, ValueError):
        return False


def temporary_beside(path, suffix=""):
    """A name beside `path` that nothing has yet, and by which `remove_leftovers` knows what killed work has left.

    Args:
        path: Path.
        suffix: str. How the name ends.

    Returns:
        Path. Nothing is made.
    """
    return Path(path).with_name(f"{TEMPORARY}{uuid.uuid4().hex[:12]}{suffix}")


@contextlib.contextmanager
def only_one(path, message):
    """Holds a lock while the block runs, so that of several processes that ask for it only one works.

    The lock ends with its process, however that ends. Where a file system knows no locks, nobody is kept out.

    Args:
        path: Path. The file of the lock, which stays; missing parent folders are made.
        message: str. What the others are told.

    Raises:
        BlockingIOError: with `message`, at once, when another holds the lock.
        OSError: when its folder cannot be written.
    """
    make_folder(Path(path).parent)
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise BlockingIOError(message) from None
    except PermissionError:
        with _explained(Path(path).parent):
            raise
    except NotImplementedError:
        lock = contextlib.nullcontext()
    try:
        yield
    finally:
        if isinstance(lock, filelock.BaseFileLock):
            lock.release()


def remove_leftovers(folder):
    """Removes what killed work has left anywhere in a cache: temporary files and folders of ours, a week old.

    Args:
        folder: Path. The cache; need not exist.
    """
    oldest = time.time() - RESTS_KEPT_DAYS * 24 * 3600
    for rest in list(_find_leftovers(folder)):
        with contextlib.suppress(OSError):  # another process has just removed or renamed it, or it is somebody else's
            if rest.stat().st_mtime > oldest:
                continue
            if rest.is_dir():
                shutil.rmtree(rest, ignore_errors=True)
            else:
                rest.unlink()


def _find_leftovers(folder):
    """What has a temporary name of ours below a folder. Where all is whole, nobody looks."""
    for place, folders, names in os.walk(folder):
        if WHOLE in names:
            folders.clear()
            continue
        yield from (Path(place, name) for name in [*folders, *names] if name.startswith(TEMPORARY))
        folders[:] = [name for name in folders if not name.startswith(TEMPORARY)]


def _measure(folder):
    """How many files a folder holds at any depth, and how many bytes; the note of that does not count."""
    paths = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    sizes = [path.stat().st_size for path in paths if path != Path(folder) / WHOLE]
    return {"files": len(sizes), "bytes": sum(sizes)}


def _remove_at_once(folder):
    """Removes a folder so that nobody sees a half of it."""
    aside = temporary_beside(folder)
    with contextlib.suppress(FileNotFoundError):
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def _explained(folder):
    """Says of a folder that cannot be made or written which one it is, and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise
        home, rule = settings.home_folder(), "A folder in which something is kept can be written."
        if folder == home or home in folder.parents:
            rule = "The cache folder can be written; set TLHELPERS_HOME to a folder that can."
        raise OSError(error.errno, f"{rule} Received: {str(folder)!r} ({error.strerror})") from error


def is_hidden(name):
    """Whether a file or folder is hidden, or put there by a system or a program."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def walk_files(folder, *, on_error=None):
    """Yields every file below a folder, in the order of their names.

    Hidden and system files and folders are left out wherever they stand. Links are followed, but not into a folder
    that is being walked already; those that lead nowhere are passed over.

    Args:
        folder: Path.
        on_error: callable of an OSError, or None. Told of each folder that cannot be read, whose path is the error's
            `filename`; None passes such folders over.

    Yields:
        Path.
    """
    yield from _walk(os.fspath(folder), frozenset(), on_error)


def _walk(folder, outer, on_error):
    real = os.path.realpath(folder)
    if real in outer:
        return
    try:
        with os.scandir(folder) as entries:
            shown = sorted((entry for entry in entries if not is_hidden(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        if on_error is not None:
            on_error(error)
        return
    for entry in shown:
        if entry.is_dir():
            yield from _walk(entry.path, outer | {real}, on_error)
        elif entry.is_file():
            yield Path(entry.path)


def is_text(path):
    """Whether a path can be written as UTF-8, which names of files on Linux need not be."""
    try:
        os.fspath(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def shown_name(path):
    """A path as text on one line, whatever bytes are in it: what cannot be shown is escaped."""
    return "".join(sign if sign.isprintable() else _escaped(sign) for sign in os.fspath(path))


def _escaped(sign):
    if "\udc80" <= sign <= "\udcff":  # how Python holds a byte that is no UTF-8
        return f"\\x{ord(sign) - 0xDC00:02x}"
    return sign.encode("unicode_escape", "surrogatepass").decode()


def state_of_folder(folder):
    """A digest of which files a folder holds and when they were written: it changes when one of them does."""
    facts = []
    for path in walk_files(folder):
        status = path.stat()
        facts.append(f"{shown_name(path.relative_to(folder))} {status.st_size} {status.st_mtime_ns}")
    return sha256_of_text("\n".join(facts))


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
