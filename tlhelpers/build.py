"""Executes the chapters and builds the site.

python -m tlhelpers.build book --profile pocket
python -m tlhelpers.build records --profile full --protocol published --seeds 0 1 2
"""

import argparse
import base64
import io
import itertools
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import papermill
import yaml
from papermill.exceptions import PapermillExecutionError
from PIL import Image

from tlhelpers import checkpoints, drawings, files, manifest, profiles, records, report, settings, sources, studies

BUILD_FOLDER = settings.PROJECT_FOLDER / "_build"
STAGING_FOLDER = BUILD_FOLDER / "source"
OUTPUT_FOLDER = settings.PROJECT_FOLDER  # jupyter-book adds _build/html
CELL_TIMEOUT_SECONDS = 3600
KERNEL = "python3"
JPEG_QUALITY, WORTH_IT = 90, 0.5  # percent; the share of a PNG's bytes below which a JPEG takes its place
REPOSITORY = re.compile(r"[A-Za-z0-9-]+/[A-Za-z0-9._-]+")

# What TensorFlow and LiteRT say while they load or convert, before any setting can silence it.
STARTUP_MESSAGE = re.compile(
    r"WARNING: All log messages before absl::InitializeLog|I0000 \d|W0000 .*tf_tfl_flatbuffer_helpers|INFO:"
)

# By study: the chapters that train, and the records each leaves for one protocol and seed.
RECORDED_CHAPTERS = {
    "flowers": {
        "book/03_baseline_cnn.ipynb": ["baseline_cnn-scratch"],
        "book/04_frozen_backbone.ipynb": ["{backbone}-frozen"],
        "book/05_fine_tuning.ipynb": ["{backbone}-{fine_tuned}", "{backbone}-{fine_tuned}_bn_updating"],
    },
    "fashion_mnist": {
        "book/12_fashion_from_scratch.ipynb": ["small_cnn-scratch"],
        "book/13_fashion_strategies.ipynb": [
            "small_cnn-random_full",
            "small_cnn-random_partial",
            "small_cnn-random_frozen",
        ],
    },
    "cats_dogs": {"book/14_cats_vs_dogs.ipynb": ["{backbone}-overfitted", "{backbone}-rescued"]},
    "deepweeds": {
        "book/15_deepweeds.ipynb": ["{backbone}-frozen", "{backbone}-partial", "{backbone}-full"],
    },
    "fer2013": {
        "book/16_fer2013.ipynb": ["{backbone}-frozen", "{backbone}-partial", "{backbone}-full"],
    },
    "fashion_half": {
        "book/13_fashion_strategies.ipynb": [
            "small_cnn-scratch",
            "small_cnn-frozen",
            "small_cnn-partial",
            "small_cnn-full",
        ],
    },
}


class ChapterError(RuntimeError):
    """A chapter did not run as it should; the message names the chapter, the cell and the reason."""


