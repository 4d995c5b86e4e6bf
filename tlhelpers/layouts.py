"""Where the images of a study stand in its folder: class by class, and official part by official part."""

from pathlib import Path

import pandas as pd

COLUMNS = ("path", "label", "part")


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
    if study.tables:
        wanted = [study.tables.images]
    else:
        wanted = [place.folder.format(label=name) for place in study.places.values() for name in study.class_names]
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
    rows = [
        (path, label, part)
        for part, place in study.places.items()
        for label in study.class_names
        for path in sorted((folder / place.folder.format(label=label)).rglob(f"{place.begins}*"))
        if path.is_file() and not path.name.startswith(".")
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


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
