"""Digests that tell whether code and files are still the same."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import hardware_profiles

_ROOT = Path(hardware_profiles.__file__).parent.parent
_SIMULATION = ("hardware_profiles", "envs", "policies", "agents")
_MEASUREMENT = ("metrics.py", "tbt.py", "cells.py", "knee.py")


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
