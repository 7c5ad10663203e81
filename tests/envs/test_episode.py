"""Episodes: the source of their requests, rates, SLOs, start and end."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import policies
from envs.cluster import ClusterConfig, Request, simulate
from envs.default_rate import default_rate_rps
from envs.generators import families, generate
from envs.traces import read_trace
from envs.workload import Workload
from hardware_profiles import InputError, load_profile
from tests.envs.episodes import at_random, never_deflect, play, soonest, submitted, toy
from tests.envs.test_placement_env import with_quiet_tail
from tests.toy import toy_profile

RUNNING: dict[str, Any] = {"start": "running", "warm_up_s": (1.0, 3.0)}


def burst(requests: int, rate_rps: float, seed: int) -> Workload:  # noqa: ARG001 - the same workload each time
    return generate("burst", rate_rps=rate_rps, requests=requests, seed=5)


def placed(env: Any, seed: int | None = 0) -> list[Request]:
    """The requests of an episode."""
    with submitted() as (requests, _):
        play(env, soonest, seed)
    return requests


# ---- where requests come from ---------------------------------------------------------------------------------------


def test_episodes_of_a_trace_are_random_stretches(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    rows = [f"{0.1 * i * i},{100 + i},{5 + i % 7},1.5,0.2" for i in range(50)]
    path.write_text("\n".join(["arrival_s,prompt_tokens,output_tokens,ttft_slo_s,tbt_slo_s", *rows]) + "\n")
    env = toy(workload=read_trace(path, "native"), horizon_requests=20)
    starts = set()
    for seed in range(12):
        with submitted() as (requests, _):
            steps = play(env, never_deflect, seed)
        start = requests[0].prompt_tokens - 100
        starts.add(start)
        assert [one.prompt_tokens for one in requests] == list(range(100 + start, 120 + start))
        assert {(one.ttft_slo_s, one.tbt_slo_s) for one in requests} == {(1.5, 0.2)}
        assert requests[0].arrival_s == 0.0
        gaps_s = [0.1 * (i + 1) ** 2 - 0.1 * i**2 for i in range(start, start + 20)]
        assert [info["dt_s"] for *_, info in steps] == pytest.approx(gaps_s)
    assert len(starts) > 5
    assert max(starts) <= 29


@pytest.mark.parametrize("horizon_s", [None, 4.0])
def test_a_running_start_leaves_enough_time_before_and_after(horizon_s: float | None) -> None:
    workload = generate("burst", rate_rps=10.0, requests=120, seed=2)
    horizon = {"horizon_requests": 20} if horizon_s is None else {"horizon_s": horizon_s}
    env = toy(workload=workload, **RUNNING, **horizon)
    firsts, warmed = set(), 0
    for seed in range(10):
        env.reset(seed=seed)
        requests, first, last = env.process.episode
        firsts.add(requests[first][1])
        assert len(requests) == last + 1
        assert 0.0 <= requests[first][0] <= 3.0
        warmed += first > 0  # there may be no arrival in that time
        if horizon_s is not None:
            assert requests[last][0] - requests[first][0] >= horizon_s > requests[last - 1][0] - requests[first][0]
    assert len(firsts) > 5
    assert warmed > 5


def test_a_workload_of_exactly_the_needed_length_is_enough() -> None:
    workload = generate("LPLD", rate_rps=5.0, requests=11, seed=1)
    assert len(play(toy(workload=workload, horizon_requests=10), soonest)) == 10
    for short in ({"horizon_requests": 11}, {"horizon_s": 100.0}, {"horizon_requests": 10, **RUNNING}):
        with pytest.raises(InputError, match="workload: an episode needs more than its 11 requests"):
            toy(workload=workload, **short).reset(seed=0)


def test_a_workload_function_is_called_for_each_episode() -> None:
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


def test_a_workload_function_with_too_few_requests_is_an_error() -> None:
    env = toy(workload=lambda requests, _rate, seed: generate("LPLD", rate_rps=5.0, requests=requests - 1, seed=seed))
    with pytest.raises(InputError, match="the workload function gave 60 requests when asked for 61"):
        env.reset(seed=0)


def test_prompts_that_share_blocks_hit_the_cache() -> None:
    hashes = [(1, 2, 3, 4)] * 20
    shared = Workload.of(np.arange(20.0), [2048] * 20, [5] * 20, label="one prompt again", block_hashes=hashes)
    env = toy(workload=shared, horizon_requests=18, cluster_options={"prefix_cache": True})
    play(env, lambda _: 2)
    times_s = [record.prefill_end_s - record.prefill_start_s for record in sorted(env.records)]
    assert max(times_s[1:]) < 0.5 * times_s[0]


# ---- their SLOs -----------------------------------------------------------------------------------------------------


def test_one_slo_applies_to_all_requests_and_grows_with_the_prompt() -> None:
    for request in placed(toy(ttft_slo_s=0.7, tbt_slo_s=0.03, ttft_slo_per_1k_tokens_s=0.2)):
        assert request.ttft_slo_s == pytest.approx(0.7 + 0.2 * request.prompt_tokens / 1000)
        assert request.tbt_slo_s == 0.03


def test_each_episode_draws_a_tbt_slo_from_the_range() -> None:
    env = toy(tbt_slo_s=(0.02, 0.3), horizon_requests=3)
    drawn_s = []
    for seed in range(40):
        found = {request.tbt_slo_s for request in placed(env, seed)}
        assert len(found) == 1
        drawn_s.append(found.pop())
    assert 0.02 <= min(drawn_s) < 0.04  # log-uniform: half of them are below the geometric mean, 0.077
    assert 0.15 < max(drawn_s) <= 0.3
    assert 10 <= sum(tbt_slo_s < 0.0775 for tbt_slo_s in drawn_s) <= 30


def test_slo_classes_have_the_given_shares() -> None:
    requests = placed(toy(slo_classes=[(0.3, 1.0, 0.05), [0.7, 4.0, 0.2, 0.5]], horizon_requests=200))
    for request in requests:
        growth_s = 0.5 * request.prompt_tokens / 1000 if request.tbt_slo_s == 0.2 else 0.0
        assert request.ttft_slo_s == pytest.approx((4.0 if request.tbt_slo_s == 0.2 else 1.0) + growth_s)
    assert 40 <= sum(request.tbt_slo_s == 0.05 for request in requests) <= 80


# ---- their rate -----------------------------------------------------------------------------------------------------


def test_each_episode_draws_a_rate_from_the_range() -> None:
    env = toy(workload="LPLD", rate_rps=(2.0, 50.0), horizon_requests=100)
    rates_rps = []
    for seed in range(8):
        env.reset(seed=seed)
        rates_rps.append(100 / env.process.episode.requests[-1][0])
    assert 1.0 < min(rates_rps) < 20.0 < max(rates_rps) < 75.0


@pytest.mark.parametrize("family", families())
def test_without_a_rate_the_default_rate_is_used(family: str) -> None:
    env = toy(workload=family, rate_rps=None)
    same = toy(workload=family, rate_rps=default_rate_rps(family, env.config))
    env.reset(seed=1)
    same.reset(seed=1)
    assert env.process.episode == same.process.episode


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["2P2D", "1P3D", "3P1D"])
@pytest.mark.parametrize("family", families())
def test_static_meets_the_slos_at_the_default_rate(family: str, shape: str) -> None:
    config = ClusterConfig(load_profile("a100-qwen3-8b"), shape=shape)
    rate_rps = default_rate_rps(family, config)
    met: list[bool] = []
    for seed in range(100, 112):  # different requests from those that the rate is computed from
        workload = generate(family, rate_rps=rate_rps, requests=512, seed=seed)
        for record in simulate(workload, policies.make("static"), config).records:
            ttft_s = record.first_token_s - record.arrival_s
            number = record.request
            met.append(ttft_s <= workload.ttft_slo_s[number] and record.tbt_max_s <= workload.tbt_slo_s[number])
    assert np.mean(met) >= 0.9


def test_the_default_rate_grows_with_the_bottleneck_pool() -> None:
    def rate(shape: str, **options: Any) -> float:
        return default_rate_rps("burst", ClusterConfig(toy_profile(), shape=shape, **options))

    assert rate("2P2D") > rate("1P1D")
    assert rate("1P9D") == pytest.approx(rate("1P2D"))  # prefill is the bottleneck
    assert rate("1P1D", node_speeds=(0.5, 0.5)) < rate("1P1D")


# ---- where it starts and ends ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("warm_up", ["static", "shortest-ttft"])
def test_a_running_start_continues_the_warm_up(warm_up: str) -> None:
    running = toy(workload=burst, warm_up=warm_up, rows=17, horizon_requests=200, **RUNNING)
    observation, _ = running.reset(seed=3)
    first = running.process.episode.first
    played = toy(workload=burst, rows=17, horizon_requests=first + 200)
    same, _ = played.reset(seed=3)
    assert first > 5
    for _ in range(first):  # row 16 is not a choice: the environment falls back to the placement of static
        same, *_ = played.step(np.int64(16 if warm_up == "static" else soonest(same)))
    rule, truncated = at_random(1), False
    while not truncated:
        assert all(np.array_equal(observation[part], same[part]) for part in observation)
        row = np.int64(rule(observation))
        observation, reward, _, truncated, info = running.step(row)
        same, other_reward, _, other_truncated, other_info = played.step(row)
        assert reward == pytest.approx(other_reward, rel=1e-6, abs=1e-9)
        assert truncated == other_truncated
        assert info["dt_s"] == other_info["dt_s"]
    assert running.records
    assert repr(running.records) == repr([record for record in played.records if record.request >= first])


def test_the_warm_up_lasts_for_the_drawn_time() -> None:
    env = toy(**RUNNING, horizon_requests=2)
    warm_s = []
    for seed in range(30):
        env.reset(seed=seed)
        requests, first, _ = env.process.episode
        assert requests[0][0] == 0.0
        assert env.process.cluster.clock.now == requests[first][0]
        warm_s.append(requests[first][0])
        assert requests[first - 1][0] < 3.0
    assert 1.0 <= min(warm_s) < 1.8
    assert max(warm_s) > 2.2


def test_each_episode_draws_one_of_several_warm_up_policies() -> None:
    found = {}
    for warm_up in ("static", "shortest-ttft", ["static", "shortest-ttft"]):
        env = toy(workload=burst, warm_up=warm_up, warm_up_s=(2.0, 2.0), start="running", horizon_requests=2)
        found[str(warm_up)] = {env.reset(seed=seed)[0]["choices"].tobytes() for seed in range(8)}
    assert found["static"] != found["shortest-ttft"]
    assert found["['static', 'shortest-ttft']"] == found["static"] | found["shortest-ttft"]


@pytest.mark.parametrize("start", ["empty", "running"])
def test_a_horizon_in_seconds_ends_at_the_first_arrival_after_it(start: str) -> None:
    for seed in range(6):
        env = toy(horizon_s=2.5, start=start, warm_up_s=(1.0, 2.0))
        steps = play(env, soonest, seed)
        passed_s = np.cumsum([info["dt_s"] for *_, info in steps])
        assert passed_s[-1] >= 2.5
        assert (passed_s[:-1] < 2.5).all()


@pytest.mark.parametrize("start", ["empty", "running"])
def test_a_longer_horizon_begins_with_the_same_requests(start: str) -> None:
    horizons: list[dict[str, Any]] = [{"horizon_s": 2.0}, {"horizon_s": 40.0}]
    if start == "empty":
        horizons += [{"horizon_requests": 20}, {"horizon_requests": 700}]
    for seed in range(3):
        episodes = []
        for horizon in horizons:
            env = toy(start=start, warm_up_s=(1.0, 2.0), **horizon)
            env.reset(seed=seed)
            episodes.append(env.process.episode)
        assert len({episode.first for episode in episodes}) == 1
        for shorter, longer in pairwise(sorted(episodes, key=lambda episode: episode.last)):
            assert longer.requests[: len(shorter.requests)] == shorter.requests


def test_times_between_decisions_equal_times_between_arrivals() -> None:
    env = toy(workload=with_quiet_tail, horizon_requests=30)
    with submitted() as (requests, _):
        steps = play(env, at_random(), seed=3)
    arrivals_s = [*[request.arrival_s for request in requests], env.process.cluster.clock.now]
    assert [info["dt_s"] for *_, info in steps] == pytest.approx(np.diff(arrivals_s))
