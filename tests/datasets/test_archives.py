"""Files of numbers become pictures, ZIP files folders, or an error says what is wrong. See `test_sources`, too."""

import gzip
import io
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from builders import CLASS_NAMES
from PIL import Image

from tlhelpers.datasets import archives, layouts, studies
from tlhelpers.files import BadArchiveError

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
    archives.check_archive(path, faces)
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


# ZIP files as people and their programs make them


def content_of(label, index):
    return f"a {label}, number {index}".encode() * 20


def pack(path, name_of="flowers/{label}/{index}.jpg", *, extra=(), compression=zipfile.ZIP_STORED, old=False):
    """A ZIP of two files per class; `name_of` may be a function, `extra` are pairs, `old` are undeclared encodings."""
    name_of = name_of if callable(name_of) else name_of.format
    members = [
        (name_of(label=label, index=index), content_of(label, index)) for label in CLASS_NAMES for index in (0, 1)
    ]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in [*members, *extra]:
            archive.writestr(name, content)
    if old:
        path.write_bytes(set_field(path.read_bytes(), 8, 6, 0))
    return path


def set_field(content, in_table, in_file, value):
    """The same archive, with one number of all members changed in the table of contents and before each member."""
    changed = bytearray(content)
    for mark, offset in ((b"PK\1\2", in_table), (b"PK\3\4", in_file)):
        at = content.find(mark)
        while at >= 0:
            struct.pack_into("<H", changed, at + offset, value)
            at = content.find(mark, at + 4)
    return bytes(changed)


def extract(path, study, tmp_path):
    """The contents of the files that an archive becomes, class by class, however they are called."""
    archives.check_archive(path, study)
    archives.extract_archives([path], tmp_path / "images", study)
    folder = layouts.find_image_folder(tmp_path / "images", study)
    return {
        label: sorted(file.read_bytes() for file in (folder / label).iterdir() if not file.name.startswith("."))
        for label in study.class_names
    }


WHOLE_FLOWERS = {label: sorted(content_of(label, index) for index in (0, 1)) for label in CLASS_NAMES}
LONG = "x" * 251


@pytest.mark.parametrize(
    "name_of",
    [
        "flowers\\{label}\\{index}.jpg",
        "./flowers/{label}/{index}.jpg",
        "Flowers v1.2/{label}/{index}.JPG",
        "flowers/{label}/{index}",
        "2024-01-01 12:30/{label}/a:{index}...jpg",
        f"flowers/{{label}}/{LONG}{{index}}.jpg",
        f"{LONG * 2}/{{label}}/{{index}}.jpg",
        "flowers/{label}/deeper/{index}.jpg",
        lambda label, index: f"flowers/{label.upper()}/{index}.jpg",
        lambda label, index: f"flowers/{label.title() if index else label}/0.jpg",
        lambda label, index: f"flowers/{label}/{'A' if index else 'a'}.jpg",
        lambda label, index: f"flowers/{label}/{'e' + chr(0x301) if index else chr(0xE9)}.jpg",
    ],
    ids=[
        "backslashes",
        "a dot in front",
        "capital suffixes",
        "no suffix",
        "colons and dots at the end",
        "long names",
        "a long folder",
        "deeper",
        "capital classes",
        "some capital classes",
        "capitals alone",
        "two spellings of one letter",
    ],
)
def test_archive_is_read_as_its_packing_program_meant_it_and_nothing_is_lost(tmp_path, flowers, name_of):
    path = pack(tmp_path / "a.zip", name_of)
    archives.check_archive(path, flowers)
    archives.extract_archives([path], tmp_path / "images", flowers)
    folder = layouts.find_image_folder(tmp_path / "images", flowers)
    found = {
        label: sorted(file.read_bytes() for file in (folder / label).rglob("*") if file.is_file())
        for label in flowers.class_names
    }
    assert found == WHOLE_FLOWERS


def test_files_that_differ_in_capitals_alone_never_share_a_name_where_capitals_do_not_count(tmp_path, flowers):
    path = pack(tmp_path / "a.zip", lambda label, index: f"flowers/{label}/{'A' if index else 'a'}.jpg")
    archives.extract_archives([path], tmp_path / "images", flowers)
    names = [file.name.lower() for file in (tmp_path / "images" / "flowers" / "rose").iterdir()]
    assert len(set(names)) == len(names) == 2


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_every_method_that_python_reads_is_taken(tmp_path, flowers, method):
    assert extract(pack(tmp_path / "a.zip", compression=method), flowers, tmp_path) == WHOLE_FLOWERS


def test_what_a_mac_packs_beside_the_files_is_left_out(tmp_path, flowers):
    extra = [(f"__MACOSX/flowers/{label}/._0.jpg", b"resource") for label in CLASS_NAMES]
    assert extract(pack(tmp_path / "a.zip", extra=extra), flowers, tmp_path) == WHOLE_FLOWERS
    assert not list((tmp_path / "images").rglob("__MACOSX"))
    with pytest.raises(BadArchiveError, match="it lacks them"):
        archives.check_archive(pack(tmp_path / "b.zip", "__MACOSX/flowers/{label}/._{index}.jpg"), flowers)


def test_the_same_member_twice_is_extracted_once(tmp_path, flowers):
    extra = [("flowers/rose/0.jpg", content_of("rose", 0))]
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = pack(tmp_path / "a.zip", extra=extra)
    assert extract(path, flowers, tmp_path) == WHOLE_FLOWERS


