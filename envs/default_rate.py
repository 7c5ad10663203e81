"""The arrival rate of an environment that names none: below what the cluster can serve within its SLOs."""

from envs.cluster import ClusterConfig, Topology
from envs.generators import generate
from envs.prediction import decode_step_s, prefill_s
from envs.workload import TBT_SLO_S

UTILISATION = 0.5
"""Share of the scarcer pool's time that the default rate takes. Not from a paper."""

_REQUESTS = 1000


def default_rate_rps(family: str, config: ClusterConfig, tbt_slo_s: float = TBT_SLO_S) -> float:
    """The rate at which the busier of the two pools works `UTILISATION` of the time, requests/s.

    A request takes a prefill node its execution alone. A decode node that is full has as many requests of mean length
    as its KV capacity and `max_seqs` allow and as keep a decode step within the TBT SLO; a request takes its share of
    each step. Means are over 1,000 requests of the family.

    Args:
        family: a generated family.
        config: the cluster.
        tbt_slo_s: TBT SLO, seconds.
    """
    topology = Topology(config)
    workload = generate(family, rate_rps=1.0, requests=_REQUESTS, seed=0)
    output_tokens = float(workload.output_tokens.mean())
    context = float(workload.prompt_tokens.mean()) + 0.5 * output_tokens
    prefill_rps = decode_rps = 0.0
    for node in topology.prefill_nodes:
        law = topology.laws[node]
        executions_s = [prefill_s(law, tokens, topology.token_budget) for tokens in workload.prompt_tokens.tolist()]
        prefill_rps += len(executions_s) / sum(executions_s)
    for node in topology.decode_nodes:
        law = topology.laws[node]
        batch = max(1, min(topology.max_seqs, int(topology.kv_capacity_tokens[node] / context)))
        while batch > 1 and decode_step_s(law, batch, int(batch * context)) > tbt_slo_s:
            batch -= 1
        decode_rps += batch / (output_tokens * decode_step_s(law, batch, int(batch * context)))
    return UTILISATION * min(prefill_rps, decode_rps)
