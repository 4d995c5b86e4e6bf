"""Which profile a chapter runs under, and why."""

import pytest

from tlhelpers.profiles import PROFILES, choose_profile


@pytest.mark.parametrize(
    ("requested", "name", "reason"),
    [
        (None, "full", "no profile was asked for"),
        ("auto", "full", "no profile was asked for"),
        ("full", "full", "TLHELPERS_PROFILE asks for it"),
        ("smoke", "smoke", "TLHELPERS_PROFILE asks for it"),
    ],
)
def test_auto_follows_the_environment_and_is_full_without_it(monkeypatch, requested, name, reason):
    if requested is not None:
        monkeypatch.setenv("TLHELPERS_PROFILE", requested)
    profile = choose_profile()
    assert (profile.name, profile.reason) == (name, reason)


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_chapters_parameter_wins_over_the_environment(monkeypatch, name):
    monkeypatch.setenv("TLHELPERS_PROFILE", next(other for other in PROFILES if other != name))
    profile = choose_profile(name)
    assert (profile.name, profile.reason) == (name, "the chapter's parameters ask for it")


def test_unknown_profile_is_answered_with_the_allowed_ones():
    with pytest.raises(ValueError, match=r"one of \['auto', 'full', 'smoke'\]\. Received: name='fast'"):
        choose_profile("fast")


def test_unknown_profile_in_the_environment_is_named_as_such(monkeypatch):
    monkeypatch.setenv("TLHELPERS_PROFILE", "fast")
    message = r"TLHELPERS_PROFILE is one of \['auto', 'full', 'smoke'\]\. Received: TLHELPERS_PROFILE='fast'"
    with pytest.raises(ValueError, match=message):
        choose_profile("auto")


@pytest.mark.parametrize(("name", "image_size", "weights"), [("full", 224, "imagenet"), ("smoke", 64, None)])
def test_profile_sets_images_and_weights(name, image_size, weights):
    profile = choose_profile(name)
    assert (profile.image_size, profile.weights) == (image_size, weights)


def test_choosing_leaves_the_table_as_it_was():
    choose_profile("smoke")
    assert [profile.reason for profile in PROFILES.values()] == ["", ""]
