"""What every chapter opens with: the profile, the device, the images and their split in one object; and `glue`."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from tlhelpers import devices, identity, metrics, models, profiles, settings, training, weights, widgets
from tlhelpers.datasets import manifest, splits, studies
from tlhelpers.experiments import grids, records, runner, sweeps
from tlhelpers.figures import plotting
from tlhelpers.results import tables
from tlhelpers.synthetic import collection

NO_CONFUSION = "no other confusion"
STAND_IN_PER_CLASS = 50  # training images of each class
FROM_PHOTOGRAPHS = "it has learned from the photographs of ImageNet"
FROM_DRAWINGS = "it has learned from synthetic images alone"
LITTLE_WORTH = "so that its numbers on photographs say little about what one that knows photographs would reach"
WITHOUT_WEIGHTS = "no source has ImageNet's weights: connect to the internet, or let TLHELPERS_MIRROR name a place"
PROTOCOL_NOTES = {
    "published": "as in the source, the test images also draw the validation curves; nothing is chosen by them",
    "careful": "duplicates kept together; test images used once",
}


@dataclass(frozen=True)
class Chapter:
    """The circumstances of one chapter's run. Shown at the end of a cell, it is the page's badge.

    Args:
        study: Study.
        profile: Profile.
        device: Device.
        protocol: str. `"published"` or `"careful"`.
        seed: int.
        per_class: int or None. How many training images of each class are used; None means all.
    """

    study: studies.Study
    profile: profiles.Profile
    device: devices.Device
    protocol: str
    seed: int
    per_class: int | None = None

    @property
    def backbone(self):
        """The name of the pretrained network under this profile, the source's own or the embedded one."""
        return self.profile.backbone or self.study.backbone

    @property
    def learned_from(self):
        """What the pretrained network has learned from, and what its numbers on photographs are then worth, a str."""
        if self.profile.weights == "imagenet":
            return f"{self.backbone}: {FROM_PHOTOGRAPHS}"
        why = f" ({WITHOUT_WEIGHTS})" if is_photographed(self.study) else ""
        return f"{self.backbone}: {FROM_DRAWINGS}{why}, {LITTLE_WORTH}"

    @property
    def note_on_photographs(self):
        """What a reader is told who gives a photo to models of this chapter, a str."""
        if self.study.drawn:
            return f"Of each of these models: {FROM_DRAWINGS}, {LITTLE_WORTH}."
        return f"These models have learned from {self.study.pictures}."

    @property
    def image_size(self):
        """Side of the square network input, pixels."""
        return self.study.image_size

    @cached_property
    def manifest(self):
        """Every file of the study, good or bad; see `manifest.load_manifest`."""
        return manifest.load_manifest(self.study)

    @cached_property
    def table(self):
        """The usable images with their split; see `splits.split_manifest`."""
        table = splits.split_manifest(self.manifest, self.study, protocol=self.protocol, seed=self.seed)
        if self.per_class is None:
            return table
        return splits.limit_per_class(table, self.per_class, seed=self.seed).reset_index(drop=True)

    def rows(self, split):
        """The images of one split: see `splits.rows_of`."""
        return splits.rows_of(self.table, split)

    def by_split(self, values):
        """Cuts values that stand row by row as `table` into the splits.

        Args:
            values: array `(len(table), …)`, such as features or `table["target"]`.

        Returns:
            dict from `"train"`, `"validation"` and `"test"` to an array.
        """
        values = np.asanyarray(values)
        return {split: values[self.rows(split).index] for split in splits.SPLITS}

    def resume_folder(self, name):
        """Where an interrupted training called `name` keeps its state."""
        run = f"{self.study.name}-{self.protocol}-{self.profile.name}-{name}-seed-{self.seed}"
        return settings.home_folder() / "interrupted" / run

    def save_run(self, network, strategy, model, y_prob, *, validation_prob, history, seconds):
        """Saves a trained model, and what it left as a record of this build.

        Args:
            network: str. `backbone`, or such as `"baseline_cnn"`.
            strategy: str. Such as `"scratch"`.
            model: keras.Model. Its parameters are counted as they are frozen now.
            y_prob: float array `(n, classes)`, one row per test image.
            validation_prob: float array `(m, classes)`, one row per validation image.
            history: dict of lists, one value per epoch.
            seconds: dict of float. Wall-clock seconds per stage.

        Returns:
            Record.
        """
        record = records.make_record(
            study=self.study,
            table=self.table,
            y_prob=y_prob,
            validation_prob=validation_prob,
            protocol=self.protocol,
            network=network,
            strategy=strategy,
            profile=self.profile.name,
            seed=self.seed,
            image_size=self.image_size,
            parameters=models.count_parameters(model),
            history=history,
            seconds=seconds,
            hardware=devices.hardware_facts(self.device),
            computed_from=identity.digest_of_run(model, self.table),
        )
        records.save_record(record, settings.runs_folder(self.profile.name))
        training.save_model(model, self.model_path(network, strategy), class_names=self.study.class_names)
        return record

    def run_grid(self, name, planned):
        """Runs the experiments of a grid side by side; what this state of the code has run before is not run again.

        Args:
            name: str. What the grid is called.
            planned: dict from a cell to its Experiment, as from `plan_depths`.

        Returns:
            dict from a cell to its Record, in the order of `planned`.
        """
        folder = settings.runs_folder(self.profile.name) / "sweeps" / f"{name}-{runner.digest_of_code()}"
        return sweeps.run_sweep(planned, folder)

    def load_model(self, network, strategy):
        """A model this build has trained under this chapter's protocol and seed.

        Args:
            network: str. As given to `save_run`.
            strategy: str. As given to `save_run`.

        Returns:
            keras.Model. From images in 0..255 to logits.

        Raises:
            ValueError: when this build has not trained it.
        """
        path = self.model_path(network, strategy)
        if not path.is_file():
            raise ValueError(
                "This page looks inside models that the build has trained: execute chapters 3 to 5 first. "
                f"Missing: {path}"
            )
        return training.load_model(path)

    def load_or_train(self, wanted):
        """The models of other chapters and their runs; where this machine has not all of them, small ones instead.

        Those are trained on the spot on at most `STAND_IN_PER_CLASS` images of each class, and a sentence says so.

        Args:
            wanted: dict from a label to a pair of a network and a strategy, as given to `save_run`.

        Returns:
            tuple of a dict from label to keras.Model and a dict from label to Record.

        Raises:
            ValueError: when no chapter trains such a model.
        """
        runs = {(run.network, run.strategy): run for run in self.load_runs().values()}
        trained = {key for key in runs if self.model_path(*key).is_file()}
        if set(wanted.values()) <= trained:
            models_, found = {key: self.load_model(*key) for key in wanted.values()}, runs
        else:
            models_, found = self._train_stand_ins(wanted.values())
        return tuple({label: some[key] for label, key in wanted.items()} for some in (models_, found))

    def _train_stand_ins(self, wanted):
        smallest = int(self.rows("train")["label"].value_counts().min())
        count = min(STAND_IN_PER_CLASS, smallest)
        same = {"protocol": self.protocol, "seed": self.seed}
        planned = grids.plan_stand_ins(self.profile, self.study, self.backbone, count, **same)
        if unknown := set(wanted) - set(planned):
            raise ValueError(f"A small model stands in for one of {sorted(planned)}. Received: {sorted(unknown)}")
        print(
            "This machine has not trained the models that this page looks at. "
            f"Small ones take their place, trained here and now on {count} pictures of each class."
        )
        place = Path("stand-ins", runner.digest_of_code())
        runs, kept = (of(self.profile.name) / place for of in (settings.runs_folder, settings.models_folder))
        models_, found = {}, {}
        for key in dict.fromkeys(wanted):
            experiment = planned[key]
            if not experiment.model_path(kept).is_file():  # of a model that is gone no record is of use
                records.record_path(runs, experiment.name).unlink(missing_ok=True)
            found[key] = runner.run_experiment(experiment, runs, models_folder=kept)
            models_[key] = training.load_model(experiment.model_path(kept))
        return models_, found

    def model_path(self, network, strategy):
        """Where this build keeps a model it trains under this chapter's protocol and seed: a Path.

        Args:
            network: str. As given to `save_run`.
            strategy: str. As given to `save_run`.
        """
        folder = settings.models_folder(self.profile.name) / self.study.name / self.protocol
        return folder / f"{network}-{strategy}" / f"seed-{self.seed}.keras"

    def describe_recorded(self, model):
        """The recorded accuracy of a model under this chapter's protocol: see `tables.describe_recorded`."""
        return tables.describe_recorded(self.study, self.protocol, model)

    def describe_confusions(self, record):
        """The three most frequent confusions of a record in words, such as `rose taken for tulip (9 pictures)`."""
        confusions = metrics.top_confusions(record.y_true, record.y_prob, self.study.class_names)
        counted = [(true, predicted, f"{count} picture{'s' * (count != 1)}") for true, predicted, count in confusions]
        words = [f"{true} taken for {predicted} ({pictures})" for true, predicted, pictures in counted]
        return words + [NO_CONFUSION] * (metrics.TOP_CONFUSIONS - len(words))

    def load_runs_or_records(self, names):
        """This build's records of some models, or, where one is missing, the committed ones of the same seed.

        Args:
            names: list of str, `<network>-<strategy>`, as the source calls them.

        Returns:
            tuple of a dict from name to Record, in the order of `names`, and a str that says which they are.

        Raises:
            ValueError: when neither has them all; the message names the missing ones.
        """
        recorded = f"recorded runs on {self.study.pictures}"
        live = self.load_runs()
        built = f"runs of {tables.name_build(live.values())}"
        for origin, found in ((built, live), (recorded, self._load_recorded())):
            if set(names) <= set(found):
                return {name: found[name] for name in names}, origin
        raise ValueError(
            "A comparison needs a run of every model under the same protocol and seed: execute chapters 3 to 5 first. "
            f"Missing: {sorted(set(names) - set(live))}. "
            f"Received: protocol={self.protocol!r}, seed={self.seed}"
        )

    def find_errors(self, record):
        """The test images a model gets wrong, the most confident errors first.

        Args:
            record: Record, of this chapter's protocol and seed.

        Returns:
            pandas.DataFrame. Test rows of `table` with `position` (int, row of the record's arrays) and
            `confidence`; no row when the record was made on another edition of the images.
        """
        test = self.rows("test")
        if not np.array_equal(record.test_id, test["sha256"]):
            return test.head(0).assign(position=0, confidence=0.0)
        errors = test.assign(
            position=range(len(test)),
            confidence=record.y_prob.max(axis=1),
            wrong=record.y_prob.argmax(axis=1) != record.y_true,
        )
        return errors[errors["wrong"]].sort_values("confidence", ascending=False)

    def load_runs(self):
        """This build's records under this chapter's protocol, profile and seed, by the source's name of the model.

        Returns:
            dict from `<network>-<strategy>` to Record.
        """
        live = self.load_live_records()
        return {model: record for (protocol, model), record in live.items() if protocol == self.protocol}

    def load_live_records(self):
        """This build's records under this chapter's profile and seed, whatever the protocol.

        Returns:
            dict from a protocol and the source's name of a model to Record. Where the profile has another
            backbone than the source, or unfreezes more of it, its models stand in for the source's.
        """
        found = self._load(settings.runs_folder(self.profile.name))
        return {key: record for key, record in found.items() if record.profile == self.profile.name}

    def confusion_table(self, record):
        """Counts of true class (rows) against predicted class (columns), for those who cannot see the figure.

        Args:
            record: Record.

        Returns:
            pandas.DataFrame.
        """
        names = np.asarray(self.study.class_names)
        true, predicted = names[record.y_true], names[record.y_prob.argmax(axis=1)]
        return pd.crosstab(pd.Series(true, name="true"), pd.Series(predicted, name="predicted"))

    def _source_name(self, record):
        network = self.study.backbone if record.network == self.backbone else record.network
        strategy = record.strategy.replace(self.profile.fine_tuned, f"last{self.study.unfrozen}")
        return f"{network}-{strategy}"

    def _load_recorded(self):
        folder = settings.pocket_folder() / "records" if self.study.drawn else settings.records_folder()
        return {model: record for (protocol, model), record in self._load(folder).items() if protocol == self.protocol}

    def _load(self, folder):
        found = records.load_records(self.study, folder=folder)
        return {(r.protocol, self._source_name(r)): r for r in found if r.seed == self.seed}

    def _repr_html_(self):
        row = devices.describe_choices(self.profile, self.device).iloc[0]
        facts = {
            "images": self.study.pictures,
            **row,
            **({"backbone": self.learned_from} if self.study.folder else {}),
            "protocol": f"{self.protocol} ({PROTOCOL_NOTES[self.protocol]})",
            "date": records.today(),
        }
        return widgets.list_facts(facts, label="What this page was run on")

    def __repr__(self):
        table = devices.describe_choices(self.profile, self.device).assign(images=self.study.pictures)
        return table.to_string(index=False)


