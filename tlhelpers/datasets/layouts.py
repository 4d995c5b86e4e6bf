"""Where the images of a study stand in its folder: class by class, and official part by official part."""

import collections
import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from tlhelpers import files
from tlhelpers.files import BadArchiveError

COLUMNS = ("path", "label", "part")


# The names of folders of official parts, in lower case and without the words for a folder of images.
PART_NAMES = {
    **dict.fromkeys(("train", "training", "trn", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval", "evaluation"), "validation"),
    **dict.fromkeys(("test", "testing", "tst", "holdout"), "test"),
}
FOLDER_WORDS = {"set", "data", "dataset", "images", "imgs", "pictures", "photos", "split", "part", "seg"}


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
    if study.tables:
        wanted = [study.tables.images]
    else:
        wanted = [place.of(name) for place in study.places.values() for name in study.class_names]
    for candidate in _folders_shallowest_first(folder):
        if all((candidate / name).is_dir() for name in wanted):
            return candidate
    if study.tables:
        raise BadArchiveError(f"Images of {study.title!r} stand in a folder {wanted}. Received: {str(folder)!r}")
    present = {path.name for path in _folders_shallowest_first(folder)}
    missing = [name for name in study.class_names if name not in present]
    raise BadArchiveError(
        f"Images of {study.title!r} stand in one folder per class: {wanted}. "
        f"Missing: {missing}. Received: {str(folder)!r}"
    )


def _folders_shallowest_first(folder):
    """A folder, then those inside; these are looked for only when the first is not the one that is wanted."""
    yield folder
    inner = (path for path in folder.rglob("*") if path.is_dir())
    yield from sorted(inner, key=lambda path: (len(path.parts), path))


def list_images(folder, study, *, tables_folder=None):
    """The files of a study and what each is called, in a fixed order.

    Args:
        folder: Path, as from `find_image_folder`.
        study: Study.
        tables_folder: Path or None. The folder below which a study's tables stand; None means `folder`.

    Returns:
        pandas.DataFrame with `path` (Path), `label` and `part`, by part, class and path. Hidden files are left out. A
        study with tables names one part per fold, with commas between.

    Raises:
        BadArchiveError: when a table is missing or damaged, or does not fit the others or the images.
    """
    folder = Path(folder)
    if study.tables:
        return _list_by_tables(folder, study, Path(tables_folder or folder))
    found = _files_by_folder(folder, {place.of(study.class_names[0]).count("/") + 1 for place in study.places.values()})
    rows = [
        (path, label, part)
        for part, place in study.places.items()
        for label in study.class_names
        for path in sorted(found[place.of(label)])
        if path.name.startswith(place.begins)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _files_by_folder(folder, depths):
    """The files below the folders at some depths: dict from such a folder's path below `folder` to a list of Path."""
    found = collections.defaultdict(list)
    for path in files.walk_files(folder):
        parts = path.relative_to(folder).parts
        for depth in depths:
            if len(parts) > depth:
                found["/".join(parts[:depth])].append(path)
    return found


class Layout(NamedTuple):
    """What the folders below a folder stand for.

    Args:
        folder: Path. The folder below which they stand, itself or one inside.
        class_names: tuple of str. The classes, sorted.
        folders: dict from an official part, `""` where there are none, to a dict from a class to its folder, str
            below `folder` with slashes.
    """

    folder: Path
    class_names: tuple
    folders: dict


def recognise_layout(folder):
    """Finds classes, and official parts where there are some, in a folder that nobody has described.

    Classes are subfolders. Official parts are recognised by their names, in any case, above or below the classes; a
    validation set without a test set serves as the test set. The folder may hold one more folder around them.

    Args:
        folder: Path.

    Returns:
        Layout.

    Raises:
        ValueError: when there are fewer than two classes, or parts do not hold the same classes.
    """
    layout = _layout_of(folder)
    if len(layout.class_names) < 2:
        inner = [path.name for path in _subfolders(folder)]
        below = _subfolders(folder / inner[0]) if len(inner) == 1 else []
        hint = f" Below it stand {_shown(below)}: is that the folder?" if len(below) > 1 else ""
        raise ValueError(
            "A folder of images holds at least two subfolders, one for each class. "
            f"Received: {files.shown_name(folder)!r} with the subfolders {_shown(_subfolders(folder))}.{hint}"
        )
    return layout


def _layout_of(folder):
    inner = _subfolders(folder)
    if len(inner) == 1 and not _part_of(inner[0]) and any(map(_part_of, _subfolders(inner[0]))):
        return _layout_of(inner[0])
    parts = [path for path in inner if _part_of(path) and _subfolders(path)]
    if parts:
        return _layout_of_parts(folder, inner)
    if inner and all(map(_part_of, inner)):
        raise ValueError(
            "The folders of official parts hold one subfolder for each class; name the folders of classes otherwise. "
            f"Received: {files.shown_name(folder)!r} with the subfolders {_shown(inner)} and none below them"
        )
    below = {path: _subfolders(path) for path in inner}
    if inner and all(found and all(map(_part_of, found)) for found in below.values()):
        return _check_parts(folder, [(part, path) for path in inner for part in below[path]])
    return _as_layout(folder, {"": {_class_name(path): path for path in _without_twins(inner)}})


def _layout_of_parts(folder, inner):
    others = [path for path in inner if not (_part_of(path) and _subfolders(path))]
    if others:
        raise ValueError(
            "A folder holds classes, or official parts (train, validation, test) that hold the classes, and not both. "
            "Move away or rename what is neither, or give the folder of one part. "
            f"Received: {files.shown_name(folder)!r} with {_shown(sorted(set(inner) - set(others)))} beside "
            f"{_shown(others)}, which hold no classes"
        )
    return _check_parts(folder, [(path, label) for path in inner for label in _subfolders(_innermost(path))])


def _check_parts(folder, found):
    """The layout of pairs of a part's folder and a class's folder, of which one stands in the other."""
    folders = collections.defaultdict(dict)
    for part, label in found:
        place = max(part, label, key=lambda path: len(path.parts))
        name, kind = _class_name(label), _part_of(part)
        if name in folders[kind]:
            raise ValueError(
                "A part has one folder for each class. "
                f"Received: {_shown([folders[kind][name], place], folder)} for the class {name!r} of the part {kind!r}"
            )
        folders[kind][name] = place
    names = {name for inner in folders.values() for name in inner}
    missing = {part: sorted(names - set(inner)) for part, inner in folders.items() if names - set(inner)}
    if missing:
        raise ValueError(
            "Every official part holds every class, under the same name. "
            f"Missing: {missing}. Received: {files.shown_name(folder)!r} with the classes {sorted(names)}"
        )
    if "train" not in folders:
        raise ValueError(
            "Among official parts is one for training, such as 'train'. "
            f"Received: {files.shown_name(folder)!r} with {sorted(folders)}"
        )
    if set(folders) == {"train"}:
        return _as_layout(folder, {"": folders["train"]})
    if "test" not in folders:
        folders["test"] = folders.pop("validation")
    return _as_layout(folder, {part: folders[part] for part in ("train", "validation", "test") if part in folders})


def _as_layout(folder, folders):
    names = tuple(sorted(next(iter(folders.values()))))
    inner = {
        part: {name: path.relative_to(folder).as_posix() for name, path in found.items()}
        for part, found in folders.items()
    }
    return Layout(folder, names, inner)


def _subfolders(folder):
    """The folders in a folder, sorted, hidden ones left out."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not files.is_hidden(path.name))
    except PermissionError as error:
        raise PermissionError(
            error.errno, f"Each folder of images can be read. Received: {files.shown_name(folder)!r} ({error.strerror})"
        ) from error


def _innermost(part):
    """A part's folder, or the one of the same part that it holds alone, as archives are packed."""
    inner = _subfolders(part)
    return _innermost(inner[0]) if len(inner) == 1 and _part_of(inner[0]) == _part_of(part) else part


def _part_of(path):
    """The official part that a folder's name stands for, or None."""
    words = [word for word in re.split(r"[^a-z]+", path.name.lower()) if word and word not in FOLDER_WORDS]
    return PART_NAMES.get(words[0]) if len(words) == 1 else None


def _class_name(path):
    """A class's name: text in one form of Unicode, with what cannot be shown escaped."""
    return unicodedata.normalize("NFC", files.shown_name(path.name))


def _without_twins(paths):
    """The same folders, of which no two have names that look the same."""
    counted = collections.Counter(map(_class_name, paths))
    twins = [name for name, count in counted.items() if count > 1]
    if twins:
        raise ValueError(f"Classes have different names. Received: several folders that are all called {twins}")
    return paths


def _shown(paths, folder=None):
    return [files.shown_name(path.relative_to(folder) if folder else path.name) for path in paths]


def missing_tables(folder, tables):
    """The tables of a study that a folder lacks, as paths relative to it."""
    wanted = [tables.pattern.format(part=part, fold=fold) for fold in range(tables.folds) for part in tables.parts]
    return [name for name in wanted if not (Path(folder) / name).is_file()]


def _list_by_tables(folder, study, tables_folder):
    tables = study.tables
    missing = missing_tables(tables_folder, tables)
    if missing:
        raise BadArchiveError(
            f"{study.title} is split by the tables {tables.pattern}. Missing: {missing}. "
            f"Received: {str(tables_folder)!r}"
        )
    folds = pd.concat([_read_fold(tables_folder, study, fold) for fold in range(tables.folds)], axis=1)
    parts, labels = folds["part"], folds["label"]
    _check_folds(parts, labels, tables)
    listed = pd.DataFrame({"path": [folder / tables.images / name for name in folds.index]})
    listed["label"] = labels.iloc[:, 0].to_numpy()
    listed["part"] = parts.agg(",".join, axis=1).to_numpy()
    absent = [path.name for path in listed["path"] if not path.is_file()]
    if absent:
        raise BadArchiveError(
            f"Every image that a table names is there. Missing: {len(absent)} of {len(listed)}, such as {absent[:3]}. "
            f"Received: {str(folder / tables.images)!r}"
        )
    order = {name: index for index, name in enumerate(study.class_names)}
    return listed.sort_values(
        ["label", "path"], key=lambda column: column.map(order) if column.name == "label" else column
    )


def _read_fold(folder, study, fold):
    """One fold's `part` and `label` by file name; each file stands in one part."""
    tables = study.tables
    frames = [
        _read_table(folder / tables.pattern.format(part=part, fold=fold), study).assign(part=ours)
        for part, ours in tables.parts.items()
    ]
    frame = pd.concat(frames)
    twice = frame.index[frame.index.duplicated()].unique()
    if len(twice):
        raise BadArchiveError(
            f"A fold has each image in one of its parts. Received: {len(twice)} in several of fold {fold}, "
            f"such as {list(twice[:3])}"
        )
    return frame.sort_index()


def _read_table(path, study):
    tables = study.tables
    try:
        table = pd.read_csv(path, dtype=str)
    except (ValueError, OSError) as error:  # pandas' own errors are ValueErrors
        raise BadArchiveError(f"A table is a CSV file ({error}). Received: {str(path)!r}") from error
    columns = [tables.name_column, tables.label_column]
    if not set(columns) <= set(table.columns):
        raise BadArchiveError(f"A table has the columns {columns}. Received: {list(table.columns)} in {str(path)!r}")
    labels = table[tables.label_column].map({str(index): name for index, name in enumerate(study.label_names)})
    if labels.isna().any():
        unknown = sorted(set(table.loc[labels.isna(), tables.label_column].fillna("nothing")))
        raise BadArchiveError(
            f"A label is between 0 and {len(study.label_names) - 1}. Received: {unknown} in {str(path)!r}"
        )
    return pd.DataFrame({"label": labels.to_numpy()}, index=table[tables.name_column].to_numpy())


def _check_folds(parts, labels, tables):
    """All folds speak of the same images, agree on their labels, and test each once."""
    strangers = parts.index[parts.isna().any(axis=1)]
    if len(strangers):
        raise BadArchiveError(f"Every fold has every image. Received: {list(strangers[:3])} in some folds only")
    differing = labels.index[labels.ne(labels.iloc[:, 0], axis=0).any(axis=1)]
    if len(differing):
        raise BadArchiveError(f"An image has one label. Received: {list(differing[:3])} with several")
    tested = (parts == "test").sum(axis=1)
    if (tested != 1).any():
        wrong = tested[tested != 1]
        raise BadArchiveError(
            f"The {tables.folds} folds test each image once. "
            f"Received: {wrong.index[0]!r} tested {wrong.iloc[0]} times, and {len(wrong) - 1} more"
        )
