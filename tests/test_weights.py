"""Weights are found in one order, are the official ones, or are refused."""

import hashlib
import json
import struct
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import requests
from builders import cached, checksums_of

from tlhelpers import files, models, settings, weights
from tlhelpers.datasets import downloads
from tlhelpers.datasets.downloads import MissingDataError
from tlhelpers.files import BadArchiveError

WEIGHTS = weights.WEIGHT_FILES["imagenet"]["mobilenetv2_035"]


@pytest.fixture(autouse=True)
def _no_files_of_the_project(tmp_path, monkeypatch):
    """Hides the embedded backbone."""
    monkeypatch.setattr(settings, "data_folder", lambda: tmp_path / "project-data")


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory):
    """A backbone with random weights, and a file of them in the container of the official ones."""
    backbone = models.build_backbone("mobilenetv2_035", 32, weights=None)
    path = tmp_path_factory.mktemp("weights") / "random.h5"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        backbone.save(path)
    return backbone, path


def mirror_weights(folder, content):
    (folder / "weights").mkdir()
    (folder / "weights" / WEIGHTS).write_bytes(content)


def load():
    return models.build_backbone("mobilenetv2_035", 32, weights="imagenet")


@pytest.mark.slow
def test_other_weights_under_the_official_name_are_refused(mirror, random_weights):
    backbone, path = random_weights
    mirror_weights(mirror, path.read_bytes())
    expected, received = weights.WEIGHTS_SHA256[WEIGHTS], weights.digest_of_weights(backbone)
    with pytest.raises(BadArchiveError, match=f"have the SHA-256 {expected}. Received: {received} from "):
        load()


