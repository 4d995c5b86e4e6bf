"""One table: what each study is."""

from dataclasses import dataclass, replace

import yaml

from tlhelpers import settings


@dataclass(frozen=True)
class Study:
    """A data set with a question.

    Args:
        name: str. The key in `STUDIES`, in `data/published.yml` and under `data/records/`.
        title: str. How a page calls it.
        class_names: tuple of str. The classes in label order, which are also the folder names.
        archive: str. The archive's upstream file name.
        kaggle: str. The Kaggle handle, `owner/dataset`.
        image_size: int. Side of the square network input, pixels.
        backbone: str. The pretrained network the source used, a key of `models.BACKBONES`.
        unfrozen: int. How many layers, counted from the end, the source's fine-tuning let move.
        published_count: int. Images in the source's edition.
        published_test_count: int. Test images under the `published` protocol.
        drawn: bool. Whether the pictures are drawn by `garden` instead of found.
        fold_part: str. Which part one fold of five is, `"test"` or `"train"`. Photographs are few: a fold tests.
            Drawings cost nothing: a fold trains, since the lesson needs a small training set, and most of the rest
            tests.
    """

    name: str
    title: str
    class_names: tuple
    archive: str
    kaggle: str
    image_size: int
    backbone: str
    unfrozen: int
    published_count: int
    published_test_count: int
    drawn: bool = False
    fold_part: str = "test"

    @property
    def num_classes(self):
        """How many classes there are."""
        return len(self.class_names)


STUDIES = {
    "flowers": Study(
        name="flowers",
        title="Flower photographs",
        class_names=("daisy", "dandelion", "rose", "sunflower", "tulip"),
        archive="flowers-recognition.zip",
        kaggle="alxmamaev/flowers-recognition",
        image_size=224,
        backbone="mobilenetv2_100",
        unfrozen=6,
        published_count=4317,
        published_test_count=863,
    ),
}


def get_study(name, *, drawn=False):
    """The study called `name`.

    Args:
        name: str. A key of `STUDIES`.
        drawn: bool. Whether to take its drawn edition: the same classes and questions, drawn pictures.

    Returns:
        Study.

    Raises:
        ValueError: when there is no such study.
    """
    if name not in STUDIES:
        raise ValueError(f"A study is one of {sorted(STUDIES)}. Received: name={name!r}")
    study = STUDIES[name]
    return replace(study, drawn=True, fold_part="train") if drawn else study


def published_numbers(study):
    """The numbers a study's source published, as quoted there.

    Args:
        study: str. A study's name.

    Returns:
        dict. That study's entry in `data/published.yml`.
    """
    get_study(study)
    text = (settings.data_folder() / "published.yml").read_text(encoding="utf-8")
    return yaml.safe_load(text)[study]


def published_models(study):
    """What a study's source published, by model.

    Args:
        study: str. A study's name.

    Returns:
        dict from `<network>-<strategy>` to a dict, see `published_model`.
    """
    return {f"{row['network']}-{row['strategy']}": row for row in published_numbers(study)["models"]}


def published_model(study, model):
    """What a study's source published for one model.

    Args:
        study: str. A study's name.
        model: str. `<network>-<strategy>`.

    Returns:
        dict with `network`, `strategy`, `label`, `accuracy`, and `trainable_parameters` (str, as quoted) where
        the source gives them.

    Raises:
        ValueError: when the source published no such model.
    """
    rows = published_models(study)
    if model not in rows:
        raise ValueError(f"The source of {study!r} published {sorted(rows)}. Received: model={model!r}")
    return rows[model]
