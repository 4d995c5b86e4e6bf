"""What benchmarks run on: the chosen profile's own pictures and weights, and a cache that is empty in the beginning."""

import pytest

from tlhelpers import devices, models, profiles, settings
from tlhelpers.datasets import manifest, splits, studies


@pytest.fixture(scope="session", autouse=True)
def _empty_cache(tmp_path_factory):
    """A cache folder for all benchmarks together, empty but for what was downloaded before."""
    home, downloaded = tmp_path_factory.mktemp("home"), settings.home_folder() / "downloads"
    downloaded.mkdir(parents=True, exist_ok=True)
    (home / "downloads").symlink_to(downloaded)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLHELPERS_HOME", str(home))
        devices.prepare_device(0, deterministic=False)  # as the usual loops run
        yield


@pytest.fixture(autouse=True)
def _own_surroundings():
    """Leaves the environment as it is: a benchmark measures what a reader has."""


@pytest.fixture(autouse=True)
def _no_network():
    """Lets archives and weights come from where they usually do."""


@pytest.fixture(scope="session")
def profile():
    """The profile that the environment asks for, or the hardware."""
    return profiles.choose_profile("auto")


@pytest.fixture(scope="session")
def study(profile):
    """The flowers, photographs or drawings."""
    return studies.get_study("flowers", drawn=profile.drawn)


@pytest.fixture(scope="session")
def table(study):
    """Its training and validation pictures; no benchmark looks at a test picture."""
    table = splits.split_manifest(manifest.load_manifest(study), study, protocol="careful", seed=0)
    return table[table["split"] != "test"].reset_index(drop=True)


@pytest.fixture(scope="session")
def load_backbone(profile, study):
    """Builds the frozen backbone for images of some size."""

    def build(image_size):
        name = profile.backbone or study.backbone
        return models.freeze(models.build_backbone(name, image_size, weights=profile.weights))

    return build


@pytest.fixture
def forget():
    """Empties the cache of features, so that they are computed again."""

    def forget_features():
        for path in (settings.home_folder() / "features").glob("*"):
            path.unlink()

    return forget_features


@pytest.fixture(scope="session")
def link_by_class():
    """Puts links to pictures into one folder for each class below a folder, as other loaders want them."""

    def link(root, rows):
        for number, (path, label) in enumerate(zip(rows["path"], rows["label"], strict=True)):
            (root / label).mkdir(parents=True, exist_ok=True)
            (root / label / f"{number}.jpg").symlink_to(path)
        return root

    return link