@pytest.mark.parametrize("name", ["flowers/rose/0.jpg", "flowers\\rose\\0.jpg"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused_by_that_name(tmp_path, flowers, name):
    path = pack(tmp_path / "a.zip", extra=[(name, b"another rose")])
    with pytest.raises(
        BadArchiveError, match=r"same file twice\. Received: two different ones named 'flowers/rose/0.jpg'"
    ):
        extract(path, flowers, tmp_path)
    assert not (tmp_path / "images").exists()


def test_names_in_utf8_that_is_not_declared_are_read_as_such(tmp_path, flowers):
    path = pack(tmp_path / "a.zip", "flowers/{label}/Blüte {index}.jpg", old=True)
    assert extract(path, flowers, tmp_path) == WHOLE_FLOWERS
    assert (tmp_path / "images" / "flowers" / "rose" / "Blüte 0.jpg").is_file()


@pytest.mark.parametrize(("word", "encoding"), [("玫瑰", "gbk"), ("表", "shift_jis"), ("é", "cp850")])
def test_names_in_old_encodings_lose_no_file_even_where_half_a_letter_is_a_backslash(tmp_path, flowers, word, encoding):
    letters = word.encode(encoding)
    path = pack(tmp_path / "a.zip", "flowers/{label}/" + "?" * len(letters) + "{index}.jpg")
    path.write_bytes(path.read_bytes().replace(b"?" * len(letters), letters))
    assert extract(path, flowers, tmp_path) == WHOLE_FLOWERS


def test_a_self_extracting_archive_is_one(tmp_path, flowers):
    path = pack(tmp_path / "a.zip")
    path.write_bytes(b"MZ" + bytes(5000) + path.read_bytes())
    assert extract(path, flowers, tmp_path) == WHOLE_FLOWERS


def tar_of(*_):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("flowers/rose/0.jpg"))
    return stream.getvalue()


# By what a file is: what is made of a good archive, and the reason why it is not taken.
REFUSED = {
    "password": (lambda good: set_field(good, 8, 6, 1), "opens without a password"),
    "AES": (lambda good: set_field(good, 10, 8, 99), "opens without a password"),
    "Deflate64": (lambda good: set_field(good, 10, 8, 9), r"packed with Deflate64\. Unpack it"),
    "an unknown method": (lambda good: set_field(good, 10, 8, 77), r"packed with Method 77\. Unpack it"),
    "a part of several": (
        lambda good: set_field(good, 34, 0, 2).replace(b"\2\0\3\4", b"PK\3\4"),
        "one file; this one is",
    ),
    "gzip": (gzip.compress, "a gzip or tar.gz file"),
    "tar": (tar_of, "a tar archive"),
    "rar": (lambda good: b"Rar!\x1a\x07\x01\x00" + good[:300], "a RAR archive"),
    "7z": (lambda good: b"7z\xbc\xaf\x27\x1c" + good[:300], "a 7z archive"),
    "web page": (lambda good: b"\xef\xbb\xbf<html>sign in</html>", "a web page.*Download it again"),
    "pointer": (lambda good: b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "pointer of Git LFS"),
    "truncated": (lambda good: good[: len(good) // 2], "empty, truncated or of another format.*Download it again"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_taken_is_refused_with_the_true_reason(tmp_path, flowers, kind):
    make, reason = REFUSED[kind]
    path = pack(tmp_path / "a.zip")
    path.write_bytes(make(path.read_bytes()))
    with pytest.raises(BadArchiveError, match=reason) as caught:
        archives.check_archive(path, flowers)
    assert "\n" not in str(caught.value)


def test_an_archive_in_an_archive_is_named(tmp_path, flowers):
    path = tmp_path / "outer.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inner/flowers.ZIP", pack(tmp_path / "a.zip").read_bytes())
    with pytest.raises(BadArchiveError, match=r"other archives, which are to be unpacked first: \['flowers.ZIP'\]"):
        archives.check_archive(path, flowers)


def test_a_name_that_is_both_file_and_folder_is_refused(tmp_path, flowers):
    path = pack(tmp_path / "a.zip", extra=[("flowers/rose", b"x")])
    with pytest.raises(BadArchiveError, match="Received: both, 'flowers/rose' in "):
        archives.check_archive(path, flowers)


@pytest.mark.slow
def test_a_damaged_archive_is_refused_or_whole_and_nothing_else(tmp_path, flowers):
    good = bytearray(pack(tmp_path / "good.zip", compression=zipfile.ZIP_DEFLATED).read_bytes())
    rng = np.random.default_rng(0)
    for trial in range(300):
        damaged = good.copy()
        for place in rng.integers(0, len(good), 3):
            damaged[place] = rng.integers(0, 256)
        path = tmp_path / "damaged.zip"
        path.write_bytes(bytes(damaged))
        try:
            archives.check_archive(path, flowers)
            archives.extract_archives([path], tmp_path / "images" / str(trial), flowers)
        except BadArchiveError:
            assert not (tmp_path / "images" / str(trial)).exists()


def test_a_study_of_numbered_files_names_them_to_whoever_drops_a_zip(tmp_path, fashion):
    path = pack(tmp_path / "a.zip")
    with pytest.raises(BadArchiveError, match=r"comes in the files \['fashion-mnist/train-images"):
        archives.check_archive(path, fashion)
