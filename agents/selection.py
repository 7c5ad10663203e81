"""Algorithm selection (Rice 1976): which of several policies places requests, by predicted regret.

The members of a portfolio are a trained network and rules. A small model predicts the regret of each member from a
context, which describes the traffic and the cluster but not where requests were placed. The member with the least
predicted regret places the requests. `agents.selection_fit` fits the model.
"""

from collections.abc import Mapping, Sequence
from math import inf
from typing import NamedTuple

import numpy as np

from envs.choices import Choices, ChoiceSet
from envs.cluster import Placement, Policy, RequestView, RouterView
from envs.cluster.router_counters import STEADY_S
from envs.features import GLOBAL_FEATURES, REQUEST_FEATURES
from envs.observation import encode

NETWORK = "network"
"""The name of the trained network among the members; the others are rules."""

CONTEXT_FEATURES = (
    "ttft_slo_s",
    "tbt_slo_s",
    "tbt_slo_over_decode_step",
    "finished_output_tokens",
    "prefill_share_of_nodes",
    "steady_requests_per_node",
    "steady_prompt_tokens",
    "prefill_load",
    "decode_load",
    "steady_decode_step_over_tbt_slo",
    "steady_shared_step_over_tbt_slo",
    "shared_prefill_load",
    "deflected_prefill_load",
)
"""Features of an observation that depend little on earlier placements."""
CONTEXT = (*CONTEXT_FEATURES, "rates_known", "output_known")
"""The parts of a context. The last two are from 0, at the start of a run, to 1: how far the mean rates and the mean
output length can be relied on. Short outputs finish first, so that mean is too low at the start."""

PERIOD_S = 0.5
"""Time between two selections, seconds of the cluster's clock."""
_AVERAGED = 20  # observations in the running mean of the context: ten seconds
_HYSTERESIS = 0.01
_FINISHED = 100.0  # finished requests whose mean output length counts as known

_NAMES = tuple(feature.name for feature in (*REQUEST_FEATURES, *GLOBAL_FEATURES))
_COLUMNS = np.array([_NAMES.index(name) for name in CONTEXT_FEATURES])


class Context:
    """The running mean of CONTEXT over observations that are PERIOD_S apart.

    Attributes:
        mean: (K,) float64.
        seen: observations so far, at most _AVERAGED.
    """

    def __init__(self) -> None:
        self._next_s = -inf
        self.seen = 0
        self.mean = np.zeros(len(CONTEXT))

    def is_due(self, now_s: float) -> bool:
        """Whether `add` should get an observation."""
        return now_s >= self._next_s

    def add(self, view: RouterView, observation: Mapping[str, np.ndarray]) -> None:
        """Take an observation of the cluster into account."""
        self._next_s = view.now_s + PERIOD_S
        self.seen = min(self.seen + 1, _AVERAGED)
        counters = view.counters
        known = (counters.steady_span_s / STEADY_S, counters.finished_requests / _FINISHED)
        features = np.concatenate((observation["request"], observation["global"]))[_COLUMNS]
        self.mean += (np.concatenate((features, np.minimum(known, 1.0))) - self.mean) / self.seen


class RegretModel(NamedTuple):
    """Networks with two hidden layers that predict the square root of each member's regret; their mean counts.

    Attributes:
        members: NETWORK and names of rules.
        weights: "low" and "high" (K,), the range of contexts in training, to which contexts are clipped; of N networks
            with H hidden units "first.weight" (N, H, K), "first.bias" (N, H), "second.weight" (N, H, H), "second.bias"
            (N, H), "regret.weight" (N, M, H), "regret.bias" (N, M).
    """

    members: tuple[str, ...]
    weights: Mapping[str, np.ndarray]

    @staticmethod
    def shapes(networks: int, hidden: int, members: int) -> dict[str, tuple[int, ...]]:
        """Shape of every weight, by name."""
        size = len(CONTEXT)
        return {
            "low": (size,),
            "high": (size,),
            "first.weight": (networks, hidden, size),
            "first.bias": (networks, hidden),
            "second.weight": (networks, hidden, hidden),
            "second.bias": (networks, hidden),
            "regret.weight": (networks, members, hidden),
            "regret.bias": (networks, members),
        }

    def scaled(self, contexts: np.ndarray) -> np.ndarray:
        """Contexts (..., K), clipped to the range in training and mapped to [-1, 1]."""
        low, high = self.weights["low"], self.weights["high"]
        found: np.ndarray = 2.0 * (np.clip(contexts, low, high) - low) / np.maximum(high - low, 1e-6) - 1.0
        return found

    def predict(self, context: np.ndarray) -> np.ndarray:
        """The predicted regrets (M,) in a context (K,); below 0 where the predicted root is."""
        w = self.weights
        hidden = np.tanh(w["first.weight"] @ self.scaled(context) + w["first.bias"])
        hidden = np.tanh((w["second.weight"] @ hidden[:, :, None])[:, :, 0] + w["second.bias"])
        roots = (w["regret.weight"] @ hidden[:, :, None])[:, :, 0] + w["regret.bias"]
        root: np.ndarray = roots.mean(axis=0)
        found: np.ndarray = root * np.abs(root)
        return found


class Selection:
    """The member that places the requests now.

    Attributes:
        current: its index.

    Args:
        model: predicts the regrets.
        allowed: the members that may be selected; all others are ignored.
    """

    def __init__(self, model: RegretModel, allowed: Sequence[int]) -> None:
        self._model = model
        self._context = Context()
        self._last_s = -inf
        self._barred = np.full(len(model.members), inf)
        self._barred[list(allowed)] = 0.0
        self.current = allowed[0]

    def is_due(self, now_s: float) -> bool:
        """Whether `update` should get an observation. A clock that runs backwards is that of a new run."""
        if now_s < self._last_s:
            self._context = Context()
        self._last_s = now_s
        return self._context.is_due(now_s)

    def update(self, view: RouterView, observation: Mapping[str, np.ndarray]) -> None:
        """Select again, on an observation; another member must have a regret that is smaller by _HYSTERESIS."""
        self._context.add(view, observation)
        predicted = self._model.predict(self._context.mean) + self._barred
        best = int(predicted.argmin())
        if self._context.seen == 1 or predicted[self.current] > predicted[best] + _HYSTERESIS:
            self.current = best


class WatchedContext:
    """A policy that notes the contexts of its run.

    Attributes:
        name: the policy's name.
        contexts: each (K,), PERIOD_S apart.

    Args:
        policy: places the requests.
        choice_set: the choices of the observations.
    """

    def __init__(self, policy: Policy, choice_set: ChoiceSet) -> None:
        self.name = policy.name
        self._policy = policy
        self._choice_set: ChoiceSet = choice_set
        self._context = Context()
        self.contexts: list[np.ndarray] = []

    def place(self, request: RequestView, view: RouterView) -> Placement | None:
        """Place one request."""
        if self._context.is_due(view.now_s):
            self._context.add(view, encode(Choices.of(request, view, self._choice_set)))
            self.contexts.append(self._context.mean.copy())
        return self._policy.place(request, view)
