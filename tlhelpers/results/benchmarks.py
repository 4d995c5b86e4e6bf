"""What `make bench` has measured: ratios of the book's way to the usual one, each from one run on one machine.

python -m tlhelpers.results.benchmarks _build/bench/full/bench_loading.json --record
"""

import functools
import json
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from tlhelpers import devices, files, profiles, settings, terminal
from tlhelpers.datasets import studies
from tlhelpers.experiments import records

CLOSE = 0.01  # accuracies that differ by less count as equal


class Comparison(NamedTuple):
    """One question of speed.

    Args:
        group: str. The benchmarks' group.
        usual: str. The benchmark of the usual way, or of the limit.
        ours: str. The benchmark of the book's way.
        words: str. What is compared, for a table.
        at_least: float. How many times as fast ours should be.
    """

    group: str
    usual: str
    ours: str
    words: str
    at_least: float


COMPARISONS = (
    Comparison(
        "frozen training",
        "test_usual_loop",
        "test_features_once",
        "a frozen backbone: features once, against the whole network in each epoch",
        6.0,
    ),
    Comparison(
        "fine-tuning the last layers",
        "test_whole_network[layers]",
        "test_views_once[layers]",
        "the last six layers: a few views once, against the whole network in each epoch",
        2.0,
    ),
    Comparison(
        "fine-tuning the last blocks",
        "test_whole_network[blocks]",
        "test_views_once[blocks]",
        "the last blocks: the same, where more moves",
        2.0,
    ),
    Comparison(
        "first pass of the loader",
        "test_bare_loop",
        "test_first_pass",
        "reading pictures the first time, against nothing but reading, decoding and resizing",
        0.9,
    ),
    Comparison(
        "later passes",
        "test_keras_without_a_cache",
        "test_later_pass",
        "reading them again, against a loader that keeps nothing",
        4.0,
    ),
    Comparison(
        "predicting a folder",
        "test_bare_model",
        "test_folder",
        "predicting files, against the bare model on pictures in memory",
        0.8,
    ),
    Comparison(
        "chapters",
        "test_chapters[one_by_one]",
        "test_chapters[side_by_side]",
        "executing chapters side by side, against one by one",
        1.4,
    ),
)


def summarise_benchmarks(measured):
    """Keeps of pytest-benchmark's report what a page needs.

    Args:
        measured: dict. The JSON that `--benchmark-json` writes.

    Returns:
        dict with `profile`, `pictures`, `hardware`, `versions`, and `measured`: a list of dict with `group`, `name`,
        `date`, `seconds` (median, float) and what the benchmark has noted beside it, such as `images` (int) or
        `accuracy` (float).
    """
    profile = profiles.choose_profile("auto")
    rows = [
        {
            "group": one["group"],
            "name": one["name"],
            "date": measured["datetime"][:10],
            "seconds": one["stats"]["median"],
            **one["extra_info"],
        }
        for one in measured["benchmarks"]
    ]
    return {
        "profile": profile.name,
        "pictures": studies.get_study("flowers", drawn=profile.drawn).pictures,
        "hardware": f"{devices.cpu_name()}, {devices.available_cores()} cores",
        "versions": records.package_versions(),
        "measured": rows,
    }


def merge(recorded, speed):
    """Measurements, and those of other groups that were made before on the same machine, images and versions.

    Args:
        recorded: dict. As from `summarise_benchmarks`, made before.
        speed: dict. The same, made now. What it holds of a group stands for the whole group.

    Returns:
        dict like `speed`.
    """
    if any(recorded[name] != speed[name] for name in ("profile", "pictures", "hardware", "versions")):
        return speed
    groups = {one["group"] for one in speed["measured"]}
    kept = [one for one in recorded["measured"] if one["group"] not in groups]
    return speed | {"measured": kept + speed["measured"]}


def load_speed():
    """The committed measurements, as from `summarise_benchmarks`; a dict."""
    return json.loads(_recorded().read_text(encoding="utf-8"))


def speed_table(speed=None):
    """The comparisons, one row each.

    Args:
        speed: dict or None. As from `summarise_benchmarks`; None means the committed measurements.

    Returns:
        pandas.DataFrame with `what`, `usual` and `ours` (seconds, float), `ratio` (how many times as fast ours is),
        `at_least` (the aim) and `accuracies` (str, validation accuracies of both, empty where nothing is trained).
        Comparisons that were not measured are left out.
    """
    measured = {(one["group"], one["name"]): one for one in (speed or load_speed())["measured"]}
    rows = []
    for comparison in COMPARISONS:
        pair = [measured.get((comparison.group, name)) for name in (comparison.usual, comparison.ours)]
        if all(pair):
            usual, ours = pair
            rows.append(
                {
                    "what": comparison.words,
                    "usual": usual["seconds"],
                    "ours": ours["seconds"],
                    "ratio": usual["seconds"] / ours["seconds"],
                    "at_least": comparison.at_least,
                    "accuracies": describe_accuracies(usual, ours),
                }
            )
    return pd.DataFrame(rows)


def describe_accuracies(usual, ours):
    """The validation accuracies of two trainings in words, a str; empty where nothing is trained."""
    if "accuracy" not in usual:
        return ""
    close = abs(usual["accuracy"] - ours["accuracy"]) < CLOSE
    return f"{usual['accuracy']:.1%} and {ours['accuracy']:.1%}" + ", not equal" * (not close)


def main(arguments=None):
    """The command line."""
    parser = terminal.make_parser("tlhelpers.results.benchmarks", __doc__)
    parser.add_argument("reports", type=Path, nargs="+", help="what --benchmark-json has written, in one folder")
    parser.add_argument("--record", action="store_true", help="keep the measurements for the book")
    options = parser.parse_args(arguments)
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in options.reports]
    speed = functools.reduce(merge, map(summarise_benchmarks, reports))
    if options.record:
        kept = records.rounded(speed)
        if _recorded().exists():
            kept = merge(load_speed(), kept)
        files.write_text(_recorded(), json.dumps(kept, indent=1) + "\n")
    table = speed_table(speed).to_string(index=False, float_format="{:.2f}".format)
    files.write_text(options.reports[0].with_name("table.txt"), table + "\n")
    print(f"{speed['hardware']}, {speed['pictures']}\n{table}")


def _recorded():
    return settings.data_folder() / "speed.json"


if __name__ == "__main__":
    main()
