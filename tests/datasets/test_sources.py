"""Archives are found in one order, verified, and extracted whole or not at all. Mirrors and downloads on the way."""

import stat
import struct
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import requests
from builders import CLASS_NAMES, Website, cached, checksums_of, write_archive

from tlhelpers import files, settings
from tlhelpers.datasets import archives, downloads, layouts, sources, studies
from tlhelpers.datasets.sources import BadArchiveError, MissingDataError, prepare_images
from tlhelpers.synthetic import collection

ARCHIVE = "flowers-recognition.zip"
MIB = 2**20


@pytest.fixture(autouse=True)
def _nothing_but_what_the_test_provides(tmp_path, monkeypatch):
    """Hides an archive a developer dropped into the project, and switches Kaggle off."""

    def refuse(study):
        raise ConnectionError("Kaggle is switched off")

    monkeypatch.setattr(settings, "data_folder", lambda: tmp_path / "project-data")
    monkeypatch.setattr(sources, "_download_from_kaggle", refuse)


@pytest.fixture
def provide(tmp_path, monkeypatch):
    """A function that puts bytes into a mirror as the flower archive."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    monkeypatch.setenv("TLHELPERS_MIRROR", str(folder))

    def write(content):
        (folder / ARCHIVE).write_bytes(content)
        return folder / ARCHIVE

    return write


@pytest.fixture
def archive_bytes(tmp_path):
    """The bytes of a small whole archive."""
    return pack(tmp_path / "whole.zip").read_bytes()


def pack(path, *, labels=CLASS_NAMES, prefix="flowers/", extra=(), compression=zipfile.ZIP_STORED):
    """A ZIP with one file per class, which no one decodes here; `extra` are pairs of name or ZipInfo, and bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for label in labels:
            archive.writestr(f"{prefix}{label}/1.jpg", f"a {label}".encode() * 50)
        for name, content in extra:
            archive.writestr(name, content)
    return path


def link(name):
    """A member that is a symbolic link."""
    member = zipfile.ZipInfo(name)
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


def below(folder):
    """The files below a folder, and its hidden folders."""
    found = Path(folder).rglob("*")
    return [path for path in found if path.is_file() or path.is_symlink() or path.name.startswith(".")]


def extracted():
    """What the cache of images holds, leftovers included."""
    return below(settings.home_folder() / "images")


def kept_downloads():
    """The names in the cache of downloads, leftovers included."""
    return sorted(path.name for path in below(settings.home_folder() / "downloads"))


# Missing and damaged archives


def test_missing_archive_is_answered_with_the_ways_to_provide_it_or_do_without(flowers):
    with pytest.raises(MissingDataError) as caught:
        prepare_images(flowers)
    message = str(caught.value)
    assert f"Flower photographs: no source has the archive {ARCHIVE}" in message
    assert "https://www.kaggle.com/datasets/alxmamaev/flowers-recognition and drop the ZIP" in message
    assert f"into {settings.data_folder()}" in message
    assert "set TLHELPERS_MIRROR to a folder or URL" in message
    assert "choose the profile 'pocket', which needs no photographs" in message
    assert "kagglehub can fetch it (it said: ConnectionError: Kaggle is switched off)" in message
    assert isinstance(caught.value.__cause__, ConnectionError)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "whole ZIP file; this one is empty, truncated or of another format"),
        (b"This is a text and no archive.\n" * 10, "whole ZIP file; this one is empty, truncated or of another"),
        (b"PK\x03\x04", "whole ZIP file; this one is empty, truncated or of another format"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "this one is a web page, as a login or error page"),
        (b"\n\n  <html>Too many requests</html>", "this one is a web page, as a login or error page"),
    ],
    ids=["empty", "text", "four bytes", "web page", "web page after blanks"],
)
def test_file_that_is_no_archive_is_refused(provide, flowers, content, message):
    path = provide(content)
    with pytest.raises(BadArchiveError, match=message) as caught:
        prepare_images(flowers)
    assert f"archive={str(path)!r}" in str(caught.value)
    assert extracted() == []


