"""Laws of every run, whatever the options, the load and the policy."""

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from math import isfinite
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import policies
from envs.cluster import (
    Cluster,
    ClusterConfig,
    Disturbance,
    Placement,
    Policy,
    Request,
    RequestRecord,
    RequestView,
    RouterView,
    simulate,
)
from envs.generators import generate
from envs.workload import Workload
from hardware_profiles import InputError
from hardware_profiles.compiled import is_compiled
from tests.envs.played import Played
from tests.envs.scenarios import Scenario, Scripted, scenarios
from tests.envs.shared_prefixes import Given
from tests.toy import toy_profile

RULES = ["scripted", *policies.names()]
rules = st.sampled_from(RULES)


def policy_of(rule: str, scenario: Scenario) -> Policy:
    """Make a policy by name."""
    return Scripted(scenario) if rule == "scripted" else policies.make(rule, seed=7)


# ---- every run ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule", [pytest.param(rule, marks=() if rule == "scripted" else pytest.mark.slow) for rule in RULES]
)
@settings(max_examples=60, deadline=None)
@given(scenario=scenarios())
def test_laws_hold_after_every_event_and_at_the_end(rule: str, scenario: Scenario) -> None:
    played = Played(scenario, policy_of(rule, scenario)).play()
    played.assert_drained()
    assert_conserved(scenario, played)
    for record in played.records:
        assert_causal(record)
    assert_transfers_cost(scenario, played)


def assert_conserved(scenario: Scenario, played: Played) -> None:
    """Every request is served once and completely; every token except a request's first ends one gap."""
    records = sorted(played.records)
    workload = scenario.workload
    assert [record.prompt_tokens for record in records] == workload.prompt_tokens.tolist()
    assert [record.output_tokens for record in records] == workload.output_tokens.tolist()
    gaps = played.cluster.gaps
    assert int((gaps.steps * gaps.weight).sum()) == int((workload.output_tokens - 1).sum())
    logged_s = (gaps.steps * gaps.first_s + gaps.growth_s * gaps.steps * (gaps.steps - 1) / 2) * gaps.weight
    assert logged_s.sum() == pytest.approx(sum(r.last_token_s - r.first_token_s for r in records), abs=1e-6)
    end = played.end()
    assert end["preemptions"] == sum(record.preemptions for record in records)
    assert all(0 <= busy_s <= end["now_s"] + 1e-9 for busy_s in end["busy_s"])


def assert_causal(record: RequestRecord) -> None:
    """A request's stamps come in order."""
    r = record
    stamps = [r.arrival_s, r.prefill_start_s, r.prefill_end_s, r.kv_ready_s, r.first_token_s, r.last_token_s]
    assert stamps == sorted(stamps)
    assert r.prefill_start_s < r.prefill_end_s
    assert (r.last_token_s > r.first_token_s) == (r.output_tokens > 1)
    assert r.tbt_max_s <= r.last_token_s - r.first_token_s + 1e-9
    assert r.tbt_max_s * (r.output_tokens - 1) >= r.last_token_s - r.first_token_s - 1e-9