def begin_chapter(study, *, profile="auto", protocol="careful", seed=0, per_class=None):
    """Opens a chapter: chooses the profile, prepares the device, seeds everything, sets the figures' style.

    Args:
        study: str or Study. A key of `studies.STUDIES`, or a study of one's own, as from `describe_folder`, which is
            never replaced by synthetic images.
        profile: str. `"auto"` or a key of `profiles.PROFILES`.
        protocol: str. `"published"` or `"careful"`.
        seed: int.
        per_class: int or None. How many training images of each class are used; None means all.

    Returns:
        Chapter.

    Raises:
        ValueError: when an argument has an unknown value; the message names the allowed ones.
    """
    chosen_profile = profiles.choose_profile(profile)
    if not isinstance(study, studies.Study):
        study = studies.get_study(study, drawn=chosen_profile.drawn)
    splits.check_protocol(protocol, seed, study)
    if is_photographed(study):
        chosen_profile = choose_backbone(chosen_profile, study)
    plotting.use_book_style()
    return Chapter(study, chosen_profile, devices.prepare_device(seed), protocol, seed, per_class)


def is_photographed(study):
    """Whether a study's images are a reader's own, and not synthetic ones of this package."""
    return study.folder is not None and not collection.is_drawn(study.folder)


def choose_backbone(profile, study):
    """A profile with the backbone for images of one's own: ImageNet's weights whatever the hardware, if they are had.

    Args:
        profile: Profile. Its budget stays.
        study: Study, as from `describe_folder`.

    Returns:
        Profile. With the pocket backbone where no source has the weights.

    Raises:
        BadArchiveError: when the mirror's copy of the weights does not match its checksum.
    """
    try:
        weights.find_weights(weights.WEIGHT_FILES["imagenet"][study.backbone])
        chosen = profiles.FULL
    except weights.MissingDataError:
        chosen = profiles.POCKET
    taken = ("backbone", "weights", "head_learning_rate", "unfrozen", "fine_tuning_learning_rate")
    return replace(profile, **{name: getattr(chosen, name) for name in taken})


def glue(name, value, *, digits=1):
    """Makes a number available to the prose around it, which takes it with the role `glue:text`.

    Args:
        name: str. The key, unique within the page.
        value: float shares are shown as percentages, int with thousands separators, str as they are.
        digits: int. Decimals of a percentage.
    """
    from IPython.display import display

    text = _as_prose(value, digits)
    prefix = "application/papermill.record/"
    display(
        {f"{prefix}text/plain": repr(text)},
        raw=True,
        metadata={"scrapbook": {"name": name, "mime_prefix": prefix}},
    )


def _as_prose(value, digits):
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int | np.integer) else f"{value:.{digits}%}"
