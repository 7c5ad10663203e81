"""What each node would mean for a request: predicted TTFT, TBT slack, and the placement itself.

The environment's observation and its actions both read this; a prefill node stands for "prefill there, then decode on
the least-loaded decode node", a decode node for "deflect there".
"""

from math import inf
from typing import NamedTuple

from envs.cluster import NodeReport, Placement, RequestView, RouterView
from envs.prediction import PLAN_BETA, first_token_s, join_s, plan_chunks, prefill_s, queue_wait_s


class Candidate(NamedTuple):
    """One node as a place for a request's prefill.

    Attributes:
        placement: what choosing the node means.
        feasible: whether every step of a deflection keeps the strictest resident TBT SLO; True for prefill nodes.
        ttft_s: predicted TTFT: queue, execution, and for a prefill node the transfer and the first decode step.
        execution_s: predicted execution alone.
        slack_s: PLAN_BETA * TBT SLO less the longest step that the deflection makes; the TBT SLO itself for a prefill
            node, which makes no decode wait.
        report: the node's report.
    """

    placement: Placement
    feasible: bool
    ttft_s: float
    execution_s: float
    slack_s: float
    report: NodeReport


def candidate(node: int, request: RequestView, view: RouterView) -> Candidate:
    """One node as a candidate for a request."""
    if node < view.topology.first_decode_node:
        decode_node = view.least_loaded_decode_node()
        decode_s = first_token_s(view, decode_node, view.report(decode_node), request.prompt_tokens)
        return _prefill_candidate(node, request, view, decode_node, decode_s)
    return _decode_candidate(node, request, view, view.report(node))


def candidates(request: RequestView, view: RouterView) -> list[Candidate]:
    """Every node as a candidate, in order of index."""
    topology = view.topology
    decode_node = view.least_loaded_decode_node()
    reports = {node: view.report(node) for node in topology.decode_nodes}
    decode_s = first_token_s(view, decode_node, reports[decode_node], request.prompt_tokens)
    found = [_prefill_candidate(node, request, view, decode_node, decode_s) for node in topology.prefill_nodes]
    found.extend([_decode_candidate(node, request, view, report) for node, report in reports.items()])
    return found


def _prefill_candidate(
    node: int, request: RequestView, view: RouterView, decode_node: int, decode_s: float
) -> Candidate:
    topology = view.topology
    law = topology.laws[node]
    report = view.report(node)
    execution_s = prefill_s(law, request.prompt_tokens, topology.token_budget)
    ttft_s = execution_s + topology.transfer_s(node, decode_node, request.prompt_tokens)
    ttft_s += decode_s
    ahead = report.prefill_tokens_ahead
    if ahead > 0:
        counters = view.counters
        context = 0.5 * counters.queued_prompt_tokens[node] / max(1, counters.queued_prompts[node])
        ttft_s += queue_wait_s(law, ahead, topology.token_budget, context)
    return Candidate(Placement(node, decode_node), True, ttft_s, execution_s, request.tbt_slo_s, report)


def _decode_candidate(node: int, request: RequestView, view: RouterView, report: NodeReport) -> Candidate:
    tbt_slo_s = report.tbt_slo_s if report.tbt_slo_s < inf else request.tbt_slo_s
    law = view.topology.laws[node]
    plan = plan_chunks(
        law,
        request.prompt_tokens,
        report.decode_batch,
        report.decode_kv_tokens,
        PLAN_BETA * tbt_slo_s,
        view.topology.token_budget,
        smallest_if_none=True,
    )
    assert plan is not None  # smallest_if_none always plans
    # Deflected prompts already there go first, at about this prompt's pace.
    ttft_s = plan.total_s * (1.0 + max(0, report.prefill_tokens_ahead) / request.prompt_tokens)
    ttft_s += join_s(law, report)
    return Candidate(
        Placement(node, node, plan.chunks), plan.slack_s >= 0.0, ttft_s, plan.total_s, plan.slack_s, report
    )
