"""Predicting a folder: every file has a row, the numbers are the model's, and a stopped run goes on."""

import csv
import os
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from builders import draw_flower, encode
from PIL import Image

from tlhelpers import __main__ as command
from tlhelpers import answers, files, loaders, predictions, settings, training
from tlhelpers.datasets import manifest

NAMES = ["daisy", "rose", "tulip"]
SIDE = 32


@pytest.fixture
def model():
    """A small model of three classes, with weights of its own."""
    keras.utils.set_random_seed(0)
    image = keras.Input((SIDE, SIDE, 3))
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 3, activation="relu")(image / 255))
    return keras.Model(image, keras.layers.Dense(3)(features) * 20)


@pytest.fixture
def saved(model, tmp_path):
    """Where that model is saved, with the names of its classes."""
    training.save_model(model, tmp_path / "model.keras", class_names=NAMES)
    return tmp_path / "model.keras"


@pytest.fixture
def folder(tmp_path):
    """Seven pictures in two folders, one of them hidden and one lying on its side, and three files that are none."""
    place = tmp_path / "pictures"
    (place / "garden").mkdir(parents=True)
    for index in range(5):
        (place / "garden" / f"{index}.jpg").write_bytes(encode(draw_flower("rose", index)))
    exif = Image.Exif()
    exif[0x0112] = 6
    (place / "aside.jpg").write_bytes(encode(draw_flower("daisy", 1), exif=exif))
    (place / ".hidden.jpg").write_bytes(encode(draw_flower("daisy", 2)))
    (place / "empty.jpg").touch()
    (place / "notes.txt").write_text("no picture")
    (place / "cut.jpg").write_bytes(encode(draw_flower("tulip", 0))[:-900])
    return place


