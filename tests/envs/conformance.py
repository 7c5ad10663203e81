"""Laws that every variant of the placement environment must satisfy, for anyone who changes or subclasses it.

    from tests.envs.conformance import check_all

    check_all(lambda: gymnasium.make("envs:PrefillPlacement-v1", cluster="1P3D", horizon_requests=40))

Each law is a function of `make`, which returns a new environment each time, and of a seed; it raises AssertionError if
the law is broken. Episodes are played to their end, so `make` should use a short horizon.
"""

import json
import pickle
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from math import isfinite, isnan
from typing import Any, NamedTuple
from warnings import catch_warnings, filterwarnings

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from numpy.typing import NDArray
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from envs.cluster import Placement, RequestRecord
from envs.episode import Episode
from envs.objective import Costs

Env = gymnasium.Env[Any, Any]
Make = Callable[[], Env]
Observation = dict[str, NDArray[Any]]
Law = Callable[[Make, int], None]

COST_PARTS = ("waiting_cost", "tbt_cost", "tail_cost", "miss_cost")
INFO_KEYS = {"dt_s", *COST_PARTS, "invalid_action"}
PARTS = {"request", "global", "choices", "action_mask"}


class Step(NamedTuple):
    """The action and the results of one step of an environment; `action` is None for a reset."""

    action: int | None
    observation: Observation
    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any]

    def as_bytes(self) -> bytes:
        """All its fields as bytes."""
        arrays = b"".join(key.encode() + self.observation[key].tobytes() for key in sorted(self.observation))
        return arrays + repr((self.action, self.reward, self.terminated, self.truncated, self.info)).encode()


Rule = Callable[[Observation], int]


def at_random(seed: int) -> Rule:
    """A rule that chooses a feasible row at random."""
    rng = np.random.default_rng(seed)
    return lambda observation: int(rng.choice(np.flatnonzero(observation["action_mask"])))


def anything(seed: int) -> Rule:
    """A rule that chooses any row at random, including masked ones."""
    rng = np.random.default_rng(seed)
    return lambda observation: int(rng.integers(len(observation["action_mask"])))


def steps(env: Env, seed: int | None, rule: Rule) -> Iterator[Step]:
    """Yield the steps of an episode, its reset first. With `strict_actions` a feasible row replaces a masked one."""
    strict = inner(env).process.strict
    observation, info = env.reset(seed=seed)
    yield Step(None, observation, 0.0, False, False, info)
    truncated = terminated = False
    while not (truncated or terminated):
        action = rule(observation)
        if strict and not observation["action_mask"][action]:
            action = int(np.argmax(observation["action_mask"]))
        observation, reward, terminated, truncated, info = env.step(action)
        yield Step(action, observation, float(reward), terminated, truncated, info)


def play(env: Env, seed: int | None, rule: Rule) -> bytes:
    """An episode as bytes."""
    return b"".join(step.as_bytes() for step in steps(env, seed, rule))


def inner(env: Env) -> Any:
    """The placement environment under the wrappers."""
    return env.unwrapped


# ---- other libraries ------------------------------------------------------------------------------------------------


def gymnasiums_checker_passes(make: Make, seed: int = 0) -> None:  # noqa: ARG001
    """Gymnasium's checker passes; it chooses any action, which `strict_actions` does not allow."""
    env = inner(make())
    if env.process.strict:
        return
    with catch_warnings():
        filterwarnings("error")
        gymnasium_check_env(env, skip_render_check=env.spec is None or env.render_mode is None)


def stable_baselines3s_checker_passes(make: Make, seed: int = 0) -> None:  # noqa: ARG001
    """Stable-baselines3's checker only warns that a table is no vector and no image; it chooses any action, too."""
    env = inner(make())
    if env.process.strict:
        return
    with catch_warnings():
        filterwarnings("error")
        filterwarnings("ignore", "Your observation choices has an unconventional shape", UserWarning)
        sb3_check_env(env, skip_render_check=True)


# ---- observations ---------------------------------------------------------------------------------------------------


def observations_are_in_their_space(make: Make, seed: int = 0) -> None:
    """Every observation of every episode is in the space; parts are float32, the mask is int8."""
    env = make()
    for step in steps(env, seed, anything(seed)):
        assert set(step.observation) == PARTS
        assert env.observation_space.contains(step.observation)
        for key, array in step.observation.items():
            assert array.dtype == (np.int8 if key == "action_mask" else np.float32), key
            assert np.isfinite(array).all(), key


def observations_are_fresh_arrays(make: Make, seed: int = 0) -> None:
    """No two steps share memory, and overwriting a returned observation changes nothing."""
    spoiled: list[Observation] = []
    found = []
    for step in steps(make(), seed, at_random(seed)):
        for earlier in spoiled:
            for key, array in step.observation.items():
                assert not np.shares_memory(array, earlier[key]), key
        found.append(step.as_bytes())
        if spoiled:  # the previous step, which `at_random` has already read
            for array in spoiled[-1].values():
                array[...] = 0
        step.info.clear()
        spoiled.append(step.observation)
    assert b"".join(found) == play(make(), seed, at_random(seed))


