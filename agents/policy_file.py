"""Policy files: the actor's weights and metadata (`agents.array_file`).

A file has one array per parameter of the actor and "metadata", a JSON text with the observation layout that the policy
was trained with and the arguments of the training.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from agents.array_file import read_arrays, write_arrays
from agents.context import CONTEXT
from agents.layout import FeatureSizes, Layout
from agents.seen import SeenRange
from agents.selection import RegretModel
from envs.choice_cost import TERMS
from hardware_profiles.errors import InputError

if TYPE_CHECKING:  # only training needs torch
    from agents.placement_network import PlacementNetwork

FORMAT = "prefill-placement-policy/6"
"""Changes whenever older readers cannot use new files."""
_SEEN, _REGRET, _COSTS = "seen.", "regret.", "cost.weights"


class PolicyFile(NamedTuple):
    """The contents of a policy file.

    Attributes:
        weights: the actor's parameters by name, float32.
        layout: layout of the observations.
        training: arguments and results of the training, as plain values.
        seen: range of the inputs in training; None if the file has none.
        regret: predicts the regrets of the members; None if the network places all requests.
        costs: weights of `envs.choice_cost` by name: members that use the choice with the least cost.
    """

    weights: Mapping[str, np.ndarray]
    layout: Layout
    training: Mapping[str, Any]
    seen: SeenRange | None = None
    regret: RegretModel | None = None
    costs: Mapping[str, np.ndarray] = MappingProxyType({})


def save_policy(
    path: Path,
    network: "PlacementNetwork",
    layout: Layout,
    training: Mapping[str, Any],
    seen: SeenRange | None = None,
) -> None:
    """Write the actor of `network` as a policy file, atomically.

    Args:
        path: file to write or replace, usually named policy.npz.
        network: the trained network.
        layout: layout of the observations that it was trained with.
        training: arguments and results to store in the file; any JSON values.
        seen: range of the inputs in training.
    """
    if layout.sizes != network.sizes:
        raise ValueError(f"the layout names {layout.sizes}, the network takes {network.sizes}")
    weights = {name: tensor.numpy(force=True) for name, tensor in network.actor.state_dict().items()}
    write_policy(path, PolicyFile(weights, layout, training, seen))


def write_policy(path: Path, file: PolicyFile) -> None:
    """Write a policy file, atomically."""
    metadata: dict[str, Any] = {"format": FORMAT, "layout": file.layout._asdict(), "training": file.training}
    arrays = dict(file.weights)
    if file.seen is not None:
        arrays |= {f"{_SEEN}{name}": array.astype(np.float32) for name, array in file.seen._asdict().items()}
    if file.regret is not None:
        metadata["portfolio"] = {"members": file.regret.members, "context": CONTEXT}
        arrays |= {f"{_REGRET}{name}": array for name, array in file.regret.weights.items()}
    if file.costs:
        metadata["costs"] = {"names": list(file.costs), "terms": TERMS}
        arrays[_COSTS] = np.stack(list(file.costs.values())).astype(np.float32)
    write_arrays(path, metadata, arrays)


def load_policy(path: Path) -> PolicyFile:
    """Read a policy file.

    Raises:
        InputError: the file is missing, damaged or not a policy file; the message names the file and the reason.
    """
    try:
        metadata, arrays = read_arrays(path)
        if metadata["format"] != FORMAT:
            raise InputError(f"{path}: format {metadata['format']!r}, but this version reads {FORMAT!r}")
        layout = _layout(metadata["layout"])
        training = metadata["training"]
        portfolio = metadata.get("portfolio", {"members": [], "context": list(CONTEXT)})
        members = tuple(str(name) for name in portfolio["members"])
        context = [str(name) for name in portfolio["context"]]
        if context != list(CONTEXT[: len(context)]):
            raise InputError(f"{path}: its portfolio is selected by other features than this version has; fit it again")
        costs = metadata.get("costs", {"names": [], "terms": list(TERMS)})
        terms = [str(name) for name in costs["terms"]]
        if unknown := set(terms) - set(TERMS):
            raise InputError(f"{path}: its costs have a term {min(unknown)!r} that this version does not have")
        of_costs = tuple(str(name) for name in costs["names"])
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such policy file") from error
    except Exception as error:  # the readers of zip, NumPy and JSON raise exceptions of many types
        raise InputError(f"{path}: not a policy file, or a damaged one ({_one_line(error)})") from error
    weights = {name: array for name, array in arrays.items() if not name.startswith((_SEEN, _REGRET, _COSTS))}
    _check_weights(path, weights, weight_shapes(layout.sizes, _width(weights, "summary.bias")))
    size = sum(layout.sizes)
    seen = _part(path, arrays, _SEEN, dict.fromkeys(SeenRange._fields, (size,)))
    first = arrays.get(f"{_REGRET}first.bias")
    networks, hidden = first.shape if first is not None and first.ndim == 2 else (0, 0)
    misses = f"{_REGRET}mean" in arrays
    regret = _part(path, arrays, _REGRET, RegretModel.shapes(networks, hidden, len(members), len(context), misses))
    if members and not regret:
        raise InputError(f"{path}: it names a portfolio, but has no weights to select a member")
    cost = _part(path, arrays, _COSTS, {"": (len(of_costs), len(terms))})
    if of_costs and not cost:
        raise InputError(f"{path}: it names costs, but has no weights of them")
    return PolicyFile(
        weights,
        layout,
        training,
        SeenRange(**seen) if seen else None,
        RegretModel(members, _of_all_parts(regret)) if regret else None,
        dict(zip(of_costs, _of_all_terms(cost[""], terms), strict=True)) if cost else {},
    )


def _of_all_parts(regret: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights of a model for all parts of CONTEXT; 0 for those that were added after the file was written."""
    missing = len(CONTEXT) - len(regret["low"])
    return {
        name: np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, missing)])
        if name in ("low", "high", "first.weight")
        else array
        for name, array in regret.items()
    }


