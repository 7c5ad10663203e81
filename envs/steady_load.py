"""How busy the nodes would be if traffic went on as in the last minute: a fluid model of the prefill and decode pools.

The model uses only arrival rates, prompt lengths and the mean output length, so that its values, unlike queues and
batches, do not depend on where earlier requests were placed. They tell a policy whether the decode nodes alone can keep
the TBT SLO.
"""

from mypy_extensions import mypyc_attr

from envs.cluster import RouterView, Topology
from envs.prediction import decode_step_s

_BATCH = 64
_SHORTEST_SPAN_S = 1.0
_LEAST_IDLE = 0.05  # share of a node's time that the model always leaves; without it, steps would grow without bound


@mypyc_attr(acyclic=True, free_list_len=1)
class SteadyLoad:
    """The steady state at the mean rates (time constant `STEADY_S`), if each node gets work in proportion to its speed.

    Steps are those of the first node, divided by a node's speed relative to it. With nodes that decode at speeds v and
    n = sum(v), B = rate * output tokens * step / n requests decode on a node of speed 1. A step there takes a + b * B
    seconds, so it lasts a / (1 - rate * output tokens * b / n).

    Attributes:
        rate_rps: mean rate of requests, per second.
        prompt_tokens: their mean prompt.
        prefill_load: utilisation of the prefill nodes if they compute all prompts in full steps; above 1 in overload.
        decode_load: rate * output tokens * b / n for the decode nodes; above 1 in overload.
        decode_step_s: length of a step on the slowest decode node if the decode nodes decode all requests, seconds.
        shared_decode_step_s: the same if all nodes do, on the slowest of these.
        shared_prefill_load: utilisation by prompts if all nodes do both jobs, and every step lasts `slo_share` of the
            TBT SLO: prompt tokens per second over those that fit into the steps.
        deflected_prefill_load: the same if the decode nodes do both jobs for all requests.

    Args:
        view: the cluster.
        tbt_slo_s: the TBT SLO, seconds.
    """

    __slots__ = (
        "decode_load",
        "decode_step_s",
        "deflected_prefill_load",
        "prefill_load",
        "prompt_tokens",
        "rate_rps",
        "shared_decode_step_s",
        "shared_prefill_load",
    )

    def __init__(self, view: RouterView, tbt_slo_s: float) -> None:
        topology = view.topology
        counters = view.counters
        law = topology.laws[0]
        span_s = max(_SHORTEST_SPAN_S, counters.steady_span_s)
        self.rate_rps = rate_rps = counters.requests_steady / span_s
        self.prompt_tokens = counters.tokens_steady / max(1.0, counters.requests_steady)
        token_rate = counters.tokens_steady / span_s
        output_tokens = counters.mean_output_tokens
        context = self.prompt_tokens + 0.5 * output_tokens
        budget = topology.token_budget
        step_s = law.chunk_step_s(budget, 0.0)
        prefill = [topology.speeds[node] for node in topology.prefill_nodes] or [1.0]
        decode = [topology.speeds[node] for node in topology.decode_nodes] or [1.0]
        live = [topology.speeds[node] for node in topology.live_nodes]
        self.prefill_load = token_rate * step_s / (budget * sum(prefill, 0.0))
        batch = min(_BATCH, law.max_decode_batch)
        one_s = decode_step_s(law, 1, int(context))
        slope_s = (decode_step_s(law, batch, int(batch * context)) - one_s) / max(1, batch - 1)
        base_s = one_s - slope_s
        work = rate_rps * output_tokens * slope_s
        self.decode_load = work / sum(decode, 0.0)
        self.decode_step_s = base_s / (min(decode) * max(_LEAST_IDLE, 1.0 - self.decode_load))
        self.shared_decode_step_s = base_s / (min(live) * max(_LEAST_IDLE, 1.0 - work / sum(live, 0.0)))
        limit_s = topology.slo_share * tbt_slo_s
        tokens = token_rate * limit_s  # prompt tokens that arrive during a step
        decoding = rate_rps * output_tokens * limit_s  # requests that decode at a time
        self.shared_prefill_load = tokens / _tokens_per_step(topology, live, decoding, context, limit_s)
        self.deflected_prefill_load = tokens / _tokens_per_step(topology, decode, decoding, context, limit_s)


def _tokens_per_step(topology: Topology, speeds: list[float], decoding: float, context: float, limit_s: float) -> float:
    """Prompt tokens that fit into a step of each of these nodes next to `decoding` requests on all of them.

    At least one per node, so that a load is finite.
    """
    law = topology.laws[0]
    total = sum(speeds, 0.0)
    found = fit = last = 0.0
    for speed in speeds:
        if speed != last:  # mostly equal
            batch = min(int(decoding * speed / total), law.max_decode_batch, topology.token_budget - 1)
            decode_s = law.decode_s(batch, int(batch * context)) if batch else 0.0
            left_s = limit_s * speed - decode_s - law.chunk_const_s
            fit = max(1.0, float(law.largest_chunk(left_s, batch, 0, topology.token_budget - batch, 1)))
            last = speed
        found += fit
    return found
