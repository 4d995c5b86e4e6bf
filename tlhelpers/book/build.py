"""Executes the chapters and builds the site.

python -m tlhelpers.book.build book --profile pocket
python -m tlhelpers.book.build records --profile full --protocol published --seeds 0 1 2
"""

import functools
import os
import sys
from pathlib import Path

from tlhelpers import files, profiles, settings, terminal, weights
from tlhelpers.book import cache, editions, execution, pool, programs, recording, schedule, staging, toc
from tlhelpers.datasets import sources, splits, studies


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
        ProgramsError: when set-up has not fetched what pages run in a browser.
    """
    programs.check_programs()
    staging.restore_site()
    chosen = profiles.choose_profile(profile)
    splits.check_protocol(protocol, seed)
    jobs = schedule.choose_jobs(jobs)
    if repository:
        staging.check_repository(repository)
    chapters = toc.list_chapters()
    if not all(staging.staged(chapter).is_file() for chapter in chapters):
        pool.load_ahead()
    if not chosen.drawn:
        print("Looking for photographs; those that are found for the first time are all read: minutes", flush=True)
    parameters = {"PROFILE": profile, "PROTOCOL": protocol, "SEED": seed}
    with terminal.without_startup_messages():  # reading images takes libraries that speak while they load
        find_flowers(chosen)
        cache_keys = make_cache_keys(chapters, parameters, drawn=chosen.drawn)
    changes = list_changes(chapters, cache_keys, only, strict=strict)
    print(f"Profile {chosen.name} ({chosen.reason}); {len(changes)} of {len(chapters)} chapters to execute", flush=True)
    limits = {"jobs": jobs, "time_limit": time_limit, "strict": strict}
    failures = execute_chapters(changes, parameters, cache_keys, profile=chosen.name, **limits)
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


def make_cache_keys(chapters, parameters, *, drawn):
    """What each chapter depends on now: a dict from chapter to its cache key, see `cache.make_cache_key`."""
    cache_keys = {}
    for chapter in chapters:  # reading order: those that a chapter follows stand before it
        follows = [cache_keys[name] for name in toc.FOLLOWS.get(chapter, ())]
        cache_keys[chapter] = cache.make_cache_key(chapter, parameters, drawn=drawn, follows=follows)
    return cache_keys


def list_changes(chapters, cache_keys, only=None, *, strict=False):
    """The chapters to execute and why: those that have changed, or those that are asked for.

    Args:
        chapters: list of str.
        cache_keys: dict from chapter to its cache key.
        only: list of str or None. As for `build_book`.
        strict: bool. Whether synthetic editions are not good enough.

    Returns:
        dict from chapter to a list of str.

    Raises:
        ChapterError: when some are asked for while others were never executed.
    """
    if only:
        selected = toc.select(chapters, only)
        missing = [name for name in chapters if name not in selected and not staging.staged(name).is_file()]
        if missing:
            raise execution.ChapterError(
                f"Some chapters were never executed: {missing}. Build the whole book once, without --only"
            )
        return {chapter: ["asked for"] for chapter in selected}
    found = {}
    for chapter in chapters:
        metadata = staging.read_metadata(chapter)
        found[chapter] = cache.list_changes(cache_keys[chapter], metadata.get(cache.CACHE_KEY))
        if strict and editions.EDITION in metadata:
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


def execute_chapters(changes, parameters, cache_keys, *, profile, jobs, time_limit, strict=False):
    """Prints a plan and executes chapters side by side.

    Args:
        changes: dict from a chapter to why it is executed, as from `list_changes`.
        parameters: dict. What the chapters are executed with.
        cache_keys: dict from a chapter to its cache key.
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
            metadata={cache.CACHE_KEY: cache_keys[chapter], schedule.PROFILE: profile},
            time_limit=time_limit,
            copied=pool.copies_are_safe(),
        )
        for chapter in changes
    }
    return schedule.run_all(works, toc.FOLLOWS, jobs=jobs, seconds=seconds)


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


def main(arguments=None):
    """The command line."""
    parser = terminal.make_parser("tlhelpers.book.build", __doc__)
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
    records = commands.add_parser("records", help="train the recorded runs")
    records.add_argument("--profile", default="full", choices=["full", "pocket"])
    records.add_argument("--protocol", default="published", choices=splits.PROTOCOLS)
    records.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    records.add_argument("--only", nargs="*", help="beginnings of chapter names, such as 05")
    options = vars(parser.parse_args(arguments))
    os.environ["TLHELPERS_QUIET"] = "1"
    try:
        files.remove_leftovers(settings.home_folder())
        if options.pop("command") == "book":
            with files.only_one(settings.build_folder() / "lock", "Another build is at work in the same folder"):
                print(f"The site: {build_book(**options)}")
        else:
            recording.make_records(**options)
    except (execution.ChapterError, programs.ProgramsError, OSError, ValueError) as error:
        print(f"Stopped: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
