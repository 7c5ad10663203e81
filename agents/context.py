"""The context of a selection: the traffic and the cluster, but not where requests were placed."""

from collections.abc import Mapping
from math import inf

import numpy as np

from envs.choices import Choices, ChoiceSet
from envs.cluster import Placement, Policy, RequestView, RouterView
from envs.cluster.router_counters import STEADY_S
from envs.features import GLOBAL_FEATURES, REQUEST_FEATURES
from envs.observation import encode

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
_AVERAGED = 120
"""Observations in the running mean of the context: a minute of them. The rates of a minute of requests are off by
several percent, which near saturation makes another member look better, and a change of members costs TTFT."""
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
