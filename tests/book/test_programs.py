"""Programs of other people: fetched once, verified, never half, and copied to where pages look for them."""

import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile

import pytest

from tlhelpers import settings
from tlhelpers.book import programs

VERSION = "1.2.3"
CONTENT = {
    "dist/index.js": b'import { f } from "@litertjs/wasm-utils";\nf();\n//# sourceMappingURL=index.js.map',
    "wasm/litert_wasm_compat_internal.wasm": b"\0asm",
}


def pack(name):
    """The archive of a package as npm's registry has it."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for source in programs.PROGRAMS[name]:
            content = CONTENT.get(source, source.encode())
            member = tarfile.TarInfo(f"package/{source}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A folder of archives that an `npm` on the path packs from, and a project that locks them."""
    folder, tools = tmp_path / "registry", tmp_path / "tools"
    packages = {}
    for name in programs.PROGRAMS:
        path = folder / f"{name}@{VERSION}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pack(name))
        digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
        packages[f"node_modules/{name}"] = {"version": VERSION, "integrity": f"sha512-{digest}", "license": "MIT"}
    monkeypatch.setattr(settings, "PROJECT_FOLDER", tmp_path)
    (tmp_path / programs.LOCK).write_text(json.dumps({"packages": packages}))
    tools.mkdir()
    npm = tools / "npm"
    npm.write_text(f'#!/bin/sh\ntest "$1" = pack && cp "{folder}/$2" "$6/one.tgz" && echo "$2" >> "{tmp_path}/asked"\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)
    monkeypatch.setattr(programs, "programs_folder", lambda: tmp_path / "programs")
    return folder


def asked(registry):
    path = registry.parent / "asked"
    return path.read_text().split() if path.exists() else []


def test_programs_are_fetched_once_and_lie_where_pages_look_for_them(registry, tmp_path):
    programs.install_programs()
    programs.install_programs()
    assert asked(registry) == [f"{name}@{VERSION}" for name in programs.PROGRAMS]
    programs.copy_programs(tmp_path / "_static")
    found = {
        str(path.relative_to(tmp_path / "_static")) for path in (tmp_path / "_static").rglob("*") if path.is_file()
    }
    assert found == {place for places in programs.PROGRAMS.values() for place in places.values()}
    assert (tmp_path / "_static/classifier/litert.js").read_bytes() == b'import { f } from "./wasm-utils.js";\nf();\n'
    assert (tmp_path / "_static/classifier/litert_wasm_compat_internal.wasm").read_bytes() == b"\0asm"


def test_a_program_that_is_not_what_the_lock_file_names_is_refused_and_what_is_there_stays(registry):
    programs.install_programs()
    lock = registry.parent / programs.LOCK
    before, content = lock.read_text(), json.loads(lock.read_text())
    content["packages"]["node_modules/@litertjs/core"]["integrity"] = "sha512-AAAA"
    lock.write_text(json.dumps(content))
    with pytest.raises(programs.ProgramsError, match=r"@litertjs/core 1\.2\.3 is not what package-lock\.json names"):
        programs.install_programs()
    with pytest.raises(programs.ProgramsError, match="was not fetched: connect to the internet"):
        programs.check_programs()
    lock.write_text(before)
    programs.check_programs()


def test_a_registry_that_does_not_answer_is_said_and_the_next_start_goes_on(registry):
    last = list(programs.PROGRAMS)[-1]
    (registry / f"{last}@{VERSION}").rename(registry.parent / "away")
    with pytest.raises(programs.ProgramsError, match=r"npm's registry did not give.*start again, it goes on from here"):
        programs.install_programs()
    (registry.parent / "away").rename(registry / f"{last}@{VERSION}")
    programs.install_programs()
    assert asked(registry) == [f"{name}@{VERSION}" for name in programs.PROGRAMS]
    programs.check_programs()


def test_a_half_fetched_program_is_fetched_again(registry):
    programs.install_programs()
    (programs.programs_folder() / "classifier" / "litert.js").unlink()
    programs.install_programs()
    assert asked(registry)[-1] == f"@litertjs/core@{VERSION}"
    programs.check_programs()


def test_without_npm_one_is_fetched_and_gone_afterwards(registry, monkeypatch, capsys):
    commands = []

    def run(command, source):
        commands.append(command)
        if "pip" not in command:
            subprocess.run([registry.parent / "tools" / "npm", *command[3:]], check=True)

    monkeypatch.setattr(programs, "_run", run)
    monkeypatch.setattr(programs.shutil, "which", lambda name: None)
    programs.install_programs()
    assert commands[0][:4] == [sys.executable, "-m", "pip", "install"]
    assert commands[0][-1] == programs.NODE
    assert "This machine has no npm" in capsys.readouterr().out
    programs.check_programs()


@pytest.mark.parametrize("content", [None, "{", "[]", '{"packages": {}}'])
def test_a_damaged_lock_file_is_said_in_one_line(registry, capsys, content):
    lock = registry.parent / programs.LOCK
    lock.unlink() if content is None else lock.write_text(content)
    assert programs.main() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Stopped: package-lock.json names the version and the digest of")


def test_the_programs_of_the_lock_file_are_installed_and_none_of_them_is_in_git():
    programs.check_programs()
    listed = subprocess.run(
        ["git", "ls-files"], cwd=settings.PROJECT_FOLDER, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert "book/_static/classifier/classifier.js" in listed
    places = {f"book/_static/{place}" for places in programs.PROGRAMS.values() for place in places.values()}
    assert places & set(listed) == set()
    assert [path for path in listed if path.endswith((".wasm", ".min.js"))] == []
