"""The objective of a running cluster and of a finished run."""

from math import isnan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import policies
from envs.cluster import Cluster, ClusterConfig, Disturbance, Request, RequestRecord, RequestView, simulate
from envs.generators import generate
from envs.objective import Costs, Objective
from envs.slos import SloClass, Slos
from envs.workload import Workload
from hardware_profiles import InputError
from tests.toy import toy_profile

weights = st.floats(0.0, 20.0)


def drained(workload: Workload, policy_name: str, config: ClusterConfig) -> Cluster:
    """A cluster that has served a whole workload, driven like in the environment."""
    policy = policies.make(policy_name)
    records: list[RequestRecord] = []
    cluster = Cluster(config, records.append)
    view = cluster.view()
    for number, (arrival_s, prompt, output, ttft_slo_s, tbt_slo_s, hashes) in enumerate(workload.rows()):
        cluster.clock.advance_to(arrival_s)
        placement = policy.place(RequestView(number, arrival_s, prompt, ttft_slo_s, tbt_slo_s, hashes), view)
        assert placement is not None
        cluster.submit(Request(number, arrival_s, prompt, output, ttft_slo_s, tbt_slo_s, hashes), placement)
    cluster.clock.advance_to(cluster.clock.now_s + 10_000.0)
    assert len(records) == len(workload)
    return cluster


@settings(max_examples=25, deadline=None)
@given(
    rate_rps=st.floats(4.0, 30.0),
    policy=st.sampled_from(["static", "colocated:chunk=0", "dynamo-load:prefill_busy=0.5"]),
    tbt_slo_s=st.floats(0.02, 0.1),
    capacity=st.sampled_from([30_000, 400_000]),
    objective=st.builds(Objective, weights, weights, weights),
    strict_share=st.sampled_from([None, 0.3]),
    seed=st.integers(0, 99),
)
def test_a_drained_cluster_costs_the_same_as_its_result(
    rate_rps: float,
    policy: str,
    tbt_slo_s: float,
    capacity: int,
    objective: Objective,
    strict_share: float | None,
    seed: int,
) -> None:
    slos = Slos.of(tbt_s=tbt_slo_s)
    if strict_share is not None:
        strict = SloClass(0.5, 0.012, 0.1, share=strict_share)
        slos = Slos((strict, SloClass(tbt_s=tbt_slo_s, share=1.0 - strict_share)))
    workload = generate("burst", rate_rps=rate_rps, requests=60, seed=seed, max_prompt_tokens=25_000, slos=slos)
    config = ClusterConfig(
        toy_profile(kv_capacity_tokens=capacity), step_budget="fixed"
    )  # small, so that requests are preempted
    running = objective.of(drained(workload, policy, config))
    result = simulate(workload, policies.make(policy), config)
    assert objective.of_result(result, workload) == pytest.approx(running, rel=1e-9)


def test_the_loss_of_a_node_costs_the_same_in_both_forms() -> None:
    workload = generate("burst", rate_rps=16.0, requests=80, seed=2, slos=Slos.of(tbt_s=0.02))
    config = ClusterConfig(toy_profile(), disturbances=(Disturbance(2.0, "loss", 3),))
    objective = Objective(1.0, 8.0, 3.0)
    result = simulate(workload, policies.make("static"), config)
    assert result.counters.displaced
    assert objective.of_result(result, workload) == pytest.approx(
        objective.of(drained(workload, "static", config)), rel=1e-9
    )


def test_requests_without_a_first_token_waited_until_the_end() -> None:
    workload = Workload.of([0.0, 1.0], [500, 60_000], [4, 4], label="one is cut off", ttft_slo_s=[2.0, 0.5])
    result = simulate(workload, policies.make("static"), ClusterConfig(toy_profile()), drain_s=0.25)
    served, cut_off = result.records
    assert isnan(cut_off.first_token_s)
    waits = served.first_token_s / 2.0, (result.end_s - 1.0) / 0.5
    assert Objective(0.0, 3.0).of_result(result, workload) == pytest.approx(sum(w + 3.0 * w * w for w in waits))


def test_parts_add_up_and_accrue() -> None:
    later = Costs(3.0, 2.0, 10.0, 7).since(Costs(1.0, 2.0, 4.0, 5))
    assert (later.waiting, later.tbt, later.tail, later.misses) == (2.0, 0.0, 6.0, 2.0)
    objective = Objective(tbt_weight=5.0, tail_weight=0.5, miss_weight=2.0)
    assert objective.total(Costs(1.0, 2.0, 4.0, 3)) == 1.0 + 10.0 + 2.0 + 6.0


def test_misses_are_counted_only_if_they_have_a_weight() -> None:
    workload = generate("burst", rate_rps=16.0, requests=80, seed=2, slos=Slos.of(0.1))
    cluster = drained(workload, "static", ClusterConfig(toy_profile()))
    assert Objective().costs(cluster).misses == 0
    dear = Objective(miss_weight=4.0)
    assert dear.costs(cluster).misses == cluster.misses() > 0
    assert dear.of(cluster) == pytest.approx(Objective().of(cluster) + 4.0 * cluster.misses())


@pytest.mark.parametrize("name", ["tbt_weight", "tail_weight", "miss_weight"])
@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_weight_out_of_range_is_an_input_error(name: str, weight: float) -> None:
    with pytest.raises(InputError, match=f"{name} must be a number from 0 on"):
        Objective(**{name: weight})
