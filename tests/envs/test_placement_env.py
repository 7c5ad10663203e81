"""The environment's arguments, actions and rewards; `test_conformance` tests the laws of every variant."""

import inspect
import re
from math import inf, nan
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec

from envs.cluster import Disturbance, Request
from envs.features import CHOICE_FEATURES
from envs.generators import generate
from envs.placement_env import PrefillPlacementEnv
from envs.render import draw_nodes, node_table
from envs.workload import Workload
from hardware_profiles import InputError
from tests.envs.episodes import (
    COLUMN,
    RULES,
    Rule,
    always_deflect,
    anywhere,
    at_random,
    never_deflect,
    play,
    soonest,
    submitted,
    total,
    toy,
)
from tests.envs.reference import Reference

# ---- arguments ------------------------------------------------------------------------------------------------------


def test_make_accepts_every_keyword() -> None:
    keywords: dict[str, Any] = {
        "profile": "a100-llama31-8b",
        "cluster": "1P3D",
        "choices": "deflection",
        "workload": "HPLD",
        "rate_rps": (2.0, 4.0),
        "ttft_slo_s": 1.5,
        "tbt_slo_s": 0.08,
        "ttft_slo_per_1k_tokens_s": 0.1,
        "slo_classes": None,
        "step_budget": "fixed",
        "report_age_s": 0.2,
        "start": "running",
        "warm_up": ["static", "random"],
        "warm_up_s": (1.0, 2.0),
        "horizon_requests": 7,
        "horizon_s": None,
        "tbt_weight": 0.5,
        "tail_weight": 0.1,
        "miss_weight": 0.2,
        "hosts": (0, 0, 1, 1),
        "cluster_options": {"node_speeds": (1.0, 1.0, 1.0, 0.5)},
        "rows": 6,
        "strict_actions": True,
        "render_mode": "ansi",
    }
    assert list(keywords) == list(inspect.signature(PrefillPlacementEnv).parameters)
    env = gymnasium.make("envs:PrefillPlacement-v1", **keywords)
    first, _ = env.reset(seed=1)
    assert first["choices"].shape == (6, len(CHOICE_FEATURES))
    inner: Any = env.unwrapped
    assert inner.config.profile.name == "a100-llama31-8b"
    assert inner.config.hosts == (0, 0, 1, 1)
    assert (inner.config.step_budget, inner.config.report_age_s) == ("fixed", 0.2)
    # An EnvSpec's JSON has no tuples.
    assert env.spec is not None
    again = gymnasium.make(EnvSpec.from_json(env.spec.to_json()))
    assert again.reset(seed=1)[0]["request"].tobytes() == first["request"].tobytes()


SHORT = generate("LPLD", rate_rps=1.0, requests=60, seed=0)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"profile": "a100-nobody"}, "profile"),
        ({"cluster": "2P"}, "2P"),
        ({"cluster": "0P1D"}, "0P1D"),
        ({"choices": "all"}, "choices 'all'"),
        ({"workload": "nobody"}, "workload 'nobody'"),
        *[({"rate_rps": bad}, "rate_rps") for bad in (0.0, -1.0, nan, (4.0, 2.0), (0.0, 2.0), (1.0, inf), (1, 2, 3))],
        *[({"ttft_slo_s": bad}, "ttft_slo_s") for bad in (0.0, nan)],
        *[({"tbt_slo_s": bad}, "tbt_slo_s") for bad in (-0.1, inf, (0.1, 0.05), (0.1,))],
        ({"ttft_slo_per_1k_tokens_s": -1.0}, "per_1k_tokens_s"),
        ({"slo_classes": [(1.0, 2.0)]}, "slo_classes"),
        ({"slo_classes": [(0.5, 2.0, 0.1), (0.4, 2.0, 0.1)]}, "classes add up to 0.9"),
        ({"slo_classes": []}, "SLOs"),
        ({"step_budget": "loose"}, "step_budget 'loose' is not one of slo, fixed"),
        *[({"report_age_s": bad}, "report.age") for bad in (-0.1, nan)],
        ({"start": "warm"}, "start 'warm' is not one of empty, running"),
        ({"warm_up": "kairos"}, "warm_up 'kairos'"),
        ({"warm_up": []}, "warm_up"),
        *[({"warm_up_s": bad}, "warm_up_s") for bad in ((3.0, 2.0), (-1.0, 2.0), (1.0, inf), (nan, 2.0), (1.0,))],
        ({"horizon_requests": 0}, "horizon_requests"),
        ({"horizon_requests": 5, "horizon_s": 5.0}, "horizon_requests and horizon_s"),
        *[({"horizon_requests": None, "horizon_s": bad}, "horizon_s") for bad in (0.0, nan, inf)],
        *[({f"{name}_weight": -1.0}, f"{name}_weight") for name in ("tbt", "tail", "miss")],
        *[({f"{name}_weight": bad}, f"{name}_weight") for name in ("tbt", "tail", "miss") for bad in (nan, inf)],
        ({"hosts": (0, 0)}, "hosts"),
        ({"cluster_options": {"speed": 2}}, "cluster_options has no 'speed'"),
        ({"cluster_options": {"shape": "1P1D"}}, "cluster_options has no 'shape'"),
        ({"rows": 15}, "rows must be at least 16"),
        ({"render_mode": "human"}, "render_mode"),
    ],
)
def test_the_error_for_a_bad_argument_is_one_line_that_names_it(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError) as caught:
        toy(**arguments)
    assert re.search(named, str(caught.value))
    assert "\n" not in str(caught.value)