def read(table):
    with open(table, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_file_has_a_row_and_every_picture_the_models_own_numbers(saved, folder, model, tmp_path):
    counts = predictions.predict_folder(saved, folder, tmp_path / "out.csv", batch_size=2)
    rows = {row["path"]: row for row in read(tmp_path / "out.csv")}
    assert {path: row["verdict"] for path, row in rows.items() if not path.startswith("garden")} == {
        "aside.jpg": "converted",
        "cut.jpg": "truncated",
        "empty.jpg": "empty",
        "notes.txt": "not_an_image",
    }
    assert counts == {"ok": 5, "converted": 1, "truncated": 1, "empty": 1, "not_an_image": 1}
    images = [loaders.read_image(str(folder / "garden" / f"{index}.jpg"), SIDE) for index in range(5)]
    expected = training.predict_probabilities(model, np.stack(images))
    found = [[float(rows[f"garden/{index}.jpg"][f"p({name})"]) for name in NAMES] for index in range(5)]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert [rows[f"garden/{index}.jpg"]["predicted"] for index in range(5)] == [NAMES[i] for i in expected.argmax(1)]
    assert rows["empty.jpg"]["predicted"] == rows["empty.jpg"]["p(rose)"] == ""


def test_a_picture_on_its_side_is_seen_upright(saved, folder, model, tmp_path):
    predictions.predict_folder(saved, folder, tmp_path / "out.csv")
    row = next(row for row in read(tmp_path / "out.csv") if row["path"] == "aside.jpg")
    with Image.open(folder / "aside.jpg") as image:
        upright = np.asarray(image.rotate(-90, expand=True))
    expected = training.predict_probabilities(model, loaders.resize(upright, SIDE)[None])[0]
    np.testing.assert_allclose([float(row[f"p({name})"]) for name in NAMES], expected, atol=1e-5)


@pytest.mark.parametrize("torn", [b"", b'garden/3.jpg,ok,"', b"garden/3.jpg,ok,,rose,0.5"])
def test_a_stopped_run_goes_on_and_ends_as_an_undisturbed_one(saved, folder, tmp_path, monkeypatch, torn):
    predictions.predict_folder(saved, folder, tmp_path / "whole.csv", batch_size=2)
    read_picture = predictions.read_picture

    def stop(path, image_size):
        if path.name == "3.jpg":
            raise KeyboardInterrupt
        return read_picture(path, image_size)

    monkeypatch.setattr(predictions, "read_picture", stop)
    with pytest.raises(KeyboardInterrupt):
        predictions.predict_folder(saved, folder, tmp_path / "out.csv", batch_size=2)
    (unfinished,) = tmp_path.glob("out.csv.*.part")
    with open(unfinished, "ab") as stream:
        stream.write(torn)
    seen = []
    monkeypatch.setattr(predictions, "read_picture", lambda path, side: seen.append(path) or read_picture(path, side))
    counts = predictions.predict_folder(saved, folder, tmp_path / "out.csv", batch_size=2)
    assert 0 < len(seen) < 9
    assert sum(counts.values()) == 9
    assert (tmp_path / "out.csv").read_text() == (tmp_path / "whole.csv").read_text()
    assert not unfinished.exists()


def test_another_model_does_not_go_on_with_the_rows_of_the_first(saved, folder, model, tmp_path, monkeypatch):
    row, rows = predictions._row, []

    def fill(*arguments):
        if len(rows) == 3:
            raise OSError("disk full")
        rows.append(row(*arguments))
        return rows[-1]

    monkeypatch.setattr(predictions, "_row", fill)
    with pytest.raises(OSError, match="disk full"):
        predictions.predict_folder(saved, folder, tmp_path / "out.csv", batch_size=1)
    next(layer for layer in model.layers if isinstance(layer, keras.layers.Dense)).bias.assign([9.0, 0.0, 0.0])
    training.save_model(model, saved)
    monkeypatch.undo()
    assert predictions.predict_folder(saved, folder, tmp_path / "out.csv")["ok"] == 5
    assert len(list(tmp_path.glob("out.csv.*.part"))) == 1


def test_pictures_are_read_only_a_few_batches_ahead(tmp_path, monkeypatch):
    begun = []

    def read_picture(path, image_size):
        begun.append(path)
        return predictions.Picture(path, None)

    monkeypatch.setattr(predictions, "read_picture", read_picture)
    pictures = predictions._read_ahead(iter(range(10_000)), SIDE, 8)
    assert [next(pictures).path for _ in range(100)] == list(range(100))
    assert len(begun) <= 100 + 8 + 1


def test_odd_names_stay_on_one_line(saved, folder, tmp_path):
    for name in ("two\nlines.jpg", "a,b ü.jpg", "<b>.jpg"):
        (folder / name).write_bytes(encode(draw_flower("rose", 0)))
    predictions.predict_folder(saved, folder, tmp_path / "out.csv")
    assert {row["path"] for row in read(tmp_path / "out.csv")} >= {"two\\nlines.jpg", "a,b ü.jpg", "<b>.jpg"}
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 1 + 9 + 3


def test_names_are_given_saved_or_numbers():
    assert predictions.check_class_names(None, 2) == ["class 0", "class 1"]
    with pytest.raises(ValueError, match=r"3 different texts\. Received: class_names=\['a', 'a', 'b'\]"):
        predictions.check_class_names(["a", "a", "b"], 3)


def test_the_command_counts_verdicts_and_never_replaces_a_table(saved, folder, tmp_path, capsys):
    arguments = ["predict", str(saved), str(folder), "--out", str(tmp_path / "out.csv")]
    assert command.main(arguments) == 0
    assert "ok: 5\n" in capsys.readouterr().out
    assert command.main(arguments) == 1
    assert "Predictions go into a new file; remove or rename the old one" in capsys.readouterr().err
    assert command.main([*arguments[:2], str(tmp_path / "nowhere")]) == 1
    assert "Images are looked for below a folder. Received:" in capsys.readouterr().err


# Models that others have made


def build(*ending, shape=(SIDE, SIDE, 3)):
    """A network that ends in some layers."""
    keras.utils.set_random_seed(0)
    image = keras.Input(shape)
    outputs = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(keras.layers.Rescaling(1 / 255)(image)))
    for layer in ending:
        outputs = layer(outputs)
    return keras.Model(image, outputs)


