"""Faults, each brought about for real, and what must hold afterwards: a clear word, nothing half-made, and a way on."""

import ast
import contextlib
import html
import io
import multiprocessing
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import nbformat
import numpy as np
import pytest
import yaml
from builders import CLASS_NAMES, STUDY, checksums_of, draw_flower, encode, make_record, write_archive
from torture_works import SIDE, build_network

from tlhelpers import chapters, features, files, predictions, settings, training, widgets
from tlhelpers.book import build, execution
from tlhelpers.datasets import downloads, manifest, sources, studies
from tlhelpers.experiments import records

ARCHIVE = "flowers-recognition.zip"
MARKUP = '<img src=x onerror="alert(1)">'
SMALL_DISK = 1 << 20  # bytes
CODE = sorted(settings.PACKAGE_FOLDER.rglob("*.py"))
WORKFLOWS = sorted((settings.PROJECT_FOLDER / ".github" / "workflows").glob("*.yml"))


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """The bytes of a small archive of flowers."""
    return write_archive(tmp_path_factory.mktemp("archive") / ARCHIVE, per_class=8).read_bytes()


def rests():
    """Files in the cache folder, whole or not."""
    home = settings.home_folder()
    return [path.name for path in home.rglob("*") if path.is_file()] if home.exists() else []


# By what is wrong with a server: what is done to it, and what is said about it.
SERVERS = {
    "cut before the first byte": (lambda server: server.cut.update({ARCHIVE: 0}), "sends whole files"),
    "cut after a byte": (lambda server: server.cut.update({ARCHIVE: 1}), "sends whole files"),
    "cut in the middle": (lambda server: server.cut.update({ARCHIVE: 5000}), "sends whole files"),
    "cut before the last byte": (lambda server: server.cut.update({ARCHIVE: -1}), "sends whole files"),
    "another file": (lambda server: server.pages.update({ARCHIVE: b"PK" * 500}), "SHA-256"),
    "a web page in its place": (lambda server: server.pages.update({ARCHIVE: b"<html>Log in</html>"}), "SHA-256"),
    "led to a web page": (
        lambda server: server.moved.update({ARCHIVE: "/data/login"}) or server.pages.update(login=b"<html></html>"),
        "SHA-256",
    ),
    "led in circles": (lambda server: server.moved.update({ARCHIVE: f"/data/{ARCHIVE}"}), "redirects"),
    "an error of the server": (lambda server: server.refused.update({ARCHIVE: 500}), "500"),
    "too many requests": (lambda server: server.refused.update({ARCHIVE: 429}), "429"),
    "no permission": (lambda server: server.refused.update({ARCHIVE: 403}), "403"),
    "no checksums for an error": (lambda server: server.refused.update({downloads.CHECKSUM_FILE: 503}), "503"),
    "checksums cut": (lambda server: server.cut.update({downloads.CHECKSUM_FILE: 30}), "sends whole files"),
    "an answer that never ends": (lambda server: setattr(server, "pause", 3), "answers|timed out"),
}


@pytest.mark.parametrize("fault", SERVERS)
def test_a_server_that_fails_is_named_leaves_nothing_and_is_asked_again(website, content, monkeypatch, fault):
    spoil, said = SERVERS[fault]
    monkeypatch.setattr(downloads, "DOWNLOAD_TIMEOUT_SECONDS", 1)
    pages = {ARCHIVE: content, downloads.CHECKSUM_FILE: checksums_of(content, ARCHIVE)}
    website.pages.update(pages)
    spoil(website)
    with pytest.raises((sources.MissingDataError, sources.BadArchiveError), match=said):
        sources.prepare_images(STUDY)
    assert rests() == []
    for trouble in (website.cut, website.moved, website.refused):
        trouble.clear()
    website.pages.update(pages)
    website.pause = 0
    assert len(list(sources.prepare_images(STUDY).rglob("*.jpg"))) == 40


