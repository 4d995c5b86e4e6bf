"""The exercises that check themselves: which condition holds, which does not, and why."""

import html
from dataclasses import dataclass, replace

import numpy as np

from tlhelpers import inputs, loaders, models, profiles, training, widgets
from tlhelpers.datasets.studies import HIGHEST_TRAINING, LOWEST_VALIDATION
from tlhelpers.figures import curves

GOOD_VALIDATION, SMALL_GAP = 0.95, 0.03  # ours
RESCUE_BATCH = 32
OTHER_BATCHES = (1, 2, 4, 8, 16, 24, 48, 64, 96, 128, 256)
SAME = 0.005  # two evaluations of one model on the same images differ by less
RESCUE_DROPOUT = 0.3


@dataclass(frozen=True)
class RescueBudget(inputs.OldNames):
    """How the wrong training and the solution of the rescue are set under a profile.

    Args:
        wrong_epochs: int. Passes of the wrong training.
        wrong_learning_rate: float. Its learning rate.
        head_epochs: int. Passes of the new head.
        head_learning_rate: float. Its learning rate.
        unfrozen: int. How many layers, counted from the end, move then.
        epochs: int. Passes with them.
        learning_rate: float. Their learning rate.
    """

    OLD = {  # noqa: RUF012 - not a field
        "wrong_rate": "wrong_learning_rate",
        "head_rate": "head_learning_rate",
        "rate": "learning_rate",
    }

    wrong_epochs: int
    wrong_learning_rate: float
    head_epochs: int
    head_learning_rate: float
    unfrozen: int
    epochs: int
    learning_rate: float


RESCUE = {
    "full": RescueBudget(20, 1e-3, head_epochs=2, head_learning_rate=1e-4, unfrozen=20, epochs=1, learning_rate=1e-5),
    "pocket": RescueBudget(
        12, 1e-3, head_epochs=6, head_learning_rate=2e-3, unfrozen=118, epochs=6, learning_rate=3e-4
    ),
    "smoke": RescueBudget(1, 1e-3, head_epochs=1, head_learning_rate=2e-3, unfrozen=118, epochs=1, learning_rate=3e-4),
}


WITHOUT_GPU = replace(RESCUE["full"], wrong_epochs=3)


def get_rescue_budget(profile):
    """How the rescue is trained under a profile.

    Args:
        profile: str. A profile's name.

    Returns:
        RescueBudget.

    Raises:
        ValueError: when there is no such profile.
    """
    if profile not in RESCUE:
        raise ValueError(f"A profile is one of {sorted(RESCUE)}. Received: profile={profile!r}")
    return WITHOUT_GPU if profiles.trains_briefly(profile) else RESCUE[profile]


@dataclass(frozen=True)
class Condition:
    """One condition of an exercise.

    Args:
        name: str. What is asked.
        holds: bool.
        found: str. What was found.
        advice: str. What to do about it; empty where it holds.
        asked: bool. Whether passing depends on it.
    """

    name: str
    holds: bool
    found: str
    advice: str = ""
    asked: bool = True


@dataclass(frozen=True)
class Report:
    """What a check found; shown at the end of a cell, a table.

    Args:
        conditions: tuple of Condition.
    """

    conditions: tuple

    @property
    def passed(self):
        """Whether every condition holds that is asked for."""
        return all(condition.holds for condition in self.conditions if condition.asked)

    @property
    def verdict(self):
        """The result in a sentence."""
        failed = [condition.name for condition in self.conditions if condition.asked and not condition.holds]
        return "Passed." if self.passed else f"Not yet: {', '.join(failed)}."

    def __repr__(self):
        lines = (f"{_mark(c)} {c.name}: {c.found}{'. ' if c.advice else ''}{c.advice}" for c in self.conditions)
        return "\n".join([self.verdict, *lines])

    def _repr_html_(self):
        rows = "".join(
            f'<tr><th scope="row">{_mark(c)} {widgets.as_html(c.name)}</th><td>{widgets.as_html(c.found)}</td>'
            f"<td>{widgets.as_html(c.advice)}</td></tr>"
            for c in self.conditions
        )
        head = "<tr><th>condition</th><th>found</th><th>what to do</th></tr>"
        table = f'<table class="report"><thead>{head}</thead><tbody>{rows}</tbody></table>'
        return f"<p><strong>{html.escape(self.verdict)}</strong></p>{table}"


def build_rescue_head(feature_shape, *, seed=0):
    """The head of the rescue: pooling, dropout of 0.3 and two logits, which are a sigmoid in other words.

    Args:
        feature_shape: tuple of int. The backbone's output without the batch.
        seed: int.

    Returns:
        keras.Model.
    """
    return models.build_head(feature_shape, 2, hidden=0, dropout=RESCUE_DROPOUT, seed=seed)


def check_rescue(history, chapter):
    """Checks a rescued model: same architecture, data and batch size, and accuracies inside the asked window.

    Training is known by what it leaves: the number of batches says how many images it saw and how many at a time,
    and the model is run on the validation images once more.

    Args:
        history: keras.callbacks.History that the last `fit` returned, or None.
        chapter: Chapter of the study `cats_dogs`.

    Returns:
        Report. `passed` says whether all is as asked; our own criterion stands beside and decides nothing.
    """
    lacking = _find_lacking(history)
    if lacking:
        return Report(lacking)
    found, model = curves.read_curves(history), history.model
    name = curves.find_accuracy(found)
    training, validation = (float(found[key][-1]) for key in (name, f"val_{name}"))
    same = _architecture(model) == _architecture(_reference(chapter))
    return Report(
        (
            _check_architecture(same, chapter),
            _check_batches(history.params["steps"], chapter),
            _check_validation_data(found[f"val_{name}"], model, chapter, same),
            _check_validation(validation, model),
            _check_training(training),
            _check_ours(training, validation),
        )
    )