def some_choice_is_feasible(make: Make, seed: int = 0) -> None:
    """The mask has a 1 at every step."""
    for step in steps(make(), seed, anything(seed)):
        mask = step.observation["action_mask"]
        assert set(mask.tolist()) <= {0, 1}
        assert mask.any()


def rows_beyond_the_choices_are_masked_zeros(make: Make, seed: int = 0) -> None:
    """Rows are the choices, then zeros; no choice's row is all zeros."""
    env = make()
    for step in steps(env, seed, anything(seed)):
        count = len(inner(env).placements())
        assert 1 <= count <= len(step.observation["choices"])
        assert not step.observation["choices"][count:].any()
        assert not step.observation["action_mask"][count:].any()
        assert step.observation["choices"][:count].any(axis=1).all()


def placements_are_distinct_and_live(make: Make, seed: int = 0) -> None:
    """No two rows stand for the same placement, and none for a lost node."""
    env = make()
    for _ in steps(env, seed, at_random(seed)):
        topology = inner(env).process.cluster.topology
        pairs = [placement[:2] for placement in inner(env).placements()]
        assert len(set(pairs)) == len(pairs)
        live = {*topology.prefill_nodes, *topology.decode_nodes}
        assert {node for pair in pairs for node in pair} <= live


def action_masks_are_the_observations(make: Make, seed: int = 0) -> None:
    """`action_masks()`, which sb3-contrib calls, is the observation's mask as a new bool array."""
    env = make()
    for step in steps(env, seed, anything(seed)):
        mask = inner(env).action_masks()
        assert mask.dtype == np.bool_
        assert mask.tolist() == step.observation["action_mask"].astype(bool).tolist()
        mask[:] = False
        assert inner(env).action_masks().any()


# ---- actions --------------------------------------------------------------------------------------------------------


def masked_actions_fall_back(make: Make, seed: int = 0) -> None:
    """A masked action is flagged and placed by the shortest queues; a feasible one gets its row's placement."""
    env = make()
    if inner(env).process.strict:
        return
    observation, _ = env.reset(seed=seed)
    rule = anything(seed)
    truncated = False
    while not truncated:
        row = rule(observation)
        view = inner(env).process.cluster.view()
        feasible = bool(observation["action_mask"][row])
        placement = Placement(view.shortest_prefill_queue(), view.least_loaded_decode_node())
        if feasible:
            placement = inner(env).placements()[row]
        observation, _, _, truncated, info = env.step(row)
        assert inner(env).process.placement == placement
        assert info["invalid_action"] is not feasible


def strict_actions_raise_and_leave_no_trace(make: Make, seed: int = 0) -> None:
    """With `strict_actions` a masked action raises ValueError and does not affect the episode."""
    env, twin = make(), make()
    for one in (env, twin):
        inner(one).process.strict = True
    for step, again in zip(steps(env, seed, at_random(seed)), steps(twin, seed, at_random(seed)), strict=True):
        assert step.as_bytes() == again.as_bytes()
        if not step.truncated:
            for row in np.flatnonzero(step.observation["action_mask"] == 0)[-2:]:
                _refuses(lambda row=row: env.step(row))  # type: ignore[misc]


def _refuses(call: Callable[[], object]) -> None:
    try:
        call()
    except ValueError:
        return
    raise AssertionError("no ValueError")


def actions_outside_the_space_are_refused(make: Make, seed: int = 0) -> None:
    """An index that is not a row raises ValueError; so does a call for masks before the first reset."""
    env = inner(make())
    _refuses(env.action_masks)
    env.reset(seed=seed)
    _refuses(lambda: env.step(env.action_space.n))
    _refuses(lambda: env.step(-1))


# ---- reproducibility ------------------------------------------------------------------------------------------------


def a_seed_is_an_episode(make: Make, seed: int = 0) -> None:
    """The same seed and actions give the same bytes, whatever happened before; another seed gives others."""
    env = make()
    first = play(env, seed, anything(seed))
    play(env, None, at_random(1))
    for _ in islice(steps(env, seed + 5, anything(2)), 4):  # an unfinished episode
        pass
    assert play(env, seed, anything(seed)) == first
    assert play(make(), seed, anything(seed)) == first
    assert play(env, seed + 1, anything(seed)) != first


def unseeded_episodes_differ_and_are_reproducible(make: Make, seed: int = 0) -> None:
    """Resets without a seed continue the environment's generator."""
    env, other = make(), make()
    found, again = ([play(one, None if i else seed, at_random(i)) for i in range(3)] for one in (env, other))
    assert found == again
    assert len(set(found)) == 3


