"""Find, fetch, verify and extract the images of a study.

Places are asked in one order: an archive dropped into `data/`, `TLHELPERS_MIRROR`, the cache, upstream.
"""

import importlib.util
from pathlib import Path, PurePosixPath
from urllib.parse import urljoin

from tlhelpers import files, settings
from tlhelpers.datasets import archives, downloads, layouts
from tlhelpers.datasets.downloads import MissingDataError
from tlhelpers.files import BadArchiveError
from tlhelpers.synthetic import collection


def prepare_images(study):
    """Finds and verifies a study's archives and extracts them once; generates the images of a synthetic edition.

    Args:
        study: Study.

    Returns:
        Path. The folder below which the study's places stand.

    Raises:
        MissingDataError: when no source has an archive.
        BadArchiveError: when an archive is damaged, unsafe or of another study.
    """
    if study.drawn:
        return collection.draw_study(study)
    refused = {}
    while True:
        found = find_archives(study, refused)
        if found[0].is_dir():
            return layouts.find_image_folder(found[0], study)
        try:
            return layouts.find_image_folder(_extract(found, study), study)
        except BadArchiveError as error:
            if found[0] not in _dropped_archives():
                raise
            refused[found[0]] = _why_refused(found[0], error)


def _extract(found, study):
    """The folder of what some archives hold: extracted once, and anew where some of it is gone."""
    key = files.sha256_of_text("\n".join(files.sha256_of(path) for path in found))[:16]
    destination = settings.home_folder() / "images" / key
    if not files.is_whole(destination):
        archives.extract_archives(found, destination, study)
    return destination


def find_archives(study, refused=None):
    """Asks every source for what a study comes in, in the order of this module's first lines.

    Args:
        study: Study.
        refused: dict or None. From a dropped archive that cannot be taken to the reason, in words; those are passed
            over, and what else cannot be taken is added.

    Returns:
        list of Path. The verified archives, or the one folder of what is already extracted.

    Raises:
        MissingDataError: when no source has one of them.
        BadArchiveError: when a copy does not match its checksum.
    """
    if study.folder:
        return [study.folder]
    refused = {} if refused is None else refused
    for candidate in _dropped_archives():
        if candidate in refused:
            continue
        try:
            archives.check_archive(candidate, study)
            return [candidate]
        except (BadArchiveError, OSError) as error:
            refused[candidate] = _why_refused(candidate, error)
    own = [folder / study.name for folder in settings.drop_folders() if (folder / study.name).is_dir()]
    if own:
        return own[:1]
    found = [_dropped_file(name) or downloads.find_nearby(name) for name in study.archives]
    try:
        if study.kaggle and not all(found):
            return [_download_extracted(study)]
        found = [path or _download_archive(study, name) for path, name in zip(found, study.archives, strict=True)]
    except BadArchiveError:
        raise
    except Exception as error:  # kagglehub raises what its HTTP library raises
        raise MissingDataError(_how_to_provide(study, error, refused)) from error
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
            downloads.download(study.tables.url + name, cached / name)
        except OSError as error:
            raise MissingDataError(
                f"{study.title} is split by tables, and {name} is nowhere to be found.\n"
                "Provide it in one of these ways:\n"
                f"  - connect to the internet: it comes from {study.tables.url} (it said: {error})\n"
                f"  - put it into {cached / name} or, below the folder of the images, into {Path(folder) / name}"
            ) from error
    return cached


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
    if files.is_whole(destination):
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
    url = urljoin(study.url, Path(name).name)
    return downloads.download(url, downloads.cache_path(name), checksum=study.archives[name])


def _dropped_archives():
    """The ZIP files that a reader dropped, nearest first."""
    entries = (path for folder in settings.drop_folders() for path in sorted(folder.glob("*")))
    return [path for path in entries if path.suffix.lower() == ".zip" and path.is_file()]


def _why_refused(path, error):
    """Why a dropped archive was not taken, on one line, without what the line says of the file already."""
    why = str(error).split(" Received: archive=")[0].removesuffix(f" in {str(path)!r}")
    return " ".join(why.split())


def _dropped_file(name):
    """A file that a reader dropped under its upstream name; ZIP files are recognised by their contents instead."""
    if name.endswith(".zip"):
        return None
    found = (folder / Path(name).name for folder in settings.drop_folders())
    return next((path for path in found if path.is_file()), None)


def _how_to_provide(study, error, refused):
    refused = "".join(f"\n  {path} was not taken: {why}" for path, why in refused.items())
    names = ", ".join(Path(name).name for name in study.archives)
    if study.kaggle:
        page, helper = f"https://www.kaggle.com/datasets/{study.kaggle}", "kagglehub can fetch it"
        drop = "drop the ZIP, under any name,"
    else:
        page, helper, drop = study.url, "it can be fetched", "put what is there"
    return (
        f"{study.title}: no source has the archive {names}.\n"
        "Provide it in one of these ways:\n"
        f"  - download it from {page} and {drop} into {settings.data_folder()}\n"
        "  - set TLHELPERS_MIRROR to a folder or URL that holds it\n"
        "  - choose the profile 'pocket', which needs no photographs: it generates synthetic images\n"
        f"  - connect to the internet, so that {helper} (it said: {type(error).__name__}: {error})"
        f"{refused}"
    )
