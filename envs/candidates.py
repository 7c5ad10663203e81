"""What each node would mean for a request: predicted TTFT, TBT slack, and the placement itself.

The environment's observation and its actions both read this; a prefill node stands for "prefill there, then decode on
the least-loaded decode node", a decode node for "deflect there". Under `step_budget="slo"` a deflection has no chunk
plan: the engine chooses its chunks.
"""

from math import inf
from typing import NamedTuple

from envs.cluster import NodeReport, Placement, RequestView, RouterView
from envs.prediction import (
    first_token_s,
    join_s,
    local_prefill,
    local_queue_s,
    prefill_s,
    queue_wait_s,
    tokens_to_send,
)


class Candidate(NamedTuple):
    """One node as a place for a request's prefill.

    Attributes:
        placement: what choosing the node means.
        feasible: whether the node may be chosen: a prefill node always, a decode node if every step of the deflection
            keeps within what is promised to its decodes, a lost node never.
        ttft_s: predicted TTFT: queue, execution, and for a prefill node the transfer and the first decode step; inf for
            a lost node.
        execution_s: predicted execution alone.
        slack_s: time that a step next to decodes is promised to last at most, less the longest step of the deflection:
            PLAN_BETA of the TBT SLO if the router plans the chunks, `slo_share` of it if the engine chooses them. The
            TBT SLO itself if no decode waits: for a prefill node and, under "slo", for a node without decodes.
        chunks: chunks that a deflection computes; 0 for a prefill node.
        report: the node's report.
    """

    placement: Placement
    feasible: bool
    ttft_s: float
    execution_s: float
    slack_s: float
    chunks: int
    report: NodeReport


LOST = Candidate(Placement(-1, -1), False, inf, 0.0, 0.0, 0, NodeReport(0, 0, 0, 0, inf))
"""A lost node; its placement is none."""


def candidate(node: int, request: RequestView, view: RouterView) -> Candidate:
    """One node as a candidate for a request."""
    if view.topology.is_lost(node):
        return LOST
    prefix = view.has_prefix_caches
    if node < view.topology.first_decode_node:
        decode_node = view.least_loaded_decode_node()
        decode_s = first_token_s(view, decode_node, view.report(decode_node), request.prompt_tokens)
        return _prefill_candidate(node, request, view, decode_node, decode_s, prefix)
    return _decode_candidate(node, request, view, view.report(node), prefix)


def candidates(request: RequestView, view: RouterView, *, prefix: bool = True) -> list[Candidate]:
    """Every node of the cluster as a candidate, at its index; `LOST` for lost nodes.

    Args:
        request: the request.
        view: the cluster.
        prefix: count what is cached of its prompt.
    """
    topology = view.topology
    prefix = prefix and view.has_prefix_caches
    decode_node = view.least_loaded_decode_node()
    decode_s = first_token_s(view, decode_node, view.report(decode_node), request.prompt_tokens)
    found = [LOST] * topology.nodes
    for node in topology.prefill_nodes:
        found[node] = _prefill_candidate(node, request, view, decode_node, decode_s, prefix)
    for node in topology.decode_nodes:
        found[node] = _decode_candidate(node, request, view, view.report(node), prefix)
    return found


def _prefill_candidate(
    node: int, request: RequestView, view: RouterView, decode_node: int, decode_s: float, prefix: bool
) -> Candidate:
    topology = view.topology
    law = topology.laws[node]
    report = view.report(node)
    to_send = prompt_tokens = request.prompt_tokens
    cached = 0
    if prefix:
        cached = view.prefix_hit_tokens(request, node)
        to_send = tokens_to_send(request, view, decode_node)
    execution_s = prefill_s(law, prompt_tokens - cached, topology.token_budget, cached)
    ttft_s = execution_s + topology.transfer_s(node, decode_node, to_send)
    ttft_s += decode_s
    ahead = report.prefill_tokens_ahead
    if ahead > 0:
        counters = view.counters
        context = 0.5 * counters.queued_prompt_tokens[node] / max(1, counters.queued_prompts[node])
        ttft_s += queue_wait_s(law, ahead, topology.token_budget, context)
    return Candidate(Placement(node, decode_node), True, ttft_s, execution_s, request.tbt_slo_s, 0, report)


def _decode_candidate(node: int, request: RequestView, view: RouterView, report: NodeReport, prefix: bool) -> Candidate:
    topology = view.topology
    prompt_tokens = request.prompt_tokens
    cached = view.prefix_hit_tokens(request, node) if prefix else 0
    local = local_prefill(
        topology, node, report, prompt_tokens, request.tbt_slo_s, smallest_if_none=True, done_tokens=cached
    )
    assert local is not None  # smallest_if_none always gives one
    chunks, steps, total_s, _, slack_s = local
    ttft_s = total_s + local_queue_s(view, node, report, prompt_tokens, local, cached)
    ttft_s += join_s(topology.laws[node], report)
    if slack_s == inf:
        slack_s = request.tbt_slo_s
    return Candidate(Placement(node, node, chunks), slack_s >= 0.0, ttft_s, total_s, slack_s, steps, report)
