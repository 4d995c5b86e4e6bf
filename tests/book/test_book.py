"""The chapters: what each must hold, that they run, and that the site builds from them without a warning."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import yaml
from PIL import Image
from smoke_book import CHAPTERS, PARAMETERS, environment_of

from tlhelpers import profiles, settings
from tlhelpers.book import execution, toc
from tlhelpers.experiments import grids, records

pytestmark = pytest.mark.timeout(3600)  # the first slow test executes every chapter
LONGEST_CELL = 15
CHECKED = "nbval-check-output"
NEARLY_WHITE = 200  # of 255; a JPEG leaves traces
EXPECTED = Path(__file__).with_name("expected_outputs.json")


def read(chapter):
    return nbformat.read(settings.PROJECT_FOLDER / chapter, as_version=4)


def cells_of(chapter, cell_type):
    return [cell for cell in read(chapter).cells if cell.cell_type == cell_type]


def prose_of(chapter):
    return "\n".join(cell.source for cell in cells_of(chapter, "markdown"))


def test_table_of_contents_lists_the_chapters_in_order():
    assert [chapter[5:7] for chapter in CHAPTERS] == [f"{number:02}" for number in range(1, 21)] + ["a1"]


@pytest.fixture(params=CHAPTERS)
def chapter(request):
    """Each chapter in turn."""
    return request.param


def test_notebook_holds_no_outputs(chapter):
    assert all(not cell.outputs and cell.execution_count is None for cell in cells_of(chapter, "code"))


def test_one_parameters_cell_of_literals_shared_by_all_chapters(chapter):
    tagged = [c for c in cells_of(chapter, "code") if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1
    values = {}
    exec(tagged[0].source, values)  # noqa: S102 - our own three assignments
    assert {name: values[name] for name in PARAMETERS} == {"PROFILE": "auto", "PROTOCOL": "careful", "SEED": 0}


def test_cells_are_short_enough_to_read(chapter):
    assert max(len(cell.source.splitlines()) for cell in cells_of(chapter, "code")) <= LONGEST_CELL


def test_every_figure_has_a_name_a_caption_and_alternative_text(chapter):
    plots = [c for c in cells_of(chapter, "code") if re.search(r"^tl\.plot_", c.source, re.MULTILINE)]
    assert plots
    for cell in plots:
        figure = cell.metadata["mystnb"]
        assert figure["figure"]["name"].startswith("fig-")
        assert len(figure["figure"]["caption"]) > 20
        assert len(figure["image"]["alt"]) > 20


def test_every_figure_is_referred_to_in_the_prose(chapter):
    names = [
        cell.metadata["mystnb"]["figure"]["name"]
        for cell in cells_of(chapter, "code")
        if "figure" in cell.metadata.get("mystnb", {})
    ]
    prose = prose_of(chapter)
    assert [name for name in names if f"{{numref}}`{name}`" not in prose] == []


def test_no_percentage_is_typed_into_the_prose(chapter):
    assert re.findall(r"\d\s?%", prose_of(chapter).replace("95 %", "")) == []


def test_every_number_the_prose_asks_for_is_glued(chapter):
    asked = set(re.findall(r"\{glue:text\}`([^`]+)`", prose_of(chapter)))
    code = "\n".join(cell.source for cell in cells_of(chapter, "code"))
    glued = [re.sub(r"\{[^}]*\}", ".+", name) for name in re.findall(r'tl\.glue\(\s*f?"([^"]+)"', code)]
    assert [name for name in asked if not any(re.fullmatch(pattern, name) for pattern in glued)] == []


def test_opens_with_aims_and_ends_with_recap_and_exercises(chapter):
    prose = prose_of(chapter)
    places = [prose.index(text) for text in ("} Aims", "## Setup", "## Recap", "## Exercises")]
    assert places == sorted(places)


def test_the_run_by_hand_has_the_sizes_of_the_grid_beside_it():
    sizes = f"{grids.GRID_TRAIN_SIZE}, {grids.GRID_TEST_SIZE}, {grids.GRID_PER_CLASS}"
    code = "\n".join(cell.source for cell in cells_of("book/08_how_deep.ipynb", "code"))
    assert f"TRAIN_SIZE, TEST_SIZE, PER_CLASS = {sizes}\n" in code


def test_the_rate_of_the_run_by_hand_is_that_of_the_grid_of_the_backbone_at_hand():
    code = "\n".join(cell.source for cell in cells_of("book/08_how_deep.ipynb", "code"))
    assert "rule = tl.best_rates(runs if study.drawn else recorded_grid)" in code
    assert 'rate = rule["everything"]\nschedule = tl.warm_up_and_decay(rate,' in code


@pytest.mark.parametrize("number", ["04", "05", "06", "15", "16", "17"])
def test_figures_of_live_runs_do_not_bear_the_name_of_the_sources_network(number):
    (chapter,) = [one for one in CHAPTERS if one[5:7] == number]
    shown = [json.dumps(cell.metadata.get("mystnb", {})) for cell in cells_of(chapter, "code")]
    assert [text for text in shown if re.search("MobileNet|ResNet", text)] == []


def outputs_of(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


@pytest.mark.slow
def test_no_table_is_cut_in_its_middle(executed):
    for chapter, notebook in executed.items():
        shown = "".join(output.get("data", {}).get("text/html", "") for output in outputs_of(notebook))
        assert not re.search(r"<p>\d+ rows × \d+ columns</p>", shown), chapter  # as pandas says below such a table


@pytest.mark.slow
def test_every_chapter_runs_without_an_error_or_a_word_on_stderr(executed):
    for notebook in executed.values():
        kinds = {(o.output_type, o.get("name")) for o in outputs_of(notebook)}
        assert not kinds & {("error", None), ("stream", "stderr")}


@pytest.mark.slow
@pytest.mark.parametrize("study", toc.list_recorded_studies())
def test_training_chapters_leave_records_on_the_same_test_images(executed, surroundings, study):
    runs = records.load_records(study, folder=surroundings / "runs")
    expected = [model for models in toc.list_recorded(profiles.SMOKE, study).values() for model in models]
    assert sorted(run.model for run in runs) == sorted(expected)
    assert len({tuple(run.test_id) for run in runs}) == 1
    if study == "flowers":
        assert {len(run.history["loss"]) for run in runs} == {2}


@pytest.mark.slow
def test_fine_tuning_moves_only_the_unfrozen_convolutions(executed):
    texts = [o.data.get("text/plain", "") for o in outputs_of(executed["book/05_fine_tuning.ipynb"]) if "data" in o]
    moved, drifted = (ast.literal_eval(text) for text in texts if "/" in text and text.startswith("["))
    assert (moved[0], moved[-1]) == ("block_4_expand/kernel", "Conv_1/kernel")
    assert {name.split("/")[1] for name in moved} == {"kernel"}
    assert {name.split("/")[1] for name in drifted} == {"moving_mean", "moving_variance"}


@pytest.fixture(scope="module")
def checked(executed):
    """Outputs of the cells tagged for comparison: from chapter to a dict from a cell's source to its outputs."""
    return {
        chapter: {
            cell.source: [{k: v for k, v in output.items() if k != "execution_count"} for output in cell.outputs]
            for cell in notebook.cells
            if CHECKED in cell.metadata.get("tags", [])
        }
        for chapter, notebook in executed.items()
    }


