"""Files of numbers become one picture each, or an error that says what is wrong. ZIP files: see `test_sources`."""

import gzip
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from tlhelpers import archives, layouts, sources, studies
from tlhelpers.layouts import BadArchiveError

SIDE = 28
LABELS = studies.CLOTHES


def idx(array, *, mark=b"\x00\x00\x08"):
    """The bytes of an IDX file."""
    return mark + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_part(folder, names, targets, *, seed=0):
    """Writes a packed pair of images and labels; returns their paths and the pixels."""
    targets = np.asarray(targets, np.uint8)
    pixels = np.random.default_rng(seed).integers(0, 256, (len(targets), SIDE, SIDE), dtype=np.uint8)
    paths = [folder / name for name in names]
    for path, array in zip(paths, (pixels, targets), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(idx(array)))
    return paths, pixels


@pytest.fixture
def fashion():
    """The Fashion-MNIST study."""
    return studies.get_study("fashion_mnist")


@pytest.fixture
def parts(tmp_path, fashion):
    """Two pictures of each class that train and one that tests: the four paths, and the pixels of each part."""
    names = list(fashion.archives)
    train, train_pixels = write_part(tmp_path, names[:2], [*range(10), *range(10)])
    test, test_pixels = write_part(tmp_path, names[2:], range(10), seed=1)
    return train + test, {"train": train_pixels, "test": test_pixels}


def test_every_number_becomes_a_picture_in_the_folder_of_its_part_and_class(parts, fashion, tmp_path):
    paths, pixels = parts
    archives.extract_archives(paths, tmp_path / "images", fashion)
    assert len(list((tmp_path / "images").rglob("*.png"))) == 30
    for part, index in (("train", 13), ("test", 3)):
        path = tmp_path / "images" / part / "dress" / f"{index:05d}.png"
        np.testing.assert_array_equal(np.asarray(Image.open(path)), pixels[part][index])


def test_numbers_keep_the_shape_that_the_file_gives(parts):
    images, labels = (archives.read_numbers(path) for path in parts[0][:2])
    assert (images.shape, labels.shape, images.dtype) == ((20, SIDE, SIDE), (20,), np.uint8)


WHOLE = idx(np.arange(6, dtype=np.uint8).reshape(1, 2, 3))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>sign in</html>", "packed with gzip and whole"),
        (gzip.compress(WHOLE)[:-9], "packed with gzip and whole"),
        (gzip.compress(WHOLE[:-1]), r"17,? ?.*shape=\(1, 2, 3\)|21 bytes, shape=\(1, 2, 3\)"),
        (gzip.compress(WHOLE + b"x"), r"23 bytes, shape=\(1, 2, 3\)"),
        (gzip.compress(b"\x00\x00\x0d" + WHOLE[3:]), r"22 bytes, shape=\(\)"),
        (gzip.compress(b""), r"0 bytes, shape=\(\)"),
    ],
    ids=["web page", "truncated", "too short", "too long", "numbers of another kind", "empty"],
)
def test_damaged_file_of_numbers_is_refused(tmp_path, content, message):
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    with pytest.raises(BadArchiveError, match=message):
        archives.read_numbers(path)


def test_labels_that_do_not_fit_their_images_are_refused_and_nothing_is_left(parts, fashion, tmp_path):
    paths, _ = parts
    paths[1].write_bytes(gzip.compress(idx(np.zeros(7, np.uint8))))
    with pytest.raises(BadArchiveError, match=r"Received: \(20, 28, 28\) in .* and \(7,\) in "):
        archives.extract_archives(paths, tmp_path / "images", fashion)
    assert not (tmp_path / "images").exists()


def test_images_that_are_no_images_are_refused(parts, fashion, tmp_path):
    paths, _ = parts
    with pytest.raises(BadArchiveError, match=r"Received: \(20,\) in "):
        archives.extract_archives([paths[1], paths[1], *paths[2:]], tmp_path / "images", fashion)


def test_label_without_a_class_is_refused(parts, fashion, tmp_path):
    paths, _ = parts
    write_part(paths[0].parent, [path.name for path in paths[:2]], [*range(10), 10])
    with pytest.raises(BadArchiveError, match=r"between 0 and 9\. Received: 10 in "):
        archives.extract_archives(paths, tmp_path / "images", fashion)
    assert not (tmp_path / "images").exists()


# Tables of pixels


@pytest.fixture
def faces():
    """The study of faces, one edition of which is a table of pixels."""
    return studies.get_study("fer2013")


def face_row(emotion=0, usage="Training", pixels=None):
    pixels = " ".join(["7"] * 48 * 48) if pixels is None else pixels
    return f"{emotion},{pixels},{usage}"


WHOLE_TABLE = [face_row(k, usage) for usage in ("Training", "PublicTest", "PrivateTest") for k in range(7)]


def pack_table(folder, rows, header="emotion,pixels,Usage"):
    path = folder / "any name.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("fer2013/fer2013.csv", "\n".join([header, *rows]) + "\n")
    return path


def test_table_of_pixels_becomes_the_folders_of_the_other_edition(tmp_path, faces):
    gradient = " ".join(str(index % 256) for index in range(48 * 48))
    path = pack_table(tmp_path, [*WHOLE_TABLE, face_row(3, "PrivateTest", gradient)])
    assert sources.is_archive_of(path, faces)
    archives.extract_archives([path], tmp_path / "images", faces)
    listed = layouts.list_images(layouts.find_image_folder(tmp_path / "images", faces), faces)
    assert listed["part"].value_counts().to_dict() == {"test": 8, "train": 7, "validation": 7}
    assert set(listed["label"]) == set(faces.class_names)
    picture = np.asarray(Image.open(tmp_path / "images" / "test" / "happy" / "PrivateTest_21.png"))
    np.testing.assert_array_equal(picture, (np.arange(48 * 48) % 256).reshape(48, 48))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (face_row(pixels="1 2 3"), r"48 x 48 pixels\. Received: 3 values in row 21 of .*fer2013.csv"),
        (face_row(pixels=" ".join(["256"] * 48 * 48)), r"0\.\.255\. Received: 256 to 256 in row 21"),
        (face_row(pixels="a b"), r"whole numbers .*Received: row 21"),
        (face_row(emotion=7), r"emotion is one of \['0', .*Received: \['7'\]"),
        (face_row(usage="Test"), r"Usage is one of \['PrivateTest', .*Received: \['Test'\]"),
    ],
    ids=["wrong shape", "too bright", "no numbers", "unknown label", "unknown part"],
)
def test_row_that_is_no_image_of_the_study_is_refused_and_nothing_is_left(tmp_path, faces, row, message):
    path = pack_table(tmp_path, [*WHOLE_TABLE, row])
    with pytest.raises(BadArchiveError, match=message):
        archives.extract_archives([path], tmp_path / "images", faces)
    assert not (tmp_path / "images").exists()


def test_table_with_other_columns_is_refused(tmp_path, faces):
    path = pack_table(tmp_path, WHOLE_TABLE, header="label,pixels,Usage")
    with pytest.raises(BadArchiveError, match=r"columns \['emotion', 'pixels', 'Usage'\]"):
        archives.extract_archives([path], tmp_path / "images", faces)
