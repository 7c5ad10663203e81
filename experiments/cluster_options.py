"""Options of the cluster on a command line: NAME=VALUE for fields of ClusterConfig.

A number or a truth as it is; a value for each node as node_speeds=1,1,1,0.6; what goes wrong as
disturbances=AT_S:KIND:NODES[:FACTOR], several separated by commas, NODES an index, prefill, decode or all. Routers are
not told of disturbances, so one at 0 s is an error in what they believe: with 0:speed:prefill:0.8 prefill nodes are a
fifth slower than policies predict, with 0:link:all:0.8 links carry a fifth less.
"""

from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from typing import Any, cast

from envs.cluster import ClusterConfig, parse_shape
from envs.cluster import Disturbance
from envs.cluster.disturbance import Kind
from hardware_profiles import InputError, load_profile

_ELSEWHERE = {"report_age_s"}  # has an option of its own

OPTIONS: dict[str, type] = {
    field.name: type(field.default)
    for field in fields(ClusterConfig)
    if field.name not in _ELSEWHERE and field.default is not MISSING and type(field.default) in (bool, int, float)
}
PER_NODE: dict[str, Callable[[str], object]] = {
    "hosts": int,
    "nics": int,
    "node_profiles": load_profile,
    "node_speeds": float,
}


def cluster_options(given: Sequence[str], shape: str) -> dict[str, Any]:
    """Read NAME=VALUE items.

    Args:
        given: the items.
        shape: of the cluster, such as "2P2D".

    Raises:
        InputError: no such option, or a value of another kind; one line that names it.
    """
    found: dict[str, Any] = {}
    for item in given:
        name, _, text = item.partition("=")
        if name in PER_NODE:
            found[name] = _per_node(name, text)
        elif name == "disturbances":
            found[name] = tuple([one for part in text.split(",") for one in _disturbances(part, shape)])
        elif name in OPTIONS:
            found[name] = _plain(name, text)
        else:
            known = ", ".join([*OPTIONS, *PER_NODE, "disturbances"])
            raise InputError(f"no cluster option {name!r}; known: {known}")
    return found


def _plain(name: str, text: str) -> bool | int | float:
    kind = OPTIONS[name]
    try:
        value: bool | int | float = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        expected = "true or false" if kind is bool else f"a number ({kind.__name__})"
        raise InputError(f"cluster option {name}: must be {expected}, not {text!r}") from None
    return value


def _per_node(name: str, text: str) -> tuple[object, ...]:
    try:
        return tuple([PER_NODE[name](part) for part in text.split(",")])
    except InputError as error:
        raise InputError(f"cluster option {name}: {error}") from None
    except ValueError:
        raise InputError(f"cluster option {name}: must be a number for each node, as 1,1,2,2; not {text!r}") from None


def _disturbances(text: str, shape: str) -> list[Disturbance]:
    """One part of the option, for each node it names."""
    prefill, decode = parse_shape(shape)
    groups = {
        "prefill": range(prefill),
        "decode": range(prefill, prefill + decode),
        "all": range(prefill + decode),
    }
    try:
        at_s, kind, nodes, *factor = text.split(":")
        named = groups[nodes] if nodes in groups else [int(nodes)]
        return [Disturbance(float(at_s), cast(Kind, kind), node, *map(float, factor)) for node in named]
    except InputError as error:
        raise InputError(f"cluster option disturbances: {error}") from None
    except (TypeError, ValueError):
        example = "AT_S:KIND:NODES[:FACTOR], such as 0:speed:prefill:0.8"
        raise InputError(f"cluster option disturbances: must be {example}; not {text!r}") from None
