"""Fingerprints: short digests that tell whether code, files and clusters are still the same."""

import ast
import hashlib
import platform
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

import numpy as np

import hardware_profiles
from envs.cluster import ClusterConfig
from hardware_profiles import Profile
from policies import PolicySpec
from policies.registry import LOADERS

_PACKAGES = ("hardware_profiles", "envs", "policies", "agents", "experiments")

ROOT = Path(hardware_profiles.__file__).parent.parent
"""The folder that holds the project's packages."""


def digest(*parts: str, files: Iterable[Path] = ()) -> str:
    """A short fingerprint of some text and of the content of some files."""
    state = hashlib.sha256()
    for part in parts:
        state.update(part.encode() + b"\0")
    for path in files:
        state.update(path.read_bytes() + b"\0")
    return state.hexdigest()[:16]


@cache
def code(*modules: str, root: Path = ROOT) -> str:
    """A fingerprint of modules (names with dots) and of all that they import from this project, of Python and NumPy."""
    files = imported_files(modules, root)
    names = [path.relative_to(root).as_posix() for path in files]
    return digest(platform.python_version(), np.__version__, *names, files=files)


@cache
def profile(profile: Profile) -> str:
    """A fingerprint of the numbers that a simulation takes from a profile, the law's tables included."""
    law = [repr(getattr(profile.law, field.name)) for field in fields(profile.law)]  # its own text leaves them out
    return digest(repr(replace(profile, provenance={}, max_context_tokens=None)), *law)


@cache
def cluster(config: ClusterConfig) -> str:
    """A fingerprint of a cluster, step times included, which its text leaves out."""
    profiles = (config.profile, *(config.node_profiles or ()))
    return digest(repr(config), *map(profile, profiles))


def policy(spec: PolicySpec) -> str:
    """A fingerprint of a policy: its name, the file it is made of, and the code that reads that file."""
    files = [spec.source] if spec.source is not None and spec.source.is_file() else []
    if spec.path is None:
        return digest(f"{spec.label} {spec.text}", files=files)
    return digest(
        " ".join([spec.label, *filter(None, [spec.params])]),
        code(LOADERS[spec.path.suffix].partition(":")[0]),
        files=files,
    )


def imported_files(modules: Iterable[str], root: Path) -> list[Path]:
    """Files of `modules` and of everything that they import from this project, directly or not, sorted.

    Imports inside functions count. Imports for type checking only do not, because they never run. Raises
    ModuleNotFoundError (one of `modules` has no file).
    """
    files: dict[str, Path | None] = {}
    waiting = list(modules)
    if missing := [name for name in waiting if _file(name, root) is None]:
        raise ModuleNotFoundError(f"no module {missing[0]} in {root}")
    while waiting:
        name = waiting.pop()
        if name not in files:
            path = files[name] = _file(name, root)
            parent = name.rpartition(".")[0]
            waiting += [parent] if parent else []  # Python imports the packages around a module, too
            waiting += _imports(name, path) if path is not None else []
    return sorted(path for path in files.values() if path is not None)


def _file(name: str, root: Path) -> Path | None:
    """The file of a module or package of this project; None for another project's, and for a name inside a module."""
    parts = name.split(".")
    if parts[0] not in _PACKAGES:
        return None
    base = root.joinpath(*parts)
    return next((path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file()), None)


def _imports(name: str, path: Path) -> Iterator[str]:
    """Names that a file imports; `from x import y` gives x and x.y, which may be a module or not."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in _running(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Every node below `node` but the bodies of `if TYPE_CHECKING:`."""
    children = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and ast.unparse(node.test).removeprefix("typing.") == "TYPE_CHECKING":
        children = iter(node.orelse)
    for child in children:
        yield child
        yield from _running(child)
