"""The pocket backbone's schooling: right answers to every picture, a training that survives a kill, a true card."""

import dataclasses
from functools import partial
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest

from tlhelpers import devices, loaders, models, profiles, settings
from tlhelpers import weights as weight_files
from tlhelpers.experiments import pretraining, records
from tlhelpers.experiments.pretraining import QUESTIONS, UNSEEN, Question, load_quiz
from tlhelpers.results import tables
from tlhelpers.synthetic import collection, flowers

DAISY = flowers.TARGETS["daisy"]
SIDE = 48
INDICES = [7, 3, 11, 2, 5, 19]


@pytest.fixture
def _small_pictures(monkeypatch):
    monkeypatch.setattr(pretraining, "PICTURE_SIZE", SIDE)


@pytest.fixture
def pictures(tmp_path, _small_pictures):
    """Six pictures whose species are not numbered like their rows."""
    return pretraining.draw_pictures(tmp_path / "pictures", INDICES, seed=4)


# Questions


@pytest.mark.parametrize(("petals", "answer"), [(1, 0), (4, 0), (5, 1), (6, 1), (7, 2), (40, 2)])
def test_a_border_belongs_to_the_interval_above_it(petals, answer):
    question = Question("petals", lambda species: species.petals[0], (5, 7))
    assert question.num_answers == 3
    assert question.answer(dataclasses.replace(DAISY, petals=(petals, petals))) == answer


@pytest.mark.parametrize(("form", "answer"), [("rays", 1), ("rosette", UNSEEN), ("cup", UNSEEN)])
def test_what_a_form_does_not_show_has_no_answer(form, answer):
    question = Question("disc", lambda species: species.disc[0], (0.1,), ("rays",))
    assert question.answer(dataclasses.replace(DAISY, forms={form: 1}, disc=(0.2, 0.3))) == answer


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_every_interval_of_a_question_is_the_answer_for_some_species(question):
    species = [flowers.draw_species(0, index) for index in range(300)]
    answers = [question.answer(one) for one in species]
    unseen = [not one.forms.keys() & set(question.forms) for one in species]
    assert [answer == UNSEEN for answer in answers] == unseen
    assert set(answers) - {UNSEEN} == set(range(question.num_answers))


# Pictures


def test_pictures_are_those_of_the_species_asked_for(pictures):
    assert pictures["target"].tolist() == INDICES
    for path, index in zip(pictures["path"], INDICES, strict=True):
        pixels = flowers.draw_flower(flowers.draw_species(4, index), 4, index, SIDE)
        with open(path, "rb") as stream:
            assert stream.read() == collection.encode(pixels)


def test_only_a_missing_picture_is_drawn_again(tmp_path, pictures):
    first, *others = (tmp_path / "pictures" / f"{index:06d}.jpg" for index in INDICES)
    content = first.read_bytes()
    first.unlink()
    for path in others:
        path.write_bytes(b"kept")
    again = pretraining.draw_pictures(tmp_path / "pictures", INDICES, seed=4)
    pd.testing.assert_frame_equal(again, pictures)
    assert first.read_bytes() == content
    assert {path.read_bytes() for path in others} == {b"kept"}


def answers_of(index):
    return {question.name: question.answer(flowers.draw_species(4, index)) for question in QUESTIONS}


def rows_of_quiz(dataset):
    """A dataset's images and its answers, picture by picture."""
    images, answers = [], []
    for batch, columns in dataset.as_numpy_iterator():
        images += list(batch)
        answers += [{name: int(column[i]) for name, column in columns.items()} for i in range(len(batch))]
    return np.stack(images), answers


def test_answers_stand_beside_their_pictures_in_the_order_of_the_table(pictures):
    images, answers = rows_of_quiz(load_quiz(pictures, QUESTIONS, 32, seed=4, batch_size=4, cache="none"))
    np.testing.assert_array_equal(images, loaders.read_images(pictures, 32))
    assert answers == [answers_of(index) for index in INDICES]


