"""What the outputs of a chapter depend on: while none of it has changed, an executed copy is kept.

A chapter's cache key is a dict of digests: of its notebook, the parameters, the modules of this package that it can
reach, the committed data, the images, the packages and the lock file, and of the cache keys of the chapters it follows.
"""

import ast
import functools
import json
import re

import nbformat

import tlhelpers
from tlhelpers import devices, files, settings
from tlhelpers.datasets import manifest, sources, studies
from tlhelpers.experiments import records

CACHE_KEY = "tlhelpers"  # where an executed copy's metadata hold its cache key
MAGIC = re.compile(r"^\s*[%!].*", re.MULTILINE)


def make_cache_key(chapter, parameters, *, drawn, follows=()):
    """The cache key that an executed copy of a chapter would carry now.

    Args:
        chapter: str. The notebook's path below the project's root.
        parameters: dict. What the chapter is executed with.
        drawn: bool. Whether its studies are drawn.
        follows: iterable of dict. The cache keys of the chapters whose runs it reads.

    Returns:
        dict from what may change, such as `"code"`, to a str, or for `"code"` to a dict from module to str.
    """
    notebook = nbformat.read(settings.PROJECT_FOLDER / chapter, as_version=4)
    code = "\n".join(MAGIC.sub("", cell.source) for cell in notebook.cells if cell.cell_type == "code")
    modules = reach_modules(find_imports(code) | find_public_names(code))
    return {
        "chapter": files.sha256_of(settings.PROJECT_FOLDER / chapter),
        "parameters": json.dumps(parameters, sort_keys=True),
        "code": {module: _digest_of_module(module) for module in sorted(modules)},
        "data": _digest_of_data(),
        "pictures": _digest_of_pictures(code, drawn),
        "machine": _describe_machine(),
        "chapters it follows": files.sha256_of_text(json.dumps(list(follows), sort_keys=True)),
    }


def list_changes(key, earlier):
    """What differs between two cache keys.

    Args:
        key: dict, as from `make_cache_key`.
        earlier: dict or None. The cache key of the copy there is.

    Returns:
        list of str, such as `["chapter", "code (plotting)"]`; empty when the copy can be kept.
    """
    if earlier is None:
        return ["never executed"]
    changes = [name for name in key if name != "code" and key[name] != earlier.get(name)]
    now, before = key["code"], earlier.get("code", {})
    modules = sorted(name for name in now.keys() | before.keys() if now.get(name) != before.get(name))
    return changes + ([f"code ({', '.join(modules)})"] if modules else [])


@functools.cache
def find_imports(code):
    """The modules of this package that a piece of Python code imports, wherever in it: a frozenset of str."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    inside = {name.partition(".")[2] for name in found if name.startswith("tlhelpers.")}
    return frozenset(name for name in inside if _path_of(name).is_file())


def find_public_names(code):
    """The modules that define the public names a piece of code uses as `tl.name`: a set of str."""
    used = {node.attr for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Attribute)}
    return {module for module, names in tlhelpers.PUBLIC.items() if used & set(names)}


def reach_modules(modules):
    """Some modules of this package and all that these import, directly or through others: a set of str."""
    reached, waiting = set(), {"__init__", *modules}
    while waiting:
        module = waiting.pop()
        reached.add(module)
        waiting |= find_imports(_path_of(module).read_text(encoding="utf-8")) - reached
    return reached


def _path_of(module):
    return settings.PACKAGE_FOLDER.joinpath(*module.split(".")).with_suffix(".py")


def _digest_of_module(module):
    return files.sha256_of(_path_of(module))[:16]


@functools.cache
def _digest_of_data():
    """What the package reads of `data/`."""
    return files.sha256_of_files(settings.committed_files(), settings.data_folder())


def _digest_of_pictures(code, drawn):
    """The images of the studies that a chapter names; synthetic images follow from the code."""
    if drawn:
        return "drawn"
    texts = {node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)}
    return files.sha256_of_text("\n".join(_fingerprint(name) for name in sorted(studies.STUDIES) if name in texts))


@functools.cache
def _fingerprint(name):
    try:
        table = manifest.load_manifest(studies.get_study(name))
        return files.sha256_of_text(table[["part", "label", "sha256"]].to_csv(index=False))
    except sources.MissingDataError:
        return f"no {name}"


@functools.cache
def _describe_machine():
    """What runs the chapters: packages, lock file, processor and accelerators."""
    facts = {
        **records.package_versions(),
        "lock file": files.sha256_of(settings.lock_file()),
        "device": [devices.cpu_name(), *(gpu["name"] for gpu in devices.list_gpus())],
    }
    return files.sha256_of_text(json.dumps(facts, sort_keys=True))
