"""The environment: conformance, seeding, costs that telescope, and a heuristic that scores over random."""

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from envs.cluster import Cluster, Disturbance, Placement, Request
from envs.generators import families, generate
from envs.observation import NODE_FEATURES, PREDICTED_TTFT_COLUMN, Observation
from envs.placement_env import PrefillPlacementEnv
from envs.traces import read_trace
from envs.workload import Workload
from hardware_profiles import InputError
from tests.envs.reference import Reference
from tests.toy import toy_profile

ID = "envs:PrefillPlacement-v0"
INFO_KEYS = {"dt_s", "waiting_cost", "tbt_cost", "tail_cost", "invalid_action"}
COLUMN = {name: index for index, name in enumerate(NODE_FEATURES)}

FIXED = {"step_budget": "fixed"}
Rule = Callable[[Observation], int]
Step = tuple[Observation, float, bool, bool, dict[str, Any]]


def toy(**arguments: Any) -> PrefillPlacementEnv:
    return PrefillPlacementEnv(**{"profile": toy_profile(), "rate_rps": 16.0, "horizon_requests": 60} | arguments)


def play(env: PrefillPlacementEnv, rule: Rule, seed: int | None = 0) -> list[Step]:
    observation, _ = env.reset(seed=seed)
    steps: list[Step] = []
    while not (steps and steps[-1][3]):
        steps.append(env.step(rule(observation)))
        observation = steps[-1][0]
    return steps


def total(steps: list[Step]) -> float:
    return sum(reward for _, reward, _, _, _ in steps)


def at_random(seed: int = 0) -> Rule:
    rng = np.random.default_rng(seed)
    return lambda observation: int(rng.choice(np.flatnonzero(observation["action_mask"])))


def soonest(observation: Observation) -> int:
    """The feasible node with the smallest predicted TTFT: the heuristic that comes with the environment."""
    ttft_s = observation["nodes"][:, PREDICTED_TTFT_COLUMN]
    return int(np.argmin(np.where(observation["action_mask"], ttft_s, np.inf)))


def never_deflect(observation: Observation) -> int:
    nodes = observation["nodes"]
    return int(np.argmin(np.where(nodes[:, 0] == 0.0, nodes[:, COLUMN["queued_prompt_tokens"]], np.inf)))


def always_deflect(observation: Observation) -> int:
    nodes = observation["nodes"]
    return int(np.argmin(np.where(nodes[:, 0] == 1.0, nodes[:, COLUMN["decode_requests"]], np.inf)))


def anywhere(observation: Observation) -> int:
    """A feasible node that has nothing to do with what would be good."""
    feasible = np.flatnonzero(observation["action_mask"])
    return int(feasible[int(1e6 * observation["request"][0]) % len(feasible)])


RULES = [never_deflect, always_deflect, soonest, anywhere]

# ---- conformance ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("render_mode", [None, "ansi", "rgb_array"])
def test_gymnasiums_checker_has_nothing_to_say(render_mode: str | None) -> None:
    gymnasium_check_env(gymnasium.make(ID, horizon_requests=20, render_mode=render_mode).unwrapped)


# "nodes" is a matrix on purpose, one row a node for the shared per-node network of `agents`; the checker would have it
# flat, which is what it says to every observation that is neither a vector nor an image.
@pytest.mark.filterwarnings("ignore:Your observation nodes has an unconventional shape:UserWarning")
@pytest.mark.parametrize("cluster", ["1P1D", "2P2D"])
def test_stable_baselines3s_checker_has_nothing_else_to_say(cluster: str) -> None:
    sb3_check_env(gymnasium.make(ID, cluster=cluster, horizon_requests=20).unwrapped)


def test_make_takes_every_keyword() -> None:
    keywords: dict[str, Any] = {
        "profile": "a100-llama31-8b",
        "cluster": "1P3D",
        "workload": "HPLD",
        "rate_rps": (2.0, 4.0),
        "ttft_slo_s": 1.5,
        "tbt_slo_s": 0.08,
        "report_age_s": 0.2,
        "horizon_requests": 7,
        "tbt_weight": 0.5,
        "tail_weight": 0.1,
        "hosts": (0, 0, 1, 1),
        "cluster_options": {"node_speeds": (1.0, 1.0, 1.0, 0.5)},
        "strict_actions": True,
        "render_mode": "ansi",
    }
    assert list(keywords) == list(inspect.signature(PrefillPlacementEnv).parameters)
    env = gymnasium.make(ID, **keywords)
    env.reset(seed=1)
    steps = [env.step(0) for _ in range(7)]
    assert [truncated for _, _, _, truncated, _ in steps] == [False] * 6 + [True]
    assert env.unwrapped.config.profile.name == "a100-llama31-8b"
    assert env.unwrapped.config.hosts == (0, 0, 1, 1)
    # An EnvSpec's JSON keeps no tuples.
    assert env.spec is not None
    again = gymnasium.make(EnvSpec.from_json(env.spec.to_json()))
    assert again.reset(seed=1)[0]["request"].tobytes() == env.reset(seed=1)[0]["request"].tobytes()