def assert_transfers_cost(scenario: Scenario, played: Played) -> None:
    """Without disturbances and caches, all KV moves once, and no faster than alone on its link."""
    config = scenario.config
    end = played.end()
    if config.prefix_cache or end["displaced"] or end["kv_expired"]:
        return
    moved = 0
    quickest = max([1.0, *[one.factor for one in config.disturbances if one.kind == "link"]])
    for record in played.records:
        placement = played.placements[record.request]
        if record.prefill_node == record.decode_node:
            if not record.preemptions:
                assert record.prefill_end_s == record.kv_ready_s == record.first_token_s
            continue
        tokens = placement.split_tokens or record.prompt_tokens
        size = -(-tokens // config.kv_block_tokens) * config.kv_block_tokens * config.profile.kv_bytes_per_token
        moved += size
        hosts = config.hosts or range(len(played.cluster.engines))
        local = hosts[record.prefill_node] == hosts[record.decode_node]
        link = config.profile.intra_node if local else config.profile.inter_node
        alone_s = (link.latency_s + size / link.bandwidth_bytes_per_s) / quickest
        began_s = record.prefill_start_s if config.kv_streaming else record.prefill_end_s
        assert record.kv_ready_s - began_s >= alone_s * (1 - 1e-9)
        assert record.first_token_s > record.kv_ready_s
    moves = any(one.kind == "loss" for one in config.disturbances)  # KV on its way to a lost node is sent again
    assert end["kv_bytes_moved"] >= moved if moves else end["kv_bytes_moved"] == moved


@settings(max_examples=100, deadline=None)
@given(scenario=scenarios(), rule=rules)
def test_two_runs_are_equal_to_the_byte(scenario: Scenario, rule: str) -> None:
    first, second = (simulate(scenario.workload, policy_of(rule, scenario), scenario.config) for _ in range(2))
    assert repr(first.records) == repr(second.records)
    assert first.gaps.columns().tobytes() == second.gaps.columns().tobytes()
    assert first.counters == second.counters


@settings(max_examples=150, deadline=None)
@given(scenario=scenarios(), rule=rules, cut=st.floats(0.0, 1.0))
def test_a_copy_at_any_instant_continues_like_the_original(scenario: Scenario, rule: str, cut: float) -> None:
    # A copy has no policy for displaced requests: both clusters use the default placement.
    original = Played(scenario, policy_of(rule, scenario), places_again=False)
    original.play(until_s=cut * 1.5 * float(scenario.workload.arrival_s[-1]))
    records, segments = len(original.records), len(original.cluster.gaps.columns())
    twin = original.copy().play()
    original.play()
    assert repr(twin.records) == repr(original.records[records:])
    assert twin.cluster.gaps.columns().tobytes() == original.cluster.gaps.columns()[segments:].tobytes()
    assert twin.end() == original.end()
    for cost in ("waiting_cost", "tail_cost", "tbt_cost"):
        expected = getattr(original.cluster, cost)()
        assert getattr(twin.cluster, cost)() == pytest.approx(expected, rel=1e-9), cost


def test_a_copy_contains_only_requests_in_flight() -> None:
    workload = generate("burst", rate_rps=18.0, requests=160, seed=1, max_prompt_tokens=5_000)
    scenario = Scenario(workload, ClusterConfig(toy_profile()), (), 0)
    played = Played(scenario, policies.make("static")).play()
    twin = played.copy()
    assert len(played.cluster.gaps.columns()) > 0 == len(twin.cluster.gaps.columns())
    assert not twin.cluster.lifecycle.in_flight


# ---- one request alone ----------------------------------------------------------------------------------------------

alone = st.fixed_dictionaries(
    {
        "prompt_tokens": st.integers(2, 30_000),
        "output_tokens": st.integers(1, 60),
        "kind": st.sampled_from(["deflected", "moved", "split"]),
        "split_share": st.floats(0.01, 0.99),
        "tbt_slo_s": st.floats(0.005, 0.3),
        "token_budget": st.sampled_from([300, 2048, 8000]),
        "step_budget": st.sampled_from(["slo", "fixed"]),
        "kv_watermark": st.sampled_from([0.0, 0.1]),
    }
)
BETTER: dict[str, Callable[[ClusterConfig, float], ClusterConfig]] = {
    "more KV": lambda config, factor: replace(
        config, profile=replace(config.profile, kv_capacity_tokens=int(40_000 * factor))
    ),
    "more bandwidth": lambda config, factor: replace(
        config,
        profile=replace(
            config.profile,
            inter_node=replace(config.profile.inter_node, bandwidth_bytes_per_s=20e9 * factor),
        ),
    ),
    "NVLink": lambda config, _: replace(config, hosts=(0, 0)),
    "a faster prefill node": lambda config, factor: replace(config, node_speeds=(factor, 1.0)),
    "a faster decode node": lambda config, factor: replace(config, node_speeds=(1.0, factor)),
}


@pytest.mark.parametrize("better", BETTER)
@settings(max_examples=25, deadline=None)
@given(one=alone, factor=st.floats(1.0, 4.0))
def test_a_lone_request_is_never_slower_with(better: str, one: dict, factor: float) -> None:
    prompt = one["prompt_tokens"]
    split = max(1, int(prompt * one["split_share"]))
    placement = {"deflected": Placement(1, 1), "moved": Placement(0, 1), "split": Placement(0, 1, (), split)}
    workload = Workload.of([0.0], [prompt], [one["output_tokens"]], tbt_slo_s=one["tbt_slo_s"], label="one")
    config = ClusterConfig(
        toy_profile(40_000),
        shape="1P1D",
        token_budget=one["token_budget"],
        step_budget=one["step_budget"],
        kv_watermark=one["kv_watermark"],
    )

    def record(config: ClusterConfig) -> RequestRecord:
        return simulate(workload, Given(placement[one["kind"]]), config).records[0]

    plain, other = record(config), record(BETTER[better](config, factor))
    assert other.first_token_s <= plain.first_token_s * (1 + 1e-12)
    assert other.last_token_s <= plain.last_token_s * (1 + 1e-12)


# ---- constructed ----------------------------------------------------------------------------------------------------


class Crossing:
    """Places one request on nodes 2 and 3, and the other on nodes 3 and 2."""

    name = "crossing"

    def place(self, request: RequestView, _view: RouterView) -> Placement:
        """Place by number."""
        return Placement(2, 3) if request.number == 0 else Placement(3, 2)


@pytest.mark.parametrize("hold_s", [0.5, 480.0])
def test_nodes_waiting_for_each_others_room_recompute_the_kv(hold_s: float) -> None:
    workload = Workload.of([0.0, 0.001], [5_000, 5_001], [10, 10], label="crossing")
    roomy = simulate(workload, Crossing(), ClusterConfig(toy_profile(11_000), kv_hold_s=hold_s))
    assert roomy.counters.kv_expired == 0
    tight = simulate(workload, Crossing(), ClusterConfig(toy_profile(9_000), kv_hold_s=hold_s))
    assert tight.counters.kv_expired >= 1
    first_expiry_s = min(record.prefill_end_s for record in tight.records) + hold_s
    for record in tight.records:
        assert isfinite(record.last_token_s)
        assert record.first_token_s > first_expiry_s


def test_a_lost_node_gets_no_request_and_placing_there_is_an_error() -> None:
    workload = generate("burst", rate_rps=14.0, requests=200, seed=3)
    loss = Disturbance(3.0, "loss", 1)
    result = simulate(workload, policies.make("static"), ClusterConfig(toy_profile(), disturbances=(loss,)))
    assert result.counters.displaced > 0
    late = [record for record in result.records if record.arrival_s > loss.at_s]
    assert {record.prefill_node for record in late} == {0}
    with pytest.raises(InputError, match=r"Placement\(.*node 1 is lost; the nodes left are 0, 2, 3"):
        simulate(workload, Given(Placement(0, 2), Placement(1, 2)), ClusterConfig(toy_profile(), disturbances=(loss,)))


def test_preemptions_are_counted_if_kv_runs_out() -> None:
    workload = Workload.of([0.0] * 12, [500] * 12, [400] * 12, label="twelve at once")
    tight = simulate(workload, policies.make("static"), ClusterConfig(toy_profile(4_000), shape="1P1D"))
    roomy = simulate(workload, policies.make("static"), ClusterConfig(toy_profile(), shape="1P1D"))
    assert tight.counters.preemptions == sum(r.preemptions for r in tight.records) > 0
    assert roomy.counters.preemptions == 0
    assert tight.end_s > roomy.end_s


def test_a_limited_drain_keeps_records_of_unfinished_requests() -> None:
    workload = generate("burst", rate_rps=40.0, requests=300, seed=5)
    result = simulate(workload, policies.make("static"), ClusterConfig(toy_profile()), drain_s=0.5)
    assert [record.request for record in result.records] == list(range(300))
    assert any(not isfinite(r.first_token_s) for r in result.records)
    assert result.end_s == pytest.approx(workload.arrival_s[-1] + 0.5)
    whole = simulate(workload, policies.make("static"), ClusterConfig(toy_profile()))
    for capped, record in zip(result.records, whole.records, strict=True):
        reached = np.array(record[7:12]) <= result.end_s
        assert np.array(capped[7:12])[reached] == pytest.approx(np.array(record[7:12])[reached], abs=1e-9)


@pytest.mark.parametrize("node", [0, 99])
def test_a_run_restores_garbage_collection_even_if_it_fails(node: int) -> None:
    usual = gc.get_threshold()
    workload = Workload.of([0.0], [100], [3], label="one")
    with nullcontext() if node == 0 else pytest.raises(InputError):
        simulate(workload, Given(Placement(node, 2)), ClusterConfig(toy_profile()))
    assert gc.isenabled()
    assert gc.get_threshold() == usual


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("placement", "step_budget", "says"),
    [
        (Placement(4, 2), "slo", "outside 0 to 3"),
        (Placement(0, -1), "slo", "outside 0 to 3"),
        (Placement(2, 2, (0,)), "fixed", "less than one token"),
        (Placement(2, 2, (512,)), "slo", "step_budget='fixed'"),
        (Placement(2, 2, (), 5), "slo", "two nodes"),
        (Placement(0, 2, (), 10), "slo", "a token for each"),
        (Placement(0, 2, (), -1), "slo", "a token for each"),
    ],
)
def test_an_invalid_placement_is_an_error(placement: Placement, step_budget: str, says: str) -> None:
    cluster = Cluster(ClusterConfig(toy_profile(), step_budget=step_budget), lambda _: None)
    with pytest.raises(InputError, match=says):
        cluster.submit(Request(0, 0.0, 10, 10, 2.0, 0.1), placement)
    assert not cluster.lifecycle.in_flight