def zip_of(*members):
    """A ZIP with the folders of the flowers and further members: `(name or ZipInfo, bytes)`."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for label in CLASS_NAMES:
            archive.writestr(f"flowers/{label}/0.jpg", encode(draw_flower(label, 0)))
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


def link(name, target):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info, target.encode()


def spoil_checksum(archive):
    """The same archive with one byte of a picture changed, which its checksum tells."""
    place = len(archive) // 3
    return archive[:place] + bytes([archive[place] ^ 1]) + archive[place + 1 :]


def lie_about_size(archive):
    """The same archive, the table of contents of which says that its first member is empty."""
    place = archive.index(b"PK\x01\x02")
    return archive[: place + 24] + struct.pack("<I", 0) + archive[place + 28 :]


ARCHIVES = {
    "a way out of the folder": (lambda: zip_of(("flowers/../../out.jpg", b"x")), "stays inside its folder"),
    "a way out in the manner of Windows": (lambda: zip_of(("flowers\\..\\..\\out.jpg", b"x")), "stays inside"),
    "an absolute path": (lambda: zip_of(("/out.jpg", b"x")), "stays inside its folder"),
    "a drive": (lambda: zip_of(("C:/out.jpg", b"x")), "stays inside its folder"),
    "a link": (lambda: zip_of(link("flowers/rose/link.jpg", "/etc/passwd")), "files and no links"),
    "a link to a folder": (lambda: zip_of(link("flowers/more", "/etc")), "files and no links"),
    "a bomb": (lambda: zip_of(("flowers/rose/zero.jpg", bytes(300 << 20))), "times its packed size"),
    "a wrong checksum": (lambda: spoil_checksum(zip_of()), "truncated or damaged"),
    "a wrong size": (lambda: lie_about_size(zip_of()), "truncated or damaged|at most"),
    "an end that is missing": (lambda: zip_of()[:-30], "whole ZIP file"),
    "a beginning that is missing": (lambda: zip_of()[200:], "whole ZIP file|truncated or damaged"),
    "nothing": (lambda: b"", "empty, truncated"),
    "a web page": (lambda: b"<!doctype html><html></html>", "web page"),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", ARCHIVES)
def test_a_bad_archive_is_refused_whole_and_a_good_one_in_its_place_is_taken(mirror, tmp_path, content, fault):
    make, said = ARCHIVES[fault]
    before = set(tmp_path.parent.rglob("*out.jpg"))
    (mirror / ARCHIVE).write_bytes(make())
    with pytest.raises(sources.BadArchiveError, match=said):
        sources.prepare_images(STUDY)
    assert rests() == []
    assert set(tmp_path.parent.rglob("*out.jpg")) == before
    (mirror / ARCHIVE).write_bytes(content)
    assert len(list(sources.prepare_images(STUDY).rglob("*.jpg"))) == 40


@pytest.mark.parametrize("name", ["blüte.jpg", "花.jpg", "a b'\"c.jpg", "zeile\n2.jpg", "x" * 200 + ".jpg", "-rf.jpg"])
def test_odd_names_in_an_archive_are_files_like_any_other(mirror, name):
    (mirror / ARCHIVE).write_bytes(zip_of((f"flowers/rose/{name}", encode(draw_flower("rose", 1)))))
    assert (sources.prepare_images(STUDY) / "rose" / name).is_file()
    table = manifest.load_manifest(STUDY)
    again = manifest.load_manifest(STUDY)
    assert [Path(path).name for path in again["path"]] == [Path(path).name for path in table["path"]]
    assert name in {Path(path).name for path in again["path"]}


def test_names_in_an_old_encoding_are_extracted(mirror):
    archive = zip_of(("flowers/rose/bl__te.jpg", encode(draw_flower("rose", 1))))
    (mirror / ARCHIVE).write_bytes(archive.replace(b"bl__te", b"bl\x81\x81te"))
    assert len(list(sources.prepare_images(STUDY).rglob("*.jpg"))) == 6


@contextlib.contextmanager
def small_disk(folder):
    """A disk of a megabyte. Needs the rights to mount one."""
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", str(folder)]
    if subprocess.run(["mount", *options], check=False, capture_output=True).returncode:
        pytest.skip("needs the rights to mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(folder):
    """Fills a disk."""
    (folder / "filler").write_bytes(bytes(shutil.disk_usage(folder).free))


def keep_features(place, table):
    features.extract_features(build_network(), table, SIDE)


def keep_record(place, table):
    records.save_record(make_record(), place / "records")


def keep_model(place, table):
    training.save_model(build_network(), place / "model.keras")


def keep_predictions(place, table):
    training.save_model(build_network(), place.parent / "model.keras")
    pictures = Path(table["path"].iloc[0]).parent
    predictions.predict_folder(place.parent / "model.keras", pictures, place / "out.csv")


def keep_state(place, table):
    model = build_network()
    model.compile("adam", "mse")
    inputs = np.zeros((4, 32, 32, 3), "float32")
    resume = training.Resume(place / "state", every_seconds=0)
    model.fit(inputs, np.zeros((4, 5)), epochs=2, verbose=0, callbacks=[resume])


def keep_images(place, table):
    sources.prepare_images(STUDY)


WRITERS = [keep_images, keep_features, keep_record, keep_model, keep_predictions, keep_state]


@pytest.mark.parametrize("write", WRITERS)
def test_a_full_disk_is_named_and_leaves_nothing_that_could_be_taken_for_whole(
    write, mirror, table, tmp_path, monkeypatch
):
    with small_disk(tmp_path / "disk") as disk:
        monkeypatch.setenv("TLHELPERS_HOME", str(disk / "home"))
        fill(disk)
        with pytest.raises(Exception, match=r"No space left|at most [\d,]+ bytes here|errno = 28") as caught:
            write(disk, table)
        assert "truncated or damaged" not in str(caught.value)
        left = [path for path in disk.rglob("*") if path.suffix in (".json", ".npy", ".npz", ".keras", ".jpg", ".h5")]
        assert left == []
        (disk / "filler").unlink()
        write(disk, table)


@pytest.mark.parametrize("home", ["/proc/nowhere", "/dev/null/below"])
def test_a_cache_folder_that_cannot_be_written_stops_a_build_with_its_name(monkeypatch, capsys, mirror, home):
    monkeypatch.setenv("TLHELPERS_HOME", home)
    assert build.main(["book", "--profile", "smoke"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("Stopped: ")
    assert home in said
    assert "Traceback" not in said


def write_as_nobody(path, connection):
    """Writes a file with the rights of somebody else, and sends what happens."""
    if os.getuid() == 0:
        os.setuid(65534)
    try:
        files.write_text(path, "x")
        connection.send("written")
    except OSError as error:
        connection.send(f"{type(error).__name__}: {error}")


def test_a_folder_without_permission_is_named(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    receiver, sender = multiprocessing.Pipe(duplex=False)
    writer = multiprocessing.get_context("fork").Process(target=write_as_nobody, args=(closed / "text.txt", sender))
    writer.start()
    writer.join()
    said = receiver.recv()
    assert said.startswith("PermissionError")
    assert str(tmp_path) in said


def prepare(environment, barrier, results):
    os.environ.update(environment)
    barrier.wait()
    table = manifest.load_manifest(STUDY)
    results.put((len(table), sorted(table["sha256"])))


@pytest.mark.slow
def test_processes_that_prepare_the_same_pictures_at_once_do_not_disturb_each_other(mirror):
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(3), context.Queue()
    environment = {name: os.environ[name] for name in ("TLHELPERS_HOME", "TLHELPERS_MIRROR", "TLHELPERS_QUIET")}
    workers = [context.Process(target=prepare, args=(environment, barrier, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    assert found[0] == found[1] == found[2]
    assert found[0][0] == 40
    assert len(list((settings.home_folder() / "images").iterdir())) == 1


LITTLE_MEMORY = """
import resource
import keras, numpy as np, psutil
from tlhelpers import training