def test_the_vector_api_plays_copies_side_by_side() -> None:
    envs = gymnasium.make_vec(ID, num_envs=2, vectorization_mode="sync", cluster="1P3D", horizon_requests=5)
    single = gymnasium.make(ID, cluster="1P3D", horizon_requests=5)
    observations, _ = envs.reset(seed=3)  # seeds 3 and 4
    alone, _ = single.reset(seed=4)
    for _ in range(5):
        assert all(np.array_equal(observations[key][1], alone[key]) for key in alone)
        observations, rewards, terminated, truncated, _ = envs.step(np.array([0, 0]))
        alone, reward, *_ = single.step(0)
        assert rewards[1] == reward
        assert not terminated.any()
    assert truncated.all()
    assert envs.observation_space.contains(observations)
    envs.close()


@pytest.mark.parametrize("cluster", ["1P1D", "1P3D", "4P4D"])
@pytest.mark.parametrize("workload", ["LPHD", "HPLD", "burst", "azure-code"])
def test_spaces_hold_every_observation_and_the_horizon_ends_every_episode(cluster: str, workload: str) -> None:
    env = toy(cluster=cluster, workload=workload, rate_rps=(1.0, 60.0), horizon_requests=40)
    env.action_space.seed(2)
    for seed in range(3):
        observation, info = env.reset(seed=seed)
        assert env.observation_space.contains(observation)
        assert set(info) == INFO_KEYS
        for number in range(40):
            observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
            assert env.observation_space.contains(observation)
            assert observation["action_mask"][: int(cluster[0])].all(), "a prefill node is always feasible"
            assert isinstance(reward, float)
            assert reward <= 1e-9
            assert terminated is False
            assert truncated is (number == 39)
            assert set(info) == INFO_KEYS
            assert info["dt_s"] >= 0.0


def test_what_is_returned_is_never_shared() -> None:
    env, spoiled = toy(), toy()
    observation, info = spoiled.reset(seed=5)
    seen = [observation]
    infos = [info]
    clean = play(env, lambda _: 0, seed=5)
    for observation, reward, *_, info in clean:
        for array in seen[-1].values():
            array[...] = 0
        infos[-1].clear()
        own, own_reward, *_, own_info = spoiled.step(0)
        assert own_reward == reward
        assert own_info == info
        assert all(np.array_equal(own[key], observation[key]) for key in own)
        assert not any(np.shares_memory(own[key], seen[-1][key]) for key in own)
        seen.append(own)
        infos.append(own_info)


# ---- seeding --------------------------------------------------------------------------------------------------------


def to_bytes(steps: list[Step]) -> bytes:
    return b"".join(
        b"".join(array.tobytes() for array in observation.values()) + repr((reward, truncated, info)).encode()
        for observation, reward, _, truncated, info in steps
    )


@pytest.mark.parametrize("rule", RULES)
def test_the_same_seed_gives_the_same_episode_to_the_byte(rule: Rule) -> None:
    env = toy(rate_rps=(8.0, 24.0))
    first = to_bytes(play(env, rule, seed=11))
    play(env, rule, seed=None)
    assert to_bytes(play(env, rule, seed=11)) == first
    assert to_bytes(play(toy(rate_rps=(8.0, 24.0)), rule, seed=11)) == first
    assert to_bytes(play(env, rule, seed=12)) != first


def test_without_a_seed_the_next_episode_is_another_one_and_reproducible() -> None:
    def episodes() -> list[bytes]:
        env = toy(horizon_requests=20)
        return [to_bytes(play(env, soonest, seed)) for seed in (1, None, None)]

    first = episodes()
    assert len(set(first)) == 3
    assert episodes() == first