@pytest.mark.slow
def test_counts_and_sizes_are_the_expected_ones(checked, request):
    if request.config.getoption("--update-expected"):
        EXPECTED.write_text(json.dumps(checked, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert checked == json.loads(EXPECTED.read_text(encoding="utf-8"))
    assert all(cells for cells in checked.values())


# A chapter is executed a second time for this: two of them in every run, all of them in the long lane.
AGAIN = [pytest.param(c, marks=() if c[5:7] in ("02", "04") else pytest.mark.long, id=c[5:7]) for c in CHAPTERS]


@pytest.mark.slow
@pytest.mark.parametrize("chapter", AGAIN)
def test_nbval_finds_the_expected_outputs_again(executed, surroundings, tmp_path, chapter):
    outputs = json.loads(EXPECTED.read_text(encoding="utf-8"))[chapter]
    for place in ("home", "runs", "models", "exports"):  # chapters write again, half of what they wrote before
        shutil.copytree(surroundings / place, tmp_path / place)
    folder = tmp_path / "nbval"
    folder.mkdir()
    notebook = read(chapter)
    first = min(index for index, cell in enumerate(notebook.cells) if CHECKED in cell.metadata.get("tags", []))
    del notebook.cells[first + 1 :]  # trainings follow, and what they leave is compared above
    for count, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), 1):
        cell.execution_count = count
        cell.outputs = [as_output(facts, count) for facts in outputs.get(cell.source, [])]
    nbformat.write(notebook, folder / Path(chapter).name)
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-kernel-name", execution.KERNEL]
    options = ["-p", "no:cacheprovider", "-q", "--rootdir", str(folder), "-c", os.devnull, str(folder)]
    environment = os.environ | environment_of(tmp_path)
    finished = subprocess.run(
        [*command, *options], check=False, capture_output=True, text=True, cwd=folder, env=environment
    )
    assert finished.returncode == 0, finished.stdout[-5000:]


def as_output(facts, count):
    extra = {"execution_count": count} if facts["output_type"] == "execute_result" else {}
    return nbformat.from_dict(facts | extra)


def darkest_at_the_edge(path):
    """How bright the darkest pixel at a picture's edge is, 0..255."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("L"))
    return min(edge.min() for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]))


@pytest.mark.slow
def test_no_figure_is_cut_off_at_its_edge(site):
    figures = [path for path in (site / "_images").iterdir() if path.suffix in (".png", ".jpg")]
    assert len(figures) > len(CHAPTERS)
    assert [path.name for path in figures if darkest_at_the_edge(path) < NEARLY_WHITE] == []


@pytest.mark.slow
def test_site_builds_without_a_warning_and_shows_the_glued_numbers(site, surroundings):
    page = (site / "book" / "03_baseline_cnn.html").read_text(encoding="utf-8")
    record = records.load_records("flowers", folder=surroundings / "runs", model="baseline_cnn-scratch")[0]
    assert f"{record.metrics['accuracy']:.1%}" in page
    assert "run-badge" in page
    assert "glue:text" not in page
    pages = {page.name: page.read_text(encoding="utf-8") for page in site.rglob("*.html")}
    outside = re.compile(r'<(?:script|link|img)[^>]+(?:src|href)="https?://[^"]+\.(?:js|css|png|svg|woff2?)\b')
    assert [name for name, text in pages.items() if outside.search(text)] == []


def test_unknown_chapter_parameter_is_an_error_that_names_the_known_ones(tmp_path):
    source = settings.PROJECT_FOLDER / CHAPTERS[0]
    with pytest.raises(execution.ChapterError, match=r"\['PROFILE', 'PROTOCOL', 'SEED'\].*EPOCH"):
        execution.execute_chapter(source, tmp_path / "out.ipynb", {"EPOCH": 1})


def test_configuration_pins_no_network_address_of_a_content_network():
    config = yaml.safe_load((settings.PROJECT_FOLDER / "_config.yml").read_text(encoding="utf-8"))
    assert config["execute"]["execute_notebooks"] == "off"
