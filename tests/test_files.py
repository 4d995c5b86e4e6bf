"""Files and folders appear whole or not at all."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tlhelpers import files, settings

SHA256_OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

KILLED_WRITER = """
import sys, time
from tlhelpers.files import atomic_file
with atomic_file(sys.argv[1]) as temporary:
    temporary.write_text("half of the new")
    print("ready", flush=True)
    time.sleep(60)
"""


def write_half(path):
    with files.atomic_file(path) as temporary:
        temporary.write_text("half of the new")
        raise RuntimeError("half-way")


def fill_half(path):
    with files.atomic_folder(path) as temporary:
        (temporary / "a.jpg").write_text("a")
        raise RuntimeError("half-way")


def test_sha256_is_the_published_one(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert files.sha256_of(tmp_path / "abc") == SHA256_OF_ABC
    assert files.sha256_of_text("abc") == SHA256_OF_ABC


def test_sha256_reads_beyond_one_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "CHUNK_BYTES", 2)
    (tmp_path / "abc").write_bytes(b"abc")
    assert files.sha256_of(tmp_path / "abc") == SHA256_OF_ABC


def test_sha256_of_text_hashes_its_utf8_bytes(tmp_path):
    (tmp_path / "text").write_bytes("Blüte".encode())
    assert files.sha256_of_text("Blüte") == files.sha256_of(tmp_path / "text")


def test_atomic_file_replaces_the_old_content_and_makes_parents(tmp_path):
    path = tmp_path / "new" / "folder" / "table.csv"
    for text in ("old", "new"):
        with files.atomic_file(path) as temporary:
            assert temporary.suffix == ".csv"
            assert temporary.parent == path.parent
            temporary.write_text(text)
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_atomic_file_never_writes_into_the_old_file(tmp_path):
    files.write_text(tmp_path / "a.txt", "old")
    os.link(tmp_path / "a.txt", tmp_path / "same.txt")
    files.write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "same.txt").read_text() == "old"


def test_written_file_is_readable_by_others(tmp_path):
    files.write_text(tmp_path / "a.txt", "text")
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644


def test_atomic_file_keeps_the_old_content_on_an_error(tmp_path):
    path = tmp_path / "folder" / "table.csv"
    files.write_text(path, "old")
    with pytest.raises(RuntimeError, match="half-way"):
        write_half(path)
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_atomic_file_leaves_nothing_on_an_error_when_there_was_nothing(tmp_path):
    folder = tmp_path / "folder"
    with pytest.raises(KeyboardInterrupt), files.atomic_file(folder / "table.csv"):
        raise KeyboardInterrupt
    assert list(folder.iterdir()) == []


def test_killed_process_leaves_the_old_file(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with subprocess.Popen(
        [sys.executable, "-c", KILLED_WRITER, str(path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(settings.PROJECT_FOLDER)},
    ) as writer:
        assert writer.stdout.readline() == b"ready\n"
        writer.kill()
    assert writer.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_atomic_folder_appears_with_its_contents(tmp_path):
    path = tmp_path / "new" / "images"
    with files.atomic_folder(path) as temporary:
        (temporary / "a.jpg").write_text("a")
        assert not path.exists()
    assert [entry.name for entry in path.iterdir()] == ["a.jpg"]
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o755


def test_atomic_folder_leaves_nothing_on_an_error(tmp_path):
    path = tmp_path / "parent" / "images"
    with pytest.raises(RuntimeError, match="half-way"):
        fill_half(path)
    assert list(path.parent.iterdir()) == []


def test_atomic_folder_keeps_the_one_that_exists(tmp_path):
    path = tmp_path / "parent" / "images"
    path.mkdir(parents=True)
    (path / "theirs.jpg").write_text("theirs")
    with files.atomic_folder(path) as temporary:
        (temporary / "ours.jpg").write_text("ours")
    assert [entry.name for entry in path.iterdir()] == ["theirs.jpg"]
    assert list(path.parent.iterdir()) == [path]


def test_atomic_folder_keeps_the_one_made_at_the_last_moment(tmp_path, monkeypatch):
    path = tmp_path / "parent" / "images"
    rename = os.rename

    def rename_too_late(source, target):
        Path(target).mkdir()
        (Path(target) / "theirs.jpg").write_text("theirs")
        rename(source, target)

    monkeypatch.setattr(files.os, "rename", rename_too_late)
    with files.atomic_folder(path) as temporary:
        (temporary / "ours.jpg").write_text("ours")
    assert [entry.name for entry in path.iterdir()] == ["theirs.jpg"]
    assert list(path.parent.iterdir()) == [path]


def test_atomic_folder_reports_a_rename_that_fails(tmp_path, monkeypatch):
    def refuse(source, target):
        raise PermissionError("not here")

    monkeypatch.setattr(files.os, "rename", refuse)
    path = tmp_path / "parent" / "images"
    with pytest.raises(PermissionError, match="not here"), files.atomic_folder(path):
        pass
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(("quiet", "shown"), [("0", True), ("1", False)])
def test_progress_goes_to_standard_output_unless_quiet(monkeypatch, capsys, quiet, shown):
    monkeypatch.setenv("TLHELPERS_QUIET", quiet)
    assert list(files.progress([1, 2, 3], description="Counting")) == [1, 2, 3]
    output, errors = capsys.readouterr()
    assert ("Counting" in output) is shown
    assert errors == ""


def test_a_digest_of_files_knows_their_names_and_not_where_the_folder_lies(tmp_path):
    for place, name in (("here", "a"), ("there", "a"), ("other", "b")):
        (tmp_path / place).mkdir()
        (tmp_path / place / name).write_text("1")
    digests = [
        files.sha256_of_files(sorted(folder.rglob("*")), folder)
        for folder in (tmp_path / "here", tmp_path / "there", tmp_path / "other")
    ]
    assert digests[0] == digests[1] != digests[2]
    (tmp_path / "here" / "a").write_text("2")
    assert files.sha256_of_files([tmp_path / "here" / "a"], tmp_path / "here") != digests[0]


def test_rests_of_killed_work_are_removed_when_nobody_can_be_at_it_any_more(tmp_path):
    week = files.RESTS_KEPT_DAYS * 24 * 3600
    ours = files.TEMPORARY
    ages = {f"{ours}old.npy": week + 60, f"{ours}new.npy": week - 60, "kept.npy": 2 * week, ".gitignore": 2 * week}
    for name, age in ages.items():
        path = tmp_path / "features" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("something")
        os.utime(path, (time.time() - age,) * 2)
    cut = tmp_path / "downloads" / "tmpabc123"
    cut.parent.mkdir()
    cut.write_text("half an archive")
    os.utime(cut, (time.time() - week - 60,) * 2)
    folder = tmp_path / "decoded" / f"{ours}old"
    folder.mkdir(parents=True)
    (folder / "images.data").write_text("decoded")
    os.utime(folder, (time.time() - week - 60,) * 2)
    files.remove_rests(tmp_path)
    assert sorted(path.name for path in (tmp_path / "features").iterdir()) == [
        ".gitignore",
        f"{ours}new.npy",
        "kept.npy",
    ]
    assert not folder.exists()
    assert not cut.exists()


def test_what_is_not_finished_has_a_name_that_tells_it_from_the_files_of_others(tmp_path):
    with files.atomic_file(tmp_path / "one.npy") as file, files.atomic_folder(tmp_path / "other") as folder:
        assert file.name.startswith(files.TEMPORARY)
        assert folder.name.startswith(files.TEMPORARY)


def test_a_cache_that_does_not_exist_holds_no_rests(tmp_path):
    files.remove_rests(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