def test_the_requests_do_not_depend_on_the_actions() -> None:
    def arrivals(rule: Rule) -> list[tuple[float, float]]:
        return [(info["dt_s"], float(seen["request"][0])) for seen, *_, info in play(toy(), rule, seed=4)]

    assert arrivals(never_deflect) == arrivals(at_random())


# ---- workloads ------------------------------------------------------------------------------------------------------


def test_a_trace_is_played_in_random_stretches(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    rows = [f"{0.1 * i * i},{100 + i},{5 + i % 7},1.5,0.2" for i in range(50)]
    path.write_text("\n".join(["arrival_s,prompt_tokens,output_tokens,ttft_slo_s,tbt_slo_s", *rows]) + "\n")
    env = toy(workload=read_trace(path, "native"), horizon_requests=20)
    starts = set()
    for seed in range(12):
        with submitted() as (sequences, _):
            steps = play(env, never_deflect, seed)
        start = sequences[0].prompt_tokens - 100
        starts.add(start)
        assert [s.prompt_tokens for s in sequences] == list(range(100 + start, 120 + start))
        assert {(s.ttft_slo_s, s.tbt_slo_s) for s in sequences} == {(1.5, 0.2)}
        assert sequences[0].arrival_s == 0.0
        gaps_s = [0.1 * (i + 1) ** 2 - 0.1 * i**2 for i in range(start, start + 20)]
        assert [info["dt_s"] for *_, info in steps] == pytest.approx(gaps_s)
    assert len(starts) > 5
    assert max(starts) <= 29


def test_a_trace_may_be_just_long_enough() -> None:
    workload = generate("LPLD", rate_rps=5.0, requests=11, seed=1)
    assert len(play(toy(workload=workload, horizon_requests=10), soonest)) == 10
    with pytest.raises(InputError, match="workload: an episode of 11 decisions needs more than its 11 requests"):
        toy(workload=workload, horizon_requests=11)


def test_a_function_is_asked_for_each_episode() -> None:
    asked: list[tuple[int, float, int]] = []

    def source(requests: int, rate_rps: float, seed: int) -> Workload:
        asked.append((requests, rate_rps, seed))
        return generate("LPLD", rate_rps=rate_rps, requests=requests + 3, seed=seed)

    env = toy(workload=source, rate_rps=(5.0, 9.0), horizon_requests=10)
    for seed in (1, None, None):
        assert len(play(env, soonest, seed)) == 10
    assert [requests for requests, _, _ in asked] == [11] * 3
    assert all(5.0 <= rate_rps <= 9.0 for _, rate_rps, _ in asked)
    assert len({rate_rps for _, rate_rps, _ in asked}) == len({seed for *_, seed in asked}) == 3


def test_a_function_that_gives_too_little_is_told() -> None:
    env = toy(workload=lambda requests, _rate, seed: generate("LPLD", rate_rps=5.0, requests=requests - 1, seed=seed))
    with pytest.raises(InputError, match="workload function gave 60 requests, an episode needs 61"):
        env.reset(seed=0)


@pytest.mark.parametrize("family", families())
def test_every_family_can_be_played(family: str) -> None:
    assert len(play(toy(workload=family, horizon_requests=10), soonest)) == 10


def test_the_slos_reach_the_requests() -> None:
    with submitted() as (sequences, _):
        play(toy(ttft_slo_s=0.7, tbt_slo_s=0.03), soonest)
    assert {(s.ttft_slo_s, s.tbt_slo_s) for s in sequences} == {(0.7, 0.03)}


# ---- actions --------------------------------------------------------------------------------------------------------


@contextmanager
def submitted() -> Iterator[tuple[list[Request], list[Placement]]]:
    """Everything that reaches a cluster meanwhile."""
    sequences: list[Request] = []
    placements: list[Placement] = []
    submit = Cluster.submit

    def keep(cluster: Cluster, seq: Request, placement: Placement) -> None:
        sequences.append(seq)
        placements.append(placement)
        submit(cluster, seq, placement)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Cluster, "submit", keep)
        yield sequences, placements


def test_an_action_is_the_node_that_prefills() -> None:
    env = toy(cluster="2P3D")
    with submitted() as (_, placements):
        steps = play(env, at_random(3))
    assert not any(info["invalid_action"] for *_, info in steps)
    assert {placement.prefill_node for placement in placements} == set(range(5))
    assert all(p.decode_node == p.prefill_node if p.prefill_node >= 2 else p.decode_node >= 2 for p in placements)


