"""One trained network from its question to its record, in whatever process it runs.

Images -> manifest -> recipe -> record, as in the chapters, for the many runs that no chapter has room for.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from tlhelpers import devices, files, identity, interpret, loaders, profiles, settings, training
from tlhelpers.datasets import manifest, splits, studies
from tlhelpers.experiments import recipes, records, trainer

DISTANCE_IMAGES = 256  # with others the distance moves by some hundredths of itself


@dataclass(frozen=True)
class Experiment:
    """Which network is trained how, on what.

    Args:
        network: str. `"baseline_cnn"` or a key of `models.BACKBONES`.
        recipe: Recipe. Its strategy names the record.
        seed: int. See `split_manifest`.
        study: str. The study's name.
        protocol: str. `"published"` or `"careful"`.
        profile: str. The profile's name: the images and the pretrained weights.
        per_class: int or None. How many training images of each class are used; None means all.
        evaluated_on: str. `"test"`, or `"validation"` for what is still being chosen: the test images are then not
            even read.
        measures_distance: bool. Whether its record says how unlike the training images are to those of the
            pretraining, as a mean over the layers, see `interpret.domain_distance`. For a network that is frozen.
    """

    network: str
    recipe: recipes.Recipe
    seed: int
    study: str = "flowers"
    protocol: str = "careful"
    profile: str = "full"
    per_class: int | None = None
    evaluated_on: str = "test"
    measures_distance: bool = False

    @property
    def name(self):
        """Study, protocol, model and seed, as a record's path has them."""
        return f"{self.study}/{self.protocol}/{self.network}-{self.recipe.strategy}/seed-{self.seed}"

    @property
    def asked(self):
        """What its record keeps of the question, beside what every record says."""
        return {"recipe": asdict(self.recipe), "per_class": self.per_class, "evaluated_on": self.evaluated_on}

    def model_path(self, folder=None):
        """Where its model stands below a folder, or, without one, among those of this build."""
        return Path(folder or settings.models_folder(self.profile)) / f"{self.name}.keras"

    def is_answered_by(self, record):
        """Whether a record is of this network with the same recipe on the same images per class."""
        try:  # a recipe recorded before some field existed has that field's default
            asked = record.details | {"recipe": asdict(recipes.Recipe(**record.details["recipe"]))}
        except (KeyError, TypeError):
            return False
        same = all(asked.get(name) == value for name, value in records.rounded(self.asked).items())
        return same and record.name == self.name

    def is_recorded(self, folder):
        """Whether it has left its record below a folder."""
        found = records.find_records([self.name], folder, predictions=False)
        return self.name in found and self.is_answered_by(found[self.name])


def run_experiment(experiment, folder, *, models_folder=None, threads=None):
    """Trains what an experiment asks for and saves its record; a finished one is left as it is.

    The model is kept, too, unless it is evaluated on validation images.

    Args:
        experiment: Experiment.
        folder: Path. Such as `settings.records_folder()`.
        models_folder: Path or None. Where the model goes; None means with those of this build.
        threads: int or None. Cores to use; None means all.

    Returns:
        Record.

    Raises:
        ValueError: when the experiment names something unknown, or asks for more images than a class has.
    """
    if experiment.is_recorded(folder):
        return records.find_records([experiment.name], folder)[experiment.name]
    devices.limit_threads(threads)
    device = devices.prepare_device(experiment.seed)
    profile = profiles.choose_profile(experiment.profile)
    study = studies.get_study(experiment.study, drawn=profile.drawn)
    table = table_of(experiment, study)
    fitted = trainer.fit_recipe(
        experiment.recipe,
        experiment.network,
        table,
        study.num_classes,
        weights=profile.weights,
        seed=experiment.seed,
        batch_size=device.batch_size,
        resume_folder=settings.home_folder() / "interrupted" / f"{experiment.profile}-{experiment.name}",
    )
    record = _make_record(experiment, study, table, fitted, device)
    if experiment.evaluated_on == "test":  # what is still being chosen is not kept
        training.save_model(fitted.model, experiment.model_path(models_folder))
    return records.load_record(records.save_record(record, folder))


def table_of(experiment, study):
    """The images of an experiment, split.

    Args:
        experiment: Experiment.
        study: Study.

    Returns:
        pandas.DataFrame, as from `split_manifest`. When it is evaluated on the validation set, that part stands in
        for the test set, which is left out (the protocol `published` has no such part and validates as its source).
    """
    if experiment.evaluated_on not in ("test", "validation"):
        raise ValueError(
            f"A run is evaluated on 'test' or 'validation'. Received: evaluated_on={experiment.evaluated_on!r}"
        )
    table = splits.split_manifest(
        manifest.load_manifest(study), study, protocol=experiment.protocol, seed=experiment.seed
    )
    if experiment.evaluated_on == "validation" and (table["split"] == "validation").any():
        table = table[table["split"] != "test"].replace({"split": {"validation": "test"}})
    if experiment.per_class is not None:
        table = splits.limit_per_class(table, experiment.per_class, seed=experiment.seed)
    return table.reset_index(drop=True)


def _make_record(experiment, study, table, fitted, device):
    recipe = experiment.recipe
    parts = set(table["split"]) - {"train"}
    details = experiment.asked | fitted.details
    if experiment.measures_distance:
        details["domain_distance"] = _domain_distance(experiment, fitted.model, table)
    prob = {part: trainer.predict(recipe, fitted, table, part) for part in parts}
    return records.make_record(
        study=study,
        table=table,
        y_prob=prob["test"],
        validation_prob=prob.get("validation"),
        protocol=experiment.protocol,
        network=experiment.network,
        strategy=recipe.strategy,
        profile=experiment.profile,
        seed=experiment.seed,
        image_size=recipe.test_image_size,
        parameters=fitted.parameters,
        history=fitted.history,
        seconds=fitted.seconds,
        hardware=devices.hardware_facts(device),
        computed_from=identity.digest_of_run(fitted.model, table),
        details=details,
    )


def _domain_distance(experiment, model, table):
    """How unlike training images are to those of the pretraining: the mean over a network's layers."""
    rows = splits.rows_of(table, "train")
    chosen = rows.sample(min(DISTANCE_IMAGES, len(rows)), random_state=experiment.seed)
    images = loaders.read_images(chosen, experiment.recipe.test_image_size)
    return float(interpret.domain_distance(model, images).mean())


def digest_of_code():
    """Names the state of this package's code, so that nothing it left is taken for the work of another state.

    Returns:
        str, 8 hexadecimal digits.
    """
    modules = sorted(settings.PACKAGE_FOLDER.rglob("*.py"))
    return files.sha256_of_text("\n".join(files.sha256_of(module) for module in modules))[:8]
