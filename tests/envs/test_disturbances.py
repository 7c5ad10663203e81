"""Nodes that differ, slow down or are lost; links that degrade."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import policies
from envs.cluster import ClusterConfig, Disturbance, Placement, RequestView, RouterView, RunResult, simulate
from envs.generators import generate
from envs.workload import Workload
from hardware_profiles import InputError
from tests.toy import TOY_LAW, toy_profile


class To:
    name = "to"

    def __init__(self, placement: Placement) -> None:
        self.placement = placement

    def place(self, _request: RequestView, _view: object) -> Placement:
        return self.placement


def run(rule: str, *, seed: int = 3, rate_rps: float = 14.0, **config: object) -> RunResult:
    workload = generate("burst", rate_rps=rate_rps, requests=300, seed=seed)
    return simulate(workload, policies.make(rule), ClusterConfig(toy_profile(), **config))  # type: ignore[arg-type]


def mean_ttft_s(result: RunResult) -> float:
    return float(np.mean([r.first_token_s - r.arrival_s for r in result.records]))


ONE = Workload.of([0.0], [4096], [50], label="one")


def test_a_node_half_as_fast_takes_twice_as_long() -> None:
    def times(speed: float) -> tuple[float, float]:
        config = ClusterConfig(toy_profile(), shape="1P1D", node_speeds=(speed, 1.0))
        r = simulate(ONE, To(Placement(0, 1)), config).records[0]
        return r.prefill_end_s, r.last_token_s - r.first_token_s

    (fast, decode), (slow, same) = times(1.0), times(0.5)
    assert slow == pytest.approx(2 * fast)
    assert same == pytest.approx(decode)


def test_a_slowdown_takes_effect_at_the_next_step() -> None:
    slowed = ClusterConfig(toy_profile(), shape="1P1D", disturbances=(Disturbance(0.001, "speed", 0, 0.25),))
    record = simulate(ONE, To(Placement(0, 1)), slowed).records[0]
    first_s, second_s = TOY_LAW.time_s([(2048, 0)], 0, 0), TOY_LAW.time_s([(2048, 2048)], 0, 0)
    assert record.prefill_end_s == pytest.approx(first_s + 4 * second_s)


def test_a_slowdown_in_a_decode_run_takes_effect_at_the_next_step() -> None:
    config = ClusterConfig(toy_profile(), shape="1P1D")
    plain = simulate(ONE, To(Placement(0, 1)), config).records[0]
    step_s = TOY_LAW.time_s((), 1, 4096)
    at_s = plain.first_token_s + 0.5 * step_s
    slowed_config = ClusterConfig(toy_profile(), shape="1P1D", disturbances=(Disturbance(at_s, "speed", 1, 0.5),))
    slowed = simulate(ONE, To(Placement(0, 1)), slowed_config).records[0]
    one_s = TOY_LAW.time_s((), 1, 4097)
    rest_s = plain.last_token_s - plain.first_token_s - one_s
    assert slowed.last_token_s - slowed.first_token_s == pytest.approx(one_s + 2 * rest_s)


class Measuring:
    """Notes the time, and the speed that the router has measured, of node 0."""

    name = "measuring"

    def __init__(self) -> None:
        self.measured: list[tuple[float, float]] = []

    def place(self, _request: RequestView, view: RouterView) -> Placement:
        assert view.measured_speed(1) == 1.0
        self.measured.append((view.now_s, view.measured_speed(0)))
        return Placement(0, 1)


@given(st.floats(0.0, 12.0), st.sampled_from([0.25, 0.8, 1.5]), st.sampled_from([0.0, 0.1, 2.0]))
@settings(max_examples=20)
def test_routers_measure_a_speed_when_a_report_after_the_first_step_has_come(
    at_s: float, factor: float, age_s: float
) -> None:
    workload = generate("HPLD", rate_rps=10.0, requests=120, seed=4)
    policy = Measuring()
    config = ClusterConfig(
        toy_profile(), shape="1P1D", report_age_s=age_s, disturbances=(Disturbance(at_s, "speed", 0, factor),)
    )
    simulate(workload, policy, config)
    longest_s = TOY_LAW.time_s([(2048, 16384)], 0, 0) * 2 / factor
    for now_s, speed in policy.measured:
        if now_s < at_s + age_s:
            assert speed == 1.0
        elif now_s > at_s + age_s + longest_s + 1.0:  # the node is never idle for a second
            assert speed == pytest.approx(factor)
        else:
            assert speed in (1.0, pytest.approx(factor))


def test_a_link_at_a_quarter_takes_four_times_as_long() -> None:
    config = ClusterConfig(toy_profile(), shape="1P1D", disturbances=(Disturbance(0.0, "link", 1, 0.25),))
    record = simulate(ONE, To(Placement(0, 1)), config).records[0]
    assert record.kv_ready_s - record.prefill_end_s == pytest.approx(4 * (1e-4 + 4096 * 100_000 / 20e9))


def test_overheads_lengthen_every_step() -> None:
    plain = simulate(ONE, To(Placement(0, 1)), ClusterConfig(toy_profile(), shape="1P1D")).records[0]
    config = ClusterConfig(toy_profile(), shape="1P1D", host_overhead_s=0.002, host_overhead_per_seq_s=0.001)
    slow = simulate(ONE, To(Placement(0, 1)), config).records[0]
    assert slow.prefill_end_s - plain.prefill_end_s == pytest.approx(2 * 0.002)
    decode_s = (slow.last_token_s - slow.first_token_s) - (plain.last_token_s - plain.first_token_s)
    assert decode_s == pytest.approx(49 * 0.003)


def test_a_watermark_admits_fewer_requests_and_preempts_less() -> None:
    workload = Workload.of([0.0] * 12, [500] * 12, [400] * 12, label="twelve at once")

    def preemptions(watermark: float) -> int:
        config = ClusterConfig(toy_profile(4_000), shape="1P1D", kv_watermark=watermark)
        result = simulate(workload, policies.make("static"), config)
        assert all(np.isfinite(r.last_token_s) for r in result.records)
        return result.counters.preemptions

    assert preemptions(0.5) < preemptions(0.0)


@settings(max_examples=60)
@given(
    rule=st.sampled_from(policies.names()),
    node=st.integers(0, 3),
    at_s=st.floats(0.0, 25.0),
    seed=st.integers(0, 50),
    capacity=st.sampled_from([40_000, 400_000]),
)
def test_all_requests_of_a_lost_node_are_placed_again(
    rule: str, node: int, at_s: float, seed: int, capacity: int
) -> None:
    workload = generate("burst", rate_rps=14.0, requests=200, seed=seed, max_prompt_tokens=20_000)
    config = ClusterConfig(toy_profile(capacity), disturbances=(Disturbance(at_s, "loss", node),))
    result = simulate(workload, policies.make(rule), config)
    assert [r.request for r in result.records] == list(range(200))
    for r in result.records:
        stamps = [r.arrival_s, r.prefill_start_s, r.prefill_end_s, r.kv_ready_s, r.first_token_s, r.last_token_s]
        assert stamps == sorted(stamps)
        assert r.output_tokens == workload.output_tokens[r.request]
        if r.arrival_s > at_s:
            assert node not in (r.prefill_node, r.decode_node)
    # Every token except the first still ends exactly one gap.
    gaps = result.gaps
    assert int((gaps.steps * gaps.weight).sum()) == int((workload.output_tokens - 1).sum())
    assert (result.counters.displaced == 0) or result.counters.displaced <= 200


def test_losing_a_busy_node_displaces_requests_and_costs_time() -> None:
    whole = run("static")
    maimed = run("static", disturbances=(Disturbance(6.0, "loss", 0),))
    assert maimed.counters.displaced > 0
    assert mean_ttft_s(maimed) > mean_ttft_s(whole)


def test_losing_the_last_node_of_a_role_is_an_error_that_names_it() -> None:
    with pytest.raises(InputError, match="node 1 was the last of its kind"):
        run("static", shape="1P1D", disturbances=(Disturbance(1.0, "loss", 1),))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"at_s": -1.0, "kind": "loss", "node": 0}, "finite time"),
        ({"at_s": 1.0, "kind": "fire", "node": 0}, "not one of speed, link, loss"),
        ({"at_s": 1.0, "kind": "speed", "node": 0, "factor": 0.0}, "above 0"),
    ],
)
def test_an_invalid_disturbance_is_an_error(arguments: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Disturbance(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"node_speeds": (1.0,)}, "node_speeds names 1 nodes"),
        ({"node_speeds": (1.0, 1.0, 0.0, 1.0)}, "above 0"),
        ({"nics": (0,)}, "nics names 1 nodes"),
        ({"disturbances": (Disturbance(1.0, "loss", 4),)}, "names node 4"),
        ({"kv_watermark": 1.0}, "kv_watermark"),
        ({"host_overhead_s": -1.0}, "host_overhead_s"),
    ],
)
def test_invalid_nodes_are_an_error(config: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        ClusterConfig(toy_profile(), **config)  # type: ignore[arg-type]