def test_answers_follow_their_pictures_through_a_shuffle(pictures):
    known = loaders.read_images(pictures, 32).astype("float32")
    number = {image.tobytes(): index for image, index in zip(known, INDICES, strict=True)}
    dataset = load_quiz(pictures, QUESTIONS, 32, seed=4, batch_size=4, shuffle=True, cache="none")
    orders = []
    for _ in range(3):
        images, answers = rows_of_quiz(dataset)
        orders.append([number[image.tobytes()] for image in images])
        assert sorted(orders[-1]) == sorted(INDICES)
        assert answers == [answers_of(index) for index in orders[-1]]
    assert any(order != INDICES for order in orders)


# The network and its losses


@pytest.mark.slow
def test_a_quiz_has_one_output_per_question():
    backbone = models.build_backbone(pretraining.BACKBONE, 32, weights=None)
    quiz = pretraining.build_quiz(backbone, QUESTIONS)
    shapes = {name: output.shape for name, output in quiz.output.items()}
    assert shapes == {question.name: (None, question.num_answers) for question in QUESTIONS}
    dense = [layer for layer in quiz.layers if isinstance(layer, keras.layers.Dense)]
    assert len(dense) == len(QUESTIONS)
    assert {layer.input.shape for layer in dense} == {(None, 1280)}
    assert quiz.get_layer("Conv_1") is backbone.get_layer("Conv_1")


def test_a_picture_without_an_answer_counts_neither_way():
    loss = pretraining.quiz_losses(QUESTIONS)["disc"]
    logits = np.random.default_rng(0).normal(size=(3, 6)).astype("float32")
    targets = np.array([2, UNSEEN, 0])
    without = loss(targets[[0, 2]], logits[[0, 2]])
    changed = logits + np.array([[0], [1], [0]], "float32") * np.arange(6, dtype="float32")
    assert float(loss(targets, logits)) == pytest.approx(float(without), rel=1e-6)
    assert float(loss(targets, changed)) == pytest.approx(float(without), rel=1e-6)
    assert abs(float(loss(targets, logits[::-1])) - float(without)) > 1e-3
    expected = -np.log(np.exp(logits[[0, 2], [2, 0]]) / np.exp(logits[[0, 2]]).sum(axis=1)).mean()
    assert float(without) == pytest.approx(expected, rel=1e-5)


def test_a_batch_without_any_answer_costs_nothing():
    loss = pretraining.quiz_losses(QUESTIONS)["disc"]
    assert float(loss(np.full(2, UNSEEN), np.ones((2, 6), "float32"))) == 0


def test_there_is_a_loss_for_every_question():
    assert list(pretraining.quiz_losses(QUESTIONS)) == [question.name for question in QUESTIONS]