numbers = np.zeros((2048, 1))  # one layer takes a MiB for each: what is left when it does not fit serves all else

def fit(batch_size):
    wide = keras.layers.Dense(2**18, activation="relu")
    model = keras.Sequential([keras.Input((1,)), wide, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(numbers[:64], numbers[:64], batch_size=8, verbose=0)  # what memory any batch takes
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, resource.RLIM_INFINITY))
    model.fit(numbers[:batch_size], numbers[:batch_size], batch_size=batch_size, verbose=0)
    return batch_size

print("trained with", training.fit_in_memory(fit, len(numbers)))
"""


@pytest.mark.slow
def test_a_batch_that_memory_cannot_hold_is_halved_until_it_fits():
    command = [sys.executable, "-c", LITTLE_MEMORY]
    surroundings = os.environ | {"TF_ENABLE_ONEDNN_OPTS": "0"}  # oneDNN's kernels crash where TensorFlow's complain
    finished = subprocess.run(command, check=False, capture_output=True, text=True, env=surroundings)
    said = [line for line in finished.stdout.splitlines() if line.startswith(("Out of memory", "trained"))]
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert said[0] == "Out of memory with 2048 images in a batch; on with 1024"
    assert said[-1].startswith("trained with")


def test_a_saved_model_that_would_run_code_of_its_own_is_refused(tmp_path):
    images = keras.Input((4,))
    model = keras.Model(images, keras.layers.Lambda(lambda values: values * 2)(images))
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="safe_mode"):
        training.load_model(tmp_path / "model.keras")


def test_arrays_that_hold_python_objects_are_refused(tmp_path, table):
    network = build_network()
    features.extract_features(network, table, SIDE)
    [kept] = (settings.home_folder() / "features").glob("*.npy")
    np.save(kept, np.array([{"any": "object"}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"pickle|memory-mapped"):
        features.extract_features(network, table, SIDE)


def calls_in(path):
    """Every call in a module: its function as written, and its keyword arguments."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}


