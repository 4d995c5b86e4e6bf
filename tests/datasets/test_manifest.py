"""What each file is, which files are duplicates, and that neither faults nor doubtful labels reach a split."""

import io
import os
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import CLASS_NAMES, draw_flower, encode, write_archive
from PIL import Image, features

from tlhelpers import files, loaders, settings
from tlhelpers.datasets import duplicates, layouts, manifest, splits, studies
from tlhelpers.datasets.manifest import build_manifest, fingerprint, inspect_image, load_manifest
from tlhelpers.datasets.splits import split_manifest
from tlhelpers.datasets.studies import Place
from tlhelpers.images import can_read

ROTATED = 0x0112
TWO_CLASSES = ("daisy", "rose")


@pytest.fixture(autouse=True)
def _no_dropped_archive(monkeypatch):
    """Hides an archive a developer dropped into the project."""
    monkeypatch.setattr(settings, "drop_folders", lambda: [])


def inspect(folder, content, name="picture.jpg"):
    """Writes bytes to a file and inspects it."""
    (folder / name).write_bytes(content)
    facts, _ = inspect_image(folder / name)
    return facts


def fill(folder, images):
    """Writes `{"class/name": bytes}` below a folder."""
    for name, content in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def build_listed(folder, class_names=TWO_CLASSES, *, places=studies.ANYWHERE, workers=1):
    """The manifest of a folder of class folders."""
    study = replace(studies.get_study("flowers"), class_names=class_names, places=places)
    return build_manifest(layouts.list_images(folder, study), class_names, workers=workers)


def build(folder, images, class_names=TWO_CLASSES):
    """The manifest of `{"class/name": bytes}`, indexed by those names."""
    table = build_listed(fill(folder / "images", images), class_names)
    return table.set_axis([name for label in class_names for name in sorted(images) if name.startswith(label)])


# Verdicts


def truncated(content, share=0.5):
    return content[: int(share * len(content))]


def png_header(side):
    """A PNG that claims to be `side` pixels wide and high and holds no pixels."""
    content = bytearray(encode(np.zeros((1, 1), np.uint8), "PNG"))
    content[16:24] = side.to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    return bytes(content)


ROSE = draw_flower("rose", 0)
JPEG = encode(ROSE)
NOISE = np.random.default_rng(0).integers(1, 255, 2000, dtype=np.uint8).tobytes()


@pytest.mark.parametrize(
    ("content", "verdict", "reason"),
    [
        (b"", "empty", "the file has no bytes"),
        (NOISE, "not_an_image", "no image format is recognised"),
        (b"<html><body>404 Not Found</body></html>", "not_an_image", "no image format is recognised"),
        (truncated(JPEG), "truncated", "the image data breaks off"),
        (truncated(JPEG, 0.95), "truncated", "the image data breaks off"),
        (JPEG[:50], "truncated", "the image data breaks off"),
        (truncated(encode(ROSE, "PNG")), "truncated", "the image data breaks off"),
        (encode(ROSE[:15]), "too_small", "a side is shorter than 16 pixels"),
        (encode(ROSE[:, :1]), "too_small", "a side is shorter than 16 pixels"),
        (png_header(12_000), "too_large", "12000x12000 is over 100,000,000 pixels"),
    ],
    ids=[
        "empty",
        "random bytes",
        "web page",
        "half a JPEG",
        "most of a JPEG",
        "a JPEG's header",
        "half a PNG",
        "flat",
        "narrow",
        "144 megapixels",
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_unusable_file_gets_its_verdict(tmp_path, content, verdict, reason):
    facts = inspect(tmp_path, content)
    assert (facts["verdict"], facts["reason"]) == (verdict, reason)
    assert "readable_path" not in facts
    assert not (tmp_path / "converted").exists()


def test_image_beyond_pillows_own_limit_is_too_large(tmp_path):
    facts = inspect(tmp_path, png_header(60_000), "picture.png")
    assert facts["verdict"] == "too_large"
    assert "exceeds limit" in facts["reason"]


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow cannot write AVIF")
def test_decoder_that_gives_up_makes_a_verdict_and_no_crash(tmp_path):
    content = encode(ROSE, "AVIF")
    start = content.index(b"mdat") + 4
    facts = inspect(tmp_path, content[:start] + bytes(len(content) - start))
    assert facts["verdict"] == "unreadable"
    assert "an AVIF picture that is damaged" in facts["reason"]


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (JPEG, "a.jpg"),
        (JPEG, "a.JPEG"),
        (JPEG, "a.png"),
        (encode(ROSE, "PNG"), "a.png"),
        (encode(ROSE[..., 0]), "a.jpg"),
        (encode(ROSE[:16]), "a.jpg"),
    ],
    ids=["JPEG", "JPEG in capitals", "JPEG named PNG", "PNG", "grey JPEG", "16 pixels high"],
)
def test_plain_image_is_left_as_it_is(tmp_path, content, name):
    facts = inspect(tmp_path, content, name)
    assert (facts["verdict"], facts["reason"]) == ("ok", "")
    assert not (tmp_path / "converted").exists()


