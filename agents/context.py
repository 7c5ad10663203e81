"""The context of a selection: the traffic and the cluster, but not where requests were placed."""

from math import exp, inf

import numpy as np

from envs.cluster import Placement, Policy, RequestView, RouterView
from envs.cluster.router_counters import RECENT_S, STEADY_S
from envs.features import TRAFFIC_FEATURES, Feature
from envs.observation import Scale, encode_traffic, squash

SPREAD_FEATURES = (
    Feature("prompt_tokens", 512.0, "prompt tokens; their mean shows long prompts less than `steady_prompt_tokens`"),
    Feature("recent_over_mean_1s", 1.0, "prompt tokens of the last second or so, over those of a mean second"),
    Feature("recent_over_mean_10s", 1.0, "the same for ten seconds"),
    Feature("live_nodes", 4.0, "nodes that are not lost: bursts are smaller on large clusters"),
    Feature("slowest_over_fastest", 0.5, "speed of the slowest live node over that of the fastest"),
)
"""How far single requests, seconds and nodes are from the means that TRAFFIC_FEATURES describe."""

CONTEXT = (
    *[feature.name for feature in TRAFFIC_FEATURES],
    "rates_known",
    "output_known",
    *[feature.name for feature in SPREAD_FEATURES],
)
"""The parts of a context. "rates_known" and "output_known" are from 0, at the start of a run, to 1: how far the mean
rates and the mean output length can be relied on. Short outputs finish first, so that mean is too low at the start."""

PERIOD_S = 0.5
"""Time between two selections, seconds of the cluster's clock."""
_AVERAGED = 120
"""Decisions in the running mean of the context: a minute of them. The rates of a minute of requests are off by
several percent, which near saturation makes another member look better, and a change of members costs TTFT."""
_FINISHED = 100.0  # finished requests whose mean output length counts as known
_SPREAD = Scale(SPREAD_FEATURES)


class Context:
    """The running mean of CONTEXT over decisions that are PERIOD_S apart.

    Attributes:
        mean: (K,) float64.
        seen: decisions so far, at most _AVERAGED.
    """

    def __init__(self) -> None:
        self._next_s = -inf
        self.seen = 0
        self.mean = np.zeros(len(CONTEXT))

    def is_due(self, now_s: float) -> bool:
        """Whether `add` should get a decision."""
        return now_s >= self._next_s

    def add(self, request: RequestView, view: RouterView) -> None:
        """Take the traffic at a decision into account."""
        self._next_s = view.now_s + PERIOD_S
        self.seen = min(self.seen + 1, _AVERAGED)
        counters = view.counters
        known = (counters.steady_span_s / STEADY_S, counters.finished_requests / _FINISHED)
        parts = (encode_traffic(request, view), np.minimum(known, 1.0), squash(_spread(request, view), _SPREAD))
        self.mean += (np.concatenate(parts) - self.mean) / self.seen


def _spread(request: RequestView, view: RouterView) -> np.ndarray:
    """The values of SPREAD_FEATURES at a decision."""
    counters, topology = view.counters, view.topology
    mean_per_s = max(1.0, counters.tokens_steady) / max(RECENT_S[0], counters.steady_span_s)
    ago_s = view.now_s - counters.last_arrival_s
    recent = [
        tokens * exp(-ago_s / time_s) / (time_s * mean_per_s)
        for tokens, time_s in zip(counters.recent_prompt_tokens, RECENT_S, strict=True)
    ]
    speeds = [topology.speeds[node] for node in topology.live_nodes]
    return np.array([request.prompt_tokens, *recent, len(speeds), min(speeds) / max(speeds)])


class WatchedContext:
    """A policy that notes the contexts of its run.

    Attributes:
        name: the policy's name.
        contexts: each (K,), PERIOD_S apart.

    Args:
        policy: places the requests.
    """

    def __init__(self, policy: Policy) -> None:
        self.name = policy.name
        self._policy = policy
        self._context = Context()
        self.contexts: list[np.ndarray] = []

    def place(self, request: RequestView, view: RouterView) -> Placement | None:
        """Place one request."""
        if self._context.is_due(view.now_s):
            self._context.add(request, view)
            self.contexts.append(self._context.mean.copy())
        return self._policy.place(request, view)