def test_cluster_options_affect_predictions() -> None:
    env = toy(cluster_options={"node_speeds": (1.0, 1.0, 1.0, 0.5)}, start="empty")
    observation, _ = env.reset(seed=0)
    execution = observation["choices"][:, COLUMN["prefill_execution_s"]].reshape(4, 4)
    assert (execution[3] > execution[2]).all()
    assert (execution[0] == execution[1]).all()


def test_nodes_of_one_host_have_a_shorter_predicted_transfer() -> None:
    observation, _ = toy(hosts=(0, 1, 0, 1)).reset(seed=0)
    transfer = observation["choices"][:, COLUMN["transfer_s"]].reshape(4, 4)
    near, far, own = transfer[0, 2], transfer[0, 1], transfer[0, 0]
    assert 0.0 == own < near < far
    hosts = [0, 1, 0, 1]
    expected = [[own if i == j else near if hosts[i] == hosts[j] else far for j in range(4)] for i in range(4)]
    assert transfer.tolist() == expected


@pytest.mark.parametrize(("step_budget", "planned"), [("slo", False), ("fixed", True)])
def test_the_step_budget_determines_who_plans_the_chunks(step_budget: str, planned: bool) -> None:
    env = toy(step_budget=step_budget)
    with submitted() as (_, placements):
        play(env, always_deflect)
    deflected = [placement for placement in placements if placement.prefill_node == placement.decode_node]
    assert {bool(placement.chunk_plan) for placement in deflected} == {planned}


def test_more_rows_only_add_padding() -> None:
    narrow, wide = toy(cluster="1P2D"), toy(cluster="1P2D", rows=30)
    assert (narrow.action_space.n, wide.action_space.n) == (9, 30)
    for (seen, *rest), (padded, *same) in zip(play(narrow, soonest), play(wide, soonest), strict=True):
        assert repr(rest) == repr(same)
        assert padded["choices"].shape == (30, len(CHOICE_FEATURES))
        assert np.array_equal(padded["choices"][:9], seen["choices"])
        assert np.array_equal(padded["action_mask"][:9], seen["action_mask"])


def test_rendering_shows_the_routers_view() -> None:
    ansi, pixels, none = (toy(render_mode=mode) for mode in ("ansi", "rgb_array", None))
    for env in (ansi, pixels, none):
        env.reset(seed=1)
        for _ in range(8):
            env.step(np.int64(2))
    assert ansi.render() == node_table(ansi.process.cluster.view())
    assert np.array_equal(pixels.render(), draw_nodes(pixels.process.cluster.view()))
    assert none.render() is None


# ---- actions --------------------------------------------------------------------------------------------------------


def test_every_node_gets_both_jobs_from_random_actions() -> None:
    with submitted() as (_, placements):
        play(toy(cluster="2P3D", horizon_requests=150), at_random(3))
    assert len({placement[:2] for placement in placements}) == 25


def test_with_strict_actions_a_masked_action_is_an_error() -> None:
    env = toy(tbt_slo_s=0.005, strict_actions=True, step_budget="fixed")
    observation, _ = env.reset(seed=2)
    for _ in range(20):
        for row in np.flatnonzero(observation["action_mask"] == 0):
            with pytest.raises(ValueError, match=f"action {row} is masked"):
                env.step(row)
        observation, *_ = env.step(np.int64(soonest(observation)))
    assert not observation["action_mask"].all()


@pytest.mark.parametrize("step_budget", ["slo", "fixed"])
@pytest.mark.parametrize("nodes", [(0,), (3,), (0, 3), (1, 2)])
def test_no_request_is_placed_on_a_lost_node(nodes: tuple[int, ...], step_budget: str) -> None:
    losses = tuple(Disturbance(1.0, "loss", node) for node in nodes)
    env = toy(horizon_requests=90, cluster_options={"disturbances": losses}, step_budget=step_budget)
    rng = np.random.default_rng(5)
    with submitted() as (requests, placements):
        steps = play(env, lambda _: int(rng.integers(16)), seed=4)
    late = [p for request, p in zip(requests, placements, strict=True) if request.arrival_s >= 1.0]
    assert late
    assert not {node for placement in late for node in placement[:2]} & set(nodes)
    left = (4 - len(nodes)) ** 2
    assert not steps[-1][0]["choices"][left:].any()
    assert any(info["invalid_action"] for *_, info in steps)