def _find_lacking(history):
    """What a history lacks to be checked, a tuple of Condition; empty where it is all there."""
    if getattr(history, "model", None) is None or not getattr(history, "history", None):
        found = "no history" if history is None else f"a {type(history).__name__} without a training"
        return (Condition("a training", False, found, "Train the model and keep what `fit` returns."),)
    found = curves.read_curves(history)
    name = curves.find_accuracy(found)
    shown = ", ".join(found)
    if not found.get(name):
        advice = 'Compile with `metrics=["accuracy"]`, and train for at least one epoch.'
        return (Condition("training reports its accuracy", False, f"curves of {shown}", advice),)
    if not found.get(f"val_{name}"):
        advice = "Pass the given `validation` to `fit`, as `validation_data`."
        return (Condition("training reports its validation accuracy", False, f"curves of {shown}", advice),)
    return ()


def _mark(condition):
    return "✓" if condition.holds else "✗" if condition.asked else "–"


def _reference(chapter):
    backbone = models.build_backbone(chapter.backbone, chapter.image_size, weights=None)
    return models.connect(backbone, build_rescue_head(backbone.output_shape[1:]))


def _architecture(model):
    """Kinds of layers and their weights' shapes, whatever they are called; layers that augment do not count."""
    parts = []
    for layer in model.layers:
        inner = getattr(layer, "layers", None)
        parts += _architecture(layer) if inner else [(type(layer).__name__, tuple(w.shape for w in layer.weights))]
    return [part for part in parts if part[0] != "InputLayer" and not part[0].startswith("Random")]


def _check_architecture(same, chapter):
    name = f"the architecture is {chapter.backbone} with the given head"
    if same:
        return Condition(name, True, "it is")
    advice = "Keep the given backbone and head; change how they are trained."
    return Condition(name, False, "another network", advice)


def _check_batches(steps, chapter):
    train, validation = (len(chapter.rows(split)) for split in ("train", "validation"))
    name = f"training sees its {train:,} pictures, {RESCUE_BATCH} at a time"
    expected = -(-train // RESCUE_BATCH)
    found = f"{steps} batches an epoch, asked are {expected}"
    if steps == expected:
        return Condition(name, True, found)
    reasons = []
    if steps in (-(-(train + validation) // RESCUE_BATCH), -(-validation // RESCUE_BATCH)):
        reasons.append("the validation pictures were trained on: what they say then is what the model has looked up")
    sizes = [size for size in OTHER_BATCHES if -(-train // size) == steps]
    if sizes:
        reasons.append(f"the batch size was {' or '.join(map(str, sizes))}")
    return Condition(name, False, found, f"Perhaps {', or '.join(reasons or ['other pictures were used'])}.")


def _check_validation_data(reported, model, chapter, same):
    name = "validation accuracy is that of the validation pictures"
    if not same:
        return Condition(name, False, "not measured", "Mend the architecture first.")
    rows = chapter.rows("validation")
    logits = training.predict_outputs(model, loaders.load_dataset(rows, chapter.image_size, cache="none"))
    measured = float((logits.argmax(axis=1) == rows["target"]).mean())
    holds = bool(np.min(np.abs(np.asarray(reported) - measured)) <= SAME)
    advice = "" if holds else "Pass the given `validation` to `fit`, unchanged."
    return Condition(name, holds, f"{measured:.1%} measured, {reported[-1]:.1%} in the history", advice)


def _check_validation(accuracy, model):
    name = f"validation accuracy is above {LOWEST_VALIDATION:.0%}"
    if accuracy > LOWEST_VALIDATION:
        return Condition(name, True, f"{accuracy:.1%}")
    head_alone = all(not layer.trainable for layer in model.layers if layer.weights and not hasattr(layer, "layers"))
    if head_alone:
        advice = "Only the head is trained: train it longer, then let the backbone's last layers move at a low rate."
    else:
        advice = "Begin with a frozen, pretrained backbone, and let its last layers move at a low rate afterwards."
    return Condition(name, False, f"{accuracy:.1%}", advice)


def _check_training(accuracy):
    name = f"training accuracy is below {HIGHEST_TRAINING:.0%}"
    if accuracy < HIGHEST_TRAINING:
        return Condition(name, True, f"{accuracy:.1%}")
    advice = "It is being learned by heart: show each picture differently in every epoch, or stop earlier."
    return Condition(name, False, f"{accuracy:.1%}", advice)


def _check_ours(training, validation):
    points = f"{SMALL_GAP * 100:.0f} points"
    name = f"beyond the source: validation at least {GOOD_VALIDATION:.0%}, at most {points} below training"
    holds = validation >= GOOD_VALIDATION and training - validation <= SMALL_GAP
    return Condition(name, holds, f"{validation:.1%}, {(training - validation) * 100:+.1f} points", asked=False)
