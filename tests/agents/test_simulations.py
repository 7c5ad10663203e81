"""Simulations in another process are those of this one."""

import time

import numpy as np
import pytest

import policies
from agents.hindsight import Hindsight, LookBack
from agents.placement_policy import LearnedPolicy
from agents.simulations import Fresh, SimulationsElsewhere, SimulationsHere
from envs.cluster import ClusterConfig, Placement, Policy, RequestView, RouterView, simulate
from envs.generators import generate
from hardware_profiles import load_profile
from policies.registry import TRAINED

RULES = ("static", "kairos", "lmetric")
ROWS = generate("burst", rate_rps=8.0, requests=200, seed=1).rows()


def member(number: int) -> Policy:
    return policies.make(RULES[number])


def maker() -> Fresh:
    return member


def wanted(*members: int) -> LookBack:
    return LookBack([ROWS, ROWS[:100]], members, ClusterConfig(load_profile("a100-qwen3-8b")), frozenset({3}))


class CaughtUp:
    """A learned policy that does what it put off after each decision, as a live router lets it."""

    def __init__(self, policy: LearnedPolicy) -> None:
        self.name = policy.name
        self.policy = policy

    def place(self, request: RequestView, view: RouterView) -> Placement:
        placement = self.policy.place(request, view)
        self.policy.catch_up()
        return placement


def equal(found: list[Hindsight], other: list[Hindsight]) -> bool:
    return all(
        np.array_equal(one.ttft_s, two.ttft_s) and np.array_equal(one.missed, two.missed)
        for one, two in zip(found, other, strict=True)
    )


def test_results_are_there_once_the_simulated_time_has_passed() -> None:
    here = SimulationsHere(member)
    assert here.take(1e9) is None
    here.start(wanted(0, 1), 10.0)
    assert wanted(0, 1).requests == 2 * 300
    assert here.take(10.0) is None
    found = here.take(10.1)
    assert found is not None
    assert [one.ttft_s.shape for one in found] == [(2, 200), (2, 100)]
    assert here.take(1e9) is None


@pytest.mark.slow
def test_another_process_finds_the_same() -> None:
    elsewhere = SimulationsElsewhere(maker)
    try:
        elsewhere.start(wanted(2, 0), 0.0)
        until_s = time.monotonic() + 60.0
        while (found := elsewhere.take(0.0)) is None and time.monotonic() < until_s:
            time.sleep(0.05)
        assert found is not None
        assert elsewhere.take(0.0) is None
        assert equal(found, wanted(2, 0).run(member))
    finally:
        elsewhere.close()


@pytest.mark.slow
def test_a_learned_policy_works_with_simulations_elsewhere() -> None:
    workload = generate("burst", rate_rps=8.0, requests=400, seed=3)
    policy = LearnedPolicy(TRAINED["ppo"], hindsight=True)
    policy.put_in_use()
    try:
        records = simulate(workload, CaughtUp(policy), ClusterConfig(load_profile("a100-qwen3-8b"))).records
    finally:
        policy.close()
    assert len(records) == 400
    assert policy.simulated > 0


def test_without_hindsight_only_the_selection_is_put_off() -> None:
    """A change of the member takes effect one request later."""
    workload = generate("burst", rate_rps=8.0, requests=400, seed=3)
    usual, in_use = (CaughtUp(LearnedPolicy(TRAINED["ppo"])) for _ in range(2))
    in_use.policy.put_in_use()
    config = ClusterConfig(load_profile("a100-qwen3-8b"))
    one, other = (simulate(workload, policy, config).records for policy in (usual, in_use))
    same = [(a.prefill_node, a.decode_node) == (b.prefill_node, b.decode_node) for a, b in zip(one, other, strict=True)]
    assert same[0]
    in_use.policy.close()