def test_every_batch_norm_gets_the_softer_momentum():
    backbone = models.build_backbone(pretraining.BACKBONE, 32, weights=None)
    norms = [layer for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {norm.momentum for norm in norms} == {0.999}
    assert pretraining.set_batch_norm_momentum(backbone, 0.7) is backbone
    assert [norm.momentum for norm in norms] == [0.7] * 52


def test_the_rate_warms_up_for_an_epoch_and_falls_ever_after():
    rates = [pretraining.learning_rate(epoch) for epoch in range(pretraining.EPOCHS)]
    assert rates[0] == pretraining.PEAK_LEARNING_RATE / 2
    assert pretraining.PEAK_LEARNING_RATE > rates[1] > 0.9 * pretraining.PEAK_LEARNING_RATE
    assert (np.diff(rates[1:]) < 0).all()
    assert 0 < rates[-1] < 0.1 * pretraining.PEAK_LEARNING_RATE


# The probe


def eye(width):
    """An extractor that hands features on as they are."""
    return keras.Sequential([keras.Input((width,)), keras.layers.Identity()])


def probe_of(features):
    """A probe of 40 pictures per class, half of which train."""
    rows = np.arange(200)
    return features.astype("float32"), rows // 40, rows % 40 < 20


def test_features_that_give_the_class_away_are_probed_as_perfect():
    assert pretraining.probe_accuracy(eye(5), probe_of(np.eye(5).repeat(40, axis=0))) == 1.0


def test_features_of_noise_are_probed_near_chance_however_well_they_can_be_learned_by_heart():
    noise = np.random.default_rng(0).normal(size=(200, 400))
    assert pretraining.probe_accuracy(eye(400), probe_of(noise)) == pytest.approx(0.2, abs=0.1)


@pytest.mark.slow
@pytest.mark.usefixtures("_small_pictures")
def test_the_probe_is_balanced_and_from_a_garden_of_its_own(monkeypatch):
    monkeypatch.setattr(pretraining, "PROBE_PER_CLASS", 2)
    images, targets, train = pretraining.load_probe(32, test_per_class=3)
    assert (images.shape, images.dtype) == ((25, 32, 32, 3), np.float32)
    assert targets.tolist() == [0] * 5 + [1] * 5 + [2] * 5 + [3] * 5 + [4] * 5
    assert train.tolist() == [True, True, False, False, False] * 5
    assert len({image.tobytes() for image in images}) == 25
    whole, _, _ = pretraining.load_probe(SIDE, test_per_class=3)
    tulip = flowers.draw_flower("tulip", pretraining.PROBE_SEED, 4, SIDE)
    assert np.abs(whole[24] - tulip).mean() < 10


# The schooling


def build_tiny(name, image_size=224, *, weights=None):
    """Stands in for `build_backbone`: a network of two layers, for any size."""
    assert weights is None
    inputs = keras.Input((image_size, image_size, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    x = keras.layers.Conv2D(8, 3, strides=4)(x)
    return keras.Model(inputs, keras.layers.BatchNormalization()(x), name=name)


@pytest.fixture
def tiny(monkeypatch, _small_pictures):
    """Pretraining on fifty pictures, for one epoch and for two; what was probed, and at which probe a run is killed."""
    for name, value in {
        "PICTURES": 40,
        "VALIDATION_PICTURES": 10,
        "IMAGE_SIZE": 32,
        "EPOCHS": 3,
        "PROBE_PER_CLASS": 4,
        "BATCH_SIZE": 20,
        "QUESTIONS": [question for question in QUESTIONS if question.name in ("form", "disc")],
        "load_probe": partial(pretraining.load_probe, SIDE, test_per_class=4),
    }.items():
        monkeypatch.setattr(pretraining, name, value)
    monkeypatch.setattr(models, "build_backbone", build_tiny)
    original = pretraining.probe_accuracy
    plan = SimpleNamespace(kill_at=None, probed=[])

    def probe_accuracy(*arguments):
        plan.probed.append(original(*arguments))
        if len(plan.probed) == plan.kill_at:
            raise KeyboardInterrupt
        return plan.probed[-1]

    monkeypatch.setattr(pretraining, "probe_accuracy", probe_accuracy)
    return plan


def assert_same_weights(one, other):
    for first, second in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.slow
def test_the_history_holds_every_epoch_and_the_backbone_takes_pictures_as_drawn(tmp_path, tiny):
    backbone, log = pretraining.pretrain(tmp_path / "state")
    assert backbone.input_shape == (None, pretraining.PICTURE_SIZE, pretraining.PICTURE_SIZE, 3)
    assert {"loss", "val_loss", "form_loss", "val_disc_loss", "probe_accuracy"} <= log["history"].keys()
    assert {len(values) for values in log["history"].values()} == {3}
    assert np.isfinite(list(log["history"].values())).all()
    assert log["history"]["probe_accuracy"] == tiny.probed
    assert log["seconds"] > 0
    assert not (tmp_path / "state").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kill_at", [2, 3])
def test_a_killed_run_goes_on_after_the_last_finished_epoch(tmp_path, tiny, kill_at):
    tiny.kill_at = kill_at
    with pytest.raises(KeyboardInterrupt):
        pretraining.pretrain(tmp_path / "state")
    survived, tiny.kill_at, tiny.probed = tiny.probed[: kill_at - 1], None, []
    _, log = pretraining.pretrain(tmp_path / "state")
    assert len(tiny.probed) == 3 - (kill_at - 1)
    assert log["history"]["probe_accuracy"] == [*survived, *tiny.probed]
    assert {len(values) for values in log["history"].values()} == {3}


def test_another_plan_takes_up_nothing_from_an_unfinished_one(monkeypatch):
    folders = {pretraining.state_folder()}
    for name, value in {"EPOCHS": 99, "PICTURES": 99, "QUESTIONS": QUESTIONS[:3]}.items():
        with monkeypatch.context() as patch:
            patch.setattr(pretraining, name, value)
            folders.add(pretraining.state_folder())
    assert len(folders) == 4


@pytest.mark.slow
def test_training_follows_the_planned_rates(tmp_path, tiny):
    planned = [pretraining.learning_rate(epoch) for epoch in range(3)]
    _, log = pretraining.pretrain(tmp_path / "state")
    assert log["history"]["learning_rate"] == pytest.approx(planned, rel=1e-6)


# The card


@pytest.fixture
def _pocket(tmp_path, monkeypatch, _small_pictures):
    """An empty pocket folder, and a probe of few pictures."""
    monkeypatch.setattr(settings, "pocket_folder", lambda: tmp_path / "pocket")
    monkeypatch.setattr(pretraining, "PROBE_PER_CLASS", 4)
    monkeypatch.setattr(pretraining, "CARD_TEST_PER_CLASS", 4)


@pytest.mark.slow
@pytest.mark.usefixtures("_pocket")
def test_the_card_describes_the_weights_written_beside_it(monkeypatch):
    original, measured = pretraining.probe_accuracy, []

    def measure(extractor, probe):
        assert extractor.input_shape == (None, *probe[0].shape[1:])
        measured.append(original(extractor, probe))
        return measured[-1]

    monkeypatch.setattr(pretraining, "probe_accuracy", measure)
    backbone = models.build_backbone(pretraining.BACKBONE, pretraining.PICTURE_SIZE, weights=None)
    pretraining.write_pocket(backbone, {"history": {"loss": [2.5, 1.25]}, "seconds": 12.6}, devices.prepare_device())
    written = models.build_backbone(pretraining.BACKBONE, 64, weights="pocket")
    card = weight_files.load_card()
    assert_same_weights(written, backbone)
    assert card["arrays_sha256"] == weight_files.digest_of_weights(written)
    assert card["parameters"] == written.count_params()
    assert card["probe_accuracy"] == round(measured[0], 4)
    assert card["probe"] == {"seed": pretraining.PROBE_SEED, "train_per_class": 4, "test_per_class": 4}
    assert card["questions"] == {question.name: question.num_answers for question in QUESTIONS}
    assert card["image_size"] == pretraining.IMAGE_SIZE
    assert (card["seconds"], card["history"]) == (13, {"loss": [2.5, 1.25]})
    assert {path.name for path in settings.pocket_folder().iterdir()} == {card["file"], weight_files.CARD_FILE}


# The shipped backbone


@pytest.fixture(scope="module")
def shipped():
    """The embedded backbone; loading it compares its arrays with the card."""
    return models.build_backbone(pretraining.BACKBONE, pretraining.PICTURE_SIZE, weights="pocket")


@pytest.mark.slow
def test_the_shipped_backbone_is_the_one_of_its_card_and_small(shipped):
    card = weight_files.load_card()
    assert card["arrays_sha256"] == weight_files.digest_of_weights(shipped)
    assert card["parameters"] == shipped.count_params()
    assert (settings.pocket_folder() / card["file"]).stat().st_size <= 3_000_000
    assert len(card["history"]["loss"]) == pretraining.EPOCHS
    assert (card["pictures"], card["image_size"]) == (pretraining.PICTURES, pretraining.IMAGE_SIZE)


@pytest.mark.long
def test_the_shipped_backbone_reaches_its_stated_accuracy(shipped):
    card = weight_files.load_card()
    probe = pretraining.load_probe(test_per_class=card["probe"]["test_per_class"])
    assert pretraining.probe_accuracy(models.pooled(shipped), probe) == pytest.approx(card["probe_accuracy"], abs=0.01)


def test_the_recorded_runs_on_drawings_show_both_steps_of_transfer():
    folder = settings.pocket_folder() / "records"
    summary = tables.summarise(records.load_records("flowers", folder=folder, protocol="careful")).loc["careful"]
    baseline, frozen = summary.loc["baseline_cnn-scratch"], summary.loc[f"{pretraining.BACKBONE}-frozen"]
    tuned = summary.loc[f"{pretraining.BACKBONE}-{profiles.POCKET.fine_tuned}"]
    assert set(summary["seeds"]) == {5}
    assert 0.55 <= baseline["mean"] <= 0.75
    assert frozen["mean"] >= baseline["mean"] + 0.12
    assert tuned["mean"] >= frozen["mean"] + 0.02
    assert frozen["mean"] - frozen["half_width"] > baseline["mean"] + baseline["half_width"]
