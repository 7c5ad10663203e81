"""Digests that tell whether code and files are still the same."""

import hashlib
import importlib.util
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path

import hardware_profiles
import policies
from envs.cluster import ClusterConfig
from experiments.imports import imported_files
from hardware_profiles import Profile

_ROOT = Path(hardware_profiles.__file__).parent.parent
_MAKES_RESULTS = (
    "experiments.cells",
    "experiments.knee",
    "experiments.tuning",
    "experiments.sources",
    "envs.traces",
)
"""Modules that make the results that commands keep: runs, knees, tuned knobs, and the requests of all of these."""


def digest(*parts: str, files: Iterable[Path] = ()) -> str:
    """A short fingerprint of some text and of the content of some files."""
    state = hashlib.sha256()
    for part in parts:
        state.update(part.encode() + b"\0")
    for path in files:
        state.update(path.read_bytes() + b"\0")
    return state.hexdigest()[:16]


def simulation_digest(root: Path = _ROOT) -> str:
    """A fingerprint of the code that kept results come from: the modules that make them, and all that these import.

    Commands, reports, figures and training are not among them, so a change there keeps finished runs.

    Args:
        root: the folder that holds the project's packages.
    """
    files = imported_files(_MAKES_RESULTS, root)
    return digest(*(path.relative_to(root).as_posix() for path in files), files=files)


def policy_files(names: Iterable[str]) -> list[Path]:
    """Files from outside the project that policies are made of: the trained ones, and modules of one's own."""
    found = []
    for name in names:
        found.append(policies.trained_path(name) or Path())
        module, colon, _ = name.partition(":")
        if colon and "=" not in module and (spec := importlib.util.find_spec(module)) and spec.origin:
            found.append(Path(spec.origin))
    return [path for path in found if path.is_file()]


def profile_digest(profile: Profile) -> str:
    """A fingerprint of the numbers that a simulation takes from a profile, the law's tables included."""
    law = [repr(getattr(profile.law, field.name)) for field in fields(profile.law)]  # its own text leaves them out
    return digest(repr(replace(profile, provenance={})), *law)


def config_digest(config: ClusterConfig) -> str:
    """A fingerprint of a cluster, step times included, which its text leaves out."""
    profiles = (config.profile, *(config.node_profiles or ()))
    return digest(repr(config), *map(profile_digest, profiles))