def test_weights_with_the_right_arrays_are_loaded(mirror, random_weights, monkeypatch):
    backbone, path = random_weights
    mirror_weights(mirror, path.read_bytes())
    monkeypatch.setitem(weights.WEIGHTS_SHA256, WEIGHTS, weights.digest_of_weights(backbone))
    loaded = load()
    for expected, received in zip(backbone.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(received, expected)


def test_every_weight_file_has_a_place_upstream():
    found = {name: file for name, file in weights.WEIGHT_FILES["imagenet"].items() if file not in weights.PRESETS}
    urls = {name: weights.weights_url(file) for name, file in found.items()}
    assert urls["efficientnetv2b0"].endswith("keras-applications/efficientnet_v2/efficientnetv2-b0_notop.h5")
    assert all(url.startswith(weights.WEIGHTS_URL) for url in urls.values())
    assert {*weights.WEIGHTS_SHA256, *weights.WEIGHTS_MD5} == set(found.values())


def test_weights_stored_in_half_precision_are_recognised_and_others_are_not(random_weights):
    backbone, _ = random_weights
    whole = [weights.digest_of_weights(backbone, half_precision=half) for half in (False, True)]
    backbone.set_weights([array.astype(np.float16).astype(np.float32) for array in backbone.get_weights()])
    halved = [weights.digest_of_weights(backbone, half_precision=half) for half in (False, True)]
    assert whole[0] != halved[0]
    assert whole[1] == halved[1]
    backbone.set_weights([array + 1 for array in backbone.get_weights()])
    assert weights.digest_of_weights(backbone, half_precision=True) != halved[1]


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["truncated", "web page", "empty"])
def test_damaged_weights_are_refused(mirror, random_weights, damage):
    content = random_weights[1].read_bytes()
    damaged = {"truncated": content[: len(content) // 2], "web page": b"<html></html>", "empty": b""}
    mirror_weights(mirror, damaged[damage])
    with pytest.raises(BadArchiveError, match="A weight file fits its backbone and is whole") as caught:
        load()
    assert str(mirror / "weights" / WEIGHTS) in str(caught.value)


@pytest.mark.slow
def test_weights_of_another_backbone_are_refused(mirror, random_weights):
    (mirror / "weights").mkdir()
    wider = weights.WEIGHT_FILES["imagenet"]["mobilenetv2_100"]
    (mirror / "weights" / wider).write_bytes(random_weights[1].read_bytes())
    with pytest.raises(BadArchiveError, match="A weight file fits its backbone and is whole"):
        models.build_backbone("mobilenetv2_100", 32, weights="imagenet")


def test_missing_weights_are_answered_with_three_ways_to_provide_them(monkeypatch):
    def refuse(url, **_):
        raise requests.ConnectionError(f"no way to {url}")

    monkeypatch.setattr(downloads.pooch, "retrieve", refuse)
    with pytest.raises(MissingDataError) as caught:
        load()
    message = str(caught.value)
    assert f"The ImageNet weights {WEIGHTS} are nowhere to be found.\n" in message
    assert f"no way to {weights.WEIGHTS_URL}mobilenet_v2/{WEIGHTS}" in message
    assert "set TLHELPERS_MIRROR to a folder or URL that holds them under weights/" in message
    assert f"put the file into {settings.home_folder() / 'downloads'}" in message


def test_weights_come_over_http_and_stay_in_the_cache(website, random_weights, monkeypatch):
    content = random_weights[1].read_bytes()
    website.pages = {f"weights/{WEIGHTS}": content, "SHA256SUMS": checksums_of(content, f"weights/{WEIGHTS}")}
    assert weights.find_weights(WEIGHTS) == cached(WEIGHTS)
    monkeypatch.delenv("TLHELPERS_MIRROR")
    assert weights.find_weights(WEIGHTS) == cached(WEIGHTS)
    assert website.requests == ["SHA256SUMS", f"weights/{WEIGHTS}"]


def test_imagenet_weights_are_taken_from_the_mirror_then_the_cache(mirror):
    name = weights.WEIGHT_FILES["imagenet"]["mobilenetv2_035"]
    places = [mirror / "weights" / name, cached(name)]
    for path in places:
        files.write_text(path, "weights")
    for path in places:
        assert weights.find_weights(name) == path
        path.unlink()


@pytest.fixture
def embedded(random_weights):
    """The backbone of `random_weights`, in the book as the pocket one, with its card."""
    backbone, _ = random_weights
    name = weights.WEIGHT_FILES["pocket"]["mobilenetv2_035"]
    weights.save_backbone_weights(backbone, settings.pocket_folder() / name)
    write_card(weights.digest_of_weights(backbone))
    return backbone


def write_card(digest):
    files.write_text(settings.pocket_folder() / weights.CARD_FILE, json.dumps({"arrays_sha256": digest}))


def test_pocket_weights_come_from_the_book_alone(website, embedded):
    loaded = models.build_backbone("mobilenetv2_035", 64, weights="pocket")
    for expected, received in zip(embedded.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(received, expected)
    assert website.requests == []


@pytest.mark.parametrize(
    "damage", [lambda content: content[: len(content) // 2], lambda content: b"no archive", lambda content: b""]
)
def test_damaged_pocket_weights_are_refused(embedded, damage):
    path = settings.pocket_folder() / weights.WEIGHT_FILES["pocket"]["mobilenetv2_035"]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadArchiveError, match="fits its backbone and is whole"):
        models.build_backbone("mobilenetv2_035", 64, weights="pocket")


def test_pocket_weights_other_than_those_of_the_card_are_refused(embedded):
    write_card("0" * 64)
    received = weights.digest_of_weights(embedded)
    with pytest.raises(BadArchiveError, match=f"have the SHA-256 {'0' * 64}. Received: {received} from "):
        models.build_backbone("mobilenetv2_035", 32, weights="pocket")


def test_digest_of_weights_depends_on_the_arrays_alone(random_weights):
    backbone, _ = random_weights
    copy = models.build_backbone("mobilenetv2_035", 64, weights=None)
    assert weights.digest_of_weights(copy) != weights.digest_of_weights(backbone)
    copy.set_weights(backbone.get_weights())
    assert weights.digest_of_weights(copy) == weights.digest_of_weights(backbone)


def test_digest_of_weights_is_over_little_endian_float32():
    model = SimpleNamespace(get_weights=lambda: [np.array([[1.0, -2.0]]), np.array([0.5], ">f4")])
    assert weights.digest_of_weights(model) == hashlib.sha256(struct.pack("<3f", 1, -2, 0.5)).hexdigest()


def test_weights_whose_makers_give_an_md5_are_checked_by_it(mirror):
    name = weights.WEIGHT_FILES["imagenet"]["resnet50"]
    files.write_text(mirror / "weights" / name, "other weights")
    with pytest.raises(BadArchiveError, match=f"has the MD5 {weights.WEIGHTS_MD5[name]}. Received: [0-9a-f]{{32}} for"):
        models.build_backbone("resnet50", 32)
