"""Rules that place a request, by name."""

from policies.registry import make, names, register_loader

__all__ = ["make", "names", "register_loader"]