def list_pages(folder=settings.PROJECT_FOLDER):
    """The pages of the table of contents, in reading order.

    Args:
        folder: Path. The project's root.

    Returns:
        list of str. Paths relative to `folder`, without suffix.
    """
    toc = yaml.safe_load((Path(folder) / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(chapter["file"] for part in toc.get("parts", []) for chapter in part["chapters"])]


def list_chapters(folder=settings.PROJECT_FOLDER):
    """The notebooks of the table of contents, in reading order.

    Args:
        folder: Path. The project's root.

    Returns:
        list of str. Paths relative to `folder`.
    """
    return [f"{name}.ipynb" for name in list_pages(folder) if (Path(folder) / f"{name}.ipynb").is_file()]


def execute_chapter(source, destination, parameters, *, folder=settings.PROJECT_FOLDER):
    """Executes one notebook in a kernel of its own.

    Args:
        source: Path. The notebook; it stays as it is.
        destination: Path. The executed copy, written when the run has ended without an error.
        parameters: dict. Values for names in the notebook's parameters cell.
        folder: Path. Where the kernel works.

    Returns:
        float. Wall-clock seconds.

    Raises:
        ChapterError: when a parameter is unknown, a cell fails, or a cell writes to stderr.
    """
    known = papermill.inspect_notebook(str(source))
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise ChapterError(f"{source.name} has the parameters {sorted(known)}. Received: {unknown}")
    started = time.perf_counter()
    with files.atomic_file(destination) as temporary:
        try:
            with report.watch_memory() as memory:
                papermill.execute_notebook(
                    str(source),
                    str(temporary),
                    parameters=parameters,
                    kernel_name=KERNEL,
                    cwd=str(folder),
                    execution_timeout=CELL_TIMEOUT_SECONDS,
                    progress_bar=sys.stderr.isatty(),
                )
        except PapermillExecutionError as error:
            failed = destination.with_suffix(".failed.ipynb")
            shutil.copy(temporary, failed)
            raise ChapterError(
                f"{source.name}, cell {error.exec_count}: {error.ename}: {error.evalue}\n"
                f"The run up to there is in {failed}"
            ) from error
        notebook = nbformat.read(temporary, as_version=4)
        drop_startup_messages(notebook)
        check_outputs(notebook, source.name)
        hide_injected_parameters(notebook)
        shrink_pictures(notebook)
        notebook.metadata.update(memory)
        nbformat.write(notebook, temporary)
    return time.perf_counter() - started


def drop_startup_messages(notebook):
    """Removes what TensorFlow says while it loads or converts, on whichever stream; everything else stays."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                lines = output.text.splitlines(keepends=True)
                output.text = "".join(line for line in lines if not STARTUP_MESSAGE.match(line))
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if output.get("text", "-")]


def check_outputs(notebook, name):
    """Raises a ChapterError when an executed notebook holds an error or text on stderr."""
    for index, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                raise ChapterError(f"{name}, cell {index}: {output.ename}: {output.evalue}")
            if output.output_type == "stream" and output.name == "stderr":
                raise ChapterError(f"{name}, cell {index} wrote to stderr: {output.text[:500]}")


def shrink_pictures(notebook):
    """Turns figures that are mostly photographs or drawings into JPEG, which takes a fraction of their bytes."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                exact = base64.b64decode(output.data["image/png"])
                with Image.open(io.BytesIO(exact)) as image:
                    pixels = np.asarray(image.convert("RGB"))
                small = drawings.encode(pixels, quality=JPEG_QUALITY, subsampling=0, optimize=True)
                if len(small) < WORTH_IT * len(exact):
                    output.data["image/jpeg"] = base64.b64encode(small).decode()
                    del output.data["image/png"]


def hide_injected_parameters(notebook):
    """Keeps the cell that papermill adds off the page; what was chosen stands in the badge."""
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "injected-parameters" in tags:
            cell.metadata["tags"] = [*tags, "remove-cell"]


def stage_source(chapters, *, executed=None, repository=None):
    """Lays out what jupyter-book reads, beside the executed chapters.

    The foot of every page, with or without code, says what the first chapter was run on.

    Args:
        chapters: list of str. Notebooks, which are not copied: their executed copies take their place.
        executed: list of str or None. The chapters that this build has run; None means all.
        repository: str or None. `owner/name` on GitHub, whose branch `notebooks` holds copies of the chapters for
            notebook services; the pages then lead to them.
    """
    _copy(settings.PROJECT_FOLDER / "_toc.yml", STAGING_FOLDER / "_toc.yml")
    config = yaml.safe_load((settings.PROJECT_FOLDER / "_config.yml").read_text(encoding="utf-8"))
    notebooks = {chapter: nbformat.read(STAGING_FOLDER / chapter, as_version=4) for chapter in chapters}
    config["html"]["extra_footer"] = report.read_badge(notebooks[chapters[0]])
    if repository:
        add_publishing(config, repository)
    files.write_text(STAGING_FOLDER / "_config.yml", yaml.safe_dump(config, sort_keys=False))
    for path in sorted((settings.PROJECT_FOLDER / "book").rglob("*")):
        relative = path.relative_to(settings.PROJECT_FOLDER)
        hidden = any(part.startswith(".") for part in relative.parts)
        if path.is_file() and not hidden and str(relative) not in chapters:
            _copy(path, STAGING_FOLDER / relative)
    exported = STAGING_FOLDER / "book" / "_static" / "exported"
    shutil.rmtree(exported, ignore_errors=True)
    if settings.exports_folder().is_dir():
        shutil.copytree(settings.exports_folder(), exported)
    from tlhelpers import frontpage  # here, because what draws takes a second to load

    frontpage.write_result(STAGING_FOLDER / "book")
    report.write_report(STAGING_FOLDER / "book", notebooks, chapters if executed is None else executed)


def add_publishing(config, repository):
    """Adds to a configuration what pages need that many will read: links to notebook services, a map of the site, and
    cards for those who pass a link on.

    Args:
        config: dict. The contents of `_config.yml`, changed in place.
        repository: str. `owner/name` on GitHub, whose pages the site is published on.
    """
    check_repository(repository)
    owner, name = repository.split("/")
    address = f"https://{owner.lower()}.github.io/{name}/"
    config["html"]["baseurl"] = address
    sphinx = config["sphinx"]
    sphinx["extra_extensions"] = [*sphinx["extra_extensions"], "sphinx_sitemap", "sphinxext.opengraph"]
    sphinx["config"] |= {
        "notebook_repository": repository,
        "sitemap_url_scheme": "{link}",
        "ogp_site_url": address,
        "ogp_site_name": config["title"],
        "ogp_social_cards": dict.fromkeys(("image", "image_mini"), "book/_static/logo.png"),
    }


def check_repository(repository):
    """Raises a ValueError when a repository is not written `owner/name`."""
    if not REPOSITORY.fullmatch(repository):
        raise ValueError(f"A repository is written owner/name. Received: {repository!r}")


def build_site():
    """Builds the staged book into `_build/html`, warnings being errors.

    Returns:
        Path. The site's first page.

    Raises:
        ChapterError: when jupyter-book warns or fails.
    """
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(STAGING_FOLDER)]
    options = ["--path-output", str(OUTPUT_FOLDER), "--all", "-W", "--keep-going"]
    finished = subprocess.run([*command, *options], check=False, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    if finished.returncode:
        raise ChapterError(f"jupyter-book ended with exit status {finished.returncode}; its messages stand above")
    return BUILD_FOLDER / "html" / "index.html"


def build_book(*, profile="auto", protocol="careful", seed=0, only=None, repository=None):
    """Executes every chapter and builds the site.

    Args:
        profile: str. `"auto"` or a profile's name.
        protocol: str. `"published"` or `"careful"`.
        seed: int.
        only: list of str or None. Beginnings of chapter names, such as `["05"]`: executes just these and keeps
            the executed copies of the others.
        repository: str or None. See `stage_source`.

    Returns:
        Path. The site's first page.

    Raises:
        ChapterError: when a chapter or the site fails.
        MissingDataError: when no source has the images; the message names the ways to provide them.
    """
    chosen = profiles.choose_profile(profile)
    manifest.check_protocol(protocol, seed)
    if repository:
        check_repository(repository)
    study = studies.get_study("flowers", drawn=chosen.drawn)
    sources.prepare_images(study)
    checkpoints.find_weights(checkpoints.WEIGHT_FILES[chosen.weights][chosen.backbone or study.backbone])
    chapters = list_chapters()
    selected = _select(chapters, only)
    missing = [name for name in chapters if name not in selected and not (STAGING_FOLDER / name).is_file()]
    if missing:
        raise ChapterError(f"Some chapters were never executed: {missing}. Build the whole book once, without --only")
    parameters = {"PROFILE": profile, "PROTOCOL": protocol, "SEED": seed}
    print(f"Profile {chosen.name} ({chosen.reason}); {len(selected)} of {len(chapters)} chapters to execute")
    for chapter in selected:
        source = settings.PROJECT_FOLDER / chapter
        seconds = execute_chapter(source, STAGING_FOLDER / chapter, parameters)
        print(f"{chapter}: {seconds:.0f} s", flush=True)
    stage_source(chapters, executed=selected, repository=repository)
    return build_site()


def list_recorded(profile, study):
    """The records that each training chapter of a study leaves under a profile.

    Args:
        profile: Profile.
        study: str. A key of `RECORDED_CHAPTERS`.

    Returns:
        dict from chapter to a list of `<network>-<strategy>`.
    """
    names = {
        "backbone": profile.backbone or studies.get_study(study).backbone,
        "fine_tuned": profile.fine_tuned,
    }
    chapters = RECORDED_CHAPTERS[study].items()
    return {chapter: [model.format(**names) for model in models] for chapter, models in chapters}


def make_records(*, profile, protocol, seeds, only=None, folder=None):
    """Records the studies' models by executing the chapters that train them.

    A protocol and seed whose records are complete is skipped, so that a killed run can be started again.

    Args:
        profile: str. A profile's name.
        protocol: str. `"published"` or `"careful"`.
        seeds: list of int.
        only: list of str or None. Beginnings of the names of the chapters to execute; None means all.
        folder: Path or None. None means the committed records of that profile.
    """
    chosen = profiles.choose_profile(profile)
    committed = settings.pocket_folder() / "records" if chosen.drawn else settings.records_folder()
    folder = Path(folder or committed)
    os.environ["TLHELPERS_RUNS"] = str(folder)
    planned = {
        (study, chapter): models
        for study in RECORDED_CHAPTERS
        for chapter, models in list_recorded(chosen, study).items()
    }
    chapters = _select([chapter for _, chapter in planned], only)
    for seed, ((study, chapter), models) in itertools.product(seeds, planned.items()):
        if chapter in chapters:
            manifest.check_protocol(protocol, seed)
            found = records.load_records(study, folder=folder, protocol=protocol)
            if {record.model for record in found if record.seed == seed} >= set(models):
                print(f"{chapter}, {protocol}, seed {seed}: recorded before")
                continue
            executed = BUILD_FOLDER / "recording" / chosen.name / protocol / f"seed-{seed}" / Path(chapter).name
            parameters = {"PROFILE": chosen.name, "PROTOCOL": protocol, "SEED": seed}
            seconds = execute_chapter(settings.PROJECT_FOLDER / chapter, executed, parameters)
            print(f"{chapter}, {protocol}, seed {seed}: {seconds:.0f} s", flush=True)


def main(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tlhelpers.build", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    book = commands.add_parser("book", help="execute every chapter and build the site")
    book.add_argument("--profile", default="auto", choices=["auto", *profiles.PROFILES])
    book.add_argument("--protocol", default="careful", choices=manifest.PROTOCOLS)
    book.add_argument("--seed", type=int, default=0)
    book.add_argument("--only", nargs="*", help="beginnings of chapter names, such as 05")
    book.add_argument("--repository", help="owner/name on GitHub, for links to notebook services")
    recording = commands.add_parser("records", help="train the recorded runs")
    recording.add_argument("--profile", default="full", choices=["full", "pocket"])
    recording.add_argument("--protocol", default="published", choices=manifest.PROTOCOLS)
    recording.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    recording.add_argument("--only", nargs="*", help="beginnings of chapter names, such as 05")
    options = vars(parser.parse_args(arguments))
    os.environ["TLHELPERS_QUIET"] = "1"
    try:
        if options.pop("command") == "book":
            print(f"The site: {build_book(**options)}")
        else:
            make_records(**options)
    except (ChapterError, sources.MissingDataError, sources.BadArchiveError, ValueError) as error:
        print(f"Stopped: {error}", file=sys.stderr)
        return 1
    return 0


def _select(chapters, only):
    if not only:
        return chapters
    selected = [chapter for chapter in chapters if Path(chapter).name.startswith(tuple(only))]
    if not selected:
        raise ValueError(f"--only takes beginnings of {[Path(c).name for c in chapters]}. Received: {only}")
    return selected


def _copy(source, destination):
    destination.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, destination)


if __name__ == "__main__":
    sys.exit(main())
