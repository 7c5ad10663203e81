"""What a node offers a request, as the place of its prefill and as the place where it decodes.

Everything here is what a router knows: the node's old report, the router's own fresh counts, and predictions from both
(`envs.prediction`). `envs.choices` combines two nodes into a placement.
"""

from math import inf
from typing import NamedTuple

from envs.chunk_plan import PLAN_BETA
from envs.cluster import NodeReport, RequestView, RouterView
from envs.prediction import (
    NodeSteps,
    join_s,
    joined_step_s,
    local_prefill,
    local_queue_s,
    prefill_s,
    queue_wait_s,
    room_s,
)


class PrefillOutlook(NamedTuple):
    """A node as the place where a request's prompt is prefilled.

    Attributes:
        node: its index.
        is_decode_node: whether that is its role.
        cached_tokens: tokens of the prompt in its prefix cache, which it does not compute.
        queue_s: predicted wait for the prompts ahead, seconds.
        execution_s: predicted execution next to the decodes there, seconds.
        slack_s: time that a step next to decodes is promised to last at most, minus the longest step of this prefill:
            PLAN_BETA of the TBT SLO if the router plans the chunks, `slo_share` of it if the engine chooses them. The
            request's TBT SLO if no request decodes there. Below 0 even the smallest chunk breaks the promise.
        chunk_plan: the router's chunk plan; empty if the engine chooses the chunks.
        steps: steps of the prefill.
        report: the node's report.
        queued_prompts, queued_prompt_tokens: the router's count of prompts dispatched there and not yet prefilled.
        decode_requests: the router's count of unfinished requests that decode there.
        deflected_requests: the router's count of queued prompts that are to decode there too.
        kv_share: share of its KV capacity in use (report).
        kv_leaving_bytes: KV prefilled there that has not reached its decode node (router's count).
    """

    node: int
    is_decode_node: bool
    cached_tokens: int
    queue_s: float
    execution_s: float
    slack_s: float
    chunk_plan: tuple[int, ...]
    steps: int
    report: NodeReport
    queued_prompts: int
    queued_prompt_tokens: int
    decode_requests: int
    deflected_requests: int
    kv_share: float
    kv_leaving_bytes: int


class DecodeOutlook(NamedTuple):
    """A node as the place where a request decodes.

    Attributes:
        node: its index.
        is_decode_node: whether that is its role.
        cached_tokens: tokens of the prompt in its prefix cache, which are not transferred.
        room_s: predicted wait until it has room for the request's KV and decode, seconds.
        slots_left: requests that may still decode there, of `max_seqs`, this one taken off; below 0: too many.
        kv_left: share of its KV capacity that is left, counted likewise.
        join_s: predicted wait for its next step boundary, seconds.
        step_s: predicted decode step once the request has joined, seconds, without prompt tokens in it.
        shared_step_s: the same with prompt tokens in it if prompts are ahead there, as far as the step budget or the
            router's chunk plans let a step grow.
        unplanned: whether, under `step_budget="fixed"`, prompts without a chunk plan are queued there: their steps may
            take any share of the token budget.
        report: the node's report.
        queued_prompt_tokens: the router's count of prompt tokens dispatched there and not yet prefilled.
        decode_requests: the router's count of unfinished requests that decode there.
        requests_behind_least: how many more these are than on the least loaded node.
        generated_tokens: tokens given so far, per request that decodes there (the router relays them).
        kv_share: share of its KV capacity in use (report).
        kv_coming_bytes: KV on its way there, or waiting to be sent (router's count).
    """

    node: int
    is_decode_node: bool
    cached_tokens: int
    room_s: float
    slots_left: int
    kv_left: float
    join_s: float
    step_s: float
    shared_step_s: float
    unplanned: bool
    report: NodeReport
    queued_prompt_tokens: int
    decode_requests: int
    requests_behind_least: int
    generated_tokens: float
    kv_share: float
    kv_coming_bytes: int


