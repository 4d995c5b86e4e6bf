"""Files and folders appear whole or not at all."""

import os
import shutil
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


@pytest.mark.parametrize(("umask", "file_mode", "folder_mode"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)])
def test_what_is_written_is_readable_by_whom_the_user_lets_read(tmp_path, umask, file_mode, folder_mode):
    before = os.umask(umask)
    try:
        files.write_text(tmp_path / "a.txt", "text")
        with files.atomic_folder(tmp_path / "images"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == file_mode
    assert (tmp_path / "images").stat().st_mode & 0o777 == folder_mode


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
    assert sorted(entry.name for entry in path.iterdir()) == [files.WHOLE, "a.jpg"]
    assert list(path.parent.iterdir()) == [path]


def test_atomic_folder_leaves_nothing_on_an_error(tmp_path):
    path = tmp_path / "parent" / "images"
    with pytest.raises(RuntimeError, match="half-way"):
        fill_half(path)
    assert list(path.parent.iterdir()) == []


def make_folder(path, name="theirs.jpg"):
    with files.atomic_folder(path) as temporary:
        (temporary / "rose").mkdir()
        (temporary / "rose" / name).write_text("a rose")
        (temporary / name).write_text(name)
    return path


def test_atomic_folder_keeps_the_one_that_exists(tmp_path):
    path = make_folder(tmp_path / "parent" / "images")
    make_folder(path, "ours.jpg")
    assert sorted(entry.name for entry in path.iterdir()) == [files.WHOLE, "rose", "theirs.jpg"]
    assert list(path.parent.iterdir()) == [path]


def test_atomic_folder_keeps_the_one_made_at_the_last_moment(tmp_path, monkeypatch):
    path = tmp_path / "parent" / "images"
    rename = os.rename

    def rename_too_late(source, target):
        Path(target).mkdir()
        (Path(target) / "theirs.jpg").write_text("theirs")
        rename(source, target)

    with files.atomic_folder(path) as temporary:
        (temporary / "ours.jpg").write_text("ours")
        monkeypatch.setattr(files.os, "rename", rename_too_late)
    assert [entry.name for entry in path.iterdir()] == ["theirs.jpg"]
    assert list(path.parent.iterdir()) == [path]


# By what a cleaner, or a killed one, has left: what is done to a folder.
LOSSES = {
    "a picture": lambda folder: (folder / "rose" / "theirs.jpg").unlink(),
    "a class": lambda folder: shutil.rmtree(folder / "rose"),
    "half of a picture": lambda folder: (folder / "rose" / "theirs.jpg").write_text("a"),
    "its note": lambda folder: (folder / files.WHOLE).unlink(),
    "half of its note": lambda folder: (folder / files.WHOLE).write_text("{"),
    "itself": shutil.rmtree,
}


@pytest.mark.parametrize("loss", LOSSES)
def test_folder_that_has_lost_something_is_known_and_made_anew(tmp_path, loss):
    path = make_folder(tmp_path / "parent" / "images")
    assert files.is_whole(path)
    LOSSES[loss](path)
    assert not files.is_whole(path)
    make_folder(path)
    assert files.is_whole(path)
    assert (path / "rose" / "theirs.jpg").read_text() == "a rose"
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


WEEK = files.RESTS_KEPT_DAYS * 24 * 3600
# Below the cache: how old it is, and whether it stays.
PLACES = {
    f"{files.TEMPORARY}old.npy": (WEEK + 60, False),
    f"features/{files.TEMPORARY}old.npy": (WEEK + 60, False),
    f"features/{files.TEMPORARY}new.npy": (WEEK - 60, True),
    f"images/flowers-drawn/{files.TEMPORARY}old/rose/1.jpg": (WEEK + 60, False),
    f"tables/deepweeds/labels/{files.TEMPORARY}old/train.csv": (WEEK + 60, False),
    f"decoded/{files.TEMPORARY}new/images.data": (WEEK - 60, True),
    "features/kept.npy": (2 * WEEK, True),
    "features/.gitignore": (2 * WEEK, True),
    "downloads/tmpabc123": (2 * WEEK, True),
    "downloads/.other-program/half.zip": (2 * WEEK, True),
}


def test_rests_of_killed_work_are_removed_at_every_depth_when_nobody_can_be_at_it_any_more(tmp_path):
    for name, (age, _) in PLACES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("something")
        for aged in (path, path.parent, path.parent.parent):
            os.utime(aged, (time.time() - age,) * 2)
    files.remove_leftovers(tmp_path)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {name for name, (_, stays) in PLACES.items() if stays}


def test_what_lies_in_a_folder_that_is_whole_is_never_taken_for_a_rest(tmp_path):
    path = make_folder(tmp_path / "images" / "0123", f"{files.TEMPORARY}of-somebody.jpg")
    for inner in path.rglob("*"):
        os.utime(inner, (time.time() - 2 * WEEK,) * 2)
    files.remove_leftovers(tmp_path)
    assert files.is_whole(path)


def test_a_rest_that_cannot_be_removed_stops_nobody(tmp_path, monkeypatch):
    rest = tmp_path / "features" / f"{files.TEMPORARY}old.npy"
    rest.parent.mkdir()
    rest.touch()
    os.utime(rest, (time.time() - 2 * WEEK,) * 2)
    monkeypatch.setattr(files.Path, "unlink", Path.mkdir)  # fails, for there is something already
    files.remove_leftovers(tmp_path)
    assert rest.exists()


# Locks

HOLDER = """
import sys, time
from tlhelpers import files
with files.only_one(sys.argv[1], "never said"):
    print("ready", flush=True)
    time.sleep(60)
"""


def test_of_two_that_ask_for_one_lock_the_second_is_told_at_once(tmp_path):
    path = tmp_path / "build" / "lock"
    with (
        files.only_one(path, "never said"),
        pytest.raises(BlockingIOError, match=r"^another build is at it$"),
        files.only_one(path, "another build is at it"),
    ):
        pytest.fail("let in")
    with files.only_one(path, "never said"):
        pass


def test_a_folder_that_takes_no_lock_is_named_with_the_rule(tmp_path, monkeypatch):
    def refuse(self, timeout):
        raise PermissionError(13, "Permission denied", str(tmp_path / "lock"))

    monkeypatch.setattr(files.filelock.FileLock, "acquire", refuse)
    rule = rf"can be written\. Received: '{tmp_path}' \(Permission denied\)"
    with pytest.raises(OSError, match=rule), files.only_one(tmp_path / "lock", "never said"):
        pytest.fail("let in")


def test_a_lock_ends_with_its_process_however_that_ends(tmp_path):
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(settings.PROJECT_FOLDER)},
    ) as holder:
        assert holder.stdout.readline() == b"ready\n"
        with pytest.raises(BlockingIOError, match="told"), files.only_one(path, "told"):
            pytest.fail("let in")
        holder.kill()
    with files.only_one(path, "never said"):
        pass


