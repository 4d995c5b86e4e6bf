"""Running chapters side by side: the order, what a failure stops, and what is said of the time left."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import psutil
import pytest
from builders import wait_for

from tlhelpers import devices, settings
from tlhelpers.book import pool, schedule, toc

FOLLOWS = {"roof": ("walls", "door"), "walls": ("ground",)}


@pytest.fixture
def quick(monkeypatch):
    """Threads in place of processes, which begin at once."""
    monkeypatch.setattr(pool, "start_pool", ThreadPoolExecutor)


def note(path, name, fails=False):
    """A piece of work: writes when it began and ended."""
    began = time.monotonic()
    time.sleep(0.3)
    if fails:
        raise ValueError(f"no {name}")
    path.joinpath(name).write_text(f"{began} {time.monotonic()}")
    return 0.3


def run(folder, names, *, jobs, failing=(), seconds=None):
    folder = folder / "times"
    folder.mkdir()
    works = {name: partial(note, folder, name, name in failing) for name in names}
    failures = schedule.run_all(works, FOLLOWS, jobs=jobs, seconds=seconds or {})
    return failures, {path.name: tuple(map(float, path.read_text().split())) for path in folder.iterdir()}


def test_a_piece_begins_when_those_it_follows_have_ended_and_others_run_beside_them(tmp_path, quick):
    failures, times = run(tmp_path, ["roof", "walls", "ground", "door"], jobs=2)
    assert failures == {}
    for later, before in FOLLOWS.items():
        assert all(times[earlier][1] <= times[later][0] for earlier in before)
    assert times["door"][0] < times["walls"][1]  # beside, not after


def test_a_failure_stops_what_follows_it_and_nothing_else(tmp_path, quick):
    failures, times = run(tmp_path, ["roof", "walls", "ground", "door"], jobs=2, failing=["ground"])
    assert failures["ground"] == "no ground"
    assert "walls: not executed, because of ['ground']" in failures.values()
    assert set(failures) == {"ground", "walls", "roof"}
    assert set(times) == {"door"}


def test_what_a_piece_follows_may_be_done_already(tmp_path, quick):
    failures, times = run(tmp_path, ["roof"], jobs=1)
    assert (failures, set(times)) == ({}, {"roof"})


def test_the_longest_begins_first(tmp_path, quick):
    _, times = run(tmp_path, ["a", "b", "c"], jobs=1, seconds={"a": 1, "b": 9, "c": 4})
    assert sorted(times, key=lambda name: times[name][0]) == ["b", "c", "a"]


def test_what_much_waits_for_begins_before_what_takes_longer_alone(tmp_path, quick):
    _, times = run(tmp_path, ["cellar", *FOLLOWS, "ground"], jobs=1, seconds={"cellar": 5, "ground": 1, "roof": 8})
    assert sorted(times, key=lambda name: times[name][0]) == ["ground", "walls", "roof", "cellar"]


def test_where_nothing_is_known_the_order_is_that_of_the_book(tmp_path, quick):
    _, times = run(tmp_path, ["c", "a", "b"], jobs=1)
    assert sorted(times, key=lambda name: times[name][0]) == ["c", "a", "b"]


def fill_memory(folder, name):
    (folder / f"{os.getpid()} {name}").touch()
    return 0.1


@pytest.mark.slow
def test_each_piece_has_a_process_of_its_own(tmp_path):
    works = {name: partial(fill_memory, tmp_path, name) for name in "ab"}
    assert schedule.run_all(works, {}, jobs=1, seconds={}) == {}
    processes = {path.name.split()[0] for path in tmp_path.glob("[0-9]*")}
    assert len(processes | {str(os.getpid())}) == 3


def note_surroundings(path):
    path.write_text(f"{os.environ['TLHELPERS_PROFILE']} {'TLHELPERS_HOME' in os.environ}")
    return 0.1


def test_each_piece_has_the_surroundings_of_the_moment_it_begins(tmp_path, monkeypatch):
    monkeypatch.setenv("TLHELPERS_HOME", "somewhere")
    for profile in ("pocket", "full"):
        monkeypatch.setenv("TLHELPERS_PROFILE", profile)
        works = {"a": partial(note_surroundings, tmp_path / profile)}
        assert schedule.run_all(works, {}, jobs=1, seconds={}) == {}
        monkeypatch.delenv("TLHELPERS_HOME", raising=False)
    assert (tmp_path / "pocket").read_text() == "pocket True"
    assert (tmp_path / "full").read_text() == "full False"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere processes are not copied")
def test_a_piece_finds_loaded_what_all_pieces_need():
    with pool.start_pool(1) as processes:
        modules, threads = processes.submit(loaded).result()
    assert {*pool.COMMON, "tensorflow"} <= modules
    assert threads == 2  # this one, and the one that waits for the end of the build


def garbage():
    """Whether Python looks for garbage, and whether it leaves out what came with the process."""
    return gc.isenabled(), gc.get_freeze_count() > 100_000


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere processes are not copied")
def test_a_piece_looks_for_rubbish_but_not_in_what_all_pieces_need():
    with pool.start_pool(1) as processes:
        assert processes.submit(garbage).result() == (True, True)


LOADING = """
import sys
from tlhelpers.book import pool
pool.load_ahead()
assert "tensorflow" not in sys.modules
input()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere processes are not copied")
def test_what_all_pieces_need_can_be_loaded_before_there_is_a_piece(tmp_path, monkeypatch):
    monkeypatch.setenv("TLHELPERS_BUILD", str(tmp_path))
    build = subprocess.Popen([sys.executable, "-c", LOADING], stdin=subprocess.PIPE)
    try:
        assert wait_for(lambda: any(map(has_loaded_tensorflow, psutil.Process(build.pid).children())))
    finally:
        build.communicate(b"\n")
    assert build.returncode == 0


