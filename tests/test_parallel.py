"""Work that is shared out: results in order, errors that arrive, threads for each piece, and what is no news."""

import os
import time
import warnings

import pytest

from tlhelpers import parallel


def work(item):
    """An item and the process that had it; the first one takes longest."""
    time.sleep(0.2 if item == 0 else 0)
    return item, os.getpid()


@pytest.mark.parametrize(
    ("count", "workers", "elsewhere"),
    [
        (parallel.SMALL_WORK, 2, True),
        (parallel.SMALL_WORK, 1, False),
        (parallel.SMALL_WORK - 1, 2, False),
        (0, 2, False),
    ],
    ids=["two processes", "one worker", "small work", "no work"],
)
def test_mapped_results_keep_their_order_wherever_they_are_computed(count, workers, elsewhere):
    results = list(parallel.map_over_cores(work, range(count), description="Working", workers=workers))
    assert [item for item, _ in results] == list(range(count))
    assert any(process != os.getpid() for _, process in results) == elsewhere
    assert any(process == os.getpid() for _, process in results) == (count > 0 and not elsewhere)


@pytest.mark.parametrize("count", [3, parallel.SMALL_WORK])
def test_an_error_in_mapped_work_reaches_the_caller(count):
    with pytest.raises(ValueError, match="invalid literal"):
        list(parallel.map_over_cores(int, ["1"] * (count - 1) + ["x"], description="Working", workers=2))


@pytest.mark.parametrize(("jobs", "threads"), [(1, None), (2, 2), (4, 1), (8, 1), (None, 1)])
def test_pieces_of_work_divide_the_cores(monkeypatch, jobs, threads):
    monkeypatch.setattr(parallel.devices, "available_cores", lambda: 4)
    with parallel.share_out(jobs) as share:
        assert share == threads


def test_a_worker_that_is_replaced_is_no_news_and_any_other_warning_is(recwarn):
    with parallel.share_out(1):
        warnings.warn("A worker stopped while some jobs were given to the executor.", UserWarning, stacklevel=1)
        warnings.warn("A disk is full.", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in recwarn] == ["A disk is full."]
