"""Find, fetch, verify and extract what a study needs: its archive, and the weights of a backbone.

Places are asked in one order: an archive dropped into `data/`, `TLHELPERS_MIRROR`, the cache, upstream.
"""

import hashlib
import json
import shutil
import stat
import zipfile
import zlib
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from urllib.parse import urljoin, urlsplit

import pooch
import requests

from tlhelpers import drawings, files, settings

MAX_EXTRACTED_BYTES = 4 * 2**30
MAX_COMPRESSION_RATIO = 200
DOWNLOAD_TIMEOUT_SECONDS = 60
CHECKSUM_FILE = "SHA256SUMS"

pooch.get_logger().setLevel("WARNING")

WEIGHTS_URL = "https://storage.googleapis.com/tensorflow/keras-applications/"
# By how a file's name begins.
UPSTREAM_FOLDERS = {"mobilenet_v2_": "mobilenet_v2/", "efficientnetv2-": "efficientnet_v2/"}

# By what they were pretrained on, then by backbone. The `pocket` ones travel with the book.
WEIGHT_FILES = {
    "imagenet": {
        "mobilenetv2_100": "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
        "mobilenetv2_035": "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5",
        "efficientnetv2b0": "efficientnetv2-b0_notop.h5",
    },
    "pocket": {"mobilenetv2_035": "mobilenetv2_035.weights.h5"},
}

# The card beside the pocket weights says what they learned from, at what cost, and their digest.
CARD_FILE = "card.json"

# SHA-256 over the arrays of the ImageNet weights in layer order, so that the same weights are recognised in any
# container; as float32 or, where editions that store half precision are in use, as float16.
WEIGHTS_SHA256 = {
    WEIGHT_FILES["imagenet"]["mobilenetv2_100"]: "c009b1f1262c1f55420ed4f95d0f338acb97548930c6f6c8f3383b79544088a8",
    WEIGHT_FILES["imagenet"]["mobilenetv2_035"]: "cea55efc9877ca3885be4994427a90914d259e7e8d759d90f36f7bb16e1725a7",
    WEIGHT_FILES["imagenet"]["efficientnetv2b0"]: "87c5eff9c99a8069faad4810492c009bbd74954b88356795de89314b041508f2",
}
HALF_PRECISION = (WEIGHT_FILES["imagenet"]["efficientnetv2b0"],)


class MissingDataError(FileNotFoundError):
    """No source has what a study needs; the message names the ways to provide it."""


class BadArchiveError(ValueError):
    """An archive is damaged, unsafe, or not the one a study needs."""


def prepare_images(study):
    """Finds a study's archive, verifies it and extracts it once; draws the pictures of a drawn edition.

    Args:
        study: Study.

    Returns:
        Path. The folder that holds one subfolder of images per class.

    Raises:
        MissingDataError: when no source has the archive.
        BadArchiveError: when the archive is damaged, unsafe or of another study.
    """
    if study.drawn:
        return drawings.draw_study(study)
    archive = find_archive(study)
    if archive.is_dir():
        return find_image_folder(archive, study)
    destination = settings.home_folder() / "images" / study.name / files.sha256_of(archive)[:16]
    if not destination.is_dir():
        extract_archive(archive, destination, study)
    return find_image_folder(destination, study)


def find_archive(study):
    """Asks every source for a study's archive, in the order of this module's first lines.

    Args:
        study: Study.

    Returns:
        Path. A verified archive, or the folder of an already extracted one.

    Raises:
        MissingDataError: when no source has it.
        BadArchiveError: when the mirror's copy does not match its checksum.
    """
    for candidate in _dropped_archives():
        if is_archive_of(candidate, study):
            return candidate
    found = fetch_from_mirror(study.archive) or _cached_file(study.archive)
    if found:
        return found
    try:
        return _download_from_kaggle(study)
    except Exception as error:  # kagglehub raises what its HTTP library raises
        raise MissingDataError(_how_to_provide(study, error)) from error


