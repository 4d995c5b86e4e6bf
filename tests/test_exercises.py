"""The rescue's check: it passes what is asked, and each wrong way fails with a reason of its own."""

from types import SimpleNamespace

import keras
import nbformat
import numpy as np
import pandas as pd
import pytest

from tlhelpers import chapters, exercises, loaders, models, settings
from tlhelpers.book import execution
from tlhelpers.results import queries
from tlhelpers.synthetic import collection

SIDE = 96
GOOD = {"accuracy": [0.7, 0.9], "val_accuracy": [0.8, 0.9]}


@pytest.fixture(scope="module")
def chapter(tmp_path_factory):
    """The rescue under the smoke profile with few drawings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLHELPERS_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setattr(collection, "FILES_PER_CLASS", 60)
        begun = chapters.begin_chapter("cats_dogs", profile="smoke")
        assert begun.table["split"].value_counts().to_dict() == {"train": 77, "test": 22, "validation": 11}
        yield begun


def build(name="mobilenetv2_035", *, unfrozen=None):
    backbone = models.freeze(models.build_backbone(name, SIDE, weights=None))
    if unfrozen:
        models.unfreeze(backbone, last=unfrozen)
    return models.connect(backbone, exercises.build_rescue_head(backbone.output_shape[1:]))


@pytest.fixture(scope="module")
def rescued(chapter):
    """A model of the given architecture whose last layers move, and its validation accuracy."""
    model = build(unfrozen=20)
    rows = chapter.rows("validation")
    logits = model.predict(loaders.load_dataset(rows, SIDE), verbose=0)
    return model, float((logits.argmax(axis=1) == rows["target"]).mean())


def check(chapter, model, measured, *, steps=3, **changes):
    """Checks a history made up around a model; `measured` is one of its validation accuracies."""
    curves = GOOD | {"val_accuracy": [measured, 0.9]} | changes
    history = SimpleNamespace(history=curves, model=model, params={"steps": steps})
    return exercises.check_rescue(history, chapter)


def failures(report):
    return {condition.name: condition for condition in report.conditions if condition.asked and not condition.holds}


@pytest.mark.slow
def test_all_that_is_asked_passes(chapter, rescued):
    report = check(chapter, *rescued)
    assert report.passed
    assert failures(report) == {}
    assert repr(report).startswith("Passed.\n✓ the architecture")


def test_unsolved_notebook_fails(chapter):
    report = exercises.check_rescue(None, chapter)
    assert not report.passed
    assert report.verdict == "Not yet: a training."
    assert "keep what `fit` returns" in repr(report)


@pytest.mark.slow
def test_other_backbone_fails_and_its_validation_accuracy_is_not_measured(chapter, rescued):
    report = check(chapter, build("efficientnetv2b0"), 0.9)
    names = list(failures(report))
    assert names[0] == "the architecture is mobilenetv2_035 with the given head"
    assert "another network" in repr(report)
    assert "Mend the architecture first" in repr(report)
    assert len(names) == 2


def fit(chapter, model, *, batch_size=32, splits=("train",)):
    """Trains for one epoch; the history's accuracies are then those of a good training."""
    rows = pd.concat([chapter.rows(split) for split in splits])
    data = loaders.load_dataset(rows, SIDE, batch_size=batch_size)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    history = model.fit(data, epochs=1, shuffle=False, verbose=0)
    history.history |= GOOD
    return history


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"batch_size": 16}, "5 batches an epoch, asked are 3. Perhaps the batch size was 16."),
        ({"batch_size": 24}, "4 batches an epoch, asked are 3. Perhaps the batch size was 24."),
        ({"splits": ("validation",)}, "1 batches an epoch, asked are 3. Perhaps the validation pictures were trained"),
    ],
    ids=["wrong batch size", "another batch size", "validation pictures alone"],
)
def test_other_batches_than_the_asked_ones_fail_with_the_likely_reason(chapter, options, reason):
    report = exercises.check_rescue(fit(chapter, build(), **options), chapter)
    assert "training sees its 77 pictures, 32 at a time" in failures(report)
    assert reason in repr(report)


def test_training_on_the_validation_pictures_too_is_seen_by_its_batches():
    rows = {"train": range(1800), "validation": range(200)}
    chapter = SimpleNamespace(rows=lambda split: rows[split])
    condition = exercises._check_batches(63, chapter)
    assert (condition.holds, condition.found) == (False, "63 batches an epoch, asked are 57")
    assert "the validation pictures were trained on" in condition.advice
    assert exercises._check_batches(57, chapter).holds
    assert "other pictures were used" in exercises._check_batches(40, chapter).advice


def test_validating_on_other_pictures_fails(chapter, rescued):
    model, measured = rescued
    report = check(chapter, model, measured, val_accuracy=[measured + 0.02, measured + 0.03])
    condition = failures(report)["validation accuracy is that of the validation pictures"]
    assert condition.found == f"{measured:.1%} measured, {measured + 0.03:.1%} in the history"
    assert "Pass the given `validation`" in condition.advice


def test_training_accuracy_above_the_window_fails(chapter, rescued):
    report = check(chapter, *rescued, accuracy=[0.9, 0.97])
    assert list(failures(report)) == ["training accuracy is below 92%"]
    assert "It is being learned by heart" in repr(report)


@pytest.mark.parametrize(
    ("unfrozen", "advice"), [(None, "Only the head is trained"), (20, "Begin with a frozen, pretrained backbone")]
)
def test_too_low_validation_accuracy_fails_and_says_whether_only_the_head_has_moved(chapter, unfrozen, advice):
    condition = exercises._check_validation(0.84, build(unfrozen=unfrozen))
    assert (condition.holds, condition.found) == (False, "84.0%")
    assert condition.advice.startswith(advice)
    assert exercises._check_validation(0.86, None).holds


