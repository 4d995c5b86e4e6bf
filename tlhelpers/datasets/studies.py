"""One table: what each study is."""

import os
import re
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import yaml

from tlhelpers import files, inputs, settings
from tlhelpers.datasets import layouts


class Place(NamedTuple):
    """Where images of one class stand.

    Args:
        folder: str. The folder below which they stand, with `{label}`.
        begins: str. How their names begin.
        folders: dict from a class to its folder where that is called otherwise.
    """

    folder: str
    begins: str = ""
    folders: dict = {}  # noqa: RUF012

    def of(self, label):
        """The folder of one class, below that of the study."""
        return self.folders.get(label) or self.folder.format(label=label)


class Tables(NamedTuple):
    """Labels and official parts in CSV files beside one folder of images, fold by fold.

    Args:
        images: str. The folder of images.
        pattern: str. A table's path, with `{part}` and `{fold}`.
        parts: dict from a part as the tables call it to ours.
        folds: int. How many folds there are; each image is tested in one of them.
        name_column: str. The column of file names.
        label_column: str. The column of label numbers, see `Study.label_names`.
        url: str. The folder upstream that holds the tables.
    """

    images: str
    pattern: str
    parts: dict
    folds: int
    name_column: str
    label_column: str
    url: str


class PixelTable(NamedTuple):
    """A CSV file that holds the pixels themselves, one image a row.

    Args:
        name: str. The file's name.
        label_column: str. The column of label numbers, positions in `Study.class_names`.
        pixel_column: str. The column of grey values, with spaces between.
        part_column: str. The column that says which part an image is of.
        parts: dict from a part as the table calls it to a pair of ours and the beginning of its file names.
        side: int. Side of the square images, pixels.
    """

    name: str
    label_column: str
    pixel_column: str
    part_column: str
    parts: dict
    side: int


NEAR_DUPLICATE_BITS = 8
NEAR_DUPLICATES = ("auto", "on", "off")
BY_HASH = "by hash"  # how the book's own studies find near duplicates, whatever their number
LOWEST_VALIDATION, HIGHEST_TRAINING = 0.85, 0.92  # the window that the source of cats and dogs asks for
ANYWHERE = {"": Place("{label}")}  # one folder per class, no official parts


@dataclass(frozen=True)
class Study:
    """A data set with a question.

    Args:
        name: str. The key in `STUDIES`, in `data/published.yml` and under `data/records/`.
        title: str. How a page calls it; its drawn edition never bears the name of the real images.
        shows: str. What is in the pictures.
        class_names: tuple of str. The classes in label order, which are also the folder names.
        archives: dict from the upstream names of the files that the images come in, as a mirror holds them, to
            their SHA-256, None where editions differ.
        image_size: int. Side of the square network input, pixels.
        drawn_size: int. The same of its drawn edition; also the side of the drawn pictures.
        drawn_counts: dict from a class to how many files of it are drawn, where that is not the usual number.
        kaggle: str or None. The Kaggle handle, `owner/dataset`.
        tfds: str or None. Its name in TensorFlow Datasets, for a second try where that package is installed.
        url: str or None. Or: the folder upstream that holds the archives.
        folder: Path or None. Or: the folder that holds the images already.
        places: dict from an official part (`"train"`, `"validation"`, `"test"`, or `""` where there are none) to
            the Place of its images.
        tables: Tables or None. Where labels and parts stand in tables instead of folders.
        pixel_table: PixelTable or None. Another edition of the images, in one table.
        label_names: tuple of str. What an archive of numbered labels means by 0, 1, and so on; none for folders.
        near_duplicate_bits: int or None. How many of 64 bits the perceptual hashes of near duplicates differ in;
            None where so little is shown that such hashes cannot tell two things apart.
        near_duplicates: str. `BY_HASH`, or one of `NEAR_DUPLICATES`, see `describe_folder`.
        validation_count: int or None. Images that the source cut from its training part for validation.
        backbone: str or None. The pretrained network the source used, a key of `models.BACKBONES`.
        unfrozen: int or None. How many layers, counted from the end, the source's fine-tuning let move.
        published_count: int. Images in the source's edition.
        published_test_count: int. Test images under the `published` protocol.
        drawn: bool. Whether the pictures are drawn by `garden` instead of found.
        fold_part: str. Which part one fold of five is, `"test"` or `"train"`. Photographs are few: a fold tests.
        drawn_fold_part: str. The same of the drawn edition. Drawings cost nothing: a fold trains, where the lesson
            needs a small training set, and most of the rest tests.
    """

    name: str
    title: str
    shows: str
    class_names: tuple
    archives: dict
    image_size: int
    drawn_size: int
    published_count: int
    published_test_count: int
    drawn_counts: dict = field(default_factory=dict)
    kaggle: str | None = None
    tfds: str | None = None
    url: str | None = None
    folder: Path | None = None
    places: dict = field(default_factory=ANYWHERE.copy)
    tables: Tables | None = None
    pixel_table: PixelTable | None = None
    label_names: tuple = ()
    near_duplicate_bits: int | None = NEAR_DUPLICATE_BITS
    near_duplicates: str = BY_HASH
    validation_count: int | None = None
    backbone: str | None = None
    unfrozen: int | None = None
    drawn: bool = False
    fold_part: str = "test"
    drawn_fold_part: str = "train"

    @property
    def pictures(self):
        """What the pictures are, in words."""
        if self.folder:
            return self.shows
        return f"drawn {self.shows}" if self.drawn else f"photographs of {self.shows}"

    @property
    def class_words(self):
        """The classes in words, as figures and sentences call them."""
        return [name.replace("_", " ") for name in self.class_names]

    @property
    def num_classes(self):
        """How many classes there are."""
        return len(self.class_names)


