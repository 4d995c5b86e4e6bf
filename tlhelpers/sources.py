"""Find, fetch, verify and extract what a study needs: its archive, and the weights of a backbone.

Places are asked in one order: an archive dropped into `data/`, `TLHELPERS_MIRROR`, the cache, upstream.
"""

import hashlib
import importlib.util
import json
import zipfile
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from urllib.parse import urljoin, urlsplit

import pooch
import requests

from tlhelpers import archives, drawings, files, layouts, settings
from tlhelpers.layouts import BadArchiveError

DOWNLOAD_TIMEOUT_SECONDS = 60
CHECKSUM_FILE = "SHA256SUMS"

pooch.get_logger().setLevel("WARNING")

WEIGHTS_URL = "https://storage.googleapis.com/tensorflow/keras-applications/"
# By how a file's name begins.
UPSTREAM_FOLDERS = {"mobilenet_v2_": "mobilenet_v2/", "efficientnetv2-": "efficientnet_v2/", "resnet50_": "resnet/"}

# By what they were pretrained on, then by backbone. The `pocket` ones travel with the book.
WEIGHT_FILES = {
    "imagenet": {
        "mobilenetv2_100": "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
        "mobilenetv2_035": "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5",
        "efficientnetv2b0": "efficientnetv2-b0_notop.h5",
        "resnet18": "resnet_18_imagenet",
        "resnet50": "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
    },
    "pocket": {"mobilenetv2_035": "mobilenetv2_035.weights.h5"},
}

# Weights that keras-hub keeps under a name of its own.
PRESETS = (WEIGHT_FILES["imagenet"]["resnet18"],)

# The card beside the pocket weights says what they learned from, at what cost, and their digest.
CARD_FILE = "card.json"

# SHA-256 over the arrays of the ImageNet weights in layer order, so that the same weights are recognised in any
# container; as float32 or, where editions that store half precision are in use, as float16.
WEIGHTS_SHA256 = {
    WEIGHT_FILES["imagenet"]["mobilenetv2_100"]: "c009b1f1262c1f55420ed4f95d0f338acb97548930c6f6c8f3383b79544088a8",
    WEIGHT_FILES["imagenet"]["mobilenetv2_035"]: "cea55efc9877ca3885be4994427a90914d259e7e8d759d90f36f7bb16e1725a7",
    WEIGHT_FILES["imagenet"]["efficientnetv2b0"]: "87c5eff9c99a8069faad4810492c009bbd74954b88356795de89314b041508f2",
}
# Where only the makers' checksum of the file is known.
WEIGHTS_MD5 = {WEIGHT_FILES["imagenet"]["resnet50"]: "4d473c1dd8becc155b73f8504c6f6626"}
HALF_PRECISION = (WEIGHT_FILES["imagenet"]["efficientnetv2b0"],)


class MissingDataError(FileNotFoundError):
    """No source has what a study needs; the message names the ways to provide it."""


def prepare_images(study):
    """Finds what a study's images come in, verifies it and extracts it once; draws the pictures of a drawn edition.

    Args:
        study: Study.

    Returns:
        Path. The folder below which the study's places stand.

    Raises:
        MissingDataError: when no source has an archive.
        BadArchiveError: when an archive is damaged, unsafe or of another study.
    """
    if study.drawn:
        return drawings.draw_study(study)
    found = find_archives(study)
    if found[0].is_dir():
        return layouts.find_image_folder(found[0], study)
    key = files.sha256_of_text("\n".join(files.sha256_of(path) for path in found))[:16]
    destination = settings.home_folder() / "images" / key
    if not destination.is_dir():
        archives.extract_archives(found, destination, study)
    return layouts.find_image_folder(destination, study)


def find_archives(study):
    """Asks every source for what a study comes in, in the order of this module's first lines.

    Args:
        study: Study.

    Returns:
        list of Path. The verified archives, or the one folder of what is already extracted.

    Raises:
        MissingDataError: when no source has one of them.
        BadArchiveError: when a copy does not match its checksum.
    """
    for candidate in _dropped_archives():
        if is_archive_of(candidate, study):
            return [candidate]
    own = [folder / study.name for folder in settings.drop_folders() if (folder / study.name).is_dir()]
    if own:
        return own[:1]
    found = [_dropped_file(name) or fetch_from_mirror(name) or _cached_file(name) for name in study.archives]
    try:
        if study.kaggle and not all(found):
            return [_download_extracted(study)]
        found = [path or _download_archive(study, name) for path, name in zip(found, study.archives, strict=True)]
    except Exception as error:  # kagglehub raises what its HTTP library raises
        raise MissingDataError(_how_to_provide(study, error)) from error
    for path, (name, checksum) in zip(found, study.archives.items(), strict=True):
        if checksum and files.sha256_of(path) != checksum:
            raise BadArchiveError(f"{name} has the SHA-256 {checksum}. Received: {str(path)!r}, which is another file")
    return found


