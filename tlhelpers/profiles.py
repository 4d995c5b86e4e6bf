"""What a build trains on and how long: one row per profile."""

from dataclasses import dataclass, replace

from tlhelpers import settings


@dataclass(frozen=True)
class Profile:
    """The images, the backbone and the time budget of a build.

    Args:
        name: str. The key in `PROFILES`.
        images: str. What the pictures are, for the badge on each page.
        image_size: int. Side of the square network input, pixels.
        weights: str or None. `"imagenet"`, or None for random weights.
        baseline_epochs: int. Passes over the training images for the network trained from scratch.
        head_epochs: int. Passes for a new head on a frozen backbone.
        fine_tuning_epochs: int. Passes for the unfrozen layers.
        reason: str. Why this profile was chosen.
    """

    name: str
    images: str
    image_size: int
    weights: str | None
    baseline_epochs: int
    head_epochs: int
    fine_tuning_epochs: int
    reason: str = ""


PROFILES = {
    "full": Profile(
        name="full",
        images="real photographs",
        image_size=224,
        weights="imagenet",
        baseline_epochs=8,
        head_epochs=15,
        fine_tuning_epochs=10,
    ),
    "smoke": Profile(
        name="smoke",
        images="whatever the test provides",
        image_size=64,
        weights=None,
        baseline_epochs=2,
        head_epochs=2,
        fine_tuning_epochs=2,
    ),
}


def choose_profile(name="auto"):
    """The profile a chapter runs under, and why.

    Args:
        name: str. `"auto"` or a key of `PROFILES`. `"auto"` follows the environment variable
            `TLHELPERS_PROFILE` and is `"full"` without it.

    Returns:
        Profile, with `reason` filled in.

    Raises:
        ValueError: when there is no such profile.
    """
    allowed = ["auto", *PROFILES]
    if name not in allowed:
        raise ValueError(f"A profile is one of {allowed}. Received: name={name!r}")
    if name != "auto":
        return replace(PROFILES[name], reason="the chapter's parameters ask for it")
    requested = settings.requested_profile()
    if requested in (None, "auto"):
        return replace(PROFILES["full"], reason="no profile was asked for")
    if requested not in PROFILES:
        raise ValueError(f"TLHELPERS_PROFILE is one of {allowed}. Received: TLHELPERS_PROFILE={requested!r}")
    return replace(PROFILES[requested], reason="TLHELPERS_PROFILE asks for it")