def dense(units, activation=None, **options):
    return keras.layers.Dense(units, activation, kernel_initializer=keras.initializers.RandomNormal(0, 20), **options)


def as_it_is(outputs):
    return outputs


def as_second_of_two(outputs):
    return np.concatenate([1 - outputs, outputs], axis=1)


def as_logit(outputs):
    return as_second_of_two(1 / (1 + np.exp(-outputs)))


def as_logits(outputs):
    powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


# By how a network ends: its last layers, and what its outputs mean.
ENDINGS = {
    "logits": ([dense(3)], as_logits),
    "softmax": ([dense(3, "softmax")], as_it_is),
    "softmax layer": ([dense(3), keras.layers.Softmax()], as_it_is),
    "activation layer": ([dense(3), keras.layers.Activation("softmax")], as_it_is),
    "softmax, then another type": ([dense(3, "softmax"), keras.layers.Activation("linear")], as_it_is),
    "softmax function": ([dense(3), keras.ops.softmax], as_it_is),
    "mean of two": ([lambda x: keras.layers.Average()([dense(3, "softmax")(x), dense(3, "softmax")(x)])], as_it_is),
    "nested": ([keras.Sequential([keras.Input((4,)), dense(3, "softmax"), keras.layers.Dropout(0.1)])], as_it_is),
    "one sigmoid": ([dense(1, "sigmoid")], as_second_of_two),
    "one logit": ([dense(1)], as_logit),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_confidences_are_those_of_the_model_however_it_ends(folder, tmp_path, ending):
    layers, meaning = ENDINGS[ending]
    model = build(*layers)
    training.save_model(model, tmp_path / "model.keras")
    predictions.predict_folder(tmp_path / "model.keras", folder, tmp_path / "out.csv", batch_size=2)
    images = np.stack([loaders.read_image(str(folder / "garden" / f"{i}.jpg"), SIDE) for i in range(5)])
    expected = meaning(model.predict(images.astype("float32"), verbose=0))
    rows = [row for row in read(tmp_path / "out.csv") if row["path"].startswith("garden")]
    found = [[float(value) for name, value in row.items() if name.startswith("p(")] for row in rows]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert [row["predicted"] for row in rows] == [f"class {index}" for index in expected.argmax(axis=1)]
    np.testing.assert_allclose([float(row["confidence"]) for row in rows], expected.max(axis=1), atol=1e-4)
    np.testing.assert_allclose(training.predict_probabilities(model, images), expected, atol=1e-4)


def with_two_inputs():
    image, other = keras.Input((SIDE, SIDE, 3)), keras.Input((4,))
    return keras.Model([image, other], dense(3)(keras.layers.Concatenate()([keras.layers.Flatten()(image), other])))


def with_two_outputs():
    image = keras.Input((SIDE, SIDE, 3))
    return keras.Model(image, [dense(3)(keras.layers.Flatten()(image)), dense(2)(keras.layers.Flatten()(image))])


def with_a_map():
    image = keras.Input((SIDE, SIDE, 3))
    return keras.Model(image, keras.layers.Conv2D(3, 1)(image))


# By what is wrong with a model: what makes it, and what is said.
STRANGERS = {
    "two inputs": (with_two_inputs, "one input and one output. Received: .* with 2 inputs"),
    "two outputs": (with_two_outputs, "one input and one output. Received: .* 2 outputs"),
    "a map": (with_a_map, r"one row of outputs per image.* Received: \(None, 32, 32, 3\)"),
    "several sigmoids": (lambda: build(dense(3, "sigmoid")), "3 outputs of 'sigmoid'"),
    "a ReLU": (lambda: build(dense(3, "relu")), "3 outputs of 'relu'"),
    "a softmax of one": (lambda: build(dense(1, "softmax")), "1 outputs of 'softmax'"),
    "NaN": (lambda: build(dense(3, bias_initializer=keras.initializers.Constant(np.nan))), "finite.* Received: NaN"),
    "infinity": (lambda: build(dense(3, bias_initializer=keras.initializers.Constant(np.inf))), "Received: infinity"),
    "a Lambda": (lambda: build(dense(3), keras.layers.Lambda(lambda x: x * 2)), "code of their own.*safe_mode"),
    "grey": (lambda: build(dense(3), shape=(SIDE, SIDE, 1)), r"in colour.* for \(None, 32, 32, 1\)"),
    "oblong": (lambda: build(dense(3), shape=(48, SIDE, 3)), r"square.* for \(None, 48, 32, 3\)"),
    "any size": (lambda: build(dense(3), shape=(None, None, 3)), r"give image_size \(--size\)"),
}


def refuse(model, folder, table, capsys, *options):
    """What the command says of a model that it refuses; it leaves nothing behind."""
    before = sorted(table.parent.iterdir())
    assert command.main(["predict", str(model), str(folder), "--out", str(table), *options]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert sorted(table.parent.iterdir()) == before
    return said[0]


@pytest.mark.parametrize("kind", STRANGERS)
def test_a_model_that_cannot_be_asked_is_refused_in_one_line(folder, tmp_path, capsys, kind):
    make, message = STRANGERS[kind]
    make().save(tmp_path / "model.keras")
    assert re.search(message, refuse(tmp_path / "model.keras", folder, tmp_path / "out.csv", capsys))


def test_a_layer_that_keras_does_not_know_is_named(folder, tmp_path, capsys):
    class Own(keras.layers.Layer):
        """Passes its input on."""

        def call(self, values):
            """Passes on."""
            return values

    build(dense(3), Own()).save(tmp_path / "model.keras")
    assert "layers that Keras knows; 'Own' is none" in refuse(tmp_path / "model.keras", folder, tmp_path / "o", capsys)


# By what has happened to a file: what makes it of a whole one.
DAMAGES = {
    "half": lambda content: content[: len(content) // 2],
    "hole": lambda content: content[: len(content) // 2] + bytes(200) + content[len(content) // 2 + 200 :],
    "empty": lambda content: b"",
    "text": lambda content: b"no model",
    "another archive": lambda content: b"PK\x05\x06" + bytes(18),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_model_is_refused_in_one_line(saved, folder, tmp_path, capsys, damage):
    saved.write_bytes(DAMAGES[damage](saved.read_bytes()))
    assert "damaged or no model" in refuse(saved, folder, tmp_path / "out.csv", capsys)


def test_a_model_of_another_kind_or_a_missing_one_is_refused_in_one_line(folder, tmp_path, capsys):
    table = tmp_path / "out.csv"
    (tmp_path / "plain.h5").touch()
    (tmp_path / "folder.keras").mkdir()
    assert "end in .keras" in refuse(tmp_path / "plain.h5", folder, table, capsys)
    for name in ("missing.keras", "folder.keras"):
        assert "A saved model is a file" in refuse(tmp_path / name, folder, table, capsys)


@pytest.mark.parametrize("content", ['["a", "b", "c"]', '{"module": "keras"}', "{", '{"class_names": [1, 2, 3]}'])
def test_a_json_of_another_kind_beside_a_model_is_said_and_names_can_be_given(saved, folder, tmp_path, capsys, content):
    saved.with_suffix(".json").write_text(content)
    assert "a file of another kind" in refuse(saved, folder, tmp_path / "out.csv", capsys)
    arguments = ["predict", str(saved), str(folder), "--out", str(tmp_path / "out.csv"), "--classes", *NAMES]
    assert command.main(arguments) == 0


def test_what_a_models_backbone_has_learned_from_is_said_to_whoever_uses_it(folder, tmp_path, capsys):
    path = tmp_path / "own.keras"
    training.save_model(build(dense(3)), path, class_names=NAMES, learned_from="drawings alone")
    assert command.main(["predict", str(path), str(folder), "--out", str(tmp_path / "out.csv")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "The model's backbone: drawings alone"
    with pytest.raises(ValueError, match="is kept with its class names"):
        training.save_model(build(dense(3)), path, learned_from="drawings alone")
    training.save_model(build(dense(3)), path, class_names=NAMES)
    assert training.saved_origin(path) is None


def test_a_model_of_any_size_is_asked_at_the_size_that_is_given_and_others_at_theirs(saved, folder, tmp_path):
    build(dense(3), shape=(None, None, 3)).save(tmp_path / "any.keras")
    assert predictions.predict_folder(tmp_path / "any.keras", folder, tmp_path / "any.csv", image_size=SIDE)["ok"] == 5
    with pytest.raises(ValueError, match=r"the size is the model's\. Received: image_size=64"):
        predictions.predict_folder(saved, folder, tmp_path / "out.csv", image_size=64)


def test_an_answer_that_is_no_number_ends_the_run_without_a_table(saved, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(
        predictions, "compile_answers", lambda *_: lambda images: answers.to_probabilities(images * np.nan)
    )
    with pytest.raises(ValueError, match="Received: NaN"):
        predictions.predict_folder(saved, folder, tmp_path / "out.csv", batch_size=1)
    assert not (tmp_path / "out.csv").exists()


# Tables


@pytest.mark.parametrize("names", [predictions.FACTS[:3], ["predicted", "confidence", "p(path)"], ["a\nb", "$", "花"]])
def test_any_class_name_makes_a_column_of_its_own_and_a_stopped_run_goes_on(
    saved, folder, tmp_path, monkeypatch, names
):
    expected = predictions.predict_folder(saved, folder, tmp_path / "whole.csv", batch_size=1, class_names=names)
    row, calls = predictions._row, []

    def stop(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return row(*arguments)

    monkeypatch.setattr(predictions, "_row", stop)
    with pytest.raises(KeyboardInterrupt):
        predictions.predict_folder(saved, folder, tmp_path / "out.csv", batch_size=1, class_names=names)
    assert predictions.predict_folder(saved, folder, tmp_path / "out.csv", batch_size=1, class_names=names) == expected
    assert len(calls) == 4 + 9 - 3
    assert (tmp_path / "out.csv").read_text() == (tmp_path / "whole.csv").read_text()
    header = next(csv.reader(open(tmp_path / "out.csv", encoding="utf-8")))  # noqa: SIM115
    assert header == [*predictions.FACTS, *(f"p({files.shown_name(name)})" for name in names)]
    assert len(set(header)) == len(header)


def test_rows_of_another_reader_are_not_gone_on_with(model, tmp_path, monkeypatch):
    before = predictions._unfinished(tmp_path / "out.csv", model, tmp_path, NAMES, SIDE)
    assert predictions._unfinished(tmp_path / "out.csv", model, tmp_path, NAMES, SIDE) == before
    monkeypatch.setattr(manifest, "READER_VERSION", manifest.READER_VERSION + 1)
    assert predictions._unfinished(tmp_path / "out.csv", model, tmp_path, NAMES, SIDE) != before


@pytest.mark.slow
def test_the_command_works_where_python_drops_docstrings(saved, folder, tmp_path):
    command_line = [sys.executable, "-OO", "-m", "tlhelpers", "predict", str(saved), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(settings.PROJECT_FOLDER)}
    subprocess.run(
        [*command_line, "--out", str(tmp_path / "out.csv")], check=True, capture_output=True, env=environment
    )
    assert {row["verdict"] for row in read(tmp_path / "out.csv")} >= {"ok"}


@pytest.mark.slow
def test_a_second_run_for_the_same_table_is_told_in_one_line(saved, folder, tmp_path, capsys):
    table = tmp_path / "out.csv"
    with predictions._alone(table):
        said = subprocess.run(
            [sys.executable, "-m", "tlhelpers", "predict", str(saved), str(folder), "--out", str(table)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(settings.PROJECT_FOLDER)},
        )
        assert said.returncode == 1
        assert "Stopped: Predictions are written by one process at a time" in said.stderr
        assert not table.exists()
    assert command.main(["predict", str(saved), str(folder), "--out", str(table)]) == 0
    assert list(tmp_path.glob(".out*")) == list(tmp_path.glob("out.csv.*")) == []


# Folders


def test_a_folder_without_files_is_an_error_that_counts(saved, tmp_path, capsys):
    (tmp_path / "nothing" / ".hidden").mkdir(parents=True)
    (tmp_path / "nothing" / ".hidden" / "a.jpg").write_bytes(encode(draw_flower("rose", 0)))
    assert "there are 0 files" in refuse(saved, tmp_path / "nothing", tmp_path / "out.csv", capsys)


def test_a_name_that_is_no_utf8_has_its_row_and_its_answer(saved, folder, tmp_path):
    path = os.fsencode(folder) + b"/Bl\xfcte.jpg"
    with open(path, "wb") as stream:
        stream.write(encode(draw_flower("rose", 3)))
    predictions.predict_folder(saved, folder, tmp_path / "out.csv")
    rows = {row["path"]: row for row in read(tmp_path / "out.csv")}
    assert len(rows) == 10
    assert rows["Bl\\xfcte.jpg"]["verdict"] == "ok"
    assert rows["Bl\\xfcte.jpg"]["p(rose)"] == rows["garden/3.jpg"]["p(rose)"]


def test_linked_folders_are_looked_at_and_system_folders_are_not(saved, folder, tmp_path):
    (tmp_path / "mine" / "@eaDir").mkdir(parents=True)
    (tmp_path / "mine" / "@eaDir" / "a.jpg").touch()
    (tmp_path / "mine" / "linked").symlink_to(folder / "garden", target_is_directory=True)
    assert predictions.predict_folder(saved, tmp_path / "mine", tmp_path / "out.csv") == {"ok": 5}


def test_what_cannot_be_read_has_a_verdict(saved, folder, tmp_path, monkeypatch):
    (folder / "closed").mkdir()
    scan = os.scandir

    def refuse_one(place):
        if str(place).endswith("closed"):
            raise PermissionError(13, "Permission denied", place)
        return scan(place)

    monkeypatch.setattr(files.os, "scandir", refuse_one)
    predictions.predict_folder(saved, folder, tmp_path / "out.csv")
    (row,) = [row for row in read(tmp_path / "out.csv") if row["path"] == "closed"]
    assert row["verdict"] in ("unreadable", "empty")  # some file systems give an empty folder no bytes


def test_a_table_among_the_pictures_is_not_looked_at_by_its_own_run(saved, folder):
    whole = predictions.predict_folder(saved, folder, folder / "out.csv", batch_size=2)
    assert sum(whole.values()) == 9


def test_a_single_file_is_looked_at(saved, folder, tmp_path):
    assert predictions.predict_folder(saved, folder / "garden" / "1.jpg", tmp_path / "out.csv") == {"ok": 1}
    assert [row["path"] for row in read(tmp_path / "out.csv")] == ["1.jpg"]


def test_places_are_expanded_made_or_refused(saved, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    places = ("~/model.keras", "~/pictures", "~/new/deep/out.csv")
    assert predictions.predict_folder(*places)["ok"] == 5
    assert (tmp_path / "new" / "deep" / "out.csv").is_file()
    with pytest.raises(IsADirectoryError, match="Predictions go into a file"):
        predictions.predict_folder(saved, folder, tmp_path)
    with pytest.raises(ValueError, match="batch_size=0"):
        predictions.predict_folder(saved, folder, tmp_path / "out.csv", batch_size=0)


def test_a_table_has_the_rights_that_the_user_gives_new_files(saved, folder, tmp_path):
    before = os.umask(0o077)
    try:
        predictions.predict_folder(saved, folder, tmp_path / "out.csv")
    finally:
        os.umask(before)
    assert (tmp_path / "out.csv").stat().st_mode & 0o777 == 0o600