def find_tables(study, folder):
    """Finds the tables of a study that has some: beside its images, or, one by one, dropped, in the cache or upstream.

    Args:
        study: Study.
        folder: Path. Where its images are.

    Returns:
        Path. The folder below which they stand, or None where a study has no tables.

    Raises:
        MissingDataError: when no source has one of them.
    """
    if study.tables is None or not layouts.missing_tables(folder, study.tables):
        return study.tables and Path(folder)
    cached = settings.home_folder() / "tables" / study.name
    for name in layouts.missing_tables(cached, study.tables):
        try:
            _download(study.tables.url + name, cached / name)
        except OSError as error:
            raise MissingDataError(
                f"{study.title} is split by tables, and {name} is nowhere to be found ({error}). Provide it in one of "
                f"these ways:\n  - connect to the internet: it comes from {study.tables.url}\n"
                f"  - put it into {cached / name} or, below the folder of the images, into {Path(folder) / name}"
            ) from error
    return cached


def is_archive_of(path, study):
    """Whether a ZIP holds at least one image of every class of a study, under any file name."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [PurePosixPath(name) for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError):
        return False
    folders = {member.parent.name for member in members if member.suffix}
    if study.tables:
        tables = {Path(study.tables.pattern.format(part=part, fold=0)).name for part in study.tables.parts}
        return study.tables.images in folders and tables <= {member.name for member in members}
    if study.pixel_table and study.pixel_table.name in {member.name for member in members}:
        return True
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
    destination = _cache_path(name)
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
    if name in PRESETS:
        _load_preset(backbone, name)
        return
    path = find_weights(name)
    if name in WEIGHTS_MD5 and (md5 := files.digest_of(path, "md5")) != WEIGHTS_MD5[name]:
        raise BadArchiveError(f"{name} has the MD5 {WEIGHTS_MD5[name]}. Received: {md5} for {str(path)!r}")
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


def _load_preset(backbone, name):
    """Takes over the weights of a ResNet preset; keras-hub fetches, verifies and caches them."""
    try:
        import keras_hub

        preset = keras_hub.models.ResNetBackbone.from_preset(name)
    except Exception as error:  # keras-hub raises what its HTTP library raises
        raise MissingDataError(
            f"The weights of the preset {name} are nowhere to be found ({error}). They come through keras-hub: "
            "install it (`pip install keras-hub`) and connect to the internet"
        ) from error
    backbone.set_weights(preset.get_weights())


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


def _cache_path(name):
    """Where the cache keeps a file that a mirror or upstream calls so."""
    return settings.home_folder() / "downloads" / Path(name).name


def _cached_file(name):
    path = _cache_path(name)
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


def _download_extracted(study):
    """The folder of a data set that its publisher extracts, or, where that fails, from TensorFlow Datasets."""
    try:
        return _download_from_kaggle(study)
    except Exception:
        if study.tfds is None or importlib.util.find_spec("tensorflow_datasets") is None:
            raise
        return _export_from_tfds(study)


def _export_from_tfds(study):
    """Writes the images of a data set in TensorFlow Datasets into a folder, as they were, under their own names."""
    destination = settings.home_folder() / "images" / f"{study.name}-tfds"
    if destination.is_dir():
        return destination
    import tensorflow_datasets

    builder = tensorflow_datasets.builder(study.tfds)
    builder.download_and_prepare()
    decoders = {"image": tensorflow_datasets.decode.SkipDecoding()}
    with files.atomic_folder(destination) as folder:
        (folder / study.tables.images).mkdir()
        for example in tensorflow_datasets.as_numpy(builder.as_dataset(split="train", decoders=decoders)):
            name = PurePosixPath(example["image/filename"].decode()).name
            (folder / study.tables.images / name).write_bytes(example["image"])
    return destination


def _download_archive(study, name):
    """A file of a study from where its makers publish it."""
    return _download(urljoin(study.url, Path(name).name), _cache_path(name), checksum=study.archives[name])


def _download_from_mirror(base, name):
    """The file from a mirror's cache or the mirror itself; None when the mirror lacks it."""
    checksum = _fetch_checksums(urljoin(base, CHECKSUM_FILE)).get(name)
    try:
        return _download(urljoin(base, name), _cache_path(name), checksum=checksum)
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


def _dropped_archives():
    return [path for folder in settings.drop_folders() for path in sorted(folder.glob("*.zip"))]


def _why_refused(path, study):
    """Why a dropped archive is not the one a study needs, in a few words."""
    try:
        archives.check_is_zip(path)
    except BadArchiveError as error:
        return str(error).split(" Received:")[0]
    return f"it lacks some of the folders {list(study.class_names)}."


def _dropped_file(name):
    """A file that a reader dropped under its upstream name; ZIP files are recognised by their contents instead."""
    if name.endswith(".zip"):
        return None
    found = (folder / Path(name).name for folder in settings.drop_folders())
    return next((path for path in found if path.is_file()), None)


def _how_to_provide(study, error):
    refused = "".join(f"\n  {path} was not taken: {_why_refused(path, study)}" for path in _dropped_archives())
    names = ", ".join(Path(name).name for name in study.archives)
    if study.kaggle:
        page, helper = f"https://www.kaggle.com/datasets/{study.kaggle}", "kagglehub can fetch it"
        drop = "drop the ZIP, under any name,"
    else:
        page, helper, drop = study.url, "it can be fetched", "put what is there"
    return (
        f"{study.title}: no source has the archive {names}. Provide it in one of these ways:\n"
        f"  - download it from {page} and {drop} into {settings.data_folder()}\n"
        "  - set TLHELPERS_MIRROR to a folder or URL that holds it\n"
        "  - choose the profile 'pocket', which needs no photographs: it draws its pictures\n"
        f"  - connect to the internet, so that {helper} (it said: {type(error).__name__}: {error})"
        f"{refused}"
    )
