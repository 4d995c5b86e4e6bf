"""The front page's figure: the recorded numbers, in words too, and the same for the same records."""

import re

import pytest

from tlhelpers import settings
from tlhelpers.book import frontpage
from tlhelpers.experiments import records
from tlhelpers.results import tables


@pytest.fixture
def recorded(tmp_path):
    """Two of the figure's models, as recorded, and one that it does not show."""
    for model in ("mobilenetv2_100-frozen", "efficientnetv2b0-full", "mobilenetv2_100-full"):
        for record in records.load_records("flowers", protocol="careful", model=model):
            records.save_record(record, tmp_path / "recorded")
    return tmp_path / "recorded"


def test_figure_says_what_the_records_of_its_models_say(recorded, tmp_path):
    frontpage.write_result(tmp_path, recorded=recorded)
    text = (tmp_path / frontpage.TEXT).read_text(encoding="utf-8")
    pooled = tables.summarise_pooled(records.load_records("flowers", folder=recorded)).droplevel("protocol")
    frozen, whole = (f"{pooled.loc[m, 'accuracy']:.1%}" for m in ("mobilenetv2_100-frozen", "efficientnetv2b0-full"))
    expected = f": frozen MobileNetV2, new head {frozen}, all of EfficientNetV2-B0 fine-tuned {whole}."
    assert re.search(r"^:alt: (.*)$", text, re.MULTILINE).group(1).endswith(expected)
    assert f"{pooled['images'].min():,.0f} to {pooled['images'].max():,.0f} of them" in text
    assert text.startswith(f"```{{figure}} {frontpage.DRAWING}\n")


def test_drawing_is_the_same_for_the_same_records(recorded, tmp_path):
    for name in ("one", "two"):
        frontpage.write_result(tmp_path / name, recorded=recorded)
    first, second = ((tmp_path / name / frontpage.DRAWING).read_bytes() for name in ("one", "two"))
    assert first == second
    assert first.startswith(b"<?xml")


def test_every_model_of_the_figure_is_recorded():
    recorded = {run.model for run in records.load_records("flowers", protocol="careful")}
    assert set(frontpage.MODELS) <= recorded


def test_figure_of_the_readme_is_that_of_the_committed_records(tmp_path):
    frontpage.write_result(tmp_path)
    drawn = settings.PROJECT_FOLDER / "book" / frontpage.DRAWING
    assert drawn.read_text(encoding="utf-8") == (tmp_path / frontpage.DRAWING).read_text(encoding="utf-8")
    assert "(book/_static/result.svg)" in (settings.PROJECT_FOLDER / "README.md").read_text(encoding="utf-8")
