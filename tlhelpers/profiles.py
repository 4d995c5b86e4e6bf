"""What a build trains on and how long: one row per profile."""

from dataclasses import dataclass, replace

from tlhelpers import devices, inputs, settings


@dataclass(frozen=True)
class Profile(inputs.OldNames):
    """Synthetic or real images, the backbone and the time budget of a build.

    Args:
        name: str. The key in `PROFILES`.
        drawn: bool. Whether the images are synthetic, generated on the fly.
        backbone: str or None. The pretrained network, or None for the one that a study's source used.
        weights: str. What the backbone was pretrained on: `"imagenet"` or `"pocket"`.
        baseline_epochs: int. Passes over the training images for the network trained from scratch.
        head_epochs: int. Passes for a new head on a frozen backbone.
        head_learning_rate: float. Learning rate of the head.
        unfrozen: int. How many layers, counted from the end, are unfrozen for fine-tuning.
        fine_tuning_epochs: int. Passes for the unfrozen layers.
        fine_tuning_learning_rate: float. The learning rate of the unfrozen layers at first; it then decays.
        case_epochs: int. Passes for a network trained from scratch in a case study.
        case_per_class: int. Training images of each class where a case study wants few.
        grid_epochs: int. Passes for each cell of a grid.
        grid_scratch_epochs: int. The same for a network from scratch, which needs more; fewer where it stops early.
        grid_depths: tuple of str. Keys of `grids.DEPTHS`: the fine-tuning depths in the grid of learning rates.
        grid_rates: tuple of float. The learning rates of that grid.
        grid_ways: tuple of str. Keys of `grids.WAYS`: the strategies in the grid of training set sizes.
        grid_per_class: tuple of int. How many training images of each class, from few to many.
        domain_ways: tuple of str. Keys of `grids.WAYS`: the strategies in the comparison of domains.
        domain_per_class: int or None. Training images of each class in the comparison of domains; None means all.
        reason: str. Why this profile was chosen.
    """

    OLD = {  # noqa: RUF012 - not a field
        "head_rate": "head_learning_rate",
        "fine_tuning_rate": "fine_tuning_learning_rate",
    }

    name: str
    drawn: bool
    backbone: str | None
    weights: str
    baseline_epochs: int
    head_epochs: int
    head_learning_rate: float
    unfrozen: int
    fine_tuning_epochs: int
    fine_tuning_learning_rate: float
    case_epochs: int
    case_per_class: int
    grid_epochs: int
    grid_scratch_epochs: int
    grid_depths: tuple
    grid_rates: tuple
    grid_ways: tuple
    grid_per_class: tuple
    domain_ways: tuple
    domain_per_class: int | None
    reason: str = ""

    @property
    def fine_tuned(self):
        """The name of this profile's fine-tuning among the strategies, such as `"last6"`."""
        return f"last{self.unfrozen}"


FULL = Profile(
    name="full",
    drawn=False,
    backbone=None,
    weights="imagenet",
    baseline_epochs=8,
    head_epochs=15,
    head_learning_rate=3e-4,
    unfrozen=6,
    fine_tuning_epochs=10,
    fine_tuning_learning_rate=1e-4,
    case_epochs=20,
    case_per_class=100,
    grid_epochs=8,
    grid_scratch_epochs=24,
    grid_depths=("last 6 layers", "from the middle on", "everything"),
    grid_rates=(1e-4, 1e-3, 1e-2),
    grid_ways=("from scratch", "frozen", "full fine-tuning"),
    grid_per_class=(5, 10, 20, 50, 100, 200),
    domain_ways=("frozen", "full fine-tuning"),
    domain_per_class=200,
)
# The same where there is no GPU: what takes two cores longer than some minutes a chapter is shown by recorded runs.
FULL_WITHOUT_GPU = replace(
    FULL,
    baseline_epochs=2,
    case_epochs=4,
    grid_epochs=4,
    grid_scratch_epochs=12,
    grid_depths=("last 6 layers", "everything"),
    grid_ways=("from scratch", "frozen"),
    grid_per_class=(5, 20, 100),
    domain_ways=("frozen",),
)
WITHOUT_GPU = "; without a GPU trainings are short, see the recorded runs for long ones"
POCKET = Profile(
    name="pocket",
    drawn=True,
    backbone="mobilenetv2_035",
    weights="pocket",
    baseline_epochs=14,
    head_epochs=30,
    head_learning_rate=1e-3,
    unfrozen=118,  # from block 4 on
    fine_tuning_epochs=10,
    fine_tuning_learning_rate=5e-4,
    case_epochs=16,
    case_per_class=20,
    grid_epochs=3,
    grid_scratch_epochs=6,
    grid_depths=("last 6 layers", "everything"),
    grid_rates=(1e-4, 1e-3, 1e-2),
    grid_ways=("from scratch", "frozen"),
    grid_per_class=(5, 15, 50),
    domain_ways=("frozen",),
    domain_per_class=None,
)
SMOKE = replace(
    POCKET,
    name="smoke",
    baseline_epochs=2,
    head_epochs=2,
    fine_tuning_epochs=2,
    case_epochs=2,
    grid_epochs=1,
    grid_scratch_epochs=3,
    grid_rates=(1e-3,),
    grid_per_class=(25, 50),
)
PROFILES = {profile.name: profile for profile in (POCKET, FULL, SMOKE)}


def choose_profile(name="auto"):
    """The profile a chapter runs under, and why.

    Args:
        name: str. `"auto"` or a key of `PROFILES`. `"auto"` follows the environment variable
            `TLHELPERS_PROFILE`; without it, it is `"full"` where a GPU is visible and `"pocket"` elsewhere.

    Returns:
        Profile, with `reason` filled in.

    Raises:
        ValueError: when there is no such profile.
    """
    allowed = ["auto", *PROFILES]
    if name not in allowed:
        raise ValueError(f"A profile is one of {allowed}. Received: name={name!r}")
    if name != "auto":
        return _fit_to_device(PROFILES[name], "the chapter's parameters ask for it")
    requested = settings.requested_profile()
    if requested in (None, "auto"):
        if devices.list_gpus():
            return replace(FULL, reason="a GPU is visible")
        return replace(POCKET, reason="no GPU is visible")
    if requested not in PROFILES:
        raise ValueError(f"TLHELPERS_PROFILE is one of {allowed}. Received: TLHELPERS_PROFILE={requested!r}")
    return _fit_to_device(PROFILES[requested], "TLHELPERS_PROFILE asks for it")


def trains_briefly(name):
    """Whether a profile, by its name, has less than its whole budget: without a GPU, unless its runs are recorded."""
    return name == FULL.name and not devices.list_gpus() and not settings.is_recording()


def _fit_to_device(profile, reason):
    """The profile with the budget that this machine has time for."""
    if trains_briefly(profile.name):
        return replace(FULL_WITHOUT_GPU, reason=reason + WITHOUT_GPU)
    return replace(profile, reason=reason)