def is_archive_of(path, study):
    """Whether a ZIP holds at least one image of every class of a study, under any file name."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [PurePosixPath(name) for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError):
        return False
    folders = {member.parent.name for member in members if member.suffix}
    return set(study.class_names) <= folders


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


def extract_archive(archive, destination, study):
    """Extracts a study's archive, safely and whole or not at all.

    Args:
        archive: Path. A ZIP file.
        destination: Path. The folder to make.
        study: Study. Must find one folder per class in the archive.

    Raises:
        BadArchiveError: when the file is no ZIP, is truncated or damaged, holds members that leave the folder,
            links or absurdly compressed data, or lacks a class of the study.
    """
    _check_is_zip(archive)
    try:
        with zipfile.ZipFile(archive) as opened, files.atomic_folder(destination) as folder:
            members = [member for member in opened.infolist() if not member.is_dir()]
            _check_members(archive, members)
            for member in files.progress(members, description=f"Extracting {archive.name}"):
                opened.extract(member, folder)
            find_image_folder(folder, study)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        if isinstance(error, MissingDataError):
            raise
        raise BadArchiveError(
            f"An archive extracts without an error; this one is truncated or damaged ({error}). "
            f"Download it again. Received: archive={str(archive)!r}"
        ) from error


def find_image_folder(folder, study):
    """The shallowest folder that holds one subfolder per class of a study.

    Args:
        folder: Path.
        study: Study.

    Returns:
        Path.

    Raises:
        BadArchiveError: when there is none; the message names the missing classes.
    """
    folder = Path(folder)
    inner = (path for path in folder.rglob("*") if path.is_dir())
    for candidate in [folder, *sorted(inner, key=lambda path: (len(path.parts), path))]:
        if all((candidate / name).is_dir() for name in study.class_names):
            return candidate
    present = {path.name for path in folder.rglob("*") if path.is_dir()}
    missing = [name for name in study.class_names if name not in present]
    raise BadArchiveError(
        f"Images of {study.title!r} stand in one folder per class: {list(study.class_names)}. "
        f"Missing: {missing}. Received: {str(folder)!r}"
    )


def find_weights(name):
    """Finds a weight file: in the book, or, asked in this order, the mirror, the cache and upstream.

    Args:
        name: str. The file name of the weights, the upstream one where they have one.

    Returns:
        Path.

    Raises:
        MissingDataError: when no source has it; the message names the ways to provide it.
        BadArchiveError: when the mirror's copy does not match its checksum.
    """
    if name in WEIGHT_FILES["pocket"].values():
        return _embedded_file(name)
    found = fetch_from_mirror(f"weights/{name}") or _cached_file(name)
    if found:
        return found
    destination = settings.home_folder() / "downloads" / name
    url = weights_url(name)
    try:
        return _download(url, destination)
    except OSError as error:
        raise MissingDataError(
            f"The ImageNet weights {name} are nowhere to be found ({error}). Provide them in one of these ways:\n"
            f"  - connect to the internet: they come from {url}\n"
            "  - set TLHELPERS_MIRROR to a folder or URL that holds them under weights/\n"
            f"  - put the file into {destination.parent}"
        ) from error


def weights_url(name):
    """Where Keras publishes a weight file."""
    folder = next(folder for prefix, folder in UPSTREAM_FOLDERS.items() if name.startswith(prefix))
    return f"{WEIGHTS_URL}{folder}{name}"


def load_backbone_weights(backbone, name):
    """Loads pretrained weights into a backbone and checks that they are the official ones, or those of the card.

    Args:
        backbone: keras.Model.
        name: str. The file name of the weights.

    Raises:
        MissingDataError: when no source has the file.
        BadArchiveError: when the file is damaged or holds other weights.
    """
    path = find_weights(name)
    try:
        backbone.load_weights(str(path))
    except (OSError, ValueError, KeyError) as error:
        raise BadArchiveError(
            f"A weight file fits its backbone and is whole ({error}). Received: {str(path)!r}"
        ) from error
    pocket = name in WEIGHT_FILES["pocket"].values()
    expected = load_card()["arrays_sha256"] if pocket else WEIGHTS_SHA256.get(name)
    received = digest_of_weights(backbone, half_precision=name in HALF_PRECISION)
    if expected is not None and received != expected:
        raise BadArchiveError(
            f"The arrays of {name} have the SHA-256 {expected}. Received: {received} from {str(path)!r}"
        )


def load_card():
    """The card of the pocket backbone: what it learned from, at what cost, and how good it is.

    Returns:
        dict, see `pretraining.write_pocket`.

    Raises:
        MissingDataError: when the book came without it.
        BadArchiveError: when it is damaged.
    """
    path = _embedded_file(CARD_FILE)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadArchiveError(
            f"The card of the pocket backbone is whole JSON ({error}). Received: {str(path)!r}"
        ) from error


def digest_of_weights(model, *, half_precision=False):
    """The SHA-256 over a model's arrays in layer order, whatever file they came from.

    Args:
        model: keras.Model.
        half_precision: bool. Whether the arrays are rounded to float16 first, so that an edition that was stored
            so is the same.

    Returns:
        str, 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for array in model.get_weights():
        digest.update(array.astype("<f2" if half_precision else "<f4").tobytes())
    return digest.hexdigest()


