"""Executes the chapters and builds the site.

python -m tlhelpers.book.build book --profile pocket
python -m tlhelpers.book.build records --profile full --protocol published --seeds 0 1 2
"""

import argparse
import functools
import itertools
import os
import sys
from pathlib import Path

import yaml

from tlhelpers import files, profiles, settings, terminal, weights
from tlhelpers.book import cache, editions, execution, schedule, staging
from tlhelpers.datasets import sources, splits, studies
from tlhelpers.experiments import records

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


def build_book(
    *,
    profile="auto",
    protocol="careful",
    seed=0,
    only=None,
    repository=None,
    jobs=None,
    time_limit=execution.TIME_LIMIT_SECONDS,
    strict=False,
):
    """Executes the chapters of which something has changed, side by side, and builds the site.

    Args:
        profile: str. `"auto"` or a profile's name.
        protocol: str. `"published"` or `"careful"`.
        seed: int.
        only: list of str or None. Beginnings of chapter names, such as `["05"]`: executes just these, changed or
            not, and keeps the executed copies of the others as they are.
        repository: str or None. See `staging.stage_source`.
        jobs: int or None. How many chapters run at once: see `schedule.choose_jobs`.
        time_limit: float. Seconds after which a cell is stopped and its chapter fails.
        strict: bool. Whether a chapter whose images or weights no source has fails, instead of being built on its
            synthetic edition.

    Returns:
        Path. The site's first page.

    Raises:
        ChapterError: when chapters or the site fail; the other chapters have been executed all the same, and the
            last good site stays.
        MissingDataError: when no source has the images or the weights of the flower study; the message names the ways
            to provide them.
    """
    staging.restore_site()
    chosen = profiles.choose_profile(profile)
    splits.check_protocol(protocol, seed)
    jobs = schedule.choose_jobs(jobs)
    if repository:
        staging.check_repository(repository)
    chapters = list_chapters()
    if not all(staging.staged(chapter).is_file() for chapter in chapters):
        schedule.load_ahead()
    if not chosen.drawn:
        print("Looking for photographs; those that are found for the first time are all read: minutes", flush=True)
    parameters = {"PROFILE": profile, "PROTOCOL": protocol, "SEED": seed}
    with terminal.without_startup_messages():  # reading images takes libraries that speak while they load
        find_flowers(chosen)
        marks = mark_chapters(chapters, parameters, drawn=chosen.drawn)
    changes = list_changes(chapters, marks, only, strict=strict)
    print(f"Profile {chosen.name} ({chosen.reason}); {len(changes)} of {len(chapters)} chapters to execute", flush=True)
    limits = {"jobs": jobs, "time_limit": time_limit, "strict": strict}
    failures = execute_chapters(changes, parameters, marks, profile=chosen.name, **limits)
    for line in summarise(chapters):
        print(line)
    if failures:
        raise execution.ChapterError(describe_failures(failures, len(changes)))
    staging.stage_source(chapters, executed=list(changes), repository=repository)
    return staging.build_site()


def find_flowers(profile):
    """Makes sure that the flower images and the weights of their backbone are at hand; without them nothing is built.

    Args:
        profile: Profile.

    Raises:
        MissingDataError: when no source has them.
    """
    study = studies.get_study("flowers", drawn=profile.drawn)
    sources.prepare_images(study)
    weights.find_weights(weights.WEIGHT_FILES[profile.weights][profile.backbone or study.backbone])


def mark_chapters(chapters, parameters, *, drawn):
    """What each chapter depends on now: a dict from chapter to its mark, see `cache.mark_chapter`."""
    marks = {}
    for chapter in chapters:  # reading order: those that a chapter follows stand before it
        follows = [marks[name] for name in schedule.FOLLOWS.get(chapter, ())]
        marks[chapter] = cache.mark_chapter(chapter, parameters, drawn=drawn, follows=follows)
    return marks


def list_changes(chapters, marks, only=None, *, strict=False):
    """The chapters to execute and why: those that have changed, or those that are asked for.

    Args:
        chapters: list of str.
        marks: dict from chapter to its mark.
        only: list of str or None. As for `build_book`.
        strict: bool. Whether synthetic editions are not good enough.

    Returns:
        dict from chapter to a list of str.

    Raises:
        ChapterError: when some are asked for while others were never executed.
    """
    if only:
        selected = _select(chapters, only)
        missing = [name for name in chapters if name not in selected and not staging.staged(name).is_file()]
        if missing:
            raise execution.ChapterError(
                f"Some chapters were never executed: {missing}. Build the whole book once, without --only"
            )
        return {chapter: ["asked for"] for chapter in selected}
    found = {}
    for chapter in chapters:
        metadata = staging.read_metadata(chapter)
        found[chapter] = cache.list_changes(marks[chapter], metadata.get(cache.MARK))
        if strict and editions.MARK in metadata:
            found[chapter].append("a synthetic edition")
    return {chapter: reasons for chapter, reasons in found.items() if reasons}


def summarise(chapters):
    """What a reader of the terminal should know of the executed chapters: editions and warnings.

    Args:
        chapters: list of str. Those of an earlier build that were kept count too.

    Returns:
        list of str, one line each.
    """
    executed = {chapter: staging.read_metadata(chapter) for chapter in chapters}
    warned = {chapter: metadata.get(execution.WARNINGS, []) for chapter, metadata in executed.items()}
    return [*execution.describe_warnings(warned), *editions.describe(executed)]


