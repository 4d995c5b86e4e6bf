"""Records models by executing the chapters that train them."""

import itertools
import os
from pathlib import Path

from tlhelpers import profiles, settings
from tlhelpers.book import execution, toc
from tlhelpers.datasets import splits
from tlhelpers.experiments import records


def make_records(*, profile, protocol, seeds, only=None, folder=None):
    """Records the studies' models by executing the chapters that train them.

    A protocol and seed whose records are complete is skipped, so that a killed run can be started again. What is new is
    packed at the end.

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
        for study in toc.list_recorded_studies()
        for chapter, models in toc.list_recorded(chosen, study).items()
    }
    chapters = toc.select([chapter for _, chapter in planned], only)
    for seed, ((study, chapter), models) in itertools.product(seeds, planned.items()):
        if chapter in chapters:
            splits.check_protocol(protocol, seed)
            found = records.load_records(study, folder=folder, protocol=protocol, predictions=False)
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
    records.pack_records(folder)