def test_a_masked_action_falls_back_to_the_shortest_prefill_queue_and_says_so() -> None:
    env = toy(tbt_slo_s=0.005, rate_rps=30.0, cluster_options=FIXED)  # no step is as short: always masked
    rng = np.random.default_rng(1)
    with submitted() as (_, placements):
        observation, _ = env.reset(seed=2)
        for _ in range(60):
            assert observation["action_mask"].tolist() == [1, 1, 0, 0]
            action = int(rng.integers(4))
            queued = observation["nodes"][:2, COLUMN["queued_prompt_tokens"]]
            observation, *_, info = env.step(action)
            assert info["invalid_action"] is (action >= 2)
            placed = placements[-1]
            assert placed.prefill_node == (action if action < 2 else int(np.argmin(queued)))
            assert placed.decode_node >= 2
            assert placed.chunk_plan == ()
    assert len({p.prefill_node for p in placements}) == 2


def test_strict_actions_raise_and_leave_the_episode_as_it_was() -> None:
    strict, free = (toy(tbt_slo_s=0.005, strict_actions=strict, cluster_options=FIXED) for strict in (True, False))
    strict.reset(seed=2)
    free.reset(seed=2)
    for _ in range(5):
        with pytest.raises(ValueError, match="action 2 breaks the TBT SLO"):
            strict.step(2)
        assert repr(strict.step(1)) == repr(free.step(1))


@pytest.mark.parametrize("action", [-1, 4])
def test_an_action_outside_the_space_is_refused(action: int) -> None:
    env = toy()
    env.reset(seed=0)
    with pytest.raises(ValueError, match=f"action {action} is no node"):
        env.step(action)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("profile", "a100-nobody"),
        ("cluster", "2P"),
        ("cluster", "0P1D"),
        ("workload", "nobody"),
        ("workload", generate("LPLD", rate_rps=1.0, requests=60, seed=0)),
        ("rate_rps", 0.0),
        ("rate_rps", -1.0),
        ("rate_rps", float("nan")),
        ("rate_rps", (4.0, 2.0)),
        ("rate_rps", (0.0, 2.0)),
        ("rate_rps", (1.0, float("inf"))),
        ("rate_rps", (1.0, 2.0, 3.0)),
        ("ttft_slo_s", 0.0),
        ("ttft_slo_s", float("nan")),
        ("tbt_slo_s", -0.1),
        ("tbt_slo_s", float("inf")),
        ("report_age_s", -0.1),
        ("report_age_s", float("nan")),
        ("horizon_requests", 0),
        ("tbt_weight", -1.0),
        ("tbt_weight", float("nan")),
        ("tail_weight", -1.0),
        ("tail_weight", float("inf")),
        ("hosts", (0, 0)),
        ("render_mode", "human"),
    ],
)
def test_a_bad_argument_is_one_line_that_names_it(argument: str, value: object) -> None:
    with pytest.raises(InputError) as caught:
        toy(**{argument: value})
    said = str(caught.value)
    assert re.search(argument.removesuffix("_s").replace("_", "[_ ]"), said)
    assert "\n" not in said


# ---- costs ----------------------------------------------------------------------------------------------------------


def with_quiet_tail(requests: int, rate_rps: float, seed: int) -> Workload:
    """A burst workload of two SLO classes whose last request comes long after all others are done."""
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


def one_class(requests: int, rate_rps: float, seed: int) -> Workload:
    return with_quiet_tail(requests, rate_rps, seed).with_slos(1.0, 0.0105)


@pytest.mark.parametrize("rule", RULES)
def test_rewards_sum_to_what_records_and_gaps_say(rule: Rule) -> None:
    env = toy(workload=one_class, rate_rps=20.0, tbt_weight=0.3)
    steps = play(env, rule, seed=8)
    assert len(env.records) == 60
    ttft = sum(record.first_token_s - record.arrival_s for record in env.records) / 1.0
    exceeded = 0.0
    for _, count, first_s, growth_s, weight in env._cluster.gaps.columns():
        gaps_s = first_s + growth_s * np.arange(count)
        exceeded += weight * np.maximum(0.0, gaps_s / 0.0105 - 1.0).sum()
    assert exceeded > 1.0, "a case in which the second term counts"
    assert total(steps) == pytest.approx(-(ttft + 0.3 * exceeded))
    assert sum(info["waiting_cost"] for *_, info in steps) == pytest.approx(ttft)
    assert sum(info["tbt_cost"] for *_, info in steps) == pytest.approx(exceeded)