CLOTHES = ("t_shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle_boot")
FASHION_MNIST = Study(
    name="fashion_mnist",
    title="Fashion-MNIST",
    shows="clothes",
    class_names=CLOTHES,
    label_names=CLOTHES,
    archives={
        "fashion-mnist/train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "fashion-mnist/train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "fashion-mnist/t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "fashion-mnist/t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    },
    url="https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    places={"train": Place("train/{label}"), "test": Place("test/{label}")},
    image_size=28,
    drawn_size=28,
    near_duplicate_bits=None,
    validation_count=10_000,
    published_count=70_000,
    published_test_count=10_000,
)
FASHION_HALF = replace(
    FASHION_MNIST,
    name="fashion_half",
    title="Fashion-MNIST, five classes",
    shows="clothes of five classes",
    class_names=("pullover", "coat", "shirt", "sneaker", "ankle_boot"),  # no easy ones: those are to learn from
    validation_count=5_000,
    published_count=35_000,
    published_test_count=5_000,
)

WEEDS = (
    "chinee_apple",
    "lantana",
    "parkinsonia",
    "parthenium",
    "prickly_acacia",
    "rubber_vine",
    "siam_weed",
    "snake_weed",
    "negative",
)
DEEPWEEDS = Study(
    name="deepweeds",
    title="DeepWeeds",
    shows="weeds in a field",
    class_names=WEEDS,
    label_names=WEEDS,
    archives={"deepweeds.zip": None},
    kaggle="imsparsh/deepweeds",
    tfds="deep_weeds",
    tables=Tables(
        images="images",
        pattern="labels/{part}_subset{fold}.csv",
        parts={"train": "train", "val": "validation", "test": "test"},
        folds=5,
        name_column="Filename",
        label_column="Label",
        url="https://raw.githubusercontent.com/AlexOlsen/DeepWeeds/master/",
    ),
    image_size=224,
    drawn_size=96,
    drawn_counts=dict.fromkeys(WEEDS, 120) | {"negative": 750},
    backbone="resnet50",
    published_count=17_509,
    published_test_count=3_501,
)
FER2013 = Study(
    name="fer2013",
    title="FER2013",
    shows="faces",
    class_names=("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"),
    archives={"fer2013.zip": None},
    kaggle="msambare/fer2013",
    places={
        "train": Place("train/{label}"),
        "validation": Place("test/{label}", "PublicTest_"),
        "test": Place("test/{label}", "PrivateTest_"),
    },
    pixel_table=PixelTable(
        name="fer2013.csv",
        label_column="emotion",
        pixel_column="pixels",
        part_column="Usage",
        parts={
            "Training": ("train", "Training_"),
            "PublicTest": ("validation", "PublicTest_"),
            "PrivateTest": ("test", "PrivateTest_"),
        },
        side=48,
    ),
    near_duplicate_bits=2,  # faces are aligned: at eight bits other people pass for copies
    image_size=96,
    drawn_size=64,
    drawn_counts={"happy": 500, "neutral": 350, "sad": 330, "angry": 280, "surprise": 240, "disgust": 60},
    backbone="resnet18",
    published_count=35_887,
    published_test_count=3_589,
)

