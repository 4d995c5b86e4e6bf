"""One table: what each study is."""

from dataclasses import dataclass

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
        published_count: int. Images in the source's edition.
        published_test_count: int. Test images under the `published` protocol.
    """

    name: str
    title: str
    class_names: tuple
    archive: str
    kaggle: str
    image_size: int
    published_count: int
    published_test_count: int

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
        published_count=4317,
        published_test_count=863,
    ),
}


def get_study(name):
    """The study called `name`.

    Args:
        name: str. A key of `STUDIES`.

    Returns:
        Study.

    Raises:
        ValueError: when there is no such study.
    """
    if name not in STUDIES:
        raise ValueError(f"A study is one of {sorted(STUDIES)}. Received: name={name!r}")
    return STUDIES[name]


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