@pytest.mark.parametrize("share", [0.3, 0.9, 0.99])
def test_truncated_archive_is_refused(provide, archive_bytes, flowers, share):
    provide(archive_bytes[: int(share * len(archive_bytes))])
    with pytest.raises(BadArchiveError, match="this one is empty, truncated or of another format"):
        prepare_images(flowers)
    assert extracted() == []


def test_archive_with_a_hole_is_refused(provide, archive_bytes, flowers):
    provide(archive_bytes[:500] + archive_bytes[700:])
    with pytest.raises(BadArchiveError, match=r"this one is truncated or damaged \(.*\)\. Download it again"):
        prepare_images(flowers)
    assert extracted() == []


def test_archive_with_a_bad_checksum_is_refused(provide, archive_bytes, flowers):
    provide(archive_bytes.replace(b"a tulip", b"A tulip", 1))
    with pytest.raises(BadArchiveError, match=r"truncated or damaged \(Bad CRC-32 for file 'flowers/tulip/1.jpg'\)"):
        prepare_images(flowers)
    assert extracted() == []


def test_archive_with_damaged_compressed_data_is_refused(provide, tmp_path, flowers):
    noise = np.random.default_rng(0).integers(0, 4, 4000, dtype=np.uint8).tobytes()
    extra = [("flowers/tulip/2.jpg", noise)]
    content = pack(tmp_path / "a.zip", extra=extra, compression=zipfile.ZIP_DEFLATED).read_bytes()
    start = content.index(b"flowers/tulip/2.jpg") + len(b"flowers/tulip/2.jpg")
    provide(content[:start] + b"\xff" * 200 + content[start + 200 :])
    with pytest.raises(BadArchiveError, match=r"truncated or damaged .*while decompressing"):
        prepare_images(flowers)
    assert extracted() == []


def test_encrypted_archive_is_refused(provide, archive_bytes, flowers):
    content = bytearray(archive_bytes)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        struct.pack_into("<H", content, content.index(signature) + offset, 1)
    provide(bytes(content))
    with pytest.raises(BadArchiveError, match="opens without a password; this one is protected by one"):
        prepare_images(flowers)
    assert extracted() == []


def test_archive_of_another_content_is_refused_and_the_missing_classes_are_named(provide, tmp_path, flowers):
    provide(pack(tmp_path / "other.zip", labels=("daisy", "tulip", "cat")).read_bytes())
    with pytest.raises(BadArchiveError, match=r"Missing: \['dandelion', 'rose', 'sunflower'\]\. Received: "):
        prepare_images(flowers)
    assert extracted() == []


@pytest.mark.parametrize(
    "name",
    [
        "../x.jpg",
        "flowers/../../x.jpg",
        "/x.jpg",
        "..\\x.jpg",
        "flowers\\..\\..\\x.jpg",
        "\\x.jpg",
        "C:\\x.jpg",
        "C:x.jpg",
    ],
)
def test_archive_with_path_escape_is_refused(provide, tmp_path, flowers, name):
    provide(pack(tmp_path / "a.zip", extra=[(name, b"escaped")]).read_bytes())
    with pytest.raises(BadArchiveError, match="stays inside its folder") as caught:
        prepare_images(flowers)
    assert f"Received: {name!r} in " in str(caught.value)
    assert extracted() == []
    assert list(tmp_path.rglob("*x.jpg")) == []


def test_archive_with_a_link_is_refused(provide, tmp_path, flowers):
    provide(pack(tmp_path / "a.zip", extra=[(link("flowers/rose/link.jpg"), "/etc/passwd")]).read_bytes())
    with pytest.raises(BadArchiveError, match=r"files and no links\. Received: 'flowers/rose/link.jpg'"):
        prepare_images(flowers)
    assert extracted() == []


def test_compression_bomb_is_refused(provide, tmp_path, flowers):
    extra = [("flowers/rose/bomb.jpg", bytes(2 * MIB))]
    provide(pack(tmp_path / "a.zip", extra=extra, compression=zipfile.ZIP_DEFLATED).read_bytes())
    with pytest.raises(BadArchiveError, match=r"at most 200 times its packed size\. Received: 'flowers/rose/bomb.jpg'"):
        prepare_images(flowers)
    assert extracted() == []


