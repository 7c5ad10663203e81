"""The Gymnasium environment; its docstring is its specification."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from math import inf
from typing import Any, TypeVar, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.choices import ChoiceSet, check_choice_set, most_choices
from envs.cluster import ClusterConfig, Placement, RequestRecord, parse_shape
from envs.decision_process import DecisionProcess
from envs.default_rate import default_rate_rps
from envs.episode import EpisodeSource, Horizon, WorkloadSource
from envs.features import (
    DECODE_FEATURES,
    GLOBAL_FEATURES,
    PAIR_FEATURES,
    PREFILL_FEATURES,
    REQUEST_FEATURES,
    table,
)
from envs.generators import families
from envs.objective import Objective
from envs.observation import Observation, encode, observation_space
from envs.render import draw_nodes, node_table
from envs.slos import SloClass, Slos
from envs.warm_up import WarmUp, check_warm_up
from envs.workload import TBT_SLO_S, TTFT_SLO_S
from hardware_profiles import InputError, Profile, load_profile

CLUSTER_ARGUMENTS = frozenset({"profile", "shape", "hosts", "report_age_s", "step_budget"})
"""Fields of `ClusterConfig` that the environment has arguments for; `cluster_options` has the others."""

HORIZON_REQUESTS = 512
"""Default number of decisions of an episode."""

START_WARM_UP_S = (10.0, 40.0)
"""Default warm-up of a running start, seconds: longer than most requests take."""

_TABLES = {
    "{request features}": table(REQUEST_FEATURES),
    "{global features}": table(GLOBAL_FEATURES),
    "{prefill features}": table(PREFILL_FEATURES),
    "{decode features}": table(DECODE_FEATURES, len(PREFILL_FEATURES)),
    "{pair features}": table(PAIR_FEATURES, len(PREFILL_FEATURES) + len(DECODE_FEATURES)),
}

C = TypeVar("C", bound=type)


def _with_tables(documented: C) -> C:
    """Insert the tables of features into a class's docstring."""
    text = documented.__doc__ or ""
    for mark, made in _TABLES.items():
        text = text.replace(mark, made.replace("\n", "\n    "))
    documented.__doc__ = text
    return documented


