"""Options of the cluster on a command line: NAME=VALUE for fields of ClusterConfig that hold a number or a truth."""

from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Any

from envs.cluster import ClusterConfig
from hardware_profiles import InputError

_ELSEWHERE = {"report_age_s"}  # has an option of its own

OPTIONS: dict[str, type] = {
    field.name: type(field.default)
    for field in fields(ClusterConfig)
    if field.name not in _ELSEWHERE and field.default is not MISSING and type(field.default) in (bool, int, float)
}


def cluster_options(given: Sequence[str]) -> dict[str, Any]:
    """Read NAME=VALUE items.

    Raises:
        InputError: no such option, or a value of another kind; one line that names it.
    """
    found: dict[str, Any] = {}
    for item in given:
        name, _, text = item.partition("=")
        if name not in OPTIONS:
            raise InputError(f"no cluster option {name!r}; known: {', '.join(OPTIONS)}")
        kind = OPTIONS[name]
        try:
            found[name] = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
        except (KeyError, ValueError):
            expected = "true or false" if kind is bool else f"a number ({kind.__name__})"
            raise InputError(f"cluster option {name}: must be {expected}, not {text!r}") from None
    return found
