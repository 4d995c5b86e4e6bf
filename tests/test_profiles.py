"""Which profile a chapter runs under, and why."""

import pytest

from tlhelpers import devices
from tlhelpers.profiles import FULL, POCKET, PROFILES, SMOKE, choose_profile

GPU = {"name": "a GPU", "compute_capability": (7, 5)}


@pytest.mark.parametrize("requested", [None, "", "auto"])
@pytest.mark.parametrize(
    ("gpus", "name", "reason"), [([GPU], "full", "a GPU is visible"), ([], "pocket", "no GPU is visible")]
)
def test_auto_is_full_where_a_gpu_is_visible_and_pocket_elsewhere(monkeypatch, requested, gpus, name, reason):
    monkeypatch.setattr(devices, "list_gpus", lambda: gpus)
    if requested is not None:
        monkeypatch.setenv("TLHELPERS_PROFILE", requested)
    profile = choose_profile()
    assert (profile.name, profile.reason) == (name, reason)


@pytest.mark.parametrize("gpus", [[], [GPU]])
@pytest.mark.parametrize("name", sorted(PROFILES))
def test_auto_follows_the_environment_whatever_the_device(monkeypatch, name, gpus):
    monkeypatch.setattr(devices, "list_gpus", lambda: gpus)
    monkeypatch.setenv("TLHELPERS_PROFILE", name)
    profile = choose_profile()
    assert profile.name == name
    assert profile.reason.startswith("TLHELPERS_PROFILE asks for it")


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_chapters_parameter_wins_over_the_environment(monkeypatch, name):
    monkeypatch.setenv("TLHELPERS_PROFILE", next(other for other in PROFILES if other != name))
    profile = choose_profile(name)
    assert profile.name == name
    assert profile.reason.startswith("the chapter's parameters ask for it")


def test_unknown_profile_is_answered_with_the_allowed_ones():
    with pytest.raises(ValueError, match=r"one of \['auto', 'pocket', 'full', 'smoke'\]\. Received: name='fast'"):
        choose_profile("fast")


def test_unknown_profile_in_the_environment_is_named_as_such(monkeypatch):
    monkeypatch.setenv("TLHELPERS_PROFILE", "fast")
    message = r"TLHELPERS_PROFILE is one of \['auto', 'pocket', 'full', 'smoke'\]\. Received: TLHELPERS_PROFILE='fast'"
    with pytest.raises(ValueError, match=message):
        choose_profile("auto")


@pytest.mark.parametrize(
    ("name", "drawn", "backbone", "weights"),
    [
        ("full", False, None, "imagenet"),
        ("pocket", True, "mobilenetv2_035", "pocket"),
        ("smoke", True, "mobilenetv2_035", "pocket"),
    ],
)
def test_profile_sets_images_backbone_and_weights(name, drawn, backbone, weights):
    profile = choose_profile(name)
    assert (profile.drawn, profile.backbone, profile.weights) == (drawn, backbone, weights)


def test_smoke_trains_as_pocket_does_but_shorter():
    assert (SMOKE.baseline_epochs, SMOKE.head_epochs, SMOKE.fine_tuning_epochs) == (2, 2, 2)
    assert min(POCKET.baseline_epochs, POCKET.head_epochs, POCKET.fine_tuning_epochs) > 2
    assert SMOKE.grid_epochs < POCKET.grid_epochs
    assert SMOKE.case_epochs < POCKET.case_epochs
    assert set(SMOKE.grid_rates) < set(POCKET.grid_rates)
    assert len(SMOKE.grid_per_class) < len(POCKET.grid_per_class)
    assert max(SMOKE.grid_per_class) == max(POCKET.grid_per_class)
    given = ("name", "baseline_epochs", "head_epochs", "fine_tuning_epochs", "case_epochs")
    rest = [name for name in vars(POCKET) if name not in given and not name.startswith("grid_")]
    assert [getattr(SMOKE, name) for name in rest] == [getattr(POCKET, name) for name in rest]


@pytest.mark.parametrize(("gpus", "recording", "whole"), [([GPU], "", True), ([], "1", True), ([], "", False)])
def test_full_trains_less_without_a_gpu_unless_it_records_and_says_so(monkeypatch, gpus, recording, whole):
    monkeypatch.setattr(devices, "list_gpus", lambda: gpus)
    monkeypatch.setenv("TLHELPERS_RECORDING", recording)
    profile = choose_profile("full")
    assert profile.name == "full"
    assert (profile.baseline_epochs == FULL.baseline_epochs) is whole
    assert (profile.case_epochs == FULL.case_epochs) is whole
    assert ("without a GPU trainings are short" in profile.reason) is not whole


def test_profiles_stand_under_their_own_names():
    assert PROFILES == {"pocket": POCKET, "full": FULL, "smoke": SMOKE}
    assert [profile.name for profile in PROFILES.values()] == list(PROFILES)


def test_choosing_leaves_the_table_as_it_was():
    choose_profile("smoke")
    assert [profile.reason for profile in PROFILES.values()] == ["", "", ""]