def requests_do_not_depend_on_the_actions(make: Make, seed: int = 0) -> None:
    """Episodes of one seed have the same arrivals and prompts, whatever the actions."""

    def seen(rule: Rule) -> list[tuple[float, bytes]]:
        return [(step.info["dt_s"], step.observation["request"][:3].tobytes()) for step in steps(make(), seed, rule)]

    assert seen(at_random(1)) == seen(at_random(2))


def pickling_keeps_an_episode(make: Make, seed: int = 0) -> None:
    """An environment can be pickled before its first reset and in an episode, and its copy continues identically."""
    env = make()
    fresh = pickle.loads(pickle.dumps(env))
    assert play(fresh, seed, at_random(seed)) == play(env, seed, at_random(seed))
    running = steps(env, seed, at_random(seed))
    for _ in islice(running, 12):
        pass
    twin = pickle.loads(pickle.dumps(env))
    for step in running:
        observation, reward, terminated, truncated, info = twin.step(step.action)
        again = Step(step.action, observation, float(reward), terminated, truncated, info)
        assert again.as_bytes() == step.as_bytes()
    assert repr(inner(twin).records) == repr(inner(env).records)


def a_spec_survives_json(make: Make, seed: int = 0) -> None:
    """An environment made from its spec's JSON has the same episodes; specs with non-JSON arguments are skipped."""
    env = make()
    if env.spec is None:
        return
    try:
        json.dumps(env.spec.kwargs)
    except TypeError:
        return
    again = gymnasium.make(EnvSpec.from_json(env.spec.to_json()))
    assert play(again, seed, anything(seed)) == play(env, seed, anything(seed))


# ---- rewards --------------------------------------------------------------------------------------------------------


def rewards_are_what_the_parts_of_the_cost_add_up_to(make: Make, seed: int = 0) -> None:
    """Every reward is finite, at most 0, and the negative weighted sum of the parts in `info`."""
    env = make()
    for step in steps(env, seed, anything(seed)):
        assert set(step.info) - {"episode_summary"} == INFO_KEYS
        assert isfinite(step.reward)
        assert step.reward <= 1e-9
        assert step.info["dt_s"] >= 0.0
        waiting, tbt, tail, misses = (step.info[part] for part in COST_PARTS)
        costs = Costs(waiting=waiting, tbt=tbt, tail=tail, misses=misses)
        assert min(waiting, tbt, tail, misses) >= -1e-9
        assert abs(step.reward + inner(env).process.objective.total(costs)) <= 1e-9 * (1.0 + abs(step.reward))


def rewards_telescope(make: Make, seed: int = 0) -> None:
    """An episode's rewards sum to the negative growth of its cluster's objective, and `dt_s` to the time passed."""
    env = make()
    running = steps(env, seed, anything(seed))
    next(running)
    cluster, objective = inner(env).process.cluster, inner(env).process.objective
    before, before_s = objective.of(cluster), cluster.clock.now_s
    rest = list(running)
    grown = objective.of(cluster) - before
    assert abs(sum(step.reward for step in rest) + grown) <= 1e-6 * (1.0 + abs(grown))
    assert abs(sum(step.info["dt_s"] for step in rest) - (cluster.clock.now_s - before_s)) <= 1e-6


# ---- the end, and the records ---------------------------------------------------------------------------------------


def the_last_step_is_truncated_and_sums_up(make: Make, seed: int = 0) -> None:
    """Only the last step is truncated and has the summary, which fits the records; no step is terminated."""
    env = make()
    played = list(steps(env, seed, at_random(seed)))
    assert not any(step.terminated for step in played)
    assert [step.truncated for step in played] == [False] * (len(played) - 1) + [True]
    assert ["episode_summary" in step.info for step in played] == [step.truncated for step in played]
    summary = played[-1].info["episode_summary"]
    records: list[RequestRecord] = inner(env).records
    episode: Episode = inner(env).process.episode
    assert summary["decisions"] == len(played) - 1 == episode.last - episode.first
    served = [record for record in records if record.decode_node >= 0]
    assert (summary["finished"], summary["rejected"]) == (len(served), len(records) - len(served))
    met = []
    for record in records:
        ttft_slo_s, tbt_slo_s = episode.requests[record.request][3:5]
        ttft_s = record.first_token_s - record.arrival_s  # nan if it was rejected
        met.append(ttft_s <= ttft_slo_s and record.tbt_max_s <= tbt_slo_s)
    ttfts_s = [record.first_token_s - record.arrival_s for record in served]
    for name, values in (
        ("ttft_mean_s", ttfts_s),
        ("slo_attainment", met),
        ("deflected_share", [record.deflected for record in served]),
    ):
        assert abs(summary[name] - float(np.mean(values))) <= 1e-9 if values else isnan(summary[name]), name
    if served:
        percentiles_s = [summary[f"ttft_p{q}_s"] for q in (50, 95, 99)]
        assert np.allclose(percentiles_s, np.percentile(ttfts_s, (50, 95, 99)))