def test_archive_that_unpacks_to_too_much_is_refused(provide, archive_bytes, flowers, monkeypatch):
    monkeypatch.setattr(archives, "MAX_EXTRACTED_BYTES", 1000)
    provide(archive_bytes)
    total = sum(len(f"a {label}") * 50 for label in CLASS_NAMES)
    with pytest.raises(BadArchiveError, match=f"at most 1,000 bytes here. Received: {total:,} in "):
        prepare_images(flowers)
    assert extracted() == []


def test_member_without_a_name_of_its_own_is_refused(provide, tmp_path, flowers):
    provide(pack(tmp_path / "a.zip", extra=[(".", b"nameless")]).read_bytes())
    with pytest.raises(BadArchiveError, match="has a name"):
        prepare_images(flowers)
    assert extracted() == []


# Extraction


def test_images_are_extracted_once(mirror, flowers, monkeypatch):
    folder = prepare_images(flowers)
    assert folder.name == "flowers"
    assert sorted(path.name for path in folder.iterdir()) == sorted(flowers.class_names)
    assert len(list(folder.rglob("*.jpg"))) == 8 * 5
    monkeypatch.setattr(archives, "extract_archives", lambda *_: pytest.fail("extracted a second time"))
    assert prepare_images(flowers) == folder


def test_another_archive_is_extracted_beside_the_first(mirror, flowers):
    first = prepare_images(flowers)
    write_archive(mirror / ARCHIVE, per_class=1)
    second = prepare_images(flowers)
    assert second != first
    assert len(list(first.rglob("*.jpg"))) == 8 * 5
    assert len(list(second.rglob("*.jpg"))) == 5


@pytest.mark.parametrize(
    ("prefix", "inner"),
    [("", ""), ("flowers/", "flowers"), ("flowers/flowers/", "flowers/flowers"), ("a/b/c/", "a/b/c")],
)
def test_class_folders_are_found_at_any_depth(provide, tmp_path, flowers, prefix, inner):
    provide(pack(tmp_path / "a.zip", prefix=prefix).read_bytes())
    key = files.sha256_of_text(files.sha256_of(tmp_path / "a.zip"))[:16]
    destination = settings.home_folder() / "images" / key
    assert prepare_images(flowers) == destination / inner


def test_shallowest_complete_folder_is_chosen(provide, tmp_path, flowers):
    deeper = [(f"flowers/flowers/{label}/1.jpg", b"again") for label in flowers.class_names]
    provide(pack(tmp_path / "a.zip", extra=deeper).read_bytes())
    folder = prepare_images(flowers)
    assert (folder.name, folder.parent.parent.name) == ("flowers", "images")
    assert (folder / "rose" / "1.jpg").read_bytes() == b"a rose" * 50


def test_incomplete_outer_folder_is_passed_over(provide, tmp_path, flowers):
    complete = [(f"flowers/flowers/{label}/1.jpg", b"whole") for label in flowers.class_names]
    provide(pack(tmp_path / "a.zip", labels=("daisy", "rose"), extra=complete).read_bytes())
    assert (prepare_images(flowers) / "tulip" / "1.jpg").read_bytes() == b"whole"


# Drawn pictures


@pytest.fixture
def drawn(monkeypatch):
    """The drawn edition of the flower study, small, and every way to an archive closed."""
    monkeypatch.setattr(collection, "FILES_PER_CLASS", 30)
    monkeypatch.setattr(sources, "find_archives", lambda _: pytest.fail("looked for an archive"))
    return studies.get_study("flowers", drawn=True)


@pytest.mark.slow
def test_pictures_of_a_drawn_study_are_drawn_once_and_no_archive_is_asked_for(mirror, drawn, monkeypatch):
    folder = prepare_images(drawn)
    assert folder.is_relative_to(settings.home_folder() / "images" / "flowers-drawn")
    assert {path.name: len(list(path.iterdir())) for path in folder.iterdir() if path.is_dir()} == dict.fromkeys(
        CLASS_NAMES, 30
    )
    monkeypatch.setattr(collection, "draw_files", lambda *_, **__: pytest.fail("drawn a second time"))
    assert prepare_images(drawn) == folder