def prefill_outlook(
    node: int, request: RequestView, view: RouterView, report: NodeReport, cached_tokens: int
) -> PrefillOutlook:
    """A node as the place of a request's prefill, with `cached_tokens` of its prompt in the node's prefix cache.

    Under `step_budget="fixed"` the router plans the chunks on a decode node and on any node where a request decodes or
    is to decode; elsewhere, and under "slo", the engine chooses them.
    """
    topology = view.topology
    counters = view.counters
    prompt_tokens = request.prompt_tokens
    is_decode_node = node >= topology.first_decode_node
    ahead = report.prefill_tokens_ahead
    chunk_plan: tuple[int, ...] = ()
    if topology.step_budget != "slo" and not is_decode_node and not counters.decode_requests[node]:
        law = topology.laws[node]
        budget = topology.token_budget
        tokens = prompt_tokens - cached_tokens
        execution_s = prefill_s(law, tokens, budget, cached_tokens)
        steps = -(-tokens // budget)
        slack_s = request.tbt_slo_s
        queue_s = 0.0
        if ahead > 0:
            context = 0.5 * counters.queued_prompt_tokens[node] / max(1, counters.queued_prompts[node])
            queue_s = queue_wait_s(law, ahead, budget, context)
    else:
        local = local_prefill(
            topology, node, report, prompt_tokens, request.tbt_slo_s, done_tokens=cached_tokens, smallest_if_none=True
        )
        assert local is not None  # smallest_if_none always gives one
        chunk_plan, steps, execution_s, _, slack_s = local
        queue_s = local_queue_s(view, node, report, prompt_tokens, local, cached_tokens) if ahead > 0 else 0.0
        if slack_s == inf:
            slack_s = request.tbt_slo_s
    return tuple.__new__(  # skips the named tuple's own constructor, a function in Python
        PrefillOutlook,
        (
            node,
            is_decode_node,
            cached_tokens,
            queue_s,
            execution_s,
            slack_s,
            chunk_plan,
            steps,
            report,
            counters.queued_prompts[node],
            counters.queued_prompt_tokens[node],
            counters.decode_requests[node],
            counters.deflected_requests[node],
            report.kv_used_tokens / topology.kv_capacity_tokens[node],
            counters.kv_leaving_tokens[node] * topology.kv_bytes_per_token,
        ),
    )


def decode_outlook(
    node: int,
    request: RequestView,
    view: RouterView,
    report: NodeReport,
    cached_tokens: int,
    least_requests: int,
) -> DecodeOutlook:
    """A node as the place where a request decodes.

    Args:
        node: its index.
        request: the request.
        view: the cluster.
        report: the node's report.
        cached_tokens: tokens of its prompt in the node's prefix cache.
        least_requests: unfinished requests of the least loaded node.
    """
    topology = view.topology
    counters = view.counters
    prompt_tokens = request.prompt_tokens
    step_s = shared_step_s = joined_step_s(view, node, report, prompt_tokens)
    generated_tokens = view.mean_generated_tokens(node)
    wait_s, slots_left, kv_left = room_s(view, node, prompt_tokens, step_s, generated_tokens)
    unplanned = False
    queued_tokens = counters.queued_prompt_tokens[node]
    if queued_tokens:
        steps = NodeSteps.of(topology, node, report)
        chunk = min(queued_tokens, topology.token_budget - min(report.decode_batch + 1, topology.max_seqs))
        shared_step_s = max(step_s, steps.step_s(chunk, 0.0))
        strictest_s = min(request.tbt_slo_s, report.tbt_slo_s)
        if topology.step_budget == "slo":
            shared_step_s = max(step_s, min(shared_step_s, topology.slo_share * strictest_s))
        elif counters.unplanned_prompt_tokens[node]:
            unplanned = True
        else:
            shared_step_s = max(step_s, min(shared_step_s, PLAN_BETA * strictest_s))
    return tuple.__new__(
        DecodeOutlook,
        (
            node,
            node >= topology.first_decode_node,
            cached_tokens,
            wait_s,
            slots_left,
            kv_left,
            join_s(topology.laws[node], report),
            step_s,
            shared_step_s,
            unplanned,
            report,
            queued_tokens,
            counters.decode_requests[node],
            counters.decode_requests[node] - least_requests,
            generated_tokens,
            report.kv_used_tokens / topology.kv_capacity_tokens[node],
            counters.kv_coming_tokens[node] * topology.kv_bytes_per_token,
        ),
    )
