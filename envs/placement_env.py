"""The Gymnasium environment; its docstring is its specification."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from math import inf
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.candidates import Candidate, candidates
from envs.cluster import Cluster, ClusterConfig, Request, RequestRecord, RequestView, RouterView
from envs.generators import families, generate
from envs.objective import Costs, Objective
from envs.observation import GLOBAL_FEATURES, NODE_FEATURES, REQUEST_FEATURES, Observation, encode_candidates
from envs.render import draw_nodes, node_table
from envs.slos import Slos
from envs.workload import Workload
from hardware_profiles import InputError, Profile, load_profile

WorkloadSource = str | Workload | Callable[[int, float, int], Workload]


class PrefillPlacementEnv(gymnasium.Env[Observation, np.int64]):
    """Place the prefill of each arriving request on a disaggregated LLM serving cluster.

    ## Description
    Prefill and decode of a large language model run on separate nodes. A request's prompt is either prefilled on a
    prefill node, after which its KV cache moves to a decode node over a contended link, or *deflected*: prefilled on a
    decode node in chunks beside the sequences decoding there, so that its KV is born where it is needed. Bursts of long
    prompts saturate prefill nodes while decode nodes have compute to spare; chunks that are too large break the time
    between tokens (TBT) of running streams. The agent decides at each arrival; the cluster between two arrivals is
    simulated on measured kernel times (`hardware_profiles`).

    ## Action space
    `Discrete(N)`, N the number of nodes, prefill nodes first.

    | action | meaning |
    |---|---|
    | prefill node | prefill there, first come first served; decode on the decode node with fewest unfinished requests |
    | decode node | deflect: prefill and decode there, in chunks that keep the TBT of what decodes there |

    Under `step_budget="slo"` (`cluster_options`) the engine chooses each chunk so that its step keeps within
    `slo_share` of the strictest TBT SLO among the sequences decoding there; under "fixed" the router plans the chunks,
    by its old report, within 0.9 (`envs.chunk_plan.PLAN_BETA`) of it. `action_mask` is 0 for a decode node where, as
    far as the router knows, even the smallest chunk breaks that promise, and for a lost node.
    Choosing such a node all the same places the request on the prefill node with the fewest queued tokens and sets
    `info["invalid_action"]`; with `strict_actions` it raises ValueError.

    ## Observation space
    `Dict`, float32 in [0, 1] except the mask. Every value x >= 0 is squashed to
    log(1 + x / ref) / (1 + log(1 + x / ref)). Node reports are `report_age_s` old; the router's own counts are fresh.
    The output length and the future are not in it. Times are in seconds, lengths in tokens.

    `request`, shape (4,):

    | index | feature | ref |
    |---|---|---|
    | 0 | prompt tokens | 512 |
    | 1 | TTFT SLO | 1 |
    | 2 | TBT SLO | 0.05 |
    | 3 | smallest predicted TTFT over the feasible nodes | 0.25 |

    `global`, shape (8,):

    | index | feature | ref |
    |---|---|---|
    | 0, 1 | requests placed lately per prefill node, fading over 1 s and 10 s | 4, 40 |
    | 2, 3 | their prompt tokens, fading over 1 s and 10 s | 8192, 81920 |
    | 4 | queued prompt tokens per prefill node | 2048 |
    | 5 | unfinished requests per decode node | 32 |
    | 6 | deflected requests in flight per decode node | 0.5 |
    | 7 | share of the nodes that are prefill nodes | 0.5 |

    `nodes`, shape (N, 15):

    | index | feature | ref |
    |---|---|---|
    | 0 | is a decode node (0 or 1) | |
    | 1 | predicted TTFT if the prompt is prefilled here | 0.25 |
    | 2 | the same over the TTFT SLO | 0.25 |
    | 3 | the same less the smallest over the feasible nodes | 0.05 |
    | 4 | predicted execution alone | 0.1 |
    | 5 | TBT slack: time promised to a step minus the longest step made here; signed, 0.5 is none left | 0.02 |
    | 6 | queued prompt tokens (router's count) | 2048 |
    | 7 | queued prompts (router's count) | 1 |
    | 8 | prompt tokens ahead (report, and what was dispatched since) | 2048 |
    | 9 | unfinished requests that decode here (router's count) | 32 |
    | 10 | the same less the smallest among decode nodes; 0 for prefill nodes | 2 |
    | 11 | decode batch (report) | 32 |
    | 12 | decode KV over KV capacity (report) | 0.1 |
    | 13 | deflected requests in flight (router's count) | 1 |
    | 14 | chunks of the deflection; 0 for prefill nodes | 2 |

    The row of a lost node is all zeros; averages are over the nodes that are left.

    `action_mask`, shape (N,), int8: 1 if the action is feasible.

    ## Reward
    The cost that accrued since the last decision, negated: the integral of (requests waiting for their first token,
    each weighted by 1 / its TTFT SLO), plus `tbt_weight` times the time by which gaps between tokens exceeded their TBT
    SLO, in units of that SLO. Undiscounted it telescopes: over requests that finish within the episode the rewards sum
    to -(TTFT / TTFT SLO + tbt_weight * sum over gaps of max(0, gap / TBT SLO - 1)). With `tail_weight` each request
    adds tail_weight * (TTFT / TTFT SLO)^2, accrued as it waits. Decisions are unevenly spaced; `info["dt_s"]` is the
    simulated time since the last one, and `info` has the three parts of the cost.

    ## Starting state
    An empty cluster at the first arrival of a fresh workload, drawn from the environment's generator.

    ## Episode end
    Never terminated. Truncated at the arrival of request `horizon_requests` (counted from 0), which is observed but not
    placed.

    ## Arguments
    Args:
        profile: hardware profile, or the name or path of one.
        cluster: shape "NPMD".
        workload: name of a generated family (`envs.generators.families()`); a Workload, of which each episode takes a
            random stretch; or a function (requests, rate_rps, seed) -> Workload.
        rate_rps: mean arrival rate of a generated workload, requests/s; a pair (low, high) draws it anew, uniformly,
            for each episode.
        ttft_slo_s: TTFT SLO of generated requests, seconds. The default is the project's own, not a paper's.
        tbt_slo_s: TBT SLO of generated requests, seconds; likewise.
        report_age_s: age of node reports, seconds.
        horizon_requests: decisions of an episode.
        tbt_weight: weight of the TBT part of the cost.
        tail_weight: weight of the squared part of the cost, which counts long waits for more.
        hosts: host of each node; nodes of one host are joined by NVLink.
        cluster_options: further fields of `envs.cluster.ClusterConfig` by name, such as {"kv_streaming": True}.
        strict_actions: raise on an infeasible action instead of falling back.
        render_mode: "ansi" (a text table) or "rgb_array" (a picture of the queues).

    Raises:
        InputError: an argument out of range, or a name that does not exist.

    ## Version history
    - v0: first version. Results may change until 1.0 of the project.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}  # noqa: RUF012 - Gymnasium's

    def __init__(
        self,
        profile: str | Profile = "a100-qwen3-8b",
        cluster: str = "2P2D",
        workload: WorkloadSource = "burst",
        rate_rps: float | tuple[float, float] = 12.0,
        ttft_slo_s: float = 2.0,
        tbt_slo_s: float = 0.1,
        report_age_s: float = 0.1,
        horizon_requests: int = 512,
        tbt_weight: float = 1.0,
        tail_weight: float = 0.0,
        hosts: tuple[int, ...] | None = None,
        cluster_options: Mapping[str, Any] | None = None,
        strict_actions: bool = False,
        render_mode: str | None = None,
    ) -> None:
        if horizon_requests < 1:
            raise InputError(f"horizon_requests must be at least 1, not {horizon_requests}")
        # A pair comes back from an EnvSpec's JSON as a list.
        rates = tuple(rate_rps) if isinstance(rate_rps, tuple | list) else (rate_rps, rate_rps)
        if len(rates) != 2 or not 0.0 < rates[0] <= rates[1] < inf:
            raise InputError(f"rate_rps must be above 0, or a pair (low, high), not {rate_rps}")
        for name, slo_s in (("ttft_slo_s", ttft_slo_s), ("tbt_slo_s", tbt_slo_s)):
            if not 0.0 < slo_s < inf:
                raise InputError(f"{name} must be a number of seconds above 0, not {slo_s}")
        if isinstance(workload, str) and workload not in families():
            raise InputError(f"workload {workload!r} is none of the families {', '.join(families())}")
        if isinstance(workload, Workload) and len(workload) <= horizon_requests:
            raise InputError(
                f"workload: an episode of {horizon_requests} decisions needs more than its {len(workload)} requests"
            )
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise InputError(f"render_mode {render_mode!r} is none of {', '.join(self.metadata['render_modes'])}")
        known = {field.name for field in fields(ClusterConfig)} - {"profile", "shape", "hosts", "report_age_s"}
        if unknown := set(cluster_options or ()) - known:
            raise InputError(f"cluster_options has no {min(unknown)!r}; it knows {', '.join(sorted(known))}")
        self.config = ClusterConfig(
            profile if isinstance(profile, Profile) else load_profile(profile),
            shape=cluster,
            hosts=hosts,
            report_age_s=report_age_s,
            **(cluster_options or {}),
        )
        self.render_mode = render_mode
        self._workload_source = workload
        self._rate_rps = rates
        self._slos_s = (ttft_slo_s, tbt_slo_s)
        self._horizon_requests = horizon_requests
        self._objective = Objective(tbt_weight, tail_weight)
        self._strict_actions = strict_actions

        self._cluster = Cluster(self.config, self._keep_record)
        nodes = self._cluster.topology.nodes
        self.action_space = spaces.Discrete(nodes)
        self.observation_space: spaces.Dict = spaces.Dict(  # type: ignore[assignment]  # Dict is no Space[dict]
            {
                "request": spaces.Box(0.0, 1.0, (len(REQUEST_FEATURES),), np.float32),
                "global": spaces.Box(0.0, 1.0, (len(GLOBAL_FEATURES),), np.float32),
                "nodes": spaces.Box(0.0, 1.0, (nodes, len(NODE_FEATURES)), np.float32),
                "action_mask": spaces.Box(0, 1, (nodes,), np.int8),
            }
        )
        self.records: list[RequestRecord] = []  # of this episode's finished requests, in order of completion

    def _keep_record(self, record: RequestRecord) -> None:
        self.records.append(record)

    # ---- Gymnasium ----------------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode; see the class."""
        super().reset(seed=seed, options=options)
        workload, first = self._draw_workload()
        start_s = float(workload.arrival_s[first])
        self._requests = [
            (row[0] - start_s, *row[1:]) for row in workload.rows(first, first + self._horizon_requests + 1)
        ]
        self.records = []
        self._cluster = Cluster(self.config, self._keep_record)
        self._next = 0
        self._costs = Costs(0.0, 0.0, 0.0)
        info = {"dt_s": 0.0, "waiting_cost": 0.0, "tail_cost": 0.0, "tbt_cost": 0.0, "invalid_action": False}
        return self._observe(), info

    def step(self, action: np.int64 | int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Place the request at hand and run to the next arrival; see the class."""
        node = int(action)
        if not 0 <= node < len(self._found):
            raise ValueError(f"action {action} is no node; there are {len(self._found)}")
        candidate = self._found[node]
        invalid = not candidate.feasible
        if invalid and self._strict_actions:
            raise ValueError(
                f"action {action} breaks the TBT SLO of a running stream, or is a lost node; see action_mask"
            )
        placement = (self._found[self._view.shortest_prefill_queue()] if invalid else candidate).placement
        cluster = self._cluster
        number = self._next
        cluster.submit(Request(number, *self._requests[number]), placement)
        self._next = number + 1
        before_s = cluster.clock.now
        now_s = self._requests[number + 1][0]
        cluster.clock.advance_to(now_s)
        costs = self._objective.costs(cluster)
        accrued = costs.since(self._costs)
        self._costs = costs
        reward = -self._objective.total(accrued)
        truncated = self._next == self._horizon_requests
        info = {
            "dt_s": now_s - before_s,
            "waiting_cost": accrued.waiting,
            "tail_cost": accrued.tail,
            "tbt_cost": accrued.tbt,
            "invalid_action": invalid,
        }
        return self._observe(), reward, False, truncated, info

    def render(self) -> str | NDArray[np.uint8] | None:
        """The nodes as a text table ("ansi") or as a picture, uint8 (height, width, 3) ("rgb_array")."""
        if self.render_mode == "ansi":
            return node_table(self._view)
        if self.render_mode == "rgb_array":
            return draw_nodes(self._view)
        return None

    # ---- parts --------------------------------------------------------------------------------------------------

    def _draw_workload(self) -> tuple[Workload, int]:
        """A workload and the index of the episode's first request in it."""
        source = self._workload_source
        needed = self._horizon_requests + 1
        if isinstance(source, Workload):
            return source, int(self.np_random.integers(len(source) - needed + 1))
        rate_rps = float(self.np_random.uniform(*self._rate_rps))
        seed = int(self.np_random.integers(2**31))
        if isinstance(source, str):
            ttft_slo_s, tbt_slo_s = self._slos_s
            slos = Slos.of(ttft_slo_s, tbt_slo_s)
            return generate(source, rate_rps=rate_rps, requests=needed, seed=seed, slos=slos), 0
        workload = source(needed, rate_rps, seed)
        if len(workload) < needed:
            raise InputError(f"the workload function gave {len(workload)} requests, an episode needs {needed}")
        return workload, 0

    def _observe(self) -> Observation:
        arrival_s, prompt_tokens, _, ttft_slo_s, tbt_slo_s, hashes = self._requests[self._next]
        request = RequestView(self._next, arrival_s, prompt_tokens, ttft_slo_s, tbt_slo_s, hashes)
        self._view: RouterView = self._cluster.view()
        self._found: list[Candidate] = candidates(request, self._view)
        return encode_candidates(request, self._view, self._found)
