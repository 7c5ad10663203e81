"""Rules that place a request, by name."""

from policies.registry import label, make, names, register_loader, trained_path

__all__ = ["label", "make", "names", "register_loader", "trained_path"]
