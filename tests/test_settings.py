"""Where things live, and that the environment is heard."""

from pathlib import Path

import platformdirs
import pytest

from tlhelpers import profiles, settings


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Pretends that the package runs from an installed wheel."""
    monkeypatch.setattr(settings, "PROJECT_FOLDER", tmp_path / "site-packages")


def test_repository_is_recognised_as_a_checkout():
    assert settings.in_checkout()
    assert settings.data_folder() == settings.PROJECT_FOLDER / "data"
    assert settings.records_folder() == settings.PROJECT_FOLDER / "data" / "records"
    assert settings.pocket_folder() == settings.PROJECT_FOLDER / "data" / "pocket"
    assert settings.runs_folder("full") == settings.PROJECT_FOLDER / "_build" / "runs" / "full"


@pytest.mark.usefixtures("installed")
def test_installed_wheel_reads_its_own_data_and_writes_below_the_working_folder():
    assert not settings.in_checkout()
    assert settings.data_folder() == settings.PACKAGE_FOLDER / "data"
    assert settings.records_folder() == settings.PACKAGE_FOLDER / "data" / "records"
    assert settings.pocket_folder() == settings.PACKAGE_FOLDER / "data" / "pocket"
    assert settings.runs_folder("full") == Path.cwd() / "_build" / "runs" / "full"


def test_each_profile_has_a_runs_folder_of_its_own():
    folders = [settings.runs_folder(name) for name in profiles.PROFILES]
    assert [folder.name for folder in folders] == ["pocket", "full", "smoke"]
    assert {folder.parent for folder in folders} == {settings.PROJECT_FOLDER / "_build" / "runs"}


@pytest.mark.parametrize(
    ("variable", "function"),
    [("TLHELPERS_HOME", settings.home_folder), ("TLHELPERS_RUNS", lambda: settings.runs_folder("pocket"))],
)
def test_folder_variables_are_honoured(monkeypatch, tmp_path, variable, function):
    monkeypatch.setenv(variable, str(tmp_path / "elsewhere"))
    assert function() == tmp_path / "elsewhere"
    monkeypatch.setenv(variable, "~/elsewhere")
    assert function() == Path.home() / "elsewhere"


@pytest.mark.parametrize("value", [None, ""])
def test_home_is_the_platforms_cache_folder_by_default(monkeypatch, value):
    monkeypatch.delenv("TLHELPERS_HOME")
    if value is not None:
        monkeypatch.setenv("TLHELPERS_HOME", value)
    assert settings.home_folder() == Path(platformdirs.user_cache_dir("tlhelpers"))


def test_a_relative_home_is_that_of_the_working_folder_and_named_whole(monkeypatch):
    monkeypatch.setenv("TLHELPERS_HOME", "cache")
    assert settings.home_folder() == Path.cwd() / "cache"


@pytest.mark.parametrize("value", ["", "~/cache", "~nobody-of-this-name/cache"])
def test_a_user_without_a_home_folder_is_told_to_name_a_cache_folder(monkeypatch, value):
    monkeypatch.setenv("TLHELPERS_HOME", value)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(settings.os.path, "expanduser", lambda path: path)  # as where nobody has this user's number
    with pytest.raises(
        FileNotFoundError, match=r"set TLHELPERS_HOME to a folder by its whole path\. Received: TLHELPERS_HOME="
    ):
        settings.home_folder()


@pytest.mark.parametrize(
    ("variable", "function"),
    [("TLHELPERS_MIRROR", settings.mirror), ("TLHELPERS_PROFILE", settings.requested_profile)],
)
def test_unset_and_empty_variables_mean_none(monkeypatch, variable, function):
    assert function() is None
    monkeypatch.setenv(variable, "")
    assert function() is None
    monkeypatch.setenv(variable, "something")
    assert function() == "something"


@pytest.mark.parametrize(("value", "quiet"), [("1", True), ("0", False), ("", False)])
def test_quiet_is_asked_for_with_a_one(monkeypatch, value, quiet):
    monkeypatch.setenv("TLHELPERS_QUIET", value)
    assert settings.is_quiet() is quiet


def test_drop_folders_are_existing_ones_nearest_first(monkeypatch, tmp_path):
    project = tmp_path / "project" / "data"
    monkeypatch.setattr(settings, "data_folder", lambda: project)
    assert settings.drop_folders() == [Path.cwd()]
    Path("data").mkdir()
    project.mkdir(parents=True)
    assert settings.drop_folders() == [Path.cwd() / "data", Path.cwd(), project]


def test_drop_folder_is_listed_once_when_the_build_runs_in_the_project(monkeypatch):
    Path("data").mkdir()
    monkeypatch.setattr(settings, "data_folder", lambda: Path.cwd() / "data")
    assert settings.drop_folders() == [Path.cwd() / "data", Path.cwd()]
