"""Rules that place a request, by name."""

from policies.registry import bounds, grid, knobs, names
from policies.spec import PolicySpec, make

__all__ = ["PolicySpec", "bounds", "grid", "knobs", "make", "names"]
