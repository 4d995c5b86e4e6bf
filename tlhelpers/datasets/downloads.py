"""One file from outside, verified: from a mirror, the cache of downloads, or a URL."""

import re
import tempfile
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pooch
import requests

from tlhelpers import files, settings
from tlhelpers.files import BadArchiveError

DOWNLOAD_TIMEOUT_SECONDS = 60
CHECKSUM_FILE = "SHA256SUMS"
# Its lines, as `sha256sum` writes them, and as it does with `--tag`.
CHECKSUM_LINES = (
    r"(?P<digest>[0-9a-fA-F]{64})[ \t]+\*?(?P<name>.+)",
    r"SHA256 \((?P<name>.+)\) = (?P<digest>[0-9a-fA-F]{64})",
)

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
        BadArchiveError: when the checksum differs, or the mirror lists checksums and none of this file.
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
        expected = _find_checksum(_parse_checksums(checksums.read_bytes()), name, checksums)
        if (received := files.sha256_of(path)) != expected:
            raise BadArchiveError(
                f"The file has the SHA-256 {expected} in {CHECKSUM_FILE}. Received: {received} for {str(path)!r}"
            )
    return path


def cache_path(name):
    """Where the cache keeps a file that a mirror or upstream calls so."""
    return settings.home_folder() / "downloads" / Path(name).name


def _download_from_mirror(base, name):
    """The file from a mirror's cache or the mirror itself; None when the mirror lacks it."""
    list_url, url = urljoin(base, CHECKSUM_FILE), urljoin(base, name)
    checksums = _fetch_checksums(list_url)
    try:
        if checksums is None:
            return download(url, cache_path(name))
        if name not in checksums:
            with requests.get(url, timeout=DOWNLOAD_TIMEOUT_SECONDS, stream=True) as response:
                response.raise_for_status()
        return download(url, cache_path(name), checksum=_find_checksum(checksums, name, list_url))
    except requests.HTTPError as error:
        if error.response.status_code == HTTPStatus.NOT_FOUND:
            return None
        raise


def _fetch_checksums(url):
    """A mirror's checksums; None when it has no such file, for then the contents are checked later."""
    response = requests.get(url, timeout=DOWNLOAD_TIMEOUT_SECONDS)
    if response.status_code == HTTPStatus.NOT_FOUND:
        return None
    response.raise_for_status()
    return _parse_checksums(response.content)


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
    if destination.is_file() and (checksum is None or files.sha256_of(destination) == checksum):
        return destination
    files.make_folder(destination.parent)
    # A bar needs some total to count as one; pooch sets the true one.
    bar = files.progress(None, description=f"Fetching {destination.name}", total=1, unit="B", unit_scale=True)
    try:
        # What pooch writes meanwhile has a name that anybody's file could have, so it stands in a folder of ours.
        with tempfile.TemporaryDirectory(prefix=files.TEMPORARY, dir=destination.parent) as folder:
            path = pooch.retrieve(
                url,
                known_hash=checksum and f"sha256:{checksum}",
                fname=destination.name,
                path=folder,
                downloader=pooch.HTTPDownloader(progressbar=bar, timeout=DOWNLOAD_TIMEOUT_SECONDS),
            )
            return Path(path).replace(destination)
    except ValueError as error:
        raise BadArchiveError(f"The file has the SHA-256 {checksum} ({error}). Received: {url!r}") from error


def _find_checksum(checksums, name, source):
    if name not in checksums:
        raise BadArchiveError(
            f"A mirror that has a {CHECKSUM_FILE} lists all its files in it. Received: no line for {name!r} "
            f"in {str(source)!r}"
        )
    return checksums[name]


def _parse_checksums(content):
    """The checksums in the bytes of a list, by name; what is no line of such a list is passed over."""
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    lines = content.decode(encoding, errors="replace").splitlines()
    matches = [match for line in lines for form in CHECKSUM_LINES if (match := re.fullmatch(form, line.strip()))]
    return {match["name"].removeprefix("./"): match["digest"].lower() for match in matches}
