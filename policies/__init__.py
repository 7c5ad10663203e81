"""Rules that place a request, by name."""

from policies.registry import (
    PolicySpec,
    bounds,
    clairvoyant,
    grid,
    knobs,
    label,
    make,
    names,
    register_loader,
    trained_path,
)

__all__ = [
    "PolicySpec",
    "bounds",
    "clairvoyant",
    "grid",
    "knobs",
    "label",
    "make",
    "names",
    "register_loader",
    "trained_path",
]