def test_an_error_under_a_lock_is_passed_on_and_the_lock_let_go(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyError), files.only_one(tmp_path / "lock", "never said"):
            raise KeyError


def test_a_file_system_without_locks_keeps_nobody_out(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise NotImplementedError("this file system knows no locks")

    monkeypatch.setattr(files.filelock.FileLock, "acquire", refuse)
    with files.only_one(tmp_path / "lock", "never said"):
        pass


# Folders that cannot be written


@pytest.mark.parametrize("write", [files.write_text, lambda path, _: make_folder(path)], ids=["file", "folder"])
def test_a_cache_that_cannot_be_written_is_named_with_what_to_do(tmp_path, monkeypatch, write):
    (tmp_path / "closed").touch()
    monkeypatch.setenv("TLHELPERS_HOME", str(tmp_path / "closed" / "home"))
    message = r"set TLHELPERS_HOME to a folder that can\. Received: '.*closed/home/features' \(Not a directory\)$"
    with pytest.raises(NotADirectoryError, match=message):
        write(settings.home_folder() / "features" / "a.npy", "text")
    with pytest.raises(
        NotADirectoryError, match=r"kept can be written\. Received: '.*closed/out' \(Not a directory\)$"
    ):
        write(tmp_path / "closed" / "out" / "a.csv", "text")


def test_what_is_not_finished_has_a_name_that_tells_it_from_the_files_of_others(tmp_path):
    with files.atomic_file(tmp_path / "one.npy") as file, files.atomic_folder(tmp_path / "other") as folder:
        assert file.name.startswith(files.TEMPORARY)
        assert folder.name.startswith(files.TEMPORARY)


def test_a_cache_that_does_not_exist_holds_no_rests(tmp_path):
    files.remove_leftovers(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


# Walking through a folder


def walk(folder, **options):
    return [path.relative_to(folder).as_posix() for path in files.walk_files(folder, **options)]


def test_a_walk_finds_files_by_name_at_every_depth_and_leaves_out_what_is_hidden_or_a_systems(tmp_path):
    names = ["b/2.jpg", "b/10.jpg", "a.jpg", "c/deep/1.jpg"]
    left_out = [".x.jpg", "b/.x/1.jpg", "b/@eaDir/1.jpg", "__MACOSX/1.jpg", "c/Thumbs.db", "desktop.ini"]
    left_out += ["lost+found/1.jpg", "$RECYCLE.BIN/1.jpg"]
    for name in names + left_out:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert walk(tmp_path) == ["a.jpg", "b/10.jpg", "b/2.jpg", "c/deep/1.jpg"]


def test_a_walk_follows_links_but_never_in_a_circle_or_into_nothing(tmp_path):
    for name in ("store/1.jpg", "mine/a/2.jpg"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    mine = tmp_path / "mine"
    (mine / "linked").symlink_to(tmp_path / "store", target_is_directory=True)
    (mine / "a" / "again").symlink_to(tmp_path / "store", target_is_directory=True)
    (mine / "a" / "circle").symlink_to(mine, target_is_directory=True)
    (mine / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (mine / "one.jpg").symlink_to(tmp_path / "store" / "1.jpg")
    assert walk(mine) == ["a/2.jpg", "a/again/1.jpg", "linked/1.jpg", "one.jpg"]


def test_a_walk_tells_of_a_folder_that_cannot_be_read_and_goes_on(tmp_path, monkeypatch):
    for name in ("a/1.jpg", "closed/2.jpg", "d/3.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    scan = os.scandir

    def refuse(folder):
        if str(folder).endswith("closed"):
            raise PermissionError(13, "Permission denied", folder)
        return scan(folder)

    monkeypatch.setattr(files.os, "scandir", refuse)
    told = []
    assert walk(tmp_path, on_error=told.append) == walk(tmp_path) == ["a/1.jpg", "d/3.jpg"]
    assert [Path(error.filename).name for error in told] == ["closed"]


def test_a_name_that_is_no_utf8_is_walked_and_shown_escaped(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/Bl\xfcte\n.jpg"))
    path.touch()
    assert list(files.walk_files(tmp_path)) == [path]
    assert not files.is_text(path)
    assert files.shown_name(path.name) == "Bl\\xfcte\\n.jpg"
    assert len(files.state_of_folder(tmp_path)) == 64