@pytest.mark.parametrize(
    "answer",
    [
        2,
        (0, 2),
        "static",
        Placement(4, 2),
        Placement(0, -1),
        Placement(True, 2),
        Placement(0, 2.0),  # type: ignore[arg-type]
        Placement(0, np.int64(2)),  # type: ignore[arg-type]
        Placement(2, 2, (512.0,)),  # type: ignore[arg-type]
        Placement(0, 2, (), "5"),  # type: ignore[arg-type]
    ],
)
def test_the_error_names_a_policy_with_an_invalid_answer(answer: object) -> None:
    workload = Workload.of([0.0, 1.0], [10, 10], [2, 2], label="two")

    def placed(request: RequestView, _view: RouterView) -> object:
        return answer if request.number else Placement(0, 2)

    policy = SimpleNamespace(name="mine", place=placed)
    with pytest.raises(InputError, match=r"policy mine returned .* for request 1; .* from 0 to 3") as caught:
        simulate(workload, policy, ClusterConfig(toy_profile()))
    assert "\n" not in str(caught.value)


def test_an_invalid_answer_for_a_displaced_request_is_an_error() -> None:
    workload = Workload.of([0.0], [5_000], [10], label="one")
    answers: list[object] = [Placement(0, 2), 2]
    policy = SimpleNamespace(name="mine", place=lambda _request, _view: answers.pop(0))
    config = ClusterConfig(toy_profile(), disturbances=(Disturbance(0.01, "loss", 0),))
    with pytest.raises(InputError, match="policy mine returned 2 for request 0"):
        simulate(workload, policy, config)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"shape": "2P"}, "NPMD"),
        ({"shape": "0P2D"}, "NPMD"),
        ({"hosts": (0, 0)}, "hosts names 2 nodes"),
        ({"report_age_s": -0.1}, "report age"),
        ({"max_seqs": 0}, "at least 1"),
        ({"token_budget": 256}, "larger than max_seqs"),
        ({"token_budget": 100_000}, "beyond the"),
        ({"step_budget": "loose"}, "step_budget"),
        ({"slo_share": 0.0}, "slo_share"),
        ({"chunk_grain_tokens": 0}, "chunk_grain_tokens"),
        ({"kv_hold_s": 0.0}, "kv_hold_s"),
    ],
)
def test_an_invalid_cluster_is_an_error(config: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        ClusterConfig(toy_profile(), **config)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.skipif(not is_compiled(), reason="the tests of this file have watched the phases")
def test_all_changes_of_phase_are_allowed_in_plain_python() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "not slow", "-p", "no:cacheprovider", __file__],
        cwd=root,
        env={**os.environ, "PREFILL_PLACEMENT_PLAIN": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
