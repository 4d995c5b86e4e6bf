"""Training, validation and test sets: the protocols that split the images of a manifest."""

import numpy as np
import pandas as pd
import sklearn
from sklearn.model_selection import StratifiedGroupKFold, StratifiedShuffleSplit, train_test_split

from tlhelpers import files, inputs, settings
from tlhelpers.datasets import manifest

FOLDS = 5
VALIDATION_SHARE = 0.1
SPLIT_SEED = 0
LEFT_OUT = "left out"
SPLITS = ("train", "validation", "test")
PROTOCOLS = ("published", "careful")
USABLE = {"published": manifest.READABLE, "careful": ("ok", "converted")}


def split_manifest(manifest, study, *, protocol="careful", seed=0):
    """Assigns the usable images of a manifest to training, validation and test.

    `published` follows the source: a stratified fifth of all readable files, duplicates or not, is the test set; the
    source validates on its test set, so there is no separate validation set.
    `careful` keeps duplicates together and leaves out images filed under two classes: fold `seed` of five is the
    test set, and a tenth of all images is cut from the other folds as the validation set.
    Of most synthetic images, the fifth or the fold is the training set and the remaining images are the test set, see
    `Study.fold_part`.

    Where a study has official parts, these are the splits. A missing validation set is cut from the training set at
    random, seeded by `seed`; `published` does so only where the source did. `careful` then leaves out validation
    images with a duplicate in the training set, and test images with a duplicate in either.

    Args:
        manifest: pandas.DataFrame, as from `load_manifest`.
        study: Study.
        protocol: str. `"published"` or `"careful"`.
        seed: int. `published`: seeds the shuffle. `careful`: the fold, 0 to 4. Official parts: seeds the cut.

    Returns:
        pandas.DataFrame. The usable rows of `manifest` with `target` (int, index of the class) and `split`
        (`"train"`, `"validation"` or `"test"`) beside the other columns.

    Raises:
        ValueError: when the protocol is unknown or there is no such fold.
    """
    check_protocol(protocol, seed, study)
    usable = manifest[manifest["verdict"].isin(USABLE[protocol])].reset_index(drop=True)
    usable["target"] = usable["label"].map({name: i for i, name in enumerate(study.class_names)})
    if usable["part"].any():
        return _official_split(usable, study, protocol, seed)
    split = _published_split if protocol == "published" else _careful_split
    return usable.assign(split=split(usable, study, seed))


def check_protocol(protocol, seed, study=None):
    """Raises a ValueError when there is no such protocol, a study is not split by it, or `careful` has no such fold."""
    if protocol not in PROTOCOLS:
        raise ValueError(f"A protocol is one of {list(PROTOCOLS)}. Received: protocol={protocol!r}")
    if protocol == "published" and study is not None and study.folder:
        raise ValueError(
            f"Your own images have no published split: their protocol is 'careful'. Received: protocol={protocol!r}"
        )
    inputs.check_whole(seed, name="seed")
    if seed < 0 or (protocol == "careful" and seed >= FOLDS):
        raise ValueError(
            f"A seed is 0 or more; the careful protocol has the folds 0 to {FOLDS - 1}. Received: seed={seed}"
        )


def rows_of(table, split):
    """The rows of one split.

    Args:
        table: pandas.DataFrame, as from `split_manifest`.
        split: str. `"train"`, `"validation"` or `"test"`. Where a protocol has no validation set, as
            `published`, its test set stands in, as in the source.

    Returns:
        pandas.DataFrame.

    Raises:
        ValueError: when there is no such split.
    """
    if split not in SPLITS:
        raise ValueError(f"A split is one of {list(SPLITS)}. Received: split={split!r}")
    if split == "validation" and not (table["split"] == "validation").any():
        split = "test"
    return table[table["split"] == split]


