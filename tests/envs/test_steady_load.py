"""The fluid model of a cluster whose nodes differ in speed; tests/envs/test_observation.py has its closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.cluster import ClusterConfig, Topology
from envs.cluster.request import Request
from envs.steady_load import SteadyLoad
from tests.policies.states import HandMade
from tests.toy import toy_profile

LOADS = (
    "prefill_load",
    "decode_load",
    "decode_step_s",
    "shared_decode_step_s",
    "shared_prefill_load",
    "deflected_prefill_load",
)
TRAFFIC = st.lists(st.tuples(st.floats(0.0, 60.0), st.integers(1, 4000)), min_size=1, max_size=60)
SPEEDS = st.lists(st.floats(0.3, 1.5), min_size=4, max_size=4)


def loads(speeds: list[float], shape: str, traffic: list[tuple[float, int]], output_tokens: int) -> dict[str, float]:
    """The fluid model after these arrivals, of requests with these outputs."""
    view = HandMade(shape)
    view.topology = Topology(ClusterConfig(toy_profile(), shape=shape, node_speeds=tuple(speeds)))
    for arrival_s, prompt_tokens in sorted(traffic):
        view.counters.arrived(Request(0, arrival_s, prompt_tokens, 1, 1.0, 0.1))
    view.counters.finished_requests, view.counters.finished_output_tokens = 1.0, float(output_tokens)
    found = SteadyLoad(view, 0.1)
    return {name: getattr(found, name) for name in LOADS}


@settings(max_examples=60)
@given(SPEEDS, st.integers(1, 3), st.floats(0.3, 1.0), TRAFFIC, st.integers(1, 2000))
def test_a_slower_node_lowers_no_load(
    speeds: list[float], node: int, factor: float, traffic: list[tuple[float, int]], output_tokens: int
) -> None:
    before = loads(speeds, "2P2D", traffic, output_tokens)
    after = loads([v * factor if i == node else v for i, v in enumerate(speeds)], "2P2D", traffic, output_tokens)
    for name in LOADS[:4]:  # the tokens that fit into a step are whole ones, which need not be monotone
        assert after[name] >= before[name] * (1 - 1e-9), name


@settings(max_examples=30)
@given(TRAFFIC, st.integers(1, 2000))
def test_two_nodes_of_half_the_speed_are_one(traffic: list[tuple[float, int]], output_tokens: int) -> None:
    whole, halves = (
        loads(speeds, shape, traffic, output_tokens)
        for speeds, shape in (([1.0, 1.0, 1.0, 1.0], "2P2D"), ([1.0, 0.5, 0.5, 1.0, 0.5, 0.5], "3P3D"))
    )
    assert halves["prefill_load"] == pytest.approx(whole["prefill_load"])
    assert halves["decode_load"] == pytest.approx(whole["decode_load"])
    assert halves["decode_step_s"] == pytest.approx(2 * whole["decode_step_s"])  # of the slowest node


@settings(max_examples=30)
@given(st.floats(0.5, 2.0), TRAFFIC, st.integers(1, 2000))
def test_only_speeds_relative_to_the_first_node_are_shares_of_the_work(
    speed: float, traffic: list[tuple[float, int]], output_tokens: int
) -> None:
    alike = loads([speed] * 4, "2P2D", traffic, output_tokens)
    slower = loads([speed, speed, speed, 0.5 * speed], "2P2D", traffic, output_tokens)
    assert slower["decode_load"] == pytest.approx(alike["decode_load"] * 2 / 1.5)
    assert slower["prefill_load"] == alike["prefill_load"]
    assert np.isfinite(list(slower.values())).all()