STUDIES = {
    "flowers": Study(
        name="flowers",
        title="Flower photographs",
        shows="flowers",
        class_names=("daisy", "dandelion", "rose", "sunflower", "tulip"),
        archives={"flowers-recognition.zip": None},
        kaggle="alxmamaev/flowers-recognition",
        image_size=224,
        drawn_size=128,
        backbone="mobilenetv2_100",
        unfrozen=6,
        published_count=4317,
        published_test_count=863,
    ),
    "fashion_mnist": FASHION_MNIST,
    "fashion_half": FASHION_HALF,
    "deepweeds": DEEPWEEDS,
    "fer2013": FER2013,
    "cats_dogs": Study(
        name="cats_dogs",
        title="Cats vs dogs",
        shows="cats and dogs",
        class_names=("cats", "dogs"),
        archives={"cats_and_dogs_filtered.zip": None},
        url="https://storage.googleapis.com/mledu-datasets/",
        places={"train": Place("train/{label}"), "test": Place("validation/{label}")},
        image_size=160,
        drawn_size=96,
        drawn_fold_part="test",
        backbone="mobilenetv2_100",
        unfrozen=20,
        published_count=3000,
        published_test_count=1000,
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
    if not drawn:
        return study
    return replace(
        study,
        title=f"synthetic {study.shows}",
        drawn=True,
        fold_part=study.drawn_fold_part,
        image_size=study.drawn_size,
        places=ANYWHERE.copy(),
        tables=None,
    )


def describe_folder(folder, image_size=224, *, near_duplicates="auto", title=None):
    """A study of one's own pictures, which stand in one folder for each class.

    Folders called `train`, `validation` or `test`, in these or other usual words, are official parts that hold the
    classes. A folder is known by what is in it: two of one name share nothing.

    Args:
        folder: Path. Its subfolders are the classes, or official parts with the classes inside.
        image_size: int. Side of the square network input, pixels.
        near_duplicates: str. `"on"` keeps pictures that look nearly the same in one part and leaves out those that
            stand under two classes; `"off"` does so with identical files alone; `"auto"` is on, unless so many look
            the same that the method is to be doubted.
        title: str or None. How pages call it. None means the folder's name.

    Returns:
        Study. Its name is the folder's with a digest of its files.

    Raises:
        ValueError: when there is no such folder, it has fewer than two classes, parts do not hold the same classes,
            or an argument is out of range.
    """
    if near_duplicates not in NEAR_DUPLICATES:
        raise ValueError(
            f"Near duplicates are looked for as one of {list(NEAR_DUPLICATES)}. "
            f"Received: near_duplicates={near_duplicates!r}"
        )
    image_size = inputs.check_image_size(image_size)
    given = _check_folder(folder)
    layout = layouts.recognise_layout(given)
    name = files.shown_name(given.name)
    shown = re.sub(r"[^\w.-]+", "-", name)[:40]
    return Study(
        name=f"{shown}-{digest_of_folder(layout.folder)[:12]}",
        title=title or name,
        shows=title or f"pictures in the folder {name!r}",
        class_names=layout.class_names,
        archives={},
        folder=layout.folder,
        places={part: Place("{label}", folders=folders) for part, folders in layout.folders.items()},
        near_duplicates=near_duplicates,
        image_size=image_size,
        drawn_size=image_size,
        backbone="mobilenetv2_100",
        published_count=0,
        published_test_count=0,
    )


def digest_of_folder(folder):
    """Names a folder by its contents: which files it holds under which names, wherever it stands.

    Args:
        folder: Path.

    Returns:
        str, 64 hexadecimal digits. Kept until a file changes.
    """
    state = files.sha256_of_text(f"{files.shown_name(folder)} {files.state_of_folder(folder)}")
    kept = settings.home_folder() / "folders" / f"{state}.txt"
    if kept.is_file():
        return kept.read_text(encoding="utf-8")
    facts = []
    for path in files.progress(list(files.walk_files(folder)), description="Reading files"):
        try:
            content = files.sha256_of(path)
        except OSError:  # it gets a verdict when the study is opened
            content = "unreadable"
        facts.append(f"{files.shown_name(path.relative_to(folder))} {content}")
    digest = files.sha256_of_text("\n".join(facts))
    files.write_text(kept, digest)
    return digest


def _check_folder(folder):
    if not isinstance(folder, str | os.PathLike) or not os.fspath(folder):
        raise ValueError(f"Pictures of one's own stand in a folder, given as its path. Received: folder={folder!r}")
    path = Path(folder).expanduser().resolve()
    shown = files.shown_name(path)
    if path.is_file() and zipfile.is_zipfile(path):
        raise ValueError(f"Pictures of one's own stand in a folder: unpack the archive first. Received: {shown!r}")
    if path.exists() and not path.is_dir():
        raise ValueError(f"Pictures of one's own stand in a folder, and this is a file. Received: {shown!r}")
    if not path.is_dir():
        raise ValueError(f"Pictures of one's own stand in a folder that is there. Received: {shown!r}")
    return path


def published_numbers(study):
    """The numbers a study's source published, as quoted there.

    Args:
        study: str. A study's name.

    Returns:
        dict. That study's entry in `data/published.yml`; of a study that nobody published, one without models.
    """
    get_study(study)
    text = (settings.data_folder() / "published.yml").read_text(encoding="utf-8")
    return yaml.safe_load(text).get(study, {"models": []})


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


def published_range(study, model, metric="accuracy"):
    """The lowest and the highest value that a study's source published of one metric.

    Args:
        study: str. A study's name.
        model: str. `<network>-<strategy>`.
        metric: str. `"accuracy"` or `"macro_f1"`.

    Returns:
        tuple of two float, the same where the source gives one number.

    Raises:
        ValueError: when the source published no such model or metric.
    """
    row = published_model(study, model)
    if metric not in row:
        raise ValueError(f"The source published {sorted(row)} of {model!r}. Received: metric={metric!r}")
    value = row[metric]
    return tuple(value) if isinstance(value, list) else (value, value)


def quote(study, model, metric="accuracy"):
    """What a source published of one metric, in words, such as `"67%"` or `"90% to 91%"`; see `published_range`."""
    low, high = (f"{100 * value:.4g}%" for value in published_range(study, model, metric))
    return low if low == high else f"{low} to {high}"