@pytest.mark.slow
def test_drawn_and_found_pictures_never_share_a_folder(mirror, flowers, monkeypatch):
    monkeypatch.setattr(collection, "FILES_PER_CLASS", 30)
    found, drawn = prepare_images(flowers), prepare_images(studies.get_study("flowers", drawn=True))
    assert not found.is_relative_to(drawn)
    assert not drawn.is_relative_to(found)
    assert len(list(found.rglob("*.jpg"))) == 8 * 5


# The order of the sources


@pytest.mark.parametrize("name", ["archive (3).zip", "flowers-recognition.zip", "x.zip"])
def test_dropped_archive_is_recognised_by_its_contents_and_wins_over_the_mirror(mirror, flowers, name):
    dropped = pack(Path("data") / name)
    assert sources.find_archives(flowers) == [Path.cwd() / dropped]


def test_dropped_archive_of_another_content_is_passed_over(mirror, flowers):
    pack(Path("data") / "cats.zip", labels=("cat", "dog"))
    (Path("data") / "broken.zip").write_bytes(b"PK\x03\x04")
    assert sources.find_archives(flowers) == [mirror / ARCHIVE]


def test_nearest_dropped_archive_wins(flowers):
    pack(settings.data_folder() / "far.zip")
    pack(Path("near.zip"))
    assert sources.find_archives(flowers) == [Path.cwd() / "near.zip"]


def test_mirror_wins_over_the_cache_and_the_cache_over_kaggle(mirror, flowers, monkeypatch):
    monkeypatch.setattr(sources, "_download_from_kaggle", lambda _: pytest.fail("asked Kaggle"))
    pack(cached(ARCHIVE))
    assert sources.find_archives(flowers) == [mirror / ARCHIVE]
    (mirror / ARCHIVE).unlink()
    assert sources.find_archives(flowers) == [cached(ARCHIVE)]


def test_folder_that_kagglehub_extracted_is_used_as_it_stands(flowers, tmp_path, monkeypatch):
    with zipfile.ZipFile(pack(tmp_path / "a.zip")) as archive:
        archive.extractall(tmp_path / "kagglehub" / "versions" / "2")
    monkeypatch.setattr(sources, "_download_from_kaggle", lambda _: tmp_path / "kagglehub" / "versions" / "2")
    assert prepare_images(flowers) == tmp_path / "kagglehub" / "versions" / "2" / "flowers"
    assert extracted() == []


# A mirror in a folder


def test_mirror_that_does_not_exist_is_an_error(flowers, tmp_path, monkeypatch):
    monkeypatch.setenv("TLHELPERS_MIRROR", str(tmp_path / "nowhere"))
    message = "TLHELPERS_MIRROR is an existing folder or an http.s. URL. Received: TLHELPERS_MIRROR='.*nowhere'"
    with pytest.raises(MissingDataError, match=message):
        prepare_images(flowers)


def test_mirror_whose_checksum_differs_is_an_error(mirror, flowers):
    (mirror / "SHA256SUMS").write_text(f"{'0' * 64}  {ARCHIVE}\n")
    received = files.sha256_of(mirror / ARCHIVE)
    with pytest.raises(BadArchiveError, match=f"SHA-256 {'0' * 64} in SHA256SUMS. Received: {received} for "):
        prepare_images(flowers)
    assert extracted() == []


