"""Executing chapters side by side against one after the other."""

import pytest

from tlhelpers import devices, profiles
from tlhelpers.book import build, schedule
from tlhelpers.datasets import manifest, studies

CHAPTERS = [
    "book/01_why_transfer_works.ipynb",
    "book/10_which_backbone.ipynb",
    "book/11_wrong_labels.ipynb",
    "book/12_fashion_from_scratch.ipynb",
    "book/15_deepweeds.ipynb",
    "book/16_fer2013.ipynb",
]
STUDIES = ["flowers", "fashion_mnist", "deepweeds", "fer2013"]
PARAMETERS = {"PROFILE": "smoke", "PROTOCOL": "careful", "SEED": 0}


@pytest.mark.benchmark(group="chapters")
@pytest.mark.parametrize("way", ["one_by_one", "side_by_side"])
def test_chapters(benchmark, tmp_path, monkeypatch, way):
    for place in ("HOME", "BUILD", "RUNS", "MODELS", "EXPORTS"):
        monkeypatch.setenv(f"TLHELPERS_{place}", str(tmp_path / place.lower()))
    for name in STUDIES:  # both ways find their pictures drawn
        manifest.load_manifest(studies.get_study(name, drawn=True))
    jobs = 1 if way == "one_by_one" else schedule.choose_jobs()
    changes, marks = {chapter: ["measured"] for chapter in CHAPTERS}, dict.fromkeys(CHAPTERS)
    limits = {"profile": profiles.SMOKE.name, "jobs": jobs, "time_limit": 3600}
    failures = benchmark.pedantic(lambda: build.execute_chapters(changes, PARAMETERS, marks, **limits), rounds=1)
    assert not failures
    benchmark.extra_info |= {"jobs": jobs, "cores": devices.available_cores()}
