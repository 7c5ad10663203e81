"""How busy the nodes would be if traffic went on as in the last minute: a fluid model of the prefill and decode pools.

The model uses only arrival rates, prompt lengths and the mean output length, so that its values, unlike queues and
batches, do not depend on where earlier requests were placed. They tell a policy whether the decode nodes alone can keep
the TBT SLO.
"""

from mypy_extensions import mypyc_attr

from envs.cluster import RouterView, Topology
from envs.prediction import decode_step_s
from hardware_profiles import StepLaw

_BATCH = 64
_SHORTEST_SPAN_S = 1.0
_LEAST_IDLE = 0.05  # share of a node's time that the model always leaves; without it, steps would grow without bound


@mypyc_attr(acyclic=True, free_list_len=1)
class SteadyLoad:
    """The steady state at the mean rates (time constant `STEADY_S`), with the step law of the first live node.

    With n nodes that decode, B requests decode on each: B = rate * output tokens * step / n. A step takes a + b * B
    seconds, so it lasts a / (1 - rate * output tokens * b / n).

    Attributes:
        rate_rps: mean rate of requests, per second.
        prompt_tokens: their mean prompt.
        prefill_load: utilisation of the prefill nodes if they compute all prompts in full steps; above 1 in overload.
        decode_load: rate * output tokens * b / n for the decode nodes; above 1 in overload.
        decode_step_s: length of a step if the decode nodes decode all requests, seconds.
        shared_decode_step_s: the same if all nodes do.
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
        law = topology.laws[topology.live_nodes[0]]
        span_s = max(_SHORTEST_SPAN_S, counters.steady_span_s)
        self.rate_rps = rate_rps = counters.requests_steady / span_s
        self.prompt_tokens = counters.tokens_steady / max(1.0, counters.requests_steady)
        token_rate = counters.tokens_steady / span_s
        output_tokens = counters.finished_output_tokens / max(1.0, counters.finished_requests)
        context = self.prompt_tokens + 0.5 * output_tokens
        budget = topology.token_budget
        step_s = law.chunk_step_s(budget, 0.0)
        self.prefill_load = token_rate * step_s / (budget * max(1, len(topology.prefill_nodes)))
        batch = min(_BATCH, law.max_decode_batch)
        one_s = decode_step_s(law, 1, int(context))
        slope_s = (decode_step_s(law, batch, int(batch * context)) - one_s) / max(1, batch - 1)
        base_s = one_s - slope_s
        work = rate_rps * output_tokens * slope_s
        self.decode_load = work / max(1, len(topology.decode_nodes))
        self.decode_step_s = base_s / max(_LEAST_IDLE, 1.0 - self.decode_load)
        self.shared_decode_step_s = base_s / max(_LEAST_IDLE, 1.0 - work / len(topology.live_nodes))
        limit_s = topology.slo_share * tbt_slo_s
        tokens = token_rate * limit_s  # prompt tokens that arrive during a step
        decoding = rate_rps * output_tokens * limit_s  # requests that decode at a time
        nodes = len(topology.live_nodes)
        self.shared_prefill_load = tokens / (
            nodes * _tokens_per_step(topology, law, decoding / nodes, context, limit_s)
        )
        nodes = max(1, len(topology.decode_nodes))
        self.deflected_prefill_load = tokens / (
            nodes * _tokens_per_step(topology, law, decoding / nodes, context, limit_s)
        )


def _tokens_per_step(topology: Topology, law: StepLaw, decoding: float, context: float, limit_s: float) -> float:
    """Prompt tokens that fit into a step next to `decoding` requests; at least one, so that a load is finite."""
    batch = min(int(decoding), law.max_decode_batch, topology.token_budget - 1)
    decode_s = law.decode_s(batch, int(batch * context)) if batch else 0.0
    left_s = limit_s - decode_s - law.chunk_const_s
    return max(1.0, float(law.largest_chunk(left_s, batch, 0, topology.token_budget - batch, 1)))
