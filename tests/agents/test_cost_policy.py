"""The policy with the least cost, its special cases in whole runs, and the search for its weights."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import policies
from agents.cost_policy import CostPolicy
from agents.evolution import CLOSED, STARTS, search, tail_cost, weights_of
from envs.choice_cost import TERMS
from envs.cluster import ClusterConfig, simulate
from envs.generators import generate
from envs.slos import Slos
from envs.workload import Workload
from hardware_profiles import load_profile

CONFIG = ClusterConfig(load_profile("a100-qwen3-8b"))
WORKLOAD = generate("burst", rate_rps=8.0, requests=150, seed=3)


@pytest.mark.parametrize("name", ["shortest-ttft:choices=pairs", "lmetric"])
def test_rules_that_are_special_cases_place_a_whole_run_alike(name: str) -> None:
    found = simulate(WORKLOAD, CostPolicy("cost", STARTS[name], leaves_room=False), CONFIG).records
    expected = simulate(WORKLOAD, policies.make(name), CONFIG).records
    assert [(one.prefill_node, one.decode_node) for one in found] == [
        (one.prefill_node, one.decode_node) for one in expected
    ]


def test_starts_keep_the_decodes_where_their_rules_do() -> None:
    for name in STARTS.keys() - {"shortest-ttft:choices=pairs", "lmetric"}:
        records = simulate(WORKLOAD, CostPolicy("cost", STARTS[name], leaves_room=False), CONFIG).records
        assert {one.decode_node for one in records} <= {2, 3}
        assert name != "disaggregated" or {one.prefill_node for one in records} <= {0, 1}


def test_weights_are_one_per_term() -> None:
    found = weights_of(ttft=2.0, backlog_x_same_node=-1.0)
    assert (found[0], found[TERMS.index("backlog_x_same_node")], np.abs(found).sum()) == (2.0, -1.0, 3.0)
    with pytest.raises(ValueError, match="cost: 3 weights, but there are"):
        CostPolicy("cost", np.zeros(3))


@settings(max_examples=10)
@given(st.floats(0.03, 0.2), st.floats(1.0, 3.0))
def test_stricter_slos_do_not_lower_the_tail_cost(tbt_s: float, factor: float) -> None:
    found = [
        tail_cost(generate("burst", rate_rps=8.0, requests=120, seed=1, slos=slos), policies.make("static"), CONFIG)
        for slos in (Slos.of(2.0 * factor, 0.1), Slos.of(2.0, 0.1), Slos.of(2.0 / factor, 0.1), Slos.of(1e-3, tbt_s))
    ]
    assert all(before <= after for before, after in pairwise(found))


def test_a_search_gains_on_its_start_is_repeatable_and_plays_new_workloads() -> None:
    numbers: list[int] = []

    @lru_cache(1)
    def workloads(number: int) -> Sequence[Workload]:
        numbers.append(number)
        return [generate("burst", rate_rps=rate, requests=80, seed=number) for rate in (6.0, 9.0)]

    first, second = (search(workloads, CONFIG, generations=2, seed=4) for _ in range(2))
    assert (first.weights == second.weights).all()
    assert (first.start, first.gain) == (second.start, second.gain)
    assert first.gain >= 0.0  # the start is one of those that are compared
    assert first.start in STARTS
    half = numbers[: len(numbers) // 2]
    assert len(set(half)) == len(half)


TIGHT = generate("burst", rate_rps=36.0, requests=1000, seed=950_001, slos=Slos.of(2.0, 0.03))
"""Requests with which a cost that fills nodes overfills one of four decode nodes."""


def test_costs_leave_room_for_requests_on_their_way() -> None:
    filling = weights_of(ttft=1.0, decodes=-1.0, decode_on_decode_node=-CLOSED)
    config = replace(CONFIG, shape="4P4D")
    found = [simulate(TIGHT, CostPolicy("cost", filling, leaves_room), config).records for leaves_room in (True, False)]
    late = [sum(one.tbt_max_s > 0.03 for one in records) for records in found]
    assert late[0] < 0.5 * late[1]


def test_the_guard_of_a_policy_leaves_room() -> None:
    config = replace(CONFIG, shape="4P4D")
    guarded, free = (simulate(TIGHT, policies.make(name), config) for name in ("ppo", "ppo:guard=false"))
    assert guarded.counters.misses < free.counters.misses
