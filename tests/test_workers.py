"""Shared-out work: how many threads each piece takes, and what is no news."""

import warnings

import pytest

from tlhelpers import workers


@pytest.mark.parametrize(("jobs", "threads"), [(1, None), (2, 2), (4, 1), (8, 1), (None, 1)])
def test_pieces_of_work_divide_the_cores(monkeypatch, jobs, threads):
    monkeypatch.setattr(workers.devices, "available_cores", lambda: 4)
    with workers.share_out(jobs) as share:
        assert share == threads


def test_a_worker_that_is_replaced_is_no_news_and_any_other_warning_is(recwarn):
    with workers.share_out(1):
        warnings.warn("A worker stopped while some jobs were given to the executor.", UserWarning, stacklevel=1)
        warnings.warn("A disk is full.", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in recwarn] == ["A disk is full."]
