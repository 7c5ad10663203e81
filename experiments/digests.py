"""Digests that tell whether code and files are still the same."""

import hashlib
import importlib.util
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path

import hardware_profiles
import policies
from envs.cluster import ClusterConfig
from hardware_profiles import Profile

_ROOT = Path(hardware_profiles.__file__).parent.parent
_SIMULATION = ("hardware_profiles", "envs", "policies", "agents")
_MEASUREMENT = ("metrics.py", "tbt.py", "tally.py", "request_rows.py", "cells.py", "knee.py", "cost.py")


def digest(*parts: str, files: Iterable[Path] = ()) -> str:
    """A short fingerprint of some text and of the content of some files."""
    state = hashlib.sha256()
    for part in parts:
        state.update(part.encode() + b"\0")
    for path in files:
        state.update(path.read_bytes() + b"\0")
    return state.hexdigest()[:16]


def simulation_digest() -> str:
    """A fingerprint of the code that a cell's numbers come from."""
    sources = [path for name in _SIMULATION for path in sorted((_ROOT / name).rglob("*.py"))]
    return digest(files=[*sources, *(Path(__file__).with_name(name) for name in _MEASUREMENT)])


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