def has_loaded_tensorflow(process):
    return any("libtensorflow" in mapped.path for mapped in process.memory_maps())


def loaded():
    """Of the process that answers, before the test's own module was loaded: modules and threads."""
    return set(sys.modules), threading.active_count()


SPEAKING = """
import functools, subprocess, sys
from tlhelpers.book import schedule

def speak(name):
    print(f"bar of {name}", file=sys.stderr)
    subprocess.run(["sh", "-c", f"echo kernel of {name} >&2"], check=True)
    return 0.1

if __name__ == "__main__":
    for names in ("ab", "c"):
        assert schedule.run_all({name: functools.partial(speak, name) for name in names}, {}, jobs=1, seconds={}) == {}
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="the pieces of this test speak through a POSIX shell")
def test_what_pieces_start_speaks_into_a_file_and_leaves_the_terminal_to_the_build(tmp_path, monkeypatch):
    monkeypatch.setenv("TLHELPERS_BUILD", str(tmp_path))
    (tmp_path / "script.py").write_text(SPEAKING)
    done = subprocess.run([sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [
        "bar of a",
        "bar of b",
        "bar of c",
    ]
    assert settings.messages_file().read_text() == "kernel of c\n"  # those of the last build


SCRIPT = """
import functools, signal, subprocess, sys
from tlhelpers.book import schedule

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which tests in the background of a shell ignore
    command = [sys.executable, "-c", f"import time; time.sleep(600)  # started by {sys.argv[0]}"]
    schedule.run_all({"a": functools.partial(subprocess.run, command)}, {}, jobs=1, seconds={})