@_with_tables
class PrefillPlacementEnv(gymnasium.Env[Observation, np.int64]):
    """Place each arriving request on a disaggregated LLM serving cluster: choose its prefill node and its decode node.

    Create it with `gymnasium.make("envs:PrefillPlacement-v1")`; the prefix `envs:` imports the package that registers
    it.

    ## Description
    Prefill and decode of a large language model run on separate nodes. A request's prompt is prefilled on a prefill
    node, after which its KV cache moves to a decode node over a shared link. Or the request is *deflected*: its prompt
    is prefilled on the node that decodes it, in chunks that share steps with the requests decoding there, and no KV
    moves. Every engine can do both jobs. Bursts of long prompts saturate prefill nodes while decode nodes have compute
    to spare; but chunks that are too large increase the time between tokens (TBT) of running requests. The agent
    decides at each arrival; between arrivals the cluster is simulated with measured kernel times
    (`hardware_profiles`).

    ## Action space
    `Discrete(C)`: the index of a choice. A choice is a candidate placement and has one row in the observation. The
    argument `choices` names the set of choices (`envs.choices`):

    | choices | rows |
    |---|---|
    | `"pairs"` | every pair of a prefilling and a decoding node, which may be the same node |
    | `"deflection"` | each prefill node with the least loaded decode node, and each decode node, which then does both |

    At most four nodes of each role are candidates for each job (`envs.choices.SHORTLIST`), so that a decision takes no
    longer on 16P16D than on 4P4D. `env.unwrapped.placements()` lists the placement of each row. Row i may stand for
    another placement at the next decision. Rows beyond the current choices (because a node is lost, or `rows` is
    larger) are all zeros.

    A row may be chosen if its `action_mask` is 1. It is 0 if the prefill is predicted to exceed the TBT limit of the
    requests that decode on its node. If that is so for all rows, the rows that prefill on a prefill node and decode on
    a decode node may be chosen.
    `env.unwrapped.action_masks()` returns the mask as bool. Under `step_budget="slo"` the engine chooses each chunk so
    that its step lasts at most `slo_share` of the strictest TBT SLO among the requests decoding there. Under "fixed"
    the router plans the chunks from its old report, within 0.9 (`envs.chunk_plan.PLAN_BETA`) of that SLO, on decode
    nodes and on any node where requests decode.

    A request too long for the KV of the smallest node is rejected, whatever the action. Choosing a masked row places
    the request on the prefill node with the fewest queued tokens and the decode node with the fewest unfinished
    requests, and sets `info["invalid_action"]`; with `strict_actions` it raises ValueError.

    ## Observation space
    `Dict`, float32 in [0, 1] except the mask. A value x >= 0 is squashed to log(1 + x / reference) / (1 + log(1 + x /
    reference)). "signed": the absolute value is squashed to a distance from 0.5, below it for negative values and above
    it for positive ones. "flag": 0 or 1. Node reports are `report_age_s` old; the router's own counts are fresh. The
    observation does not contain output lengths or future arrivals. Times are in seconds, lengths in tokens, sizes in
    bytes.

    `request`, shape (4,):

    {request features}

    `global`, shape (20,):

    {global features}

    `choices`, shape (C, 42), features of the prefilling node:

    {prefill features}

    features of the decoding node:

    {decode features}

    features of the pair:

    {pair features}

    `action_mask`, shape (C,), int8: 1 if the row may be chosen.

    ## Reward
    The reward is the negative of the cost that accrued since the last decision (`envs.objective`): the integral over
    time of the number of requests waiting for their first token, each weighted by 1 / its TTFT SLO, plus `tbt_weight`
    times the time by which gaps between tokens exceeded their TBT SLO, in units of that SLO. For requests that finish
    within the episode, the undiscounted rewards sum to -(TTFT / TTFT SLO + tbt_weight * sum over gaps of
    max(0, gap / TBT SLO - 1)). With `tail_weight`, each request costs tail_weight * (TTFT / TTFT SLO)^2 more, accrued
    while it waits. With `miss_weight`, each request that misses one of its SLOs costs this much more, once, when it
    misses. The simulated time between decisions varies: `info["dt_s"]` is the time since the last one in seconds.
    `info["waiting_cost"]`, `info["tbt_cost"]`, `info["tail_cost"]` and `info["miss_cost"]` are the unweighted parts.

    ## Starting state
    `start="empty"`: an empty cluster at the first arrival of a fresh workload, drawn from the environment's generator.
    `start="running"`: a cluster on which `warm_up` has placed requests for a time drawn from `warm_up_s`; the requests
    still in flight finish during the episode and count in the reward.

    ## Episode end
    Episodes are never terminated. They are truncated at the arrival of request `horizon_requests` (counted from 0) or,
    with `horizon_s`, at the first arrival after that many seconds; this request is observed but not placed. In the last
    step, `info["episode_summary"]` is a dict with "decisions", "finished", "rejected", "ttft_mean_s", "ttft_p50_s",
    "ttft_p95_s", "ttft_p99_s", "slo_attainment" and "deflected_share" (`envs.episode_summary`).

    ## Records
    `env.unwrapped.records` lists the records (`envs.cluster.RequestRecord`) of the requests that were placed in this
    episode and have finished, in order of completion: times in seconds, nodes, tokens. TTFT is `first_token_s -
    arrival_s`. A request that no node can hold is rejected when it is placed; the nodes in its record are -1.

    ## Arguments
    Args:
        profile: hardware profile, or the name or path of one.
        cluster: shape "NPMD".
        choices: "pairs" or "deflection".
        workload: name of a generated family (`envs.generators.families()`); a Workload, of which each episode uses a
            random stretch; or a function (requests, rate_rps, seed) -> Workload.
        rate_rps: mean arrival rate of a generated workload, requests/s; for a pair (low, high), each episode draws it
            uniformly. None: the highest rate found at which neither the prefill nor the decode pool is busy for more
            than half of the time and 95 % of the prompts would meet their TTFT SLO in one shared queue. It depends on
            the family, the cluster and the TBT SLO, and is computed without simulation (`envs.default_rate`); for a
            workload function it is 1.
        ttft_slo_s: TTFT SLO of generated requests, seconds. The default is not from a paper.
        tbt_slo_s: TBT SLO of generated requests, seconds; for a pair (low, high), each episode draws it
            log-uniformly. The default is not from a paper.
        ttft_slo_per_1k_tokens_s: increase of the TTFT SLO per 1,000 prompt tokens, seconds; None: the family's
            default, which is 0 except for mooncake-conv.
        slo_classes: (share, TTFT SLO, TBT SLO[, increase per 1,000 tokens]) of each class of requests, instead of the
            same SLOs for all.
        step_budget: "slo" or "fixed"; see the action space.
        report_age_s: age of node reports, seconds.
        start: "empty" or "running".
        warm_up: policy that places requests before a running start: "static", "shortest-ttft", "random"
            (`envs.warm_up`), or several, of which each episode draws one.
        warm_up_s: range (low, high) of the time that the cluster has run before a running start, seconds.
        horizon_requests: number of decisions of an episode; 512 if neither this nor `horizon_s` is given.
        horizon_s: simulated seconds of an episode.
        tbt_weight: weight of the TBT part of the cost.
        tail_weight: weight of the squared waits, which penalises long waits more.
        miss_weight: cost of each request that misses an SLO.
        hosts: host of each node; nodes of one host are joined by NVLink.
        cluster_options: further fields of `envs.cluster.ClusterConfig` by name, such as {"kv_streaming": True}.
        rows: number of rows of the observation, at least the number of choices of the cluster; environments of several
            shapes with the same `rows` have the same spaces. None: the number of choices.
        strict_actions: raise ValueError for a masked action instead of replacing it.
        render_mode: "ansi" (a text table) or "rgb_array" (an image of the queues).

    Raises:
        InputError: an argument is out of range, or a name does not exist.

    ## Version history
    - v1: an action is the index of a choice; any node may do any job; episodes may start in a running cluster and have
      a horizon in seconds; a cost per missed SLO. v0, whose actions were nodes, has been removed. Results may change
      until version 1.0 of the project.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}  # noqa: RUF012 - Gymnasium's

    def __init__(
        self,
        profile: str | Profile = "a100-qwen3-8b",
        cluster: str = "2P2D",
        choices: str = "pairs",
        workload: WorkloadSource = "burst",
        rate_rps: float | tuple[float, float] | None = None,
        ttft_slo_s: float = TTFT_SLO_S,
        tbt_slo_s: float | tuple[float, float] = TBT_SLO_S,
        ttft_slo_per_1k_tokens_s: float | None = None,
        slo_classes: Sequence[Sequence[float]] | None = None,
        step_budget: str = "slo",
        report_age_s: float = 0.1,
        start: str = "empty",
        warm_up: str | Sequence[str] = "static",
        warm_up_s: tuple[float, float] = START_WARM_UP_S,
        horizon_requests: int | None = None,
        horizon_s: float | None = None,
        tbt_weight: float = 1.0,
        tail_weight: float = 0.0,
        miss_weight: float = 0.0,
        hosts: tuple[int, ...] | None = None,
        cluster_options: Mapping[str, Any] | None = None,
        rows: int | None = None,
        strict_actions: bool = False,
        render_mode: str | None = None,
    ) -> None:
        check_choice_set(choices)
        if isinstance(workload, str) and workload not in families():
            raise InputError(f"workload {workload!r} is not one of the families {', '.join(families())}")
        if start not in ("empty", "running"):
            raise InputError(f"start {start!r} is not one of empty, running")
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise InputError(f"render_mode {render_mode!r} is not one of {', '.join(self.metadata['render_modes'])}")
        self.config = _cluster_config(profile, cluster, hosts, report_age_s, step_budget, cluster_options)
        warm_ups = [warm_up] if isinstance(warm_up, str) else list(warm_up)
        for name in warm_ups:
            check_warm_up(name)
        if not warm_ups:
            raise InputError("warm_up names no policy")
        if len(warm_up_s) != 2 or not 0.0 <= warm_up_s[0] <= warm_up_s[1] < inf:
            raise InputError(f"warm_up_s must be a pair (low, high) of seconds from 0 on, not {warm_up_s}")
        tbt_range_s = _range("tbt_slo_s", tbt_slo_s)
        if slo_classes is None:
            slos = Slos.of(ttft_slo_s, tbt_range_s[0], ttft_slo_per_1k_tokens_s)
        else:
            slos = Slos(tuple([_slo_class(one) for one in slo_classes]))
        if horizon_requests is None and horizon_s is None:
            horizon_requests = HORIZON_REQUESTS
        if rate_rps is None:
            rate_rps = default_rate_rps(workload, self.config, tbt_range_s[0]) if isinstance(workload, str) else 1.0
        source = EpisodeSource(
            workload,
            _range("rate_rps", rate_rps),
            slos,
            tbt_range_s if slo_classes is None and tbt_range_s[0] < tbt_range_s[1] else None,
            (float(warm_up_s[0]), float(warm_up_s[1])) if start == "running" else (0.0, 0.0),
            Horizon(horizon_requests, horizon_s),
        )
        self.render_mode = render_mode
        needed = most_choices(cast(ChoiceSet, choices), *parse_shape(cluster))
        if rows is not None and rows < needed:
            raise InputError(f"rows must be at least {needed}, the choices of {cluster}, not {rows}")
        self.rows = rows or needed
        self.process = DecisionProcess(
            self.config,
            source,
            Objective(tbt_weight, tail_weight, miss_weight),
            cast(ChoiceSet, choices),
            self.rows,
            cast("list[WarmUp]", warm_ups),
            strict_actions,
        )
        self.action_space = spaces.Discrete(self.rows)
        self.observation_space: spaces.Dict = observation_space(self.rows)  # type: ignore[assignment]  # as above

    @property
    def records(self) -> list[RequestRecord]:
        """Records of this episode's finished and rejected requests; see the class."""
        return self.process.records

    # ---- Gymnasium ----------------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode; see the class."""
        self.start(seed, options)
        return self._observe(), self.process.info()

    def start(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Start an episode without observing it; the arguments are those of `reset`."""
        super().reset(seed=seed, options=options)
        self.process.reset(self.np_random)

    def step(self, action: np.int64 | int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Place the current request and advance to the next arrival; see the class."""
        process = self.process
        process.act(int(action))
        return self._observe(), process.reward, False, process.truncated, process.info()

    def action_masks(self) -> NDArray[np.bool_]:
        """The action mask as bool, shape (C,), under the name that sb3-contrib's MaskablePPO expects.

        Raises:
            ValueError: there was no reset yet.
        """
        choices = self.process.choices
        mask = np.zeros(self.rows, dtype=np.bool_)
        mask[: len(choices)] = choices.feasible
        return mask

    def placements(self) -> list[Placement]:
        """The placement of each current choice.

        Raises:
            ValueError: there was no reset yet.
        """
        choices = self.process.choices
        return [choices.placement(row) for row in range(len(choices))]

    def render(self) -> str | NDArray[np.uint8] | None:
        """The nodes as a text table ("ansi") or an image, uint8 (height, width, 3) ("rgb_array")."""
        if self.render_mode == "ansi":
            return node_table(self.process.cluster.view())
        if self.render_mode == "rgb_array":
            return draw_nodes(self.process.cluster.view())
        return None

    def _observe(self) -> Observation:
        return encode(self.process.choices, self.rows)


def _range(name: str, given: float | Sequence[float]) -> tuple[float, float]:
    """Convert a number or a pair (low, high) to a pair; an EnvSpec's JSON has a list for a pair."""
    pair = tuple(given) if isinstance(given, tuple | list) else (given, given)
    if len(pair) != 2 or not 0.0 < pair[0] <= pair[1] < inf:
        raise InputError(f"{name} must be a finite number above 0, or a pair (low, high) of them, not {given}")
    return float(pair[0]), float(pair[1])


def _slo_class(given: Sequence[float]) -> SloClass:
    if not 3 <= len(given) <= 4:
        raise InputError(f"slo_classes: {tuple(given)} is not (share, TTFT SLO, TBT SLO[, increase per 1,000 tokens])")
    share, ttft_s, tbt_s, *growth_s = given
    return SloClass(ttft_s, tbt_s, growth_s[0] if growth_s else None, share)


def _cluster_config(
    profile: str | Profile,
    shape: str,
    hosts: tuple[int, ...] | None,
    report_age_s: float,
    step_budget: str,
    options: Mapping[str, Any] | None,
) -> ClusterConfig:
    known = {field.name for field in fields(ClusterConfig)} - CLUSTER_ARGUMENTS
    if unknown := set(options or ()) - known:
        raise InputError(f"cluster_options has no {min(unknown)!r}; it knows {', '.join(sorted(known))}")
    # An EnvSpec's JSON has lists instead of tuples.
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in (options or {}).items()
    }
    return ClusterConfig(
        profile if isinstance(profile, Profile) else load_profile(profile),
        shape=shape,
        hosts=None if hosts is None else tuple(hosts),  # may be a list from an EnvSpec's JSON
        report_age_s=report_age_s,
        step_budget=step_budget,  # type: ignore[arg-type]  # ClusterConfig checks it
        **given,
    )
