"""Predicting a folder: every file has a row, the numbers are the model's, and a stopped run goes on."""

import csv

import keras
import numpy as np
import pytest
from builders import draw_flower, encode
from PIL import Image

from tlhelpers import __main__ as command
from tlhelpers import loaders, predictions, training

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
    found = [[float(rows[f"garden/{index}.jpg"][name]) for name in NAMES] for index in range(5)]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert [rows[f"garden/{index}.jpg"]["predicted"] for index in range(5)] == [NAMES[i] for i in expected.argmax(1)]
    assert rows["empty.jpg"]["predicted"] == rows["empty.jpg"]["rose"] == ""


def test_a_picture_on_its_side_is_seen_upright(saved, folder, model, tmp_path):
    predictions.predict_folder(saved, folder, tmp_path / "out.csv")
    row = next(row for row in read(tmp_path / "out.csv") if row["path"] == "aside.jpg")
    with Image.open(folder / "aside.jpg") as image:
        upright = np.asarray(image.rotate(-90, expand=True))
    expected = training.predict_probabilities(model, loaders.resize(upright, SIDE)[None])[0]
    np.testing.assert_allclose([float(row[name]) for name in NAMES], expected, atol=1e-5)


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
    monkeypatch.setattr(predictions, "_row", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        predictions.predict_folder(saved, folder, tmp_path / "out.csv")
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
    with pytest.raises(ValueError, match=r"3 classes needs as many different names\. Received: \['a', 'a', 'b'\]"):
        predictions.check_class_names(["a", "a", "b"], 3)


def test_the_command_counts_verdicts_and_never_replaces_a_table(saved, folder, tmp_path, capsys):
    arguments = ["predict", str(saved), str(folder), "--out", str(tmp_path / "out.csv")]
    assert command.main(arguments) == 0
    assert "ok: 5\n" in capsys.readouterr().out
    assert command.main(arguments) == 1
    assert "Predictions go into a new file; remove or rename the old one" in capsys.readouterr().err
    assert command.main([*arguments[:2], str(tmp_path / "nowhere")]) == 1
    assert "Pictures are looked for below a folder. Received:" in capsys.readouterr().err