"""


def list_processes(text):
    """The processes whose command contains a text; one that has ended has none."""
    return [p for p in psutil.process_iter(["cmdline"]) if text in " ".join(p.info["cmdline"] or [])]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda ending: ending.name)
def test_nothing_runs_on_when_the_build_is_ended(tmp_path, ending):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    build = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert wait_for(lambda: list_processes(f"started by {script}"))
        build.send_signal(ending)
        build.wait(timeout=300)
        assert wait_for(lambda: not list_processes(f"started by {script}"))
    finally:
        for process in list_processes(f"started by {script}"):
            process.kill()


@pytest.mark.parametrize(
    ("jobs", "shares"), [(1, [{0, 1, 2}]), (2, [{0, 2}, {1}]), (3, [{0}, {1}, {2}]), (4, [{0}, {1}, {2}, {0, 1, 2}])]
)
def test_chapters_side_by_side_have_cores_of_their_own(monkeypatch, jobs, shares):
    monkeypatch.setattr(devices, "list_cores", lambda: [0, 1, 2])
    assert pool.share_cores(jobs) == shares


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no way to choose cores")
def test_what_a_piece_starts_stays_on_its_cores():
    core = devices.list_cores()[-1]
    with ThreadPoolExecutor(1) as thread:
        command = [sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"]
        work = partial(subprocess.check_output, command, text=True)
        answer = thread.submit(pool.run_on, {core}, dict(os.environ), work).result()
    assert answer.strip() == str({core})


def test_the_table_has_a_row_for_each_chapter_in_reading_order():
    assert [row.path for row in toc.CHAPTERS] == toc.list_chapters()


def test_each_chapter_stands_behind_those_it_follows_in_the_book():
    chapters = toc.list_chapters()
    for chapter, before in toc.FOLLOWS.items():
        assert all(chapters.index(earlier) < chapters.index(chapter) for earlier in before)


def test_a_chapter_that_reads_other_chapters_runs_is_said_to_follow_some():
    reading = ("load_model(", "load_runs(", "load_live_records(", "load_runs_or_records(")
    training = {row.path for row in toc.CHAPTERS if row.records}
    for chapter in toc.list_chapters():
        text = (settings.PROJECT_FOLDER / chapter).read_text(encoding="utf-8")
        if any(f"chapter.{name}" in text for name in reading):
            assert chapter in toc.FOLLOWS.keys() | training, chapter


def test_the_estimate_follows_the_pace_of_this_machine():
    estimate = schedule.Estimate(["a", "b", "c"], {"a": 100, "b": 200, "c": 100}, jobs=1)
    assert estimate.describe() == ", about 7 min left"
    assert estimate.finish("a", 200) == "(1 of 3, about 10 min left)"
    assert estimate.finish("b", 400) == "(2 of 3, about 3 min left)"
    assert estimate.finish("c", 200) == "(3 of 3)"


def test_side_by_side_no_rest_is_shorter_than_its_longest_piece():
    estimate = schedule.Estimate(["a", "b"], {"a": 300, "b": 60}, jobs=2)
    assert estimate.describe() == ", about 5 min left"


def test_nothing_is_estimated_where_nothing_is_known():
    assert schedule.Estimate(["a", "b"], {}, jobs=1).describe() == ""


def test_a_chapter_takes_what_it_took_last_time(tmp_path):
    run = {"papermill": {"duration": 7.0}, schedule.PROFILE: "smoke"}
    earlier = {"book/01.ipynb": run, "book/02.ipynb": {}, "book/03.ipynb": run | {schedule.PROFILE: "full"}}
    assert schedule.usual_seconds("smoke", earlier) == {"book/01.ipynb": 7.0}


def test_before_the_first_build_the_pocket_chapters_have_recorded_times():
    assert set(schedule.usual_seconds("pocket", {})) == set(toc.list_chapters())


@pytest.mark.parametrize(
    ("cores", "gibibytes", "gpus", "jobs"), [(2, 24, 0, 2), (8, 9, 0, 2), (16, 99, 0, 4), (8, 64, 1, 1)]
)
def test_chapters_share_cores_and_memory_but_no_gpu(monkeypatch, cores, gibibytes, gpus, jobs):
    monkeypatch.setattr(devices, "list_gpus", lambda: [{}] * gpus)
    monkeypatch.setattr(devices, "available_cores", lambda: cores)
    memory = type("Memory", (), {"available": gibibytes << 30})
    monkeypatch.setattr(schedule.psutil, "virtual_memory", lambda: memory)
    assert schedule.choose_jobs() == jobs
    assert schedule.choose_jobs(3) == 3