def as_mode(mode, image_format, **options):
    stream = io.BytesIO()
    Image.fromarray(ROSE).convert(mode).save(stream, image_format, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "name", "reason"),
    [
        (encode(ROSE, "GIF"), "a.jpg", "colour mode P"),
        (encode(ROSE, "WEBP"), "a.jpg", "format WEBP"),
        (encode(ROSE, "BMP"), "a.bmp", "format BMP"),
        (encode(ROSE, "PNG"), "a.jpg", "format PNG under a JPEG name"),
        (as_mode("CMYK", "JPEG"), "a.jpg", "colour mode CMYK"),
        (as_mode("P", "PNG"), "a.png", "colour mode P"),
        (as_mode("RGBA", "PNG"), "a.png", "colour mode RGBA"),
        (as_mode("1", "PNG"), "a.png", "colour mode 1"),
        (encode(ROSE[..., 0].astype(np.uint16) * 257, "PNG"), "a.png", "colour mode I;16"),
    ],
    ids=["GIF", "WebP", "BMP", "PNG named JPEG", "CMYK", "palette", "transparent", "two colours", "16-bit grey"],
)
def test_unusual_image_is_written_anew_as_rgb(tmp_path, content, name, reason):
    facts = inspect(tmp_path, content, name)
    assert facts["verdict"] == "converted"
    assert facts["reason"] == reason
    assert facts["readable_path"] == str(
        settings.home_folder() / "converted" / f"{facts['sha256']}-{manifest.READER_VERSION}.png"
    )
    with Image.open(facts["readable_path"]) as converted:
        assert (converted.mode, converted.format, converted.size) == ("RGB", "PNG", (72, 72))


def test_sixteen_bit_grey_keeps_its_shades(tmp_path):
    shades = np.tile(np.arange(0, 65536, 256, dtype=np.uint16), (64, 1))
    facts = inspect(tmp_path, encode(shades, "PNG"), "a.png")
    with Image.open(facts["readable_path"]) as converted:
        row = np.asarray(converted)[0, :, 0].astype(int)
    assert (row[0], row[-1]) == (0, 255)
    np.testing.assert_allclose(row, np.arange(256), atol=1)


def test_cmyk_and_palette_keep_their_colours(tmp_path):
    red = np.full((32, 32, 3), (220, 20, 30), np.uint8)
    for mode, image_format in (("CMYK", "JPEG"), ("P", "PNG")):
        stream = io.BytesIO()
        Image.fromarray(red).convert(mode).save(stream, image_format)
        facts = inspect(tmp_path, stream.getvalue(), f"a.{image_format.lower()}")
        with Image.open(facts["readable_path"]) as converted:
            np.testing.assert_allclose(np.asarray(converted)[16, 16], (220, 20, 30), atol=40)


def test_rotated_photograph_is_turned_upright(tmp_path):
    upright = np.zeros((40, 64, 3), np.uint8)
    upright[:20] = 255  # the sky is up
    exif = Image.Exif()
    exif[ROTATED] = 6  # shown a quarter turn clockwise
    facts = inspect(tmp_path, encode(np.rot90(upright), exif=exif, quality=95))
    assert (facts["verdict"], facts["reason"]) == ("converted", "rotated by its EXIF tag")
    assert (facts["width"], facts["height"]) == (64, 40)
    with Image.open(facts["readable_path"]) as converted:
        np.testing.assert_allclose(np.asarray(converted).astype(int), upright, atol=20)
        assert converted.getexif().get(ROTATED, 1) == 1


# The manifest


