"""Where things live and what the environment asks for.

The only module that reads environment variables:

- `TLHELPERS_PROFILE`: the profile that `"auto"` stands for
- `TLHELPERS_MIRROR`: a folder or URL with archives and weights under upstream names
- `TLHELPERS_HOME`: the cache folder (default: the platform's own)
- `TLHELPERS_BUILD`: where a build goes (default: `_build` in the project's folder)
- `TLHELPERS_RUNS`: where live runs are written (default: `_build/runs/<profile>`)
- `TLHELPERS_MODELS`: where trained models are kept (default: `_build/models/<profile>`)
- `TLHELPERS_EXPORTS`: where exported models are kept (default: `_build/exports`)
- `TLHELPERS_RECORDING`: `1` gives chapters the whole budget of their profile on whatever hardware, as for records
- `TLHELPERS_QUIET`: `1` hides progress bars, as in a headless build
"""

import os
from pathlib import Path

import platformdirs

PACKAGE_FOLDER = Path(__file__).resolve().parent
PROJECT_FOLDER = PACKAGE_FOLDER.parent
# What the package reads of `data/`: it travels in a wheel, and chapters depend on it.
COMMITTED = ("*.yml", "speed.json", "records/**/*", "pocket/**/*")


def in_checkout():
    """Whether the package runs from a checkout of the book (and not from an installed wheel)."""
    return (PROJECT_FOLDER / "_toc.yml").is_file()


def home_folder():
    """The cache folder for archives, extracted images, weights and features.

    Returns:
        Path, absolute. The folder need not exist.

    Raises:
        FileNotFoundError: when it stands in a home folder, and the user has none.
    """
    chosen = os.environ.get("TLHELPERS_HOME")
    try:
        folder = Path(chosen or platformdirs.user_cache_dir("tlhelpers")).expanduser()
    except RuntimeError as error:
        raise FileNotFoundError(
            "The cache folder is in a user's home folder, and there is none: set TLHELPERS_HOME to a folder by its "
            f"whole path. Received: TLHELPERS_HOME={chosen!r}"
        ) from error
    return folder.absolute()


def data_folder():
    """The project's `data/` folder; in an installed wheel the copy that travels with the package."""
    return PROJECT_FOLDER / "data" if in_checkout() else PACKAGE_FOLDER / "data"


def committed_files():
    """The committed tables, records and weights, not the archives that a reader has dropped beside them: Paths."""
    return sorted(path for pattern in COMMITTED for path in data_folder().glob(pattern) if path.is_file())


def drop_folders():
    """Folders in which a reader may drop an archive, nearest first."""
    folders = [Path.cwd() / "data", Path.cwd(), data_folder()]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def records_folder():
    """The committed records of runs on the real data."""
    return data_folder() / "records"


def pocket_folder():
    """The embedded backbone, its card, and the committed records of runs on synthetic images."""
    return data_folder() / "pocket"


def lock_file():
    """The list of every package's version, from which a build sets up its environment."""
    return PROJECT_FOLDER / "requirements.txt"


def build_folder():
    """Where everything goes that a build makes."""
    chosen = os.environ.get("TLHELPERS_BUILD")
    return Path(chosen).expanduser() if chosen else (PROJECT_FOLDER if in_checkout() else Path.cwd()) / "_build"


def site_folder():
    """Where the built site stands: a Path."""
    return build_folder() / "html"


def messages_file():
    """Where a build keeps what chapters' processes say while they start, which is not for the terminal."""
    return build_folder() / "messages.txt"


def runs_folder(profile):
    """Where live runs under a profile are written.

    Args:
        profile: str. The profile's name.
    """
    chosen = os.environ.get("TLHELPERS_RUNS")
    return Path(chosen).expanduser() if chosen else build_folder() / "runs" / profile


def models_folder(profile):
    """Where the trained models of a build are kept; they are large, and no record needs them.

    Args:
        profile: str. The profile's name.
    """
    chosen = os.environ.get("TLHELPERS_MODELS")
    return Path(chosen).expanduser() if chosen else build_folder() / "models" / profile


def exports_folder():
    """Where the models are kept that the site offers to browsers: those of the last build, whatever its profile."""
    chosen = os.environ.get("TLHELPERS_EXPORTS")
    return Path(chosen).expanduser() if chosen else build_folder() / "exports"


def mirror():
    """The mirror a reader named, as a folder path or URL, or None."""
    return os.environ.get("TLHELPERS_MIRROR") or None


def requested_profile():
    """The profile the environment asks for, or None."""
    return os.environ.get("TLHELPERS_PROFILE") or None


def is_recording():
    """Whether what chapters train is to be recorded, and hardware without a GPU shortens nothing."""
    return os.environ.get("TLHELPERS_RECORDING") == "1"


def is_quiet():
    """Whether progress bars are hidden."""
    return os.environ.get("TLHELPERS_QUIET") == "1"
