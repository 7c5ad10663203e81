"""Linear policies: a conditional logit over the pairs of nodes, with signals that any router has.

McFadden's conditional logit (1974) says that the probability of a choice is proportional to the exponential of its
score. Fitting it to the choices of a policy gives the linear policy that imitates it best. `linear_scores` evaluates.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from agents.linear_scores import Node, Weights, best_pair, kind, signals
from envs.cluster import Placement, RequestView, RouterView
from hardware_profiles.errors import InputError
from hardware_profiles.files import replacing

FORMAT = "prefill-placement-linear/1"
COUNTS = ("role", "queued_prompts", "queued_prompt_tokens", "decode_requests", "decode_prompt_tokens")
"""The counts of a node, see `linear_scores.Node`."""
KINDS = ("disaggregated", "deflected", "aggregated", "other")
_RIDGE = 1e-4


def nodes_of(view: RouterView) -> list[Node]:
    """The counts of the nodes that are not lost, as `linear_scores` takes them."""
    counters, decodes = view.counters, view.topology.decodes
    return [
        {
            "role": float(decodes[node]),
            "queued_prompts": float(counters.queued_prompts[node]),
            "queued_prompt_tokens": float(counters.queued_prompt_tokens[node]),
            "decode_requests": float(counters.decode_requests[node]),
            "decode_prompt_tokens": float(counters.decode_prompt_tokens[node]),
        }
        for node in view.topology.live_nodes
    ]


class LinearPolicy:
    """A policy of a JSON file that `write_linear` wrote.

    Raises:
        InputError: the file cannot be used; the message names it.
    """

    def __init__(self, path: str | Path) -> None:
        self.name = Path(path).stem
        self.weights = read_linear(Path(path))

    def place(self, request: RequestView, view: RouterView) -> Placement:
        """Place one request."""
        live = view.topology.live_nodes
        pair = best_pair(self.weights, request.prompt_tokens, request.tbt_slo_s, nodes_of(view))
        return Placement(live[pair[0]], live[pair[1]])


class Choice(NamedTuple):
    """A placement to imitate: what was known, and the pair, as indices of `nodes`."""

    prompt_tokens: int
    tbt_slo_s: float
    nodes: Sequence[Node]
    pair: tuple[int, int]


def fit_linear(choices: Iterable[Choice]) -> Weights:
    """The conditional logit with the highest likelihood of these choices; all have the same number of nodes.

    Kinds that were never chosen get no weights, so they are never taken.
    """
    rows, taken, present = [], [], set()
    names: tuple[str, ...] = ()
    for choice in choices:
        count = range(len(choice.nodes))
        pairs = [(source, target) for source in count for target in count]
        kinds = [kind(*pair, choice.nodes) for pair in pairs]
        found = [signals(choice.prompt_tokens, choice.tbt_slo_s, *pair, choice.nodes) for pair in pairs]
        names = tuple(found[0])
        row = np.zeros((len(pairs), len(KINDS), len(names)), dtype=np.float32)
        for index, (of_kind, values) in enumerate(zip(kinds, found, strict=True)):
            row[index, KINDS.index(of_kind)] = list(values.values())
        rows.append(row.reshape(len(pairs), -1))
        taken.append(pairs.index(choice.pair))
        present.add(kinds[taken[-1]])
    features, chosen = np.stack(rows), np.array(taken)
    known = np.array([name in present for name in KINDS])
    allowed = np.repeat(known, len(names))
    closed = features[:, :, ~allowed].any(axis=2)  # "one" is 1 in every row of its kind
    features = features[:, :, allowed]

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        scores = features @ weights
        scores[closed] = -np.inf
        scores -= scores.max(axis=1, keepdims=True)
        share = np.exp(scores)
        total = share.sum(axis=1, keepdims=True)
        share /= total
        every = np.arange(len(chosen))
        value = float(np.mean(np.log(total[:, 0]) - scores[every, chosen])) + _RIDGE * float(weights @ weights)
        share[every, chosen] -= 1.0
        return value, np.einsum("npf,np->f", features, share) / len(chosen) + 2 * _RIDGE * weights

    found_weights = minimize(loss, np.zeros(features.shape[2]), jac=True, method="L-BFGS-B").x
    by_kind = found_weights.reshape(-1, len(names))
    of_present = [name for name, one in zip(KINDS, known, strict=True) if one]
    return {
        name: dict(zip(names, map(float, weights), strict=True))
        for name, weights in zip(of_present, by_kind, strict=True)
    }


def write_linear(path: Path, weights: Weights, about: str) -> None:
    """Write a policy as JSON."""
    with replacing(path) as temporary:
        contents = {"format": FORMAT, "about": about, "weights": weights}
        temporary.write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")


def read_linear(path: Path) -> Weights:
    """Read the weights of a file. Raises InputError (no such file, or none that `write_linear` wrote)."""
    if not path.exists():
        raise InputError(f"{path}: no such file")
    try:
        contents = json.loads(path.read_bytes())
        written: object = contents["format"]
        empty: Node = dict.fromkeys(COUNTS, 1.0)
        names = set(signals(1.0, 1.0, 0, 0, [empty]))
        weights = {
            str(of): {str(name): float(one) for name, one in own.items()} for of, own in contents["weights"].items()
        }
        fits = bool(weights) and set(weights) <= set(KINDS) and all(set(own) == names for own in weights.values())
        if written == FORMAT and not fits:
            raise ValueError("other kinds or signals")
    except (ValueError, LookupError, TypeError, AttributeError):
        raise InputError(f"{path}: not a file that experiments.export wrote, or a damaged one") from None
    if written != FORMAT:
        raise InputError(f"{path}: has format {written}, this version reads {FORMAT}")
    return weights


def agreement(weights: Weights, choices: Sequence[Choice]) -> tuple[float, float]:
    """Shares of choices in which the weights take the same pair, and a pair of the same kind."""
    pairs = [best_pair(weights, one.prompt_tokens, one.tbt_slo_s, one.nodes) for one in choices]
    kinds = [kind(*pair, one.nodes) == kind(*one.pair, one.nodes) for pair, one in zip(pairs, choices, strict=True)]
    return float(np.mean([pair == one.pair for pair, one in zip(pairs, choices, strict=True)])), float(np.mean(kinds))