def test_manifest_has_one_row_per_file_in_label_order(tmp_path):
    images = {f"{label}/{i}.jpg": encode(draw_flower(label, i)) for label in TWO_CLASSES for i in range(3)}
    folder = fill(tmp_path / "images", images | {"daisy/.DS_Store": b"x", "notes/readme.txt": b"x"})
    table = build_listed(folder)
    assert table["path"].tolist() == [str(folder / name) for name in sorted(images)]
    assert table["label"].tolist() == ["daisy"] * 3 + ["rose"] * 3
    assert table["sha256"].tolist() == [files.sha256_of(path) for path in table["path"]]
    assert set(table["verdict"]) == {"ok"}
    assert table["group"].nunique() == 6


def test_manifest_points_to_the_converted_copy(tmp_path):
    table = build(tmp_path, {"daisy/1.jpg": encode(draw_flower("daisy", 1), "GIF"), "rose/1.jpg": JPEG})
    name = f"{table.loc['daisy/1.jpg', 'sha256']}-{manifest.READER_VERSION}.png"
    converted = settings.home_folder() / "converted" / name
    assert table.loc["daisy/1.jpg", ["path", "verdict", "label"]].tolist() == [str(converted), "converted", "daisy"]
    assert converted.is_file()


def test_unreadable_files_stay_in_the_manifest_and_out_of_the_splits(tmp_path, flowers):
    images = {f"{name}/{i}.jpg": encode(draw_flower(name, i)) for name in CLASS_NAMES for i in range(10)}
    table = build(tmp_path, images | {"rose/x.jpg": b"", "tulip/x.jpg": NOISE}, flowers.class_names)
    assert table.loc[["rose/x.jpg", "tulip/x.jpg"], "verdict"].tolist() == ["empty", "not_an_image"]
    for protocol in splits.PROTOCOLS:
        assert len(split_manifest(table, flowers, protocol=protocol)) == 50


@pytest.mark.slow
def test_work_in_several_processes_gives_the_same_manifest(tmp_path):
    images = {f"{label}/{i}.png": encode(draw_flower(label, i)) for label in TWO_CLASSES for i in range(101)}
    folder = fill(tmp_path / "images", images)
    alone, together = (build_listed(folder, workers=count) for count in (1, 2))
    pd.testing.assert_frame_equal(alone, together)
    assert len(alone) == 202


@pytest.mark.parametrize("images", [{}, {"daisy/1.jpg": b"", "daisy/2.jpg": NOISE}], ids=["no folder", "no image"])
def test_class_without_a_readable_image_is_named(tmp_path, images):
    with pytest.raises(ValueError, match=r"at least one readable image\. Missing: \['daisy'\]\. Received: "):
        build(tmp_path, {"rose/1.jpg": JPEG, **images})


def test_empty_class_folder_is_named(tmp_path):
    (tmp_path / "images" / "daisy").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"Missing: \['daisy'\]"):
        build(tmp_path, {"rose/1.jpg": JPEG})


def test_one_class_is_too_few(tmp_path):
    with pytest.raises(ValueError, match=r"at least two classes\. Received: class_names=\['rose'\]"):
        build(tmp_path, {"rose/1.jpg": JPEG}, ("rose",))


# Duplicates


def resized(pixels, side):
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC))


@pytest.mark.parametrize(
    "copy",
    [JPEG, encode(ROSE, quality=40), encode(resized(ROSE, 144)), encode(resized(ROSE, 50)), encode(ROSE, "PNG")],
    ids=["exact", "re-encoded", "enlarged", "reduced", "as PNG"],
)
def test_duplicates_share_a_group_and_different_pictures_do_not(tmp_path, copy):
    different = {f"rose/d{i}.jpg": encode(draw_flower("rose", i)) for i in range(1, 9)}
    table = build(
        tmp_path, {"daisy/1.jpg": encode(draw_flower("daisy", 0)), "rose/a.jpg": JPEG, "rose/b.jpg": copy} | different
    )
    groups = table["group"]
    assert groups["rose/a.jpg"] == groups["rose/b.jpg"]
    assert groups.nunique() == len(table) - 1
    assert set(table["verdict"]) <= {"ok", "converted"}