def limit_per_class(table, per_class, *, seed=0):
    """Keeps a few training images of each class: the first of a shuffle, so that a smaller set is part of a larger.

    Args:
        table: pandas.DataFrame, as from `split_manifest`.
        per_class: int.
        seed: int. Seeds the shuffle.

    Returns:
        pandas.DataFrame. The rows of the other splits stay.

    Raises:
        ValueError: when some class has fewer training images.
    """
    train = table[table["split"] == "train"].sample(frac=1, random_state=seed)
    smallest = train["label"].value_counts().reindex(table["label"].unique(), fill_value=0).min()
    inputs.check_whole(per_class, name="per_class")
    if not 1 <= per_class <= smallest:
        raise ValueError(f"A class has between 1 and {smallest} training images here. Received: per_class={per_class}")
    few = train.groupby("label").head(per_class)
    return pd.concat([few, table[table["split"] != "train"]]).sort_index()


def count_leaks(table):
    """How many test images have a duplicate among the training images.

    Args:
        table: pandas.DataFrame, as from `split_manifest`.

    Returns:
        int.
    """
    train_groups = set(table.loc[table["split"] == "train", "group"])
    return int(table.loc[table["split"] == "test", "group"].isin(train_groups).sum())


def _published_split(usable, study, seed):
    published = len(usable) == study.published_count
    count = study.published_test_count if published else round(len(usable) / FOLDS)
    splitter = StratifiedShuffleSplit(1, test_size=count, random_state=seed)
    _, fold = next(splitter.split(usable, usable["target"]))
    split = np.full(len(usable), _other_part(study), dtype=object)
    split[fold] = study.fold_part
    return split


def _careful_split(usable, study, seed):
    groups = usable.groupby("label")["group"].nunique().reindex(study.class_names, fill_value=0)
    if groups.min() < FOLDS:
        raise ValueError(
            f"The careful protocol needs at least {FOLDS} different images of every class. "
            f"Received: {groups.min()} of {groups.idxmin()!r}{_describe_groups(usable, groups.idxmin())}"
        )
    target, group = usable["target"].to_numpy(), usable["group"].to_numpy()
    fold = _share_out(target, group, FOLDS, SPLIT_SEED)
    rest = np.flatnonzero(fold != seed)
    parts = round(len(rest) / (VALIDATION_SHARE * len(usable)))
    parts = min(parts, np.bincount(target[rest]).max())  # a few images per class give no eight parts
    part = _share_out(target[rest], group[rest], parts, SPLIT_SEED + seed)
    split = np.full(len(usable), _other_part(study), dtype=object)
    split[fold == seed] = study.fold_part
    split[rest[part == 0]] = "validation"
    if _is_fair(split, target):
        return split
    split = _spread_groups(target, group, seed, study)
    if not _is_fair(split, target):
        counts = [np.bincount(group[target == index]).max() for index in range(study.num_classes)]
        name = study.class_names[int(np.argmax(counts))]
        raise ValueError(
            "Every set holds every class, and only the largest set holds more than half of one; images that look the "
            f"same are in one set. Received: groups that cannot be spread{_describe_groups(usable, name)}"
        )
    return split


def _is_fair(split, target):
    """Whether each set holds each class, and each but the largest holds at most half of any class."""
    counts = pd.crosstab(split, target).reindex(SPLITS, fill_value=0)
    largest = counts.sum(axis=1).idxmax()
    held = counts.drop(index=largest).to_numpy()
    return counts.to_numpy().min() > 0 and (held <= np.maximum(counts.sum().to_numpy() / 2, 1)).all()


def _spread_groups(target, group, seed, study):
    """The part of each row where groups are few: class by class, the largest first, to the fold that has least."""
    fold = np.empty(len(target), dtype=int)
    taken = {}
    for label in np.unique(target):
        sizes = pd.Series(group[target == label]).value_counts()
        held = np.zeros(FOLDS)
        for name, size in sizes.items():
            part = taken.setdefault(name, int(held.argmin()))
            held[part] += size
            fold[group == name] = part
    split = np.full(len(target), _other_part(study), dtype=object)
    split[fold == seed] = study.fold_part
    for label in np.unique(target):
        rest = pd.Series(group[(target == label) & (fold != seed)]).value_counts()
        if len(rest):
            split[group == rest.index[-1]] = "validation"
    return split


