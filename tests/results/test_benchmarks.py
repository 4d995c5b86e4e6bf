"""What was measured: ratios from one run, accuracies beside them, and what the book shows is whole."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tlhelpers import settings
from tlhelpers.results import benchmarks


def benchmark(group, name, seconds, **extra):
    return {"group": group, "name": name, "stats": {"median": seconds}, "extra_info": extra}


MEASURED = {
    "datetime": "2026-11-28T10:00:00",
    "benchmarks": [
        benchmark("frozen training", "test_usual_loop", 80.0, accuracy=0.9, images=10),
        benchmark("frozen training", "test_features_once", 10.0, accuracy=0.905, images=10),
        benchmark("predicting a folder", "test_bare_model", 4.0, images=10),
        benchmark("predicting a folder", "test_folder", 5.0, images=10),
        benchmark("later passes", "test_later_pass", 5.0, images=10),
    ],
}


def test_ratios_say_how_many_times_as_fast_ours_is_and_half_a_comparison_is_left_out():
    table = benchmarks.speed_table(benchmarks.summarise_benchmarks(MEASURED))
    assert table["ratio"].tolist() == [8.0, 0.8]
    assert table["at_least"].tolist() == [6.0, 0.8]
    assert table["accuracies"].tolist() == ["90.0% and 90.5%", ""]


@pytest.mark.parametrize(("ours", "words"), [(0.895, "90.0% and 89.5%"), (0.88, "90.0% and 88.0%, not equal")])
def test_accuracies_further_apart_than_a_point_are_not_equal(ours, words):
    assert benchmarks.describe_accuracies({"accuracy": 0.9}, {"accuracy": ours}) == words


def test_a_report_is_kept_for_the_book_when_that_is_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmarks.settings, "data_folder", lambda: tmp_path)
    (tmp_path / "measured.json").write_text(json.dumps(MEASURED))
    benchmarks.main([str(tmp_path / "measured.json")])
    assert not (tmp_path / "speed.json").exists()
    assert "8.00" in (tmp_path / "table.txt").read_text()
    benchmarks.main([str(tmp_path / "measured.json"), "--record"])
    kept = benchmarks.load_speed()
    assert [one["date"] for one in kept["measured"]] == ["2026-11-28"] * 5
    assert {"hardware", "versions", "pictures", "profile"} <= set(kept)
    assert "drawn flowers" in capsys.readouterr().out


def test_what_is_measured_again_replaces_its_whole_group_and_keeps_the_others():
    before = benchmarks.summarise_benchmarks(MEASURED)
    again = MEASURED | {"benchmarks": [benchmark("frozen training", "test_usual_loop", 70.0)]}
    merged = benchmarks.merge(before, benchmarks.summarise_benchmarks(again | {"datetime": "2026-11-29T10:00:00"}))
    found = {(one["name"], one["date"]): one["seconds"] for one in merged["measured"]}
    assert len(found) == 4
    assert found["test_usual_loop", "2026-11-29"] == 70.0
    assert found["test_folder", "2026-11-28"] == 5.0


def test_measurements_of_another_machine_are_not_mixed_in():
    now = benchmarks.summarise_benchmarks(MEASURED)
    assert benchmarks.merge(now | {"hardware": "another one"}, now) == now


def test_the_committed_measurements_hold_every_comparison_and_trainings_that_end_alike():
    kept = benchmarks.load_speed()
    table = benchmarks.speed_table(kept)
    assert table["what"].tolist() == [comparison.words for comparison in benchmarks.COMPARISONS]
    assert not table["accuracies"].str.contains("not equal").any()
    assert {one["cores"] for one in kept["measured"] if one["group"] == "cores of the loader"} >= {1, 2}


def test_the_loader_was_measured_to_hold_hardly_more_for_ten_times_as_many_pictures():
    few, many = (one for one in benchmarks.load_speed()["measured"] if one["group"] == "memory of the loader")
    assert many["images"] == 10 * few["images"]
    assert many["mebibytes"] < 1.25 * few["mebibytes"]


BENCHMARK = """
from pathlib import Path

import pytest

pytestmark = pytest.mark.benchmark(group="{group}")


def {usual}(benchmark):
    with open({log!r}, "a") as log:
        print("{group}", file=log)
    assert benchmark(sum, range(9)) == 36


def {ours}(benchmark):
    assert benchmark(sum, range(9)) == 36
    assert Path({needs!r}).is_file()
"""
LATER_PASSES, PREDICTING = (
    next(one for one in benchmarks.COMPARISONS if one.group == group)
    for group in ("later passes", "predicting a folder")
)


@pytest.fixture
def write_benchmark(tmp_path):
    """Writes a file that measures a comparison, notes so in a log, and fails unless some file is there."""

    def write(number, comparison, needs):
        path = tmp_path / f"bench_{number}.py"
        names = {"group": comparison.group, "usual": comparison.usual, "ours": comparison.ours}
        path.write_text(BENCHMARK.format(**names, log=str(tmp_path / "log"), needs=str(needs)))
        return path

    return write


@pytest.fixture
def make_bench(tmp_path):
    """Runs `make bench` for some files, where nothing was ever measured."""
    (tmp_path / "ready").touch()

    def run(*paths):
        variables = {
            "READY": tmp_path / "ready",
            "BIN": Path(sys.executable).parent,
            "BENCH": " ".join(map(str, paths)),
            "BENCH_FOLDER": tmp_path / "new" / "bench",
        }
        command = ["make", "bench", *(f"{name}={value}" for name, value in variables.items())]
        own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}  # nothing of xdist
        root = settings.PROJECT_FOLDER
        return subprocess.run(command, cwd=root, env=own, capture_output=True, text=True, check=False)

    return run


@pytest.mark.slow
def test_benchmarks_that_were_stopped_go_on_with_the_file_they_were_at(tmp_path, write_benchmark, make_bench):
    mended = tmp_path / "mended"
    paths = [write_benchmark(1, LATER_PASSES, needs=tmp_path / "ready"), write_benchmark(2, PREDICTING, needs=mended)]
    assert make_bench(*paths).returncode != 0
    assert not (tmp_path / "new" / "bench" / "table.txt").exists()
    mended.touch()
    finished = make_bench(*paths)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    table = (tmp_path / "new" / "bench" / "table.txt").read_text()
    assert LATER_PASSES.words in table
    assert PREDICTING.words in table
    assert (tmp_path / "log").read_text().splitlines() == [LATER_PASSES.group, PREDICTING.group, PREDICTING.group]


@pytest.mark.slow
def test_finished_benchmarks_are_measured_anew_when_they_are_asked_for_again(tmp_path, write_benchmark, make_bench):
    path = write_benchmark(1, PREDICTING, needs=tmp_path / "ready")
    for _ in range(2):
        finished = make_bench(path)
        assert finished.returncode == 0, finished.stdout + finished.stderr
    assert (tmp_path / "log").read_text().splitlines() == [PREDICTING.group] * 2