def replayed(env: PrefillPlacementEnv, sequences: list[Request], placements: list[Placement]) -> Reference:
    """What was submitted, played again by the step-by-step reference: the times of every single token."""
    columns = zip(
        *[(s.arrival_s, s.prompt_tokens, s.output_tokens, s.ttft_slo_s, s.tbt_slo_s) for s in sequences], strict=True
    )
    return Reference(Workload(*map(np.array, columns), label="submitted"), placements, env.config).run()


@pytest.mark.parametrize("rule", RULES)
def test_rewards_sum_to_what_every_token_of_two_slo_classes_says(rule: Rule) -> None:
    env = toy(workload=with_quiet_tail, rate_rps=20.0, tbt_weight=2.0, tail_weight=0.5, cluster_options=FIXED)
    with submitted() as (sequences, placements):
        steps = play(env, rule, seed=8)
    ttft = squared = exceeded = 0.0
    over = set()
    for seq, job in zip(sequences, replayed(env, sequences, placements).jobs, strict=True):
        ttft += (share := (job.tokens_s[0] - seq.arrival_s) / seq.ttft_slo_s)
        squared += share * share
        excess = np.maximum(0.0, np.diff(job.tokens_s) / seq.tbt_slo_s - 1.0).sum()
        exceeded += excess
        if excess > 0.01:
            over.add(seq.tbt_slo_s)
    assert 0.0115 in over
    assert any(record.deflected for record in env.records) == (rule is not never_deflect)
    assert total(steps) == pytest.approx(-(ttft + 2.0 * exceeded + 0.5 * squared), rel=1e-6)
    assert sum(info["tail_cost"] for *_, info in steps) == pytest.approx(squared, rel=1e-6)
    assert sum(info["tbt_cost"] for *_, info in steps) == pytest.approx(exceeded, rel=1e-6)


def accrued(rule: Rule) -> Iterator[tuple[float, float, float, float]]:
    """At every decision: cost of waiting so far, as paid and as tokens say, and cost of TBT so far, likewise."""
    env = toy(workload="burst", ttft_slo_s=0.5, tbt_slo_s=0.0105, rate_rps=20.0, cluster_options=FIXED)
    with submitted() as (sequences, placements):
        steps = play(env, rule, seed=8)
    jobs = replayed(env, sequences, placements).jobs
    now_s = waited = exceeded = 0.0
    for placed, (*_, info) in enumerate(steps, start=1):
        now_s += info["dt_s"]
        waited += info["waiting_cost"]
        exceeded += info["tbt_cost"]
        waited_by_tokens = exceeded_by_tokens = 0.0
        for seq, job in list(zip(sequences, jobs, strict=True))[:placed]:
            waited_by_tokens += (min(now_s, job.tokens_s[0]) - seq.arrival_s) / 0.5
            tokens_s = np.array([time_s for time_s in job.tokens_s if time_s <= now_s])
            exceeded_by_tokens += np.maximum(0.0, np.diff(tokens_s) / 0.0105 - 1.0).sum()
        yield waited, waited_by_tokens, exceeded, exceeded_by_tokens


@pytest.mark.parametrize("rule", RULES)
def test_waiting_is_paid_for_when_it_happens(rule: Rule) -> None:
    for paid, by_tokens, _, _ in accrued(rule):
        assert paid == pytest.approx(by_tokens)


@pytest.mark.parametrize("rule", RULES)
def test_gaps_beyond_their_slo_are_paid_for_when_they_close(rule: Rule) -> None:
    costs = list(accrued(rule))
    assert costs[-1][-1] > 1.0
    for _, _, paid, by_tokens in costs:
        assert paid == pytest.approx(by_tokens)


def test_time_between_decisions_adds_up() -> None:
    env = toy(horizon_requests=30)
    with submitted() as (sequences, _):
        steps = play(env, at_random(), seed=3)
    passed_s = np.cumsum([info["dt_s"] for *_, info in steps])
    assert passed_s[:-1] == pytest.approx([seq.arrival_s for seq in sequences[1:]])
    assert passed_s[-1] == pytest.approx(env._cluster.clock.now)
    assert all(b.arrival_s >= a.arrival_s for a, b in pairwise(sequences))


