"""The default arrival rate of an environment: a rate that the cluster can serve within its SLOs."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from envs.cluster import ClusterConfig, Topology
from envs.generators import generate
from envs.prediction import decode_step_s, prefill_s
from envs.workload import TBT_SLO_S, Workload
from hardware_profiles import StepLaw

UTILISATION = 0.5
"""Largest utilisation of the prefill or the decode pool at the default rate. Not from a paper."""

ON_TIME = 0.95
"""Share of the prompts computed within their TTFT SLO in each draw, of those that can be at all. Not from a paper."""

_REQUESTS = 512
_SEEDS = range(16)
_STEP = 0.9  # ratio of successive rates tried

FloatArray = NDArray[np.float64]


@lru_cache(64)
def default_rate_rps(family: str, config: ClusterConfig, tbt_slo_s: float = TBT_SLO_S) -> float:
    """The highest rate tried at which both pools are busy at most `UTILISATION` of the time and prompts are on time.

    A request occupies a prefill node for its execution time alone. Prompts are on time if the share `ON_TIME` of them
    is computed within the TTFT SLO in one queue that is as fast as all prefill nodes together; this limits bursty
    families. A full decode node has as many requests of mean length as its KV capacity, `max_seqs` and a decode step
    within the TBT SLO allow; each request takes an equal share of each step. The rate is computed from 16 draws of 512
    requests, without simulation.

    Args:
        family: a generated family.
        config: the cluster.
        tbt_slo_s: TBT SLO, seconds.
    """
    topology = Topology(config)
    episodes = [generate(family, rate_rps=1.0, requests=_REQUESTS, seed=seed) for seed in _SEEDS]
    prompt_tokens = np.concatenate([one.prompt_tokens for one in episodes])
    first = topology.laws[topology.prefill_nodes[0]]
    alone_s = _executions_s(first, prompt_tokens, topology)
    speeds = 0.0  # summed over prefill nodes, relative to the first
    for node in topology.prefill_nodes:
        law = topology.laws[node]
        own_s = alone_s if law is first else _executions_s(law, prompt_tokens, topology)
        speeds += float(alone_s.sum() / own_s.sum())
    work_s = alone_s / speeds

    output_tokens = float(np.mean([one.output_tokens for one in episodes]))
    context = float(prompt_tokens.mean()) + 0.5 * output_tokens
    decode_rps = 0.0
    for node in topology.decode_nodes:
        law = topology.laws[node]
        batch = max(1, min(topology.max_seqs, int(topology.kv_capacity_tokens[node] / context)))
        while batch > 1 and decode_step_s(law, batch, int(batch * context)) > tbt_slo_s:
            batch -= 1
        decode_rps += batch / (output_tokens * decode_step_s(law, batch, int(batch * context)))

    rate_rps = UTILISATION * min(1.0 / float(work_s.mean()), decode_rps)
    parts = list(zip(episodes, np.split(work_s, len(episodes)), strict=True))
    while min(_on_time(one, part_s, rate_rps) for one, part_s in parts) < ON_TIME:
        rate_rps *= _STEP
    return rate_rps


def _executions_s(law: StepLaw, prompt_tokens: NDArray[np.int64], topology: Topology) -> FloatArray:
    """Seconds that a node takes to prefill each prompt alone."""
    return np.array([prefill_s(law, tokens, topology.token_budget) for tokens in prompt_tokens.tolist()])


def _on_time(workload: Workload, work_s: FloatArray, rate_rps: float) -> float:
    """Share of the prompts that meet their TTFT SLO in one queue, of those that would meet it on an idle cluster.

    Args:
        workload: requests at 1 request per second.
        work_s: seconds that each prompt takes.
        rate_rps: the rate to test.
    """
    arrival_s = workload.arrival_s / rate_rps
    # A request leaves at the maximum, over itself and all earlier ones, of (arrival + all work from there on).
    done_s = np.cumsum(work_s)
    leaves_s = done_s + np.maximum.accumulate(arrival_s - (done_s - work_s))
    in_time = leaves_s - arrival_s <= workload.ttft_slo_s
    return float(in_time.sum() / max(1, (work_s <= workload.ttft_slo_s).sum()))
