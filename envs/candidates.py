"""What each node would mean for a request: predicted TTFT, TBT slack, and the placement itself.

The environment's observation and its actions both read this; a prefill node stands for "prefill there, then decode on
the least-loaded decode node", a decode node for "deflect there".
"""

from math import inf
from typing import NamedTuple

from envs.cluster import NodeReport, Placement, RequestView, RouterView
from envs.predict import chunk_step_s, plan_chunks, prefill_execution_s
from hardware_profiles import StepLaw

PLAN_BETA = 0.9
"""Share of the strictest resident TBT SLO that a step of a deflection's plan may last.

Ours: reports are old and batches grow while a plan runs, so at 1.0 a few steps in a thousand exceed the SLO by a hair,
and each is a miss for every sequence in its batch.
"""


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


def decode_step_s(law: StepLaw, batch: int, kv_tokens: int) -> float:
    """Duration of a plain decode step, seconds."""
    base_s, kv_s, _ = law.decode_line(batch, kv_tokens)
    return law.token_time_s[batch] + base_s + kv_s * kv_tokens


def _boundary_wait_s(law: StepLaw, report: NodeReport) -> float:
    """Expected wait for a node's next step boundary, seconds: half a step where one is in progress."""
    return 0.5 * decode_step_s(law, report.decode_batch, report.decode_kv_tokens) if report.decode_batch else 0.0


def first_token_s(view: RouterView, node: int, report: NodeReport, prompt_tokens: int) -> float:
    """Predicted time from the end of a transfer to the first token, seconds: join at a boundary, take one step."""
    law = view.topology.laws[node]
    batch = min(report.decode_batch + 1, view.topology.max_seqs)
    return _boundary_wait_s(law, report) + decode_step_s(law, batch, report.decode_kv_tokens + prompt_tokens)


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
    execution_s = prefill_execution_s(law, request.prompt_tokens, topology.token_budget)
    ttft_s = execution_s + topology.transfer_s(node, decode_node, request.prompt_tokens)
    ttft_s += decode_s
    ahead = report.prefill_tokens_ahead
    if ahead > 0:
        counters = view.counters
        context = 0.5 * counters.queued_prompt_tokens[node] / max(1, counters.queued_prompts[node])
        ttft_s += ahead / topology.token_budget * chunk_step_s(law, topology.token_budget, context)
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
    ttft_s += _boundary_wait_s(law, report)
    return Candidate(
        Placement(node, node, plan.chunks), plan.slack_s >= 0.0, ttft_s, plan.total_s, plan.slack_s, report
    )