def _of_all_terms(weights: np.ndarray, terms: Sequence[str]) -> np.ndarray:
    """Weights (N, T) of all TERMS; 0 for those that were added after the file was written."""
    found = np.zeros((len(weights), len(TERMS)), np.float32)
    found[:, [TERMS.index(name) for name in terms]] = weights
    return found


def _part(
    path: Path, arrays: Mapping[str, np.ndarray], prefix: str, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """The arrays whose names begin with `prefix`, without it; empty if there are none."""
    found = {name: array for name, array in arrays.items() if name.startswith(prefix)}
    if found:
        _check_weights(path, found, {f"{prefix}{name}": shape for name, shape in shapes.items()})
    return {name.removeprefix(prefix): array for name, array in found.items()}


def _layout(values: Mapping[str, Any]) -> Layout:
    names = {key: tuple(str(name) for name in values[key]) for key in ("request", "global_", "choices")}
    return Layout(version=int(values["version"]), choice_set=str(values["choice_set"]), **names)


def _width(arrays: Mapping[str, np.ndarray], bias: str) -> int:
    """The width of a layer; 0 without a usable bias."""
    found = arrays.get(bias)
    return len(found) if found is not None and found.ndim == 1 else 0


def _check_weights(path: Path, weights: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise InputError unless the weights are finite float32 of these shapes."""
    for name in sorted(shapes.keys() | weights.keys()):
        found = weights[name].shape if name in weights else None
        if found != shapes.get(name):
            raise InputError(f"{path}: weight {name!r} has shape {found}, expected {shapes.get(name)}")
        if weights[name].dtype != np.float32 or not np.isfinite(weights[name]).all():
            raise InputError(f"{path}: weight {name!r} is not finite float32")


def weight_shapes(sizes: FeatureSizes, hidden: int) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter of an Actor, by name."""
    summary = sizes.request + sizes.global_ + 2 * sizes.choice
    return {
        "choice.weight": (hidden, sizes.choice),
        "summary.weight": (hidden, summary),
        "summary.bias": (hidden,),
        "context.weight": (hidden, summary),
        "context.bias": (hidden,),
        "gate.weight": (hidden, hidden),
        "second.weight": (hidden, hidden),
        "second.bias": (hidden,),
        "score.weight": (1, hidden),
        "skip.weight": (1, sizes.choice),
    }


def _one_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