def _embedded_file(name):
    path = settings.pocket_folder() / name
    if not path.is_file():
        raise MissingDataError(
            "The pocket backbone and its card come with the book; clone it again, or train them with `make pocket`. "
            f"Received: no file {str(path)!r}"
        )
    return path


def _cached_file(name):
    path = settings.home_folder() / "downloads" / name
    return path if path.is_file() else None


def _download_from_kaggle(study):
    """The folder kagglehub keeps a data set in; noted down, since kagglehub itself asks the network where it is."""
    note = settings.home_folder() / "downloads" / f"kaggle-{study.name}.txt"
    if note.is_file() and (folder := Path(note.read_text(encoding="utf-8"))).is_dir():
        return folder
    import kagglehub

    folder = kagglehub.dataset_download(study.kaggle)
    files.write_text(note, folder)
    return Path(folder)


def _download_from_mirror(base, name):
    """The file from a mirror's cache or the mirror itself; None when the mirror lacks it."""
    checksum = _fetch_checksums(urljoin(base, CHECKSUM_FILE)).get(name)
    try:
        return _download(urljoin(base, name), settings.home_folder() / "downloads" / Path(name).name, checksum=checksum)
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


def _download(url, destination, *, checksum=None):
    """Fetches a URL unless its file is there already; the file appears only when whole and verified."""
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
        raise BadArchiveError(
            f"The file has the SHA-256 {checksum} in {CHECKSUM_FILE} ({error}). Received: {url!r}"
        ) from error
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


def _check_is_zip(archive):
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


def _dropped_archives():
    return [path for folder in settings.drop_folders() for path in sorted(folder.glob("*.zip"))]


def _why_refused(path, study):
    """Why a dropped archive is not the one a study needs, in a few words."""
    try:
        _check_is_zip(path)
    except BadArchiveError as error:
        return str(error).split(" Received:")[0]
    return f"it lacks some of the folders {list(study.class_names)}."


def _how_to_provide(study, error):
    refused = "".join(f"\n  {path} was not taken: {_why_refused(path, study)}" for path in _dropped_archives())
    return (
        f"{study.title}: no source has the archive {study.archive}. Provide it in one of these ways:\n"
        f"  - download it from https://www.kaggle.com/datasets/{study.kaggle} and drop the ZIP, under any name, "
        f"into {settings.data_folder()}\n"
        "  - set TLHELPERS_MIRROR to a folder or URL that holds it\n"
        "  - choose the profile 'pocket', which needs no photographs: it draws its pictures\n"
        f"  - connect to the internet, so that kagglehub can fetch it (it said: {type(error).__name__}: {error})"
        f"{refused}"
    )
