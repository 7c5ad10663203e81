"""Predictions for a request on a node, as its prefill node and as its decode node.

They use only what a router knows: the node's old report and the router's own fresh counts (`envs.prediction`).
`envs.choices` combines two nodes into a placement, and `envs.features` lists the values that an observation contains.
"""

from math import inf

from mypy_extensions import mypyc_attr

from envs.chunk_plan import PLAN_BETA
from envs.cluster import NodeReport, RequestView, RouterView
from envs.prediction import (
    NodeSteps,
    local_prefill,
    local_queue_s,
    prefill_s,
    queue_wait_s,
    room_s,
    shared_queue_s,
)


@mypyc_attr(acyclic=True, free_list_len=1)
class PrefillOutlook:
    """A node as the prefill node of a request.

    Under `step_budget="fixed"` the router plans the chunks on decode nodes and on nodes where a request decodes or will
    decode; on other nodes, and under "slo", the engine chooses them.

    Attributes:
        node: index of the node.
        is_decode_node: whether its role is decode.
        cached_tokens: tokens of the prompt in its prefix cache, which it does not compute.
        queue_s: predicted wait for the prompts ahead, seconds.
        execution_s: predicted execution next to the decodes there, seconds.
        slack_s: limit on a step with decodes minus the longest step of this prefill, seconds. The limit is PLAN_BETA of
            the TBT SLO if the router plans the chunks, `slo_share` of it if the engine chooses them. The slack is the
            request's TBT SLO if no request decodes there; it is below 0 if even the smallest chunk exceeds the limit.
        chunk_plan: the router's chunk plan; empty if the engine chooses the chunks.
        steps: number of steps of the prefill.
        tokens_ahead: prompt tokens ahead: those in its report, and those dispatched since.
        queued_prompts, queued_tokens: the router's count of prompts dispatched there and not yet prefilled, and of
            their tokens.
        deflected_requests: the router's count of queued prompts that decode there too.
        decode_batch: requests decoding there (report).
        decode_requests: the router's count of unfinished requests that decode there.
        kv_share: share of its KV capacity in use (report).
        kv_leaving_bytes: KV prefilled there that has not reached its decode node (router's count).

    Args:
        node: index of the node.
        request: the request.
        view: the cluster.
        report: the node's report.
        steps: the node's steps, by this report.
        cached_tokens: tokens of its prompt in the node's prefix cache.
    """

    __slots__ = (
        "cached_tokens",
        "chunk_plan",
        "decode_batch",
        "decode_requests",
        "deflected_requests",
        "execution_s",
        "is_decode_node",
        "kv_leaving_bytes",
        "kv_share",
        "node",
        "queue_s",
        "queued_prompts",
        "queued_tokens",
        "slack_s",
        "steps",
        "tokens_ahead",
    )

    def __init__(
        self,
        node: int,
        request: RequestView,
        view: RouterView,
        report: NodeReport,
        steps: NodeSteps,
        cached_tokens: int,
    ) -> None:
        topology = view.topology
        counters = view.counters
        prompt_tokens = request.prompt_tokens
        ahead = report.prefill_tokens_ahead
        self.node = node
        self.is_decode_node = topology.decodes[node]
        self.cached_tokens = cached_tokens
        self.tokens_ahead = ahead if ahead > 0 else 0
        self.queued_prompts = counters.queued_prompts[node]
        self.queued_tokens = counters.queued_prompt_tokens[node]
        self.deflected_requests = counters.deflected_requests[node]
        self.decode_batch = steps.batch
        self.decode_requests = counters.decode_requests[node]
        self.kv_share = report.kv_used_tokens / topology.kv_capacity_tokens[node]
        self.kv_leaving_bytes = counters.kv_leaving_tokens[node] * topology.kv_bytes_per_token
        self.queue_s = 0.0
        self.chunk_plan: tuple[int, ...] = ()
        tbt_slo_s = request.tbt_slo_s
        tokens = prompt_tokens - cached_tokens
        if topology.step_budget == "slo":
            local = steps.engine_prefill(tokens, cached_tokens)
            if ahead > 0:
                self.queue_s = shared_queue_s(view, node, steps, ahead)
        elif self.is_decode_node or self.decode_requests:
            planned = local_prefill(
                topology, node, report, prompt_tokens, tbt_slo_s, done_tokens=cached_tokens, smallest_if_none=True
            )
            assert planned is not None  # smallest_if_none always gives one
            local = planned
            self.chunk_plan = local.chunks
            if ahead > 0:
                self.queue_s = local_queue_s(view, node, report, prompt_tokens, local, cached_tokens)
        else:
            budget = topology.token_budget
            self.execution_s = prefill_s(steps.law, tokens, budget, cached_tokens)
            self.steps = -(-tokens // budget)
            self.slack_s = tbt_slo_s
            if ahead > 0:
                context = 0.5 * self.queued_tokens / max(1, self.queued_prompts)
                self.queue_s = queue_wait_s(steps.law, ahead, budget, context)
            return
        self.execution_s = local.total_s
        self.steps = local.steps
        self.slack_s = local.slack_s if local.slack_s != inf else tbt_slo_s


@mypyc_attr(acyclic=True, free_list_len=1)
class DecodeOutlook:
    """A node as the decode node of a request.

    Attributes:
        node: index of the node.
        is_decode_node: whether its role is decode.
        cached_tokens: tokens of the prompt in its prefix cache, which are not transferred.
        room_s: predicted wait until it has room for the request's KV and decode, seconds.
        slots_left: `max_seqs` minus the requests that decode or will decode there, this one included; may be below 0.
        kv_left: share of its KV capacity that these requests leave; may be below 0.
        join_s: predicted wait for its next step boundary, seconds.
        step_s: predicted decode step once the request has joined, seconds, without prompt tokens in it.
        shared_step_s: the same with prompt tokens in the step, if prompts are ahead there; the step budget or the
            router's chunk plans limit it.
        unplanned: whether, under `step_budget="fixed"`, prompts without a chunk plan are queued there, whose steps may
            use the whole token budget.
        queued_tokens: the router's count of prompt tokens dispatched there and not yet prefilled.
        decode_batch: requests decoding there (report).
        decode_requests: the router's count of unfinished requests that decode there.
        requests_behind_least: `decode_requests` minus that of the least loaded node.
        generated_tokens: tokens generated so far per request that decodes there (the router relays them).
        kv_share: share of its KV capacity in use (report).
        kv_coming_bytes: KV on its way there, or waiting to be sent (router's count).

    Args:
        node: index of the node.
        request: the request.
        view: the cluster.
        report: the node's report.
        steps: the node's steps, by this report.
        cached_tokens: tokens of its prompt in the node's prefix cache.
        least_requests: unfinished requests of the least loaded node.
    """

    __slots__ = (
        "cached_tokens",
        "decode_batch",
        "decode_requests",
        "generated_tokens",
        "is_decode_node",
        "join_s",
        "kv_coming_bytes",
        "kv_left",
        "kv_share",
        "node",
        "queued_tokens",
        "requests_behind_least",
        "room_s",
        "shared_step_s",
        "slots_left",
        "step_s",
        "unplanned",
    )

    def __init__(
        self,
        node: int,
        request: RequestView,
        view: RouterView,
        report: NodeReport,
        steps: NodeSteps,
        cached_tokens: int,
        least_requests: int,
    ) -> None:
        topology = view.topology
        counters = view.counters
        prompt_tokens = request.prompt_tokens
        step_s = shared_step_s = steps.joined_step_s(prompt_tokens, topology.max_seqs)
        self.node = node
        self.is_decode_node = topology.decodes[node]
        self.cached_tokens = cached_tokens
        self.generated_tokens = view.mean_generated_tokens(node)
        self.room_s, self.slots_left, self.kv_left = room_s(view, node, prompt_tokens, step_s, self.generated_tokens)
        self.decode_batch = batch = steps.batch
        self.queued_tokens = queued_tokens = counters.queued_prompt_tokens[node]
        self.unplanned = False
        if queued_tokens:
            chunk = min(queued_tokens, topology.token_budget - min(batch + 1, topology.max_seqs))
            shared_step_s = max(step_s, steps.step_s(chunk, 0.0))
            strictest_s = min(request.tbt_slo_s, report.tbt_slo_s)
            if topology.step_budget == "slo":
                shared_step_s = max(step_s, min(shared_step_s, topology.slo_share * strictest_s))
            elif counters.unplanned_prompt_tokens[node]:
                self.unplanned = True
            else:
                shared_step_s = max(step_s, min(shared_step_s, PLAN_BETA * strictest_s))
        self.join_s = steps.join_s()
        self.step_s = step_s
        self.shared_step_s = shared_step_s
        self.decode_requests = counters.decode_requests[node]
        self.requests_behind_least = self.decode_requests - least_requests
        self.kv_share = report.kv_used_tokens / topology.kv_capacity_tokens[node]
        self.kv_coming_bytes = counters.kv_coming_tokens[node] * topology.kv_bytes_per_token