@pytest.mark.parametrize(
    ("training", "validation", "holds"),
    [(0.97, 0.95, True), (0.99, 0.955, False), (0.9, 0.94, False), (0.9, 0.97, True)],
)
def test_our_criterion_stands_beside_and_decides_nothing(training, validation, holds):
    condition = exercises._check_ours(training, validation)
    assert condition.holds is holds
    assert exercises.Report((condition,)).passed


def test_layers_that_augment_do_not_change_the_architecture(chapter):
    inputs = keras.Input((SIDE, SIDE, 3))
    backbone = models.build_backbone("mobilenetv2_035", SIDE, weights=None)
    classifier = models.connect(backbone, exercises.build_rescue_head(backbone.output_shape[1:]))
    model = keras.Model(inputs, classifier(keras.layers.RandomFlip("horizontal")(inputs)))
    assert exercises._architecture(model) == exercises._architecture(build())


def test_report_is_a_table_that_escapes_what_it_shows():
    condition = exercises.Condition("a < b", False, "b & c", "do `fit` <this>")
    text = exercises.Report((condition,))._repr_html_()
    assert "Not yet: a &lt; b." in text
    assert '<th scope="row">✗ a &lt; b</th>' in text
    assert "<td>b &amp; c</td><td>do <code>fit</code> &lt;this&gt;</td>" in text


def test_budgets_exist_for_every_profile_and_the_sources_rate_for_photographs():
    assert set(exercises.RESCUE) == {"full", "pocket", "smoke"}
    budget = exercises.get_rescue_budget("full")
    assert (budget.unfrozen, budget.learning_rate) == (20, 1e-5)
    with pytest.raises(ValueError, match=r"one of \['full', 'pocket', 'smoke'\]. Received: profile='fast'"):
        exercises.get_rescue_budget("fast")


@pytest.mark.parametrize(
    ("query", "history", "holds"),
    [
        ("window", {"val_accuracy": [0.5, 0.9], "accuracy": [0.99, 0.91]}, True),
        ("window", {"val_accuracy": [0.9, 0.84], "accuracy": [0.5, 0.9]}, False),
        ("window", {"val_accuracy": [0.5, 0.9], "accuracy": [0.5, 0.93]}, False),
        ("gap", {"val_accuracy": [0.7], "accuracy": [0.95]}, True),
        ("gap", {"val_accuracy": [0.7], "accuracy": [0.8]}, False),
    ],
)
def test_claims_about_the_rescue_read_the_last_epoch(query, history, holds):
    runs = [SimpleNamespace(history=history)]
    if query == "window":
        verdict, numbers = queries.ends_in_window(None, runs, lowest=0.85, highest=0.92)
    else:
        verdict, numbers = queries.fits_training_alone(None, runs, gap=0.15)
    assert verdict is holds
    assert f"{history['val_accuracy'][-1]:.1%}" in numbers


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_unsolved_notebook_fails_and_its_hidden_solution_passes(tmp_path, monkeypatch):
    monkeypatch.setenv("TLHELPERS_RUNS", str(tmp_path / "runs"))
    parameters = {"PROFILE": "pocket", "PROTOCOL": "careful", "SEED": 0}
    notebook = nbformat.read(settings.PROJECT_FOLDER / "book" / "14_cats_vs_dogs.ipynb", as_version=4)
    last = next(index for index, cell in enumerate(notebook.cells) if cell.source.startswith("report ="))
    apart = ("wrong.fit", "before", "overfitted")  # the training that went wrong is no part of the solution
    notebook.cells = [cell for cell in notebook.cells[: last + 1] if not any(name in cell.source for name in apart)]
    nbformat.write(notebook, tmp_path / "source.ipynb")
    execution.execute_chapter(tmp_path / "source.ipynb", tmp_path / "executed.ipynb", parameters)
    cells = nbformat.read(tmp_path / "executed.ipynb", as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", []) if "data" in output]
    texts = [output.data.get("text/plain", "") for output in outputs]
    reports = [text for text in texts if text.startswith(("Passed.", "Not yet: "))]
    assert [report.splitlines()[0] for report in reports] == ["Not yet: a training.", "Passed."]


def fit_tiny(metrics=("accuracy",), *, validated=True, epochs=1):
    """The history of a tiny training."""
    x, y = np.eye(4, dtype="float32"), np.arange(4) % 2
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=list(metrics))
    return model.fit(x, y, validation_data=(x, y) if validated else None, epochs=epochs, verbose=0)


@pytest.mark.parametrize(
    ("make", "name", "advice"),
    [
        (lambda: fit_tiny(validated=False), "validation accuracy", "Pass the given `validation` to `fit`"),
        (lambda: fit_tiny(metrics=()), "reports its accuracy", "Compile with"),
        (lambda: fit_tiny(epochs=0), "a training", "keep what `fit` returns"),
        (lambda: fit_tiny().history, "a training", "keep what `fit` returns"),
        (lambda: fit_tiny().model, "a training", "keep what `fit` returns"),
        (lambda: "history", "a training", "keep what `fit` returns"),
    ],
)
def test_a_history_that_lacks_something_is_explained(make, name, advice):
    (condition,) = exercises.check_rescue(make(), None).conditions
    assert not condition.holds
    assert name in condition.name
    assert advice in condition.advice


@pytest.mark.parametrize("metric", ["acc", keras.metrics.SparseCategoricalAccuracy()])
def test_an_accuracy_of_another_name_is_found(metric):
    assert exercises._find_lacking(fit_tiny(metrics=[metric])) == ()
