"""The context of a selection: means of what requests and clusters are like."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import policies
from agents.context import CONTEXT, PERIOD_S, SPREAD_FEATURES, Context, WatchedContext
from envs.choices import Choices
from envs.cluster import ClusterConfig, RequestView, RouterView, simulate
from envs.features import GLOBAL_FEATURES, REQUEST_FEATURES, TRAFFIC_FEATURES
from envs.generators import generate
from envs.observation import encode
from envs.workload import Workload
from hardware_profiles import load_profile

WORKLOAD = generate("burst", rate_rps=8.0, requests=120, seed=1)
CONFIG = ClusterConfig(load_profile("a100-qwen3-8b"))


class Observed:
    """Places like `static`, and notes the context and the observations whose mean it is."""

    name = "observed"

    def __init__(self) -> None:
        self.context = Context()
        self.observations: list[dict[str, float]] = []

    def place(self, request: RequestView, view: RouterView) -> None:
        if self.context.is_due(view.now_s):
            self.context.add(request, view)
            observation = encode(Choices.of(request, view, "pairs"))
            names = [feature.name for feature in (*REQUEST_FEATURES, *GLOBAL_FEATURES)]
            values = (*observation["request"], *observation["global"])
            self.observations.append(dict(zip(names, values, strict=True)))


def test_the_context_is_the_mean_of_features_of_observations() -> None:
    observed = Observed()
    simulate(WORKLOAD, observed, CONFIG)
    assert len(observed.observations) > 10
    for feature, mean in zip(TRAFFIC_FEATURES, observed.context.mean, strict=False):
        assert mean == pytest.approx(np.mean([one[feature.name] for one in observed.observations]), rel=1e-6)


def test_contexts_of_a_run_are_a_period_apart_and_watching_changes_nothing() -> None:
    watched = WatchedContext(policies.make("static"))
    assert simulate(WORKLOAD, watched, CONFIG).records == simulate(WORKLOAD, policies.make("static"), CONFIG).records
    span_s = float(np.ptp(WORKLOAD.arrival_s))
    assert 0.3 * span_s / PERIOD_S < len(watched.contexts) <= span_s / PERIOD_S + 1
    assert all((one >= 0.0).all() and (one <= 1.0).all() for one in watched.contexts)
    assert all((before != after).any() for before, after in pairwise(watched.contexts))
    known = np.array(watched.contexts)[:, CONTEXT.index("rates_known")]
    assert (np.diff(known) > 0.0).all()


def _noted(workload: Workload, config: ClusterConfig = CONFIG) -> np.ndarray:
    """(N, K) the single values of the contexts of a run, as long as their mean is over all of them."""
    watched = WatchedContext(policies.make("static"))
    simulate(workload, watched, config)
    means = np.array(watched.contexts[:100])
    return np.diff(means * np.arange(1, len(means) + 1)[:, None], axis=0, prepend=0.0)


def _part(noted: np.ndarray, name: str) -> np.ndarray:
    """The values of a part, before they were squashed."""
    feature = next(one for one in SPREAD_FEATURES if one.name == name)
    squashed = noted[:, CONTEXT.index(name)]
    found: np.ndarray = feature.reference * np.expm1(squashed / (1.0 - squashed))
    return found


def test_steady_requests_are_recent_requests() -> None:
    # One request of 500 tokens every 0.6 s: the sum of exp(-0.6 i / T) over i from 1 on, over T.
    arrivals = 0.6 * np.arange(200)
    noted = _noted(Workload.of(arrivals, np.full(200, 500), np.full(200, 20), label="even"))
    assert _part(noted, "prompt_tokens") == pytest.approx(500.0, rel=1e-4)
    for name, time_s in (("recent_over_mean_1s", 1.0), ("recent_over_mean_10s", 10.0)):
        expected = 0.6 / time_s / np.expm1(0.6 / time_s)
        assert _part(noted, name)[-1] == pytest.approx(expected, rel=0.02)


def test_bursts_are_above_the_mean_and_a_pause_is_below() -> None:
    burst = np.concatenate([60.0 * k + 0.1 * np.arange(40) for k in range(4)])
    noted = _noted(Workload.of(burst, np.full(160, 500), np.full(160, 20), label="bursts"))
    recent = _part(noted, "recent_over_mean_10s")
    assert recent.max() > 3.0
    first = [8 * k for k in range(1, 4)]  # of a burst; its 40 requests are 8 decisions
    assert (recent[first] < 0.05).all()


def test_a_context_knows_the_nodes_and_their_speeds() -> None:
    workload = WORKLOAD.head(20)
    for shape, speeds, nodes, ratio in (("2P2D", (1.0, 1.0, 0.5, 1.0), 4, 0.5), ("3P4D", None, 7, 1.0)):
        noted = _noted(workload, replace(CONFIG, shape=shape, node_speeds=speeds))
        assert _part(noted, "live_nodes") == pytest.approx(nodes)
        assert _part(noted, "slowest_over_fastest") == pytest.approx(ratio)