def test_records_are_this_episodes_finished_requests() -> None:
    env = toy(workload=with_quiet_tail)
    for seed in (1, 2):
        play(env, soonest, seed)
        assert sorted(record.request for record in env.records) == list(range(60))
    ends_s = [record.last_token_s for record in env.records]
    assert ends_s == sorted(ends_s)


# ---- the bundled heuristic ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cluster", ["2P2D", "1P3D"])
def test_the_smallest_predicted_ttft_scores_over_random(cluster: str) -> None:
    env = PrefillPlacementEnv(cluster=cluster, workload="burst", rate_rps=12.0, horizon_requests=150)
    ours = [total(play(env, soonest, seed)) for seed in range(4)]
    random = [total(play(env, at_random(seed), seed)) for seed in range(4)]
    assert all(own > other for own, other in zip(ours, random, strict=True))
    assert sum(ours) > 0.7 * sum(random)  # costs: negative


def test_further_options_of_the_cluster_reach_it_and_mistakes_are_named() -> None:
    env = PrefillPlacementEnv(cluster_options={"node_speeds": (1.0, 1.0, 1.0, 0.5), "kv_streaming": True})
    observation, _ = env.reset(seed=0)
    execution = list(NODE_FEATURES).index("execution_s")
    assert observation["nodes"][3, execution] > observation["nodes"][2, execution]
    with pytest.raises(InputError, match="cluster_options has no 'speed'"):
        PrefillPlacementEnv(cluster_options={"speed": 2})


def test_the_step_budget_is_an_option_of_the_environment() -> None:
    """Deflections carry a chunk plan under "fixed", and none under "slo", which is what engines do by default."""
    for options, planned in (({"step_budget": "slo"}, False), (None, False), (FIXED, True)):
        env = toy(cluster_options=options)
        assert env.config.step_budget == ("fixed" if planned else "slo")
        with submitted() as (_, placements):
            play(env, always_deflect)
        deflected = [placement for placement in placements if placement.prefill_node == placement.decode_node]
        assert deflected
        assert {bool(placement.chunk_plan) for placement in deflected} == {planned}
    with pytest.raises(InputError, match="step_budget 'loose' is none of slo, fixed"):
        toy(cluster_options={"step_budget": "loose"})


def test_prompts_that_share_blocks_hit_the_cache_in_the_environment() -> None:
    shared = Workload.of(
        np.arange(20.0), [2048] * 20, [5] * 20, label="one prompt again and again", block_hashes=[(1, 2, 3, 4)] * 20
    )
    env = PrefillPlacementEnv(workload=shared, horizon_requests=18, cluster_options={"prefix_cache": True})
    env.reset(seed=0)
    for _ in range(18):
        env.step(0)
    times_s = [record.prefill_end_s - record.prefill_start_s for record in sorted(env.records)]
    assert max(times_s[1:]) < 0.5 * times_s[0]


# ---- lost nodes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step_budget", ["slo", "fixed"])
@pytest.mark.parametrize("nodes", [(0,), (1,), (2,), (3,), (0, 3), (1, 2)])
def test_nothing_is_placed_on_a_lost_node_a_masked_row_of_zeros(nodes: tuple[int, ...], step_budget: str) -> None:
    losses = tuple(Disturbance(1.0, "loss", node) for node in nodes)
    env = toy(horizon_requests=150, cluster_options={"disturbances": losses, "step_budget": step_budget})
    lost_rows = 0
    with submitted() as (requests, placements):
        observation, _ = env.reset(seed=4)
        rng = np.random.default_rng(5)
        truncated = False
        while not truncated:
            assert env.observation_space.contains(observation)
            lost = env._requests[env._next][0] >= 1.0
            for node in range(4):
                gone = lost and node in nodes
                assert gone == (not observation["nodes"][node].any())
                assert not (gone and observation["action_mask"][node])
                lost_rows += gone
            action = int(rng.integers(4)) if rng.random() < 0.3 else at_random(int(rng.integers(99)))(observation)
            observation, *_, truncated, info = env.step(action)
            if lost and action in nodes:
                assert info["invalid_action"]
        assert env.observation_space.contains(observation)
    assert lost_rows > 20
    late = [p for request, p in zip(requests, placements, strict=True) if request.arrival_s >= 1.0]
    assert late
    assert not {node for p in late for node in p[:2]} & set(nodes)