# ---- rewards --------------------------------------------------------------------------------------------------------


def with_quiet_tail(requests: int, rate_rps: float, seed: int) -> Workload:
    """A burst workload with two SLO classes, whose last request arrives long after the others have finished."""
    body = generate("burst", rate_rps=rate_rps, requests=requests - 1, seed=seed)
    strict = np.random.default_rng(seed).random(requests) < 0.4
    return Workload.of(
        [*body.arrival_s, body.arrival_s[-1] + 10_000.0],
        [*body.prompt_tokens, 1],
        [*body.output_tokens, 1],
        ttft_slo_s=np.where(strict, 0.4, 2.0),
        tbt_slo_s=np.where(strict, 0.0115, 0.04),
        label="burst, then nothing",
    )


def token_times(env: PrefillPlacementEnv, requests: list[Request], placements: list[Any]) -> list[list[float]]:
    """Times of each request's tokens, from the step-by-step reference."""
    columns = zip(
        *[(r.arrival_s, r.prompt_tokens, r.output_tokens, r.ttft_slo_s, r.tbt_slo_s) for r in requests], strict=True
    )
    workload = Workload(*map(np.array, columns), label="submitted")
    return [job.tokens_s for job in Reference(workload, placements, env.config).run().jobs]


@pytest.mark.parametrize("rule", RULES)
def test_rewards_sum_to_the_cost_of_every_token(rule: Rule) -> None:
    weights = {"tbt_weight": 2.0, "tail_weight": 0.5, "miss_weight": 3.0}
    env = toy(workload=with_quiet_tail, rate_rps=20.0, step_budget="fixed", **weights)
    with submitted() as (requests, placements):
        steps = play(env, rule, seed=8)
    waited = squared = exceeded = 0.0
    missed = 0
    for request, tokens_s in zip(requests, token_times(env, requests, placements), strict=True):
        share = (tokens_s[0] - request.arrival_s) / request.ttft_slo_s
        excess = np.maximum(0.0, np.diff(tokens_s) / request.tbt_slo_s - 1.0)
        waited += share
        squared += share * share
        exceeded += excess.sum()
        missed += share > 1.0 or excess.max(initial=0.0) > 1e-9
    assert exceeded > 0.01
    assert missed > 0
    for name, expected in (("waiting", waited), ("tbt", exceeded), ("tail", squared), ("miss", missed)):
        assert sum(info[f"{name}_cost"] for *_, info in steps) == pytest.approx(expected, rel=1e-6)
    assert total(steps) == pytest.approx(-(waited + 2.0 * exceeded + 0.5 * squared + 3.0 * missed), rel=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_costs_are_charged_when_they_accrue(rule: Rule) -> None:
    env = toy(ttft_slo_s=0.5, tbt_slo_s=0.0105, rate_rps=20.0, step_budget="fixed")
    with submitted() as (requests, placements):
        steps = play(env, rule, seed=8)
    times_s = token_times(env, requests, placements)
    now_s = waited = exceeded = 0.0
    for placed, (*_, info) in enumerate(steps, start=1):
        now_s += info["dt_s"]
        waited += info["waiting_cost"]
        exceeded += info["tbt_cost"]
        waited_by_tokens = exceeded_by_tokens = 0.0
        for request, tokens_s in list(zip(requests, times_s, strict=True))[:placed]:
            waited_by_tokens += (min(now_s, tokens_s[0]) - request.arrival_s) / 0.5
            given_s = np.array([time_s for time_s in tokens_s if time_s <= now_s])
            exceeded_by_tokens += np.maximum(0.0, np.diff(given_s) / 0.0105 - 1.0).sum()
        assert waited == pytest.approx(waited_by_tokens)
        assert exceeded == pytest.approx(exceeded_by_tokens)
    if rule is not anywhere:  # which breaks no TBT SLO here
        assert exceeded > 1.0


def test_records_contain_every_finished_request() -> None:
    env = toy(workload=with_quiet_tail)
    for seed in (1, 2):
        play(env, soonest, seed)
        assert sorted(record.request for record in env.records) == list(range(60))


def test_records_distinguish_deflected_requests() -> None:
    for rule, deflected in ((never_deflect, False), (always_deflect, True)):
        env = toy(workload="LPLD", tbt_slo_s=0.5)  # so that no deflection is masked
        play(env, rule)
        assert {record.deflected for record in env.records} == {deflected}


@pytest.mark.parametrize("cluster", ["2P2D", "1P3D"])
def test_the_smallest_predicted_ttft_costs_less_than_random(cluster: str) -> None:
    env = PrefillPlacementEnv(cluster=cluster, rate_rps=12.0, horizon_requests=150)
    for seed in range(3):
        assert total(play(env, soonest, seed)) > total(play(env, at_random(seed), seed))