@pytest.mark.parametrize(
    "line",
    [
        "{digest}  {name}",
        "{digest} *{name}",
        "{digest}  ./{name}",
        "{upper}  {name}",
        "SHA256 ({name}) = {digest}",
        "{zeros}  another.zip\n{digest}  {name}\r",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_checksum_file_is_read_as_the_usual_tools_write_it(mirror, flowers, line, encoding):
    digest = files.sha256_of(mirror / ARCHIVE)
    text = line.format(digest=digest, upper=digest.upper(), zeros="0" * 64, name=ARCHIVE)
    (mirror / "SHA256SUMS").write_text(f"{text}\n\n", encoding=encoding)
    assert sources.find_archives(flowers) == [mirror / ARCHIVE]


@pytest.mark.parametrize("content", [b"", b"<html>", b"\xff\xff\xff", b"0" * 64 + b"  another.zip\n"])
def test_file_of_a_mirror_that_its_checksum_file_does_not_list_is_refused(mirror, flowers, content):
    (mirror / "SHA256SUMS").write_bytes(content)
    message = f"lists all its files in it. Received: no line for '{ARCHIVE}' in '.*SHA256SUMS'"
    with pytest.raises(BadArchiveError, match=message):
        prepare_images(flowers)
    assert extracted() == []


def test_file_that_a_mirror_with_checksums_lacks_is_looked_for_elsewhere(mirror, flowers):
    (mirror / ARCHIVE).unlink()
    (mirror / "SHA256SUMS").write_text("")
    pack(cached(ARCHIVE))
    assert sources.find_archives(flowers) == [cached(ARCHIVE)]


# A mirror over HTTP


def test_mirror_over_http_gives_the_archive(website, archive_bytes, flowers):
    website.pages = {ARCHIVE: archive_bytes}
    folder = prepare_images(flowers)
    assert (folder / "rose" / "1.jpg").read_bytes() == b"a rose" * 50
    assert website.requests == ["SHA256SUMS", ARCHIVE]
    assert kept_downloads() == [ARCHIVE]


def test_mirror_over_http_with_checksums_is_asked_for_the_archive_once(website, archive_bytes, flowers):
    website.pages = {ARCHIVE: archive_bytes, "SHA256SUMS": checksums_of(archive_bytes, ARCHIVE)}
    assert prepare_images(flowers) == prepare_images(flowers)
    assert website.requests == ["SHA256SUMS", ARCHIVE, "SHA256SUMS"]


def test_file_of_a_mirror_over_http_that_its_checksum_file_does_not_list_is_refused(website, archive_bytes, flowers):
    website.pages = {ARCHIVE: archive_bytes, "SHA256SUMS": checksums_of(archive_bytes, "another.zip")}
    with pytest.raises(BadArchiveError, match=f"no line for '{ARCHIVE}' in '{website.url}/SHA256SUMS'"):
        prepare_images(flowers)
    assert kept_downloads() == []


def test_file_that_a_mirror_over_http_with_checksums_lacks_is_looked_for_elsewhere(website, flowers):
    website.pages = {"SHA256SUMS": checksums_of(b"", "another.zip")}
    pack(cached(ARCHIVE))
    assert sources.find_archives(flowers) == [cached(ARCHIVE)]


def test_a_download_that_is_killed_leaves_a_name_of_ours(website, archive_bytes, monkeypatch):
    seen = []

    def fetch(url, known_hash, fname, path, **_):
        (path := Path(path) / fname).write_bytes(archive_bytes)
        seen.extend(entry.name for entry in cached(ARCHIVE).parent.iterdir())
        return str(path)

    monkeypatch.setattr(downloads.pooch, "retrieve", fetch)
    assert downloads.download(f"{website.url}/{ARCHIVE}", cached(ARCHIVE)) == cached(ARCHIVE)
    assert len(seen) == 1
    assert seen[0].startswith(files.TEMPORARY)
    assert kept_downloads() == [ARCHIVE]


def test_mirror_over_http_replaces_another_download(website, archive_bytes, flowers):
    pack(cached(ARCHIVE), prefix="old/")
    website.pages = {ARCHIVE: archive_bytes, "SHA256SUMS": checksums_of(archive_bytes, ARCHIVE)}
    assert prepare_images(flowers).name == "flowers"
    assert cached(ARCHIVE).read_bytes() == archive_bytes


def test_mirror_over_http_whose_checksum_differs_leaves_nothing(website, archive_bytes, flowers):
    website.pages = {ARCHIVE: archive_bytes, "SHA256SUMS": checksums_of(b"another", ARCHIVE)}
    with pytest.raises(BadArchiveError, match=r"has the SHA-256 .*does not match.*Received: "):
        prepare_images(flowers)
    assert kept_downloads() == []
    assert extracted() == []


def test_archive_the_http_mirror_lacks_is_looked_for_elsewhere(website, flowers):
    pack(cached(ARCHIVE))
    assert sources.find_archives(flowers) == [cached(ARCHIVE)]
    cached(ARCHIVE).unlink()
    with pytest.raises(MissingDataError, match="no source has the archive"):
        sources.find_archives(flowers)
    assert website.requests == ["SHA256SUMS", "SHA256SUMS", ARCHIVE]


def test_download_that_breaks_off_leaves_nothing(website, archive_bytes, flowers):
    website.pages, website.broken = {ARCHIVE: archive_bytes}, {ARCHIVE}
    size = len(archive_bytes)
    message = f"{size} bytes read, 1000 more expected.*Received: TLHELPERS_MIRROR='{website.url}'"
    with pytest.raises(MissingDataError, match=message):
        prepare_images(flowers)
    assert kept_downloads() == []
    assert extracted() == []


def test_checksums_that_break_off_do_not_pass_for_a_mirror_without_them(website, archive_bytes, flowers):
    website.pages, website.broken = {ARCHIVE: archive_bytes, "SHA256SUMS": b"0000"}, {"SHA256SUMS"}
    with pytest.raises(MissingDataError, match="4 bytes read, 1000 more expected"):
        prepare_images(flowers)
    assert kept_downloads() == []


@pytest.mark.parametrize("name", [ARCHIVE, "SHA256SUMS"])
def test_http_mirror_that_fails_is_an_error(website, flowers, name):
    website.refused = {name: 503}
    with pytest.raises(MissingDataError, match=r"503 Server Error.*Received: TLHELPERS_MIRROR="):
        prepare_images(flowers)


def test_http_mirror_that_does_not_answer_is_an_error(flowers, monkeypatch):
    with Website() as closed:
        url = closed.url
    monkeypatch.setenv("TLHELPERS_MIRROR", url)
    with pytest.raises(MissingDataError, match=f"Connection refused.*Received: TLHELPERS_MIRROR='{url}'"):
        prepare_images(flowers)


def test_web_page_under_the_archives_name_is_refused(website, flowers):
    page = b"<html>\n<p>Sign in</p>\n</html>\n"
    website.pages = {ARCHIVE: page}
    with pytest.raises(BadArchiveError, match="this one is a web page"):
        prepare_images(flowers)
    assert extracted() == []


def test_dropped_archive_that_was_not_taken_is_named_with_the_reason(flowers):
    dropped = Path("data")
    dropped.mkdir()
    (dropped / "half.zip").write_bytes(pack(dropped / "whole.zip").read_bytes()[:200])
    (dropped / "whole.zip").unlink()
    (dropped / "page.zip").write_text("<html>sign in</html>")
    with pytest.raises(
        MissingDataError, match=r"half\.zip was not taken.*truncated(.|\n)*page\.zip was not taken.*web page"
    ):
        sources.find_archives(flowers)


def spoil(path, kind):
    """Makes an archive one that shows what is wrong with it at once, or only when it is extracted."""
    content = bytearray(path.read_bytes())
    if kind == "password":
        for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            struct.pack_into("<H", content, content.index(signature) + offset, 1)
    else:
        content = content.replace(b"a tulip", b"A tulip", 1)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("kind", "reason"), [("password", "protected by one"), ("damage", "damaged .Bad CRC-32")])
def test_dropped_archive_that_cannot_be_taken_is_named_and_the_search_goes_on(flowers, mirror, kind, reason):
    dropped = Path.cwd() / spoil(pack(Path("data") / "mine.zip"), kind)
    folder = prepare_images(flowers)
    assert len(list(folder.rglob("*.jpg"))) == 8 * 5
    (mirror / ARCHIVE).unlink()
    with pytest.raises(MissingDataError, match=f"\n  {dropped} was not taken: .*{reason}"):
        prepare_images(flowers)


def test_any_other_zip_in_the_drop_folder_stops_nothing_and_is_named(flowers):
    place = Path("data")
    pack(place / "cats.zip", labels=("cat", "dog"))
    pack(place / "flowers.ZIP")
    (place / "folder.zip").mkdir()
    (place / "nowhere.zip").symlink_to("nothing")
    assert sources.find_archives(flowers) == [Path.cwd() / place / "flowers.ZIP"]
    (place / "flowers.ZIP").unlink()
    with pytest.raises(MissingDataError, match=r"cats.zip was not taken: .*images in \['daisy', .*; it lacks them"):
        prepare_images(flowers)


def test_extracted_pictures_of_which_some_are_gone_are_extracted_again(mirror, flowers):
    folder = prepare_images(flowers)
    before = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.jpg")}
    for lost in ("rose/0001.jpg", "tulip/0002.jpg"):
        (folder / lost).unlink()
    assert prepare_images(flowers) == folder
    assert {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.jpg")} == before


# Studies whose labels stand in tables


@pytest.fixture
def weeds():
    """The study of weeds, whose folds stand in fifteen tables."""
    return studies.get_study("deepweeds")


def tables_of(study):
    return layouts.missing_tables(Path("nowhere"), study.tables)


def fill_tables(folder, study):
    for name in tables_of(study):
        files.write_text(folder / name, "Filename,Label\n")
    return folder


def test_own_folder_under_the_studys_name_wins_over_the_mirror_and_is_used_as_it_stands(weeds, mirror):
    own = Path("data") / "deepweeds"
    (own / "inner" / "images").mkdir(parents=True)
    assert prepare_images(weeds) == Path.cwd() / own / "inner"
    assert extracted() == []


def test_archive_with_images_and_tables_is_recognised_by_them(weeds):
    path = Path("data") / "any name.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("DeepWeeds/images/1.jpg", *(f"DeepWeeds/{table}" for table in tables_of(weeds))):
            archive.writestr(name, "x")
    archives.check_archive(path, weeds)
    assert prepare_images(weeds).name == "DeepWeeds"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images/1.jpg", "x")
    with pytest.raises(BadArchiveError, match="it lacks them"):
        archives.check_archive(path, weeds)


def test_tables_beside_the_images_are_taken_and_others_fetched_once(weeds, tmp_path, monkeypatch):
    assert sources.find_tables(weeds, fill_tables(tmp_path / "beside", weeds)) == tmp_path / "beside"
    with Website() as server:
        server.pages = dict.fromkeys(tables_of(weeds), b"Filename,Label\n")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        upstream = replace(weeds, tables=weeds.tables._replace(url=f"{server.url}/"))
        found = sources.find_tables(upstream, tmp_path / "without")
        assert sources.find_tables(upstream, tmp_path / "without") == found
        server.shutdown()
        thread.join()
    assert sorted(server.requests) == sorted(tables_of(weeds))
    assert layouts.missing_tables(found, weeds.tables) == []


def test_tables_nowhere_to_be_found_are_answered_with_two_ways_to_provide_them(weeds, tmp_path, monkeypatch):
    def refuse(url, *_, **__):
        raise requests.ConnectionError(f"no way to {url}")

    monkeypatch.setattr(downloads.pooch, "retrieve", refuse)
    with pytest.raises(
        MissingDataError, match=r"labels/train_subset0.csv is nowhere to be found\.\n(.|\n)*put it into"
    ):
        sources.find_tables(weeds, tmp_path)


def test_study_without_tables_has_none_to_find(flowers, tmp_path):
    assert sources.find_tables(flowers, tmp_path) is None


def test_images_come_from_tensorflow_datasets_where_kaggle_fails_and_the_package_is_there(weeds, monkeypatch):
    examples = [{"image/filename": b"a.jpg", "image": b"one"}, {"image/filename": b"../b.jpg", "image": b"two"}]
    builder = SimpleNamespace(download_and_prepare=lambda: None, as_dataset=lambda **_: examples)
    package = SimpleNamespace(
        builder={"deep_weeds": builder}.get,
        as_numpy=iter,
        decode=SimpleNamespace(SkipDecoding=lambda: None),
        __spec__=SimpleNamespace(name="tensorflow_datasets"),
    )
    with pytest.raises(MissingDataError, match="Kaggle is switched off"):
        prepare_images(weeds)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", package)
    folder = prepare_images(weeds)
    assert {path.name: path.read_bytes() for path in (folder / "images").iterdir()} == {
        "a.jpg": b"one",
        "b.jpg": b"two",
    }
    package.builder = lambda _: pytest.fail("exported a second time")
    assert prepare_images(weeds) == folder


def test_download_with_another_checksum_is_no_missing_archive(monkeypatch):
    def fetch(url, known_hash, **_):
        raise ValueError(f"SHA256 hash of downloaded file does not match the known hash: {known_hash}")

    monkeypatch.setattr(downloads.pooch, "retrieve", fetch)
    with pytest.raises(BadArchiveError, match=r"has the SHA-256 3aede38d.*does not match"):
        prepare_images(studies.get_study("fashion_mnist"))