def execute_chapters(changes, parameters, marks, *, profile, jobs, time_limit, strict=False):
    """Prints a plan and executes chapters side by side.

    Args:
        changes: dict from a chapter to why it is executed, as from `list_changes`.
        parameters: dict. What the chapters are executed with.
        marks: dict from a chapter to its mark.
        profile: str. The name of the chosen profile.
        jobs: int. How many run at once.
        time_limit: float. Seconds, for a cell.
        strict: bool. Whether a chapter fails whose images or weights no source has.

    Returns:
        dict from a chapter that failed to the reason, str.
    """
    seconds = schedule.usual_seconds(profile, {chapter: staging.read_metadata(chapter) for chapter in changes})
    for chapter, reasons in changes.items():
        usual = f", about {schedule.describe_seconds(seconds[chapter])}" if chapter in seconds else ""
        print(f"  {chapter}: {', '.join(reasons)}{usual}")
    if changes:
        print(f"{jobs} at a time{schedule.Estimate(changes, seconds, jobs).describe()}", flush=True)
    execute = execution.execute_chapter if strict else editions.execute_chapter
    works = {
        chapter: functools.partial(
            execute,
            settings.PROJECT_FOLDER / chapter,
            staging.staged(chapter),
            parameters,
            marks={cache.MARK: marks[chapter], schedule.PROFILE: profile},
            time_limit=time_limit,
            copied=schedule.copies_are_safe(),
        )
        for chapter in changes
    }
    return schedule.run_all(works, schedule.FOLLOWS, jobs=jobs, seconds=seconds)


def describe_failures(failures, planned):
    """Says which chapters failed, why, and how to run them again.

    Args:
        failures: dict from a chapter to the reason, str.
        planned: int. How many were to be executed.

    Returns:
        str of some lines.
    """
    first = Path(next(iter(failures))).name.partition("_")[0]
    return "\n".join(
        [
            f"{len(failures)} of {planned} chapters failed; the others are done, and the last good site stays.",
            *failures.values(),
            f"Once that is mended, `make book` executes what is left, and `make book ONLY={first}` the first of them.",
        ]
    )


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
    os.environ["TLHELPERS_RECORDING"] = "1"  # the whole budget, on whatever hardware
    planned = {
        (study, chapter): models
        for study in RECORDED_CHAPTERS
        for chapter, models in list_recorded(chosen, study).items()
    }
    chapters = _select([chapter for _, chapter in planned], only)
    for seed, ((study, chapter), models) in itertools.product(seeds, planned.items()):
        if chapter in chapters:
            splits.check_protocol(protocol, seed)
            found = records.load_records(study, folder=folder, protocol=protocol)
            if {record.model for record in found if record.seed == seed} >= set(models):
                print(f"{chapter}, {protocol}, seed {seed}: recorded before")
                continue
            executed = (
                settings.build_folder() / "recording" / chosen.name / protocol / f"seed-{seed}" / Path(chapter).name
            )
            parameters = {"PROFILE": chosen.name, "PROTOCOL": protocol, "SEED": seed}
            source = settings.PROJECT_FOLDER / chapter
            seconds = execution.execute_chapter(source, executed, parameters, time_limit=None)  # it can be resumed
            print(f"{chapter}, {protocol}, seed {seed}: {seconds:.0f} s", flush=True)


def main(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tlhelpers.book.build", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    book = commands.add_parser("book", help="execute every chapter and build the site")
    book.add_argument("--profile", default="auto", choices=["auto", *profiles.PROFILES])
    book.add_argument("--protocol", default="careful", choices=splits.PROTOCOLS)
    book.add_argument("--seed", type=int, default=0)
    book.add_argument("--only", nargs="*", help="beginnings of chapter names, such as 05")
    book.add_argument("--jobs", type=int, help="chapters at once (default: what cores and memory allow)")
    book.add_argument(
        "--time-limit",
        type=float,
        default=execution.TIME_LIMIT_SECONDS,
        metavar="SECONDS",
        help="after which a cell is stopped (default: %(default)s)",
    )
    book.add_argument("--strict", action="store_true", help="fail where images or weights of a chapter are missing")
    book.add_argument("--repository", help="owner/name on GitHub, for links to notebook services")
    recording = commands.add_parser("records", help="train the recorded runs")
    recording.add_argument("--profile", default="full", choices=["full", "pocket"])
    recording.add_argument("--protocol", default="published", choices=splits.PROTOCOLS)
    recording.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    recording.add_argument("--only", nargs="*", help="beginnings of chapter names, such as 05")
    options = vars(parser.parse_args(arguments))
    os.environ["TLHELPERS_QUIET"] = "1"
    try:
        files.remove_rests(settings.home_folder())
        if options.pop("command") == "book":
            with files.only_one(settings.build_folder() / "lock", "Another build is at work in the same folder"):
                print(f"The site: {build_book(**options)}")
        else:
            make_records(**options)
    except (execution.ChapterError, OSError, ValueError) as error:
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


if __name__ == "__main__":
    sys.exit(main())