def test_near_duplicates_need_both_hashes():
    blank = np.zeros((2, 64), bool)
    near, far = blank.copy(), blank.copy()
    near[:, :8] = True
    far[0, -9:] = True
    assert duplicates.group_duplicates(["a", "b", "c"], [blank, near, far]).tolist() == [0, 0, 1]


def test_near_duplicates_are_found_across_blocks_of_comparison(monkeypatch):
    hashes = list(np.random.default_rng(0).random((30, 2, 64)) < 0.5)
    for first, second in ((0, 29), (3, 4), (11, 17)):
        hashes[second] = hashes[first].copy()
        hashes[second][:, :5] ^= True
    names = [str(index) for index in range(30)]
    whole = duplicates.group_duplicates(names, hashes)
    assert [whole[a] == whole[b] for a, b in ((0, 29), (3, 4), (11, 17), (0, 3))] == [True, True, True, False]
    monkeypatch.setattr(duplicates, "COMPARED_AT_ONCE", 7)
    assert duplicates.group_duplicates(names, hashes).tolist() == whole.tolist()


def test_without_near_duplicates_identical_files_alone_are_grouped():
    hash_of_all = np.zeros((2, 64), bool)
    groups = duplicates.group_duplicates(["a", "b", "a"], [hash_of_all] * 3, near_duplicate_bits=None)
    assert groups.tolist() == [0, 1, 0]


