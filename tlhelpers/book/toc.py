"""What is known of each chapter, in one table: its file, what it follows, what it records, how long it takes."""

from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tlhelpers import settings
from tlhelpers.datasets import studies

FLOWER_MODELS = ("03_baseline_cnn", "04_frozen_backbone", "05_fine_tuning")


@dataclass(frozen=True)
class Row:
    """What is known of a chapter.

    Args:
        name: str. Its file in `book/`, without the suffix.
        seconds: dict from a profile's name to how long it takes, measured.
        follows: tuple of str. The chapters whose runs it reads in the same build.
        records: dict from a study to the records, `<network>-<strategy>`, that it leaves for one protocol and seed.
        extras: tuple of str. The extras of the package that it asks for, see `pyproject.toml`.
    """

    name: str
    seconds: dict
    follows: tuple = ()
    records: dict = field(default_factory=dict)
    extras: tuple = ()

    @property
    def path(self):
        """Where the notebook stands, a str relative to the project's root."""
        return f"book/{self.name}.ipynb"


# Seconds: on an AMD EPYC with two cores, two chapters at a time; `pocket` on 2026-11-30, `full` on 2026-12-01, with
# chapter 3 alone, and 15 and 16 on synthetic images.
CHAPTERS = (
    Row("01_why_transfer_works", seconds={"pocket": 11, "full": 181}),
    Row("02_the_pictures", seconds={"pocket": 8, "full": 14}),
    Row("03_baseline_cnn", seconds={"pocket": 139, "full": 317}, records={"flowers": ["baseline_cnn-scratch"]}),
    Row("04_frozen_backbone", seconds={"pocket": 10, "full": 13}, records={"flowers": ["{backbone}-frozen"]}),
    Row(
        "05_fine_tuning",
        seconds={"pocket": 76, "full": 314},
        records={"flowers": ["{backbone}-{fine_tuned}", "{backbone}-{fine_tuned}_bn_updating"]},
    ),
    Row("06_comparison", seconds={"pocket": 12, "full": 17}, follows=FLOWER_MODELS),
    Row("07_looking_inside", seconds={"pocket": 38, "full": 152}, follows=FLOWER_MODELS),
    Row("08_how_deep", seconds={"pocket": 126, "full": 296}),
    Row("09_how_much_data", seconds={"pocket": 88, "full": 276}),
    Row("10_which_backbone", seconds={"pocket": 30, "full": 178}),
    Row("11_wrong_labels", seconds={"pocket": 29, "full": 72}, extras=("labels",)),
    Row(
        "12_fashion_from_scratch", seconds={"pocket": 38, "full": 247}, records={"fashion_mnist": ["small_cnn-scratch"]}
    ),
    Row(
        "13_fashion_strategies",
        seconds={"pocket": 89, "full": 383},
        follows=("12_fashion_from_scratch",),
        records={
            "fashion_mnist": ["small_cnn-random_full", "small_cnn-random_partial", "small_cnn-random_frozen"],
            "fashion_half": ["small_cnn-scratch", "small_cnn-frozen", "small_cnn-partial", "small_cnn-full"],
        },
    ),
    Row(
        "14_cats_vs_dogs",
        seconds={"pocket": 140, "full": 653},
        records={"cats_dogs": ["{backbone}-overfitted", "{backbone}-rescued"]},
    ),
    Row(
        "15_deepweeds",
        seconds={"pocket": 97, "full": 72},
        records={"deepweeds": ["{backbone}-frozen", "{backbone}-partial", "{backbone}-full"]},
    ),
    Row(
        "16_fer2013",
        seconds={"pocket": 79, "full": 71},
        records={"fer2013": ["{backbone}-frozen", "{backbone}-partial", "{backbone}-full"]},
    ),
    Row(
        "17_synthesis",
        seconds={"pocket": 70, "full": 31},
        follows=(
            *FLOWER_MODELS,
            "12_fashion_from_scratch",
            "13_fashion_strategies",
            "14_cats_vs_dogs",
            "15_deepweeds",
            "16_fer2013",
        ),
    ),
    Row("18_in_the_browser", seconds={"pocket": 26, "full": 55}, follows=FLOWER_MODELS, extras=("litert",)),
    Row("19_your_own_pictures", seconds={"pocket": 18, "full": 28}),
    Row("20_scaling_out", seconds={"pocket": 33, "full": 332}),
    Row("a1_the_pocket_backbone", seconds={"pocket": 84, "full": 82}),
)
FOLLOWS = {row.path: tuple(f"book/{name}.ipynb" for name in row.follows) for row in CHAPTERS if row.follows}


def list_pages(folder=settings.PROJECT_FOLDER):
    """The pages of the table of contents, in reading order.

    Args:
        folder: Path. The project's root.

    Returns:
        list of str. Paths relative to `folder`, without suffix.
    """
    toc = yaml.safe_load((Path(folder) / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(chapter["file"] for part in toc.get("parts", []) for chapter in part["chapters"])]


def list_chapters(folder=settings.PROJECT_FOLDER):
    """The notebooks of the table of contents, in reading order.

    Args:
        folder: Path. The project's root.

    Returns:
        list of str. Paths relative to `folder`.
    """
    return [f"{name}.ipynb" for name in list_pages(folder) if (Path(folder) / f"{name}.ipynb").is_file()]


def list_recorded(profile, study):
    """The records that each training chapter of a study leaves under a profile.

    Args:
        profile: Profile.
        study: str. One that some chapter records.

    Returns:
        dict from chapter to a list of `<network>-<strategy>`.
    """
    names = {
        "backbone": profile.backbone or studies.get_study(study).backbone,
        "fine_tuned": profile.fine_tuned,
    }
    recording = {row.path: row.records[study] for row in CHAPTERS if study in row.records}
    return {chapter: [model.format(**names) for model in models] for chapter, models in recording.items()}


def list_recorded_studies():
    """The studies of which chapters leave records, in reading order: a list of str."""
    return list(dict.fromkeys(study for row in CHAPTERS for study in row.records))


def usual_seconds(profile):
    """How long chapters take under a profile on two cores, as measured: a dict from a chapter to a number."""
    return {row.path: row.seconds[profile] for row in CHAPTERS if profile in row.seconds}


def select(chapters, only):
    """Those of some chapters whose names begin as asked.

    Args:
        chapters: list of str.
        only: list of str or None. Beginnings of their names, such as `["05"]`; none means all.

    Returns:
        list of str.

    Raises:
        ValueError: when there is none.
    """
    if not only:
        return chapters
    selected = [chapter for chapter in chapters if Path(chapter).name.startswith(tuple(only))]
    if not selected:
        raise ValueError(f"--only takes beginnings of {[Path(c).name for c in chapters]}. Received: {only}")
    return selected