def records_are_causal_and_of_this_episode(make: Make, seed: int = 0) -> None:
    """Records are in order of completion, one per placed request; no event is before its cause."""
    env = make()
    for episode_seed in (seed, seed + 1):
        for _ in steps(env, episode_seed, anything(seed)):
            pass
        episode: Episode = inner(env).process.episode
        records: list[RequestRecord] = inner(env).records
        numbers = [record.request for record in records]
        assert len(set(numbers)) == len(numbers)
        assert all(episode.first <= number < episode.last for number in numbers)
        served = [record for record in records if record.decode_node >= 0]
        assert all(earlier.last_token_s <= later.last_token_s for earlier, later in pairwise(served))
        for record in served:
            arrival_s, prompt_tokens, output_tokens, *_ = episode.requests[record.request]
            assert (record.arrival_s, record.prompt_tokens, record.output_tokens) == (
                arrival_s,
                prompt_tokens,
                output_tokens,
            )
            times_s = (
                record.arrival_s,
                record.prefill_start_s,
                record.prefill_end_s,
                record.kv_ready_s,
                record.first_token_s,
                record.last_token_s,
            )
            assert not any(isnan(time_s) for time_s in times_s)
            assert list(times_s) == sorted(times_s)
            assert record.last_token_s < inner(env).process.cluster.clock.now_s
            assert record.tbt_max_s >= 0.0


# ---- no oracle ------------------------------------------------------------------------------------------------------


class OtherOutputs:
    """A source of episodes that changes only the output lengths of the requests that the agent places."""

    def __init__(self, source: Any, change: Callable[[int], int]) -> None:
        self.source = source
        self.change = change

    def draw(self, rng: np.random.Generator) -> Episode:
        """The other source's episode with changed outputs."""
        episode: Episode = self.source.draw(rng)
        requests = [
            (row[0], row[1], self.change(row[2]), *row[3:]) if number >= episode.first else row
            for number, row in enumerate(episode.requests)
        ]
        return episode._replace(requests=requests)


def the_future_does_not_leak(make: Make, seed: int = 0) -> None:
    """Workloads that differ only in output lengths look the same until the first such request has ended.

    From then on the router knows its length, because it relays the tokens. It also knows when it must reject a request
    that no node can hold.
    """
    changes: list[Callable[[int], int]] = [lambda _: 200, lambda output: 230 + 2 * output]
    seen: list[list[bytes]] = []
    rewards: list[list[float]] = []
    arrivals_s: list[float] = []
    first_end_s = float("inf")
    for change in changes:
        env = make()
        inner(env).process.source = OtherOutputs(inner(env).process.source, change)
        played = list(steps(env, seed, at_random(seed)))
        seen.append([step._replace(reward=0.0, info={}).as_bytes() for step in played])
        rewards.append([step.reward for step in played])  # rounding of the sums depends on the known part of a step
        episode: Episode = inner(env).process.episode
        arrivals_s = [row[0] for row in episode.requests[episode.first : episode.last + 1]]
        for record in inner(env).records:
            first_end_s = min(first_end_s, record.last_token_s if record.decode_node >= 0 else record.arrival_s)
    alike = sum(arrival_s <= first_end_s for arrival_s in arrivals_s)
    assert alike > 0
    assert seen[0][:alike] == seen[1][:alike]
    assert np.allclose(rewards[0][:alike], rewards[1][:alike], rtol=1e-9, atol=1e-12)


LAWS: tuple[Law, ...] = (
    gymnasiums_checker_passes,
    stable_baselines3s_checker_passes,
    observations_are_in_their_space,
    observations_are_fresh_arrays,
    some_choice_is_feasible,
    rows_beyond_the_choices_are_masked_zeros,
    placements_are_distinct_and_live,
    action_masks_are_the_observations,
    masked_actions_fall_back,
    strict_actions_raise_and_leave_no_trace,
    actions_outside_the_space_are_refused,
    a_seed_is_an_episode,
    unseeded_episodes_differ_and_are_reproducible,
    requests_do_not_depend_on_the_actions,
    pickling_keeps_an_episode,
    a_spec_survives_json,
    rewards_are_what_the_parts_of_the_cost_add_up_to,
    rewards_telescope,
    the_last_step_is_truncated_and_sums_up,
    records_are_causal_and_of_this_episode,
    the_future_does_not_leak,
)


def check_all(make: Make, seed: int = 0) -> None:
    """Check every law on the environments that `make` returns."""
    for law in LAWS:
        law(make, seed)