def _describe_groups(usable, label):
    """Describes the groups of a class and what to do about them; empty where each image is a group of its own."""
    rows = usable[usable["label"] == label]
    sizes = rows["group"].value_counts()
    if not len(sizes) or sizes.iloc[0] == 1:
        return ""
    example = rows.loc[rows["group"] == sizes.index[0], "path"].iloc[0]
    return (
        f". The {len(rows)} images of {label!r} form {len(sizes)} groups that look the same, the largest of "
        f"{sizes.iloc[0]}, such as {example!r}: add images of other things or of other days, or, where these are "
        'different images, take describe_folder(..., near_duplicates="off")'
    )


def _share_out(target, group, parts, seed):
    """The part of each row, int array: the classes have equal shares in all parts, and groups stay together.

    It takes seconds for some thousand rows, at the beginning of every chapter, and is kept for the next.
    """
    facts = (sklearn.__version__, target.tolist(), group.tolist(), parts, seed)
    kept = settings.home_folder() / "splits" / f"{files.sha256_of_text(str(facts))[:16]}.npy"
    if not kept.is_file():
        part_of = np.empty(len(target), dtype=np.int8)
        folds = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
        for part, (_, fold) in enumerate(folds.split(target, target, group)):
            part_of[fold] = part
        with files.atomic_file(kept) as temporary:
            np.save(temporary, part_of, allow_pickle=False)
    return np.load(kept, allow_pickle=False)


def _official_split(usable, study, protocol, seed):
    folds = study.tables.folds if study.tables else None
    if folds and seed >= folds:
        raise ValueError(f"{study.title} has the folds 0 to {folds - 1}. Received: seed={seed}")
    split = usable["part"].str.split(",").str[seed] if folds else usable["part"].copy()
    if "validation" not in set(split) and (protocol == "careful" or study.validation_count):
        split[_cut_validation(usable[split == "train"], study, seed)] = "validation"
    if protocol == "careful":
        for part, earlier in (("validation", ["train"]), ("test", ["train", "validation"])):
            seen = usable.loc[split.isin(earlier), "group"]
            split[(split == part) & usable["group"].isin(seen)] = LEFT_OUT
    table = usable.assign(split=split)
    table = table[split != LEFT_OUT].reset_index(drop=True)
    if study.folder:
        _check_official(table, study)
    return table


def _check_official(table, study):
    counts = pd.crosstab(table["split"], table["label"]).reindex(SPLITS, fill_value=0)
    counts = counts.reindex(columns=study.class_names, fill_value=0)
    missing = {part: [name for name in study.class_names if not row[name]] for part, row in counts.iterrows()}
    missing = {part: names for part, names in missing.items() if names}
    if missing:
        raise ValueError(
            "Every official part holds images of every class that have no duplicate in the parts before. "
            f"Missing: {missing}. Received: {counts.to_dict('index')}"
        )


def _cut_validation(train, study, seed):
    """Cuts a validation set from a training set: as large as the source's, or a tenth; duplicates stay together."""
    groups = train.drop_duplicates("group")
    share = study.validation_count / len(train) if study.validation_count else VALIDATION_SHARE
    fewest = groups["target"].value_counts().min()
    if fewest < 2:
        raise ValueError(
            "A validation set needs at least two images of every class that are no duplicates of each other. "
            f"Received: {groups['target'].value_counts().to_dict()} of the classes {list(study.class_names)}"
        )
    size = max(round(share * len(groups)), groups["target"].nunique())
    _, chosen = train_test_split(groups["group"], test_size=size, stratify=groups["target"], random_state=seed)
    return train.index[train["group"].isin(chosen)]


def _other_part(study):
    return "train" if study.fold_part == "test" else "test"
