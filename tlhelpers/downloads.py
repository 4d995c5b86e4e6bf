"""One file from outside, verified: from a mirror, the cache of downloads, or a URL."""

from http import HTTPStatus
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pooch
import requests

from tlhelpers import files, settings
from tlhelpers.layouts import BadArchiveError

DOWNLOAD_TIMEOUT_SECONDS = 60
CHECKSUM_FILE = "SHA256SUMS"

pooch.get_logger().setLevel("WARNING")


class MissingDataError(FileNotFoundError):
    """No source has what a study needs; the message names the ways to provide it."""


def find_nearby(name):
    """A file from the mirror or, where that lacks it, from the cache; None when neither has it.

    Args:
        name: str. Path inside the mirror; the cache keeps files under their last part.

    Returns:
        Path or None.

    Raises:
        MissingDataError, BadArchiveError: as `fetch_from_mirror`.
    """
    if found := fetch_from_mirror(name):
        return found
    path = cache_path(name)
    return path if path.is_file() else None


def fetch_from_mirror(name):
    """Fetches a file from `TLHELPERS_MIRROR` and checks it against the mirror's `SHA256SUMS`.

    Args:
        name: str. Path inside the mirror, such as `"flowers-recognition.zip"`.

    Returns:
        Path, or None when no mirror is set or it lacks the file.

    Raises:
        MissingDataError: when the mirror does not exist, does not answer or breaks off.
        BadArchiveError: when the checksum differs.
    """
    mirror = settings.mirror()
    if mirror is None:
        return None
    if urlsplit(mirror).scheme in ("http", "https"):
        try:
            return _download_from_mirror(mirror.rstrip("/") + "/", name)
        except OSError as error:
            raise MissingDataError(
                f"A mirror answers and sends whole files ({error}). Received: TLHELPERS_MIRROR={mirror!r}"
            ) from error
    folder = Path(mirror).expanduser()
    if not folder.is_dir():
        raise MissingDataError(
            f"TLHELPERS_MIRROR is an existing folder or an http(s) URL. Received: TLHELPERS_MIRROR={mirror!r}"
        )
    path = folder / name
    if not path.is_file():
        return None
    checksums = folder / CHECKSUM_FILE
    if checksums.is_file():
        _check_checksum(path, _parse_checksums(checksums.read_text(encoding="utf-8")).get(name))
    return path


def cache_path(name):
    """Where the cache keeps a file that a mirror or upstream calls so."""
    return settings.home_folder() / "downloads" / Path(name).name


def _download_from_mirror(base, name):
    """The file from a mirror's cache or the mirror itself; None when the mirror lacks it."""
    checksum = _fetch_checksums(urljoin(base, CHECKSUM_FILE)).get(name)
    try:
        return download(urljoin(base, name), cache_path(name), checksum=checksum)
    except requests.HTTPError as error:
        if error.response.status_code == HTTPStatus.NOT_FOUND:
            return None
        raise


def _fetch_checksums(url):
    """A mirror's checksums; none when it has no such file, for then the contents are checked later."""
    response = requests.get(url, timeout=DOWNLOAD_TIMEOUT_SECONDS)
    if response.status_code == HTTPStatus.NOT_FOUND:
        return {}
    response.raise_for_status()
    return _parse_checksums(response.text)


def download(url, destination, *, checksum=None):
    """Fetches a URL unless its file is there already; the file appears only when whole and verified.

    Args:
        url: str.
        destination: Path.
        checksum: str or None. The file's SHA-256.

    Returns:
        Path. The file.

    Raises:
        BadArchiveError: when the checksum differs.
        OSError: when the server does not answer, refuses or breaks off.
    """
    # A bar needs some total to count as one; pooch sets the true one.
    bar = files.progress(None, description=f"Fetching {destination.name}", total=1, unit="B", unit_scale=True)
    try:
        path = pooch.retrieve(
            url,
            known_hash=checksum and f"sha256:{checksum}",
            fname=destination.name,
            path=destination.parent,
            downloader=pooch.HTTPDownloader(progressbar=bar, timeout=DOWNLOAD_TIMEOUT_SECONDS),
        )
    except ValueError as error:
        raise BadArchiveError(f"The file has the SHA-256 {checksum} ({error}). Received: {url!r}") from error
    return Path(path)


def _check_checksum(path, expected):
    received = files.sha256_of(path) if expected else None
    if received != expected:
        raise BadArchiveError(
            f"The file has the SHA-256 {expected} in {CHECKSUM_FILE}. Received: {received} for {str(path)!r}"
        )


def _parse_checksums(text):
    lines = (line.split(maxsplit=1) for line in text.splitlines())
    pairs = (line for line in lines if len(line) == 2)
    return {name.strip().lstrip("*").removeprefix("./"): digest.lower() for digest, name in pairs}