@pytest.mark.slow
@pytest.mark.parametrize("path", CODE, ids=lambda path: path.stem)
def test_no_module_loads_pickles_runs_text_as_code_or_asks_a_shell(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        name.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    } | {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert not imported & {"pickle", "dill", "cloudpickle", "shelve", "marshal"}
    for function, options in calls_in(path):
        assert function not in {"eval", "exec", "os.system", "os.popen", "joblib.load", "pd.read_pickle"}
        assert options.get("shell", "False") == "False"
        if function == "np.load":
            assert options["allow_pickle"] == "False"
        if function.endswith("load_model") and function.startswith("keras"):
            assert options["safe_mode"] == "True"


@pytest.fixture
def marked_up(tmp_path):
    """A folder of pictures whose class and file names are markup."""
    for number, label in enumerate((MARKUP, "plain")):
        place = tmp_path / "pictures" / label
        place.mkdir(parents=True)
        for index in range(12):
            picture = encode(draw_flower("rose", index + 12 * number))
            (place / f"{index}{MARKUP}.jpg").write_bytes(picture)
    return tmp_path / "pictures"


def test_facts_and_tables_show_names_that_are_markup_as_text(marked_up):
    study = studies.describe_folder(marked_up, image_size=32)
    chapter = chapters.begin_chapter(study, profile="smoke", protocol="careful", seed=0)
    shown = [
        chapter._repr_html_(),
        chapter.manifest._repr_html_(),
        widgets.list_facts({MARKUP: MARKUP}, label=MARKUP),
    ]
    assert [text for text in shown if "<img" in text] == []
    assert all(MARKUP in html.unescape(text) for text in shown[1:])


def html_of(widget):
    """The HTML of a widget and of all below it."""
    own = getattr(widget, "value", "")
    return str(own) + "".join(html_of(child) for child in getattr(widget, "children", ()))


def test_widgets_show_names_that_are_markup_as_text():
    record = make_record()
    predictions_by_model = {"runs": {"a model": (record.y_true, record.y_prob)}}
    found = html_of(widgets.explore_confusions(predictions_by_model, [MARKUP, *STUDY.class_names[1:]]))
    assert "<img" not in found
    assert MARKUP in html.unescape(found)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_chapter_on_pictures_with_markup_in_their_names_shows_it_as_text(marked_up, tmp_path):
    source = settings.PROJECT_FOLDER / "book" / "19_your_own_pictures.ipynb"
    parameters = {"PROFILE": "smoke", "PICTURES": str(marked_up), "SIZE": 64}
    execution.execute_chapter(source, tmp_path / "executed.ipynb", parameters)
    outputs = [
        output.data
        for cell in nbformat.read(tmp_path / "executed.ipynb", as_version=4).cells
        for output in cell.get("outputs", [])
        if "data" in output
    ]
    shown = [text for data in outputs for kind, text in data.items() if kind in ("text/html", "text/markdown")]
    assert shown
    assert [text for text in shown if "<img src=x" in text] == []
    assert any(MARKUP in html.unescape(text) for text in shown)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_have_few_permissions_and_pinned_actions(path):
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert set(job.get("permissions", {})) <= {"contents", "pages", "id-token"}
        for step in job["steps"]:
            assert "uses" not in step or re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"])
