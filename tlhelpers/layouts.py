"""Where the images of a study stand in its folder: class by class, and official part by official part."""

from pathlib import Path

import pandas as pd


class BadArchiveError(ValueError):
    """An archive is damaged, unsafe, or not the one a study needs."""


def find_image_folder(folder, study):
    """The shallowest folder that holds, for every official part of a study, one subfolder per class.

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
    wanted = [place.folder.format(label=name) for place in study.places.values() for name in study.class_names]
    for candidate in [folder, *sorted(inner, key=lambda path: (len(path.parts), path))]:
        if all((candidate / name).is_dir() for name in wanted):
            return candidate
    present = {path.name for path in folder.rglob("*") if path.is_dir()}
    missing = [name for name in study.class_names if name not in present]
    raise BadArchiveError(
        f"Images of {study.title!r} stand in one folder per class: {wanted}. "
        f"Missing: {missing}. Received: {str(folder)!r}"
    )


def list_images(folder, class_names, places):
    """The files of a study and what each is called, in a fixed order.

    Args:
        folder: Path, as from `find_image_folder`.
        class_names: sequence of str.
        places: dict from an official part to a Place, see `Study`.

    Returns:
        pandas.DataFrame with `path` (Path), `label` and `part`, by part, class and path. Hidden files are left out.
    """
    rows = [
        (path, label, part)
        for part, place in places.items()
        for label in class_names
        for path in sorted((Path(folder) / place.folder.format(label=label)).rglob(f"{place.begins}*"))
        if path.is_file() and not path.name.startswith(".")
    ]
    return pd.DataFrame(rows, columns=["path", "label", "part"])