def damage_for_some_readers(path, content):
    """Writes a JPEG that one decoder forgives and the one that training uses refuses."""
    for place in range(len(content) // 2, len(content) - 4):
        path.write_bytes(content[:place] + b"\xff" * 4 + content[place + 4 :])
        if manifest.open_image(path)[0] == "ok" and not can_read(str(path)):
            return path
    raise AssertionError("no such place")


def test_a_picture_that_training_would_stumble_over_is_written_anew(tmp_path):
    images = {"daisy/a.jpg": encode(draw_flower("daisy", 0)), "rose/a.jpg": encode(ROSE), "rose/b.jpg": encode(ROSE)}
    fill(tmp_path / "images", images)
    damage_for_some_readers(tmp_path / "images" / "rose" / "b.jpg", encode(ROSE))
    table = build_listed(tmp_path / "images").set_index(["label"])
    assert table["verdict"].tolist() == ["ok", "ok", "converted"]
    assert table["reason"].iloc[2] == manifest.REFUSED
    assert loaders.read_image(table["path"].iloc[2], 32).shape == (32, 32, 3)


def test_perceptual_hash_is_left_out_where_it_is_not_wanted(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encode(ROSE))
    hashed, unhashed = (inspect_image(tmp_path / "a.jpg", hashed=flag) for flag in (True, False))
    assert hashed[0] == unhashed[0]
    assert hashed[1].shape == (2, 64)
    assert unhashed[1] is None


def test_chain_of_near_duplicates_is_one_group():
    hashes = [np.arange(128).reshape(2, 64) % 64 < 8 * step for step in range(3)]
    assert duplicates.group_duplicates(["a", "b", "c"], hashes).tolist() == [0, 0, 0]


def test_unreadable_files_are_grouped_by_their_bytes_alone():
    assert duplicates.group_duplicates(["x", "y", "x"], [None, None, None]).tolist() == [0, 1, 0]


@pytest.fixture
def two_classes(tmp_path, flowers):
    """A manifest in which one rose is also filed, re-encoded, under the tulips."""
    images = {f"{name}/{i}.jpg": encode(draw_flower(name, i)) for name in CLASS_NAMES for i in range(10)}
    return build(tmp_path, images | {"tulip/copy.jpg": encode(ROSE, quality=60)}, flowers.class_names)


def test_photograph_under_two_classes_is_marked_under_both(two_classes):
    marked = two_classes[two_classes["verdict"] == "two_classes"]
    assert marked.index.tolist() == ["rose/0.jpg", "tulip/copy.jpg"]
    assert set(marked["reason"]) == {"the same picture stands under several classes"}
    assert len(set(marked["group"])) == 1


@pytest.mark.filterwarnings("ignore:The least populated class")
def test_careful_drops_a_photograph_under_two_classes_and_published_keeps_it(two_classes, flowers):
    marked = set(two_classes.loc[["rose/0.jpg", "tulip/copy.jpg"], "path"])
    careful = split_manifest(two_classes, flowers, protocol="careful")
    published = split_manifest(two_classes, flowers, protocol="published")
    assert (len(careful), marked & set(careful["path"])) == (49, set())
    assert (len(published), marked & set(published["path"])) == (51, marked)


def test_files_of_official_parts_stand_in_the_manifest_with_their_part(tmp_path):
    parts = {part: Place(f"{part}/{{label}}") for part in ("train", "test")}
    images = {
        f"{part}/{name}/{i}.png": encode(draw_flower(name, i + 10 * (part == "test"), 24), "PNG")
        for part in parts
        for name in TWO_CLASSES
        for i in range(2)
    }
    table = build_listed(fill(tmp_path / "images", images), places=parts)
    assert table["part"].tolist() == ["train"] * 4 + ["test"] * 4
    assert table["label"].tolist() == ["daisy", "daisy", "rose", "rose"] * 2


def test_fingerprint_follows_the_images_and_not_their_order():
    table = pd.DataFrame({"sha256": [f"{i:064x}" for i in range(20)], "path": "here"})
    assert fingerprint(table.sample(frac=1, random_state=0)) == fingerprint(table)
    assert fingerprint(table.assign(path="elsewhere")) == fingerprint(table)
    assert fingerprint(table.iloc[1:]) != fingerprint(table)
    assert len(fingerprint(table)) == 64


# The cache


@pytest.fixture
def builds(monkeypatch):
    """A list that grows by one with every manifest built."""
    calls, original = [], manifest.build_manifest

    def count(*arguments, **options):
        calls.append(arguments)
        return original(*arguments, **options)

    monkeypatch.setattr(manifest, "build_manifest", count)
    return calls


@pytest.fixture
def archive(mirror):
    """A mirrored archive that also holds an empty and an unusual file."""
    extra = {"flowers/rose/empty.jpg": b"", "flowers/rose/null.jpg": encode(draw_flower("rose", 99), "GIF")}
    return write_archive(mirror / "flowers-recognition.zip", per_class=2, extra=extra)


@pytest.mark.usefixtures("archive")
def test_manifest_is_built_once_and_read_back_equal(flowers, builds):
    first, second = load_manifest(flowers), load_manifest(flowers)
    assert len(builds) == 1
    pd.testing.assert_frame_equal(first, second, check_dtype=False)
    assert second["verdict"].value_counts().to_dict() == {"ok": 10, "empty": 1, "converted": 1}


@pytest.fixture
def own(tmp_path):
    """A folder of one's own with two classes of five flowers."""
    return fill(
        tmp_path / "own", {f"{name}/{i}.jpg": encode(draw_flower(name, i)) for name in TWO_CLASSES for i in range(5)}
    )


def test_manifest_is_built_anew_when_a_file_changes(own, builds):
    path = load_manifest(studies.describe_folder(own))["path"][0]
    with open(path, "wb") as stream:
        stream.write(b"")
    assert load_manifest(studies.describe_folder(own))["verdict"][0] == "empty"
    os.utime(path, ns=(0, 0))
    load_manifest(studies.describe_folder(own))
    assert len(builds) == 3


def test_manifest_is_built_anew_when_a_file_is_added(own, builds):
    study = studies.describe_folder(own)
    first = load_manifest(study)
    (own / "rose" / "new.jpg").write_bytes(encode(draw_flower("rose", 50)))
    assert len(load_manifest(study)) == len(first) + 1
    assert len(builds) == 2


def test_pictures_written_anew_that_a_cleaner_took_away_are_written_again(own):
    (own / "rose" / "moving.gif").write_bytes(encode(draw_flower("rose", 9), "GIF"))
    study = studies.describe_folder(own)
    load_manifest(study)
    for path in (settings.home_folder() / "converted").iterdir():
        path.unlink()
    assert all(Path(path).is_file() for path in load_manifest(study)["path"])


@pytest.mark.parametrize("names", [("0", "001"), ("True", "NA"), ("1e3", "null"), ("nan", "None")])
def test_classes_whose_names_read_as_numbers_are_text_from_the_cache_too(tmp_path, names):
    fill(
        tmp_path / "own",
        {f"{name}/{i}.jpg": encode(draw_flower("rose", 7 * k + i)) for k, name in enumerate(names) for i in range(2)},
    )
    study = studies.describe_folder(tmp_path / "own")
    for _ in range(2):
        manifest_ = load_manifest(study)
        assert sorted(set(manifest_["label"])) == sorted(names)


def test_hidden_and_system_folders_are_left_out_inside_a_class(own):
    for hidden in (".ipynb_checkpoints", "@eaDir", "__MACOSX", ".thumbnails"):
        fill(own, {f"rose/{hidden}/1.jpg": JPEG})
    assert len(load_manifest(studies.describe_folder(own))) == 10


def test_names_that_are_not_utf8_are_read_and_shown_escaped(own):
    (own / "rose").rename(os.fsdecode(os.fsencode(own) + b"/bl\xfchend"))
    study = studies.describe_folder(own)
    assert study.class_names == ("bl\\xfchend", "daisy")
    table = load_manifest(study)
    assert set(table["verdict"]) == {"ok", "converted"}
    assert all(files.is_text(path) and can_read(path) for path in table["path"])


def bytes_of_tiff(values):
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "TIFF")
    return stream.getvalue()


def test_float_pictures_keep_their_negative_half_and_one_nan_costs_one_pixel(tmp_path):
    values = np.tile(np.linspace(-100, 100, 32, dtype=np.float32), (32, 1))
    values[0, 0] = np.nan
    facts = inspect(tmp_path, bytes_of_tiff(values), "a.tif")
    with Image.open(facts["readable_path"]) as converted:
        row = np.asarray(converted)[1, :, 0].astype(int)
    np.testing.assert_allclose(row, np.linspace(0, 255, 32), atol=1.01)


@pytest.mark.parametrize("suffix", ["JPEG", "PNG"])
def test_a_damaged_note_leaves_a_good_picture_readable(tmp_path, suffix):
    content = encode(ROSE, suffix, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + NOISE)
    facts = inspect(tmp_path, content, f"a.{suffix.lower()}")
    assert facts["verdict"] in ("ok", "converted")


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        (b"\0\0\0\x24ftypheic\0\0\0\0mif1heic" + NOISE, "a.HEIC", "HEIC"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + NOISE, "a.mov", "film"),
        (b"%PDF-1.7\n" + NOISE, "a.pdf", "PDF"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "a.svg", "SVG"),
        (b"8BPS\0\1" + NOISE, "a.psd", "PSD"),
        (b"II*\0" + NOISE, "a.NEF", "raw file"),
    ],
)
def test_files_of_other_kinds_are_called_by_their_names_with_what_to_do(tmp_path, content, name, words):
    facts = inspect(tmp_path, content, name)
    assert facts["verdict"] == "unreadable"
    assert words in facts["reason"]
    assert "export" in facts["reason"] or "take single pictures" in facts["reason"]


def test_heic_of_a_phone_is_read(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    stream = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(ROSE)).save(stream, quality=90)
    facts = inspect(tmp_path, stream.getvalue(), "IMG_1.HEIC")
    assert (facts["verdict"], facts["width"]) == ("converted", 72)
    assert can_read(facts["readable_path"])


# Near duplicates of one's own pictures


def alike_pictures(class_colour, index):
    values = np.full((32, 32, 3), class_colour, np.uint8)
    return encode(values + np.random.default_rng(index).integers(0, 9, (1, 1, 3)).astype(np.uint8), "PNG")


def test_pictures_that_hashes_cannot_tell_apart_cast_doubt_on_the_hash_and_are_kept(tmp_path, capsys):
    colours = {"red": (200, 10, 10), "blue": (10, 10, 200)}
    fill(
        tmp_path / "own",
        {
            f"{name}/{i}.png": alike_pictures(colour, i + 50 * (name == "red"))
            for name, colour in colours.items()
            for i in range(8)
        },
    )
    table = load_manifest(studies.describe_folder(tmp_path / "own"))
    assert set(table["verdict"]) == {"ok"}
    assert "against the method" in capsys.readouterr().out
    off = load_manifest(studies.describe_folder(tmp_path / "own", near_duplicates="off"))
    assert set(off["verdict"]) == {"ok"}


def test_a_picture_and_its_copy_of_another_quality_under_two_classes_are_left_out(own):
    (own / "daisy" / "copy.jpg").write_bytes(encode(ROSE, quality=60))
    table = load_manifest(studies.describe_folder(own))
    assert sorted(Path(path).name for path in table.loc[table["verdict"] == "two_classes", "path"]) == [
        "0.jpg",
        "copy.jpg",
    ]
