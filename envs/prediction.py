"""The router's predictions for a request before it is placed: step times, queue waits and TTFT, from old reports.

Step times come from the step law (`hardware_profiles.StepLaw`). Sums over the steps of a prompt have a closed form:
chunk i of c tokens has i * c tokens of its prompt before it, and attention is linear in them, so N full chunks together
take N times the step at their mean context.

Under `step_budget="fixed"`, prompts prefilled next to decodes have a chunk plan (`envs.chunk_plan`). Under "slo", the
engine chooses each chunk so that the step lasts at most `slo_share` of the strictest TBT SLO in its batch; the same
rule is applied here to the router's report.

With prefix caches, a prefill skips the prompt tokens that the router knows to be cached on its node (`done_tokens`),
and a transfer skips those cached on the decode node. Reports and the router's counts of queued prompts do not include
tokens that the router knew to be cached when it sent the prompt.
"""

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from mypy_extensions import mypyc_attr

from envs.chunk_plan import CHUNK_CANDIDATES, PLAN_BETA, LocalPrefill, plan_chunks
from envs.cluster import NodeReport, RequestView, RouterView, Topology
from hardware_profiles import StepLaw

# ---- prompts on one node --------------------------------------------------------------------------------------------


def prefill_s(
    law: StepLaw,
    tokens: int,
    chunk_tokens: int,
    done_tokens: int = 0,
    decode_batch: int = 0,
    decode_s: float = 0.0,
) -> float:
    """Seconds to prefill `tokens` tokens in chunks of `chunk_tokens`; the last chunk may be shorter.

    Args:
        law: the node's step law.
        tokens: tokens to prefill.
        chunk_tokens: tokens per step.
        done_tokens: tokens of the same prompt that are already computed.
        decode_batch: sequences that decode in each step.
        decode_s: D of these sequences, seconds; assumed to be constant.
    """
    full, rest = divmod(tokens, chunk_tokens)
    total_s = 0.0
    if full:
        mean_context = done_tokens + chunk_tokens * (full - 1) * 0.5
        total_s = full * law.chunk_step_s(chunk_tokens, mean_context, decode_batch, decode_s)
    if rest:
        total_s += law.chunk_step_s(rest, done_tokens + full * chunk_tokens, decode_batch, decode_s)
    return total_s


def queue_wait_s(
    law: StepLaw,
    tokens_ahead: int,
    chunk_tokens: int,
    context_tokens: float,
    decode_batch: int = 0,
    decode_s: float = 0.0,
) -> float:
    """Seconds until the prompt tokens ahead are computed, if prompts share steps.

    The wait is L / c * T(c, k): L tokens ahead take a fractional number L / c of steps, each with a chunk of c tokens
    that has k tokens of context.
    """
    if tokens_ahead <= 0:
        return 0.0
    return tokens_ahead / chunk_tokens * law.chunk_step_s(chunk_tokens, context_tokens, decode_batch, decode_s)


@mypyc_attr(acyclic=True, free_list_len=1)
class NodeSteps:
    """The steps of a node according to its report; prompts share them with the sequences that decode there.

    Attributes:
        law: the node's step law.
        batch: sequences decoding there; 0 on an ordinary prefill node.
        kv_tokens: their summed context.
        decode_s: D of these sequences, seconds; 0 without any.
        growth_s: growth of D per step, seconds.
        room: prompt tokens that the token budget leaves for a step.
        limit_s: the engine's limit on a step with prompt tokens, seconds; inf: only the token budget limits it.
        grain: a chunk cut short by `limit_s` is a multiple of this many tokens, and at least one such multiple.

    Args:
        topology: the cluster's topology.
        node: the node.
        report: the node's report.
    """

    __slots__ = ("batch", "decode_s", "grain", "growth_s", "kv_tokens", "law", "limit_s", "room")

    def __init__(self, topology: Topology, node: int, report: NodeReport) -> None:
        self.law = law = topology.laws[node]
        self.batch = batch = report.decode_batch
        self.kv_tokens = kv_tokens = report.decode_kv_tokens
        self.room = topology.token_budget - batch
        self.grain = topology.chunk_grain_tokens
        self.decode_s = 0.0
        self.growth_s = 0.0
        self.limit_s = inf
        if batch:
            base_s, kv_s, _ = law.decode_line(batch, kv_tokens)
            self.decode_s = base_s + kv_s * kv_tokens
            self.growth_s = kv_s * batch
            if topology.step_budget == "slo":
                self.limit_s = topology.slo_share * report.tbt_slo_s

    def join_s(self) -> float:
        """Expected wait for the next step boundary, seconds: half a step if sequences decode there."""
        return 0.5 * (self.law.token_time_s[self.batch] + self.decode_s) if self.batch else 0.0

    def joined_step_s(self, prompt_tokens: int, max_seqs: int) -> float:
        """Predicted decode step once one more request has joined, seconds."""
        batch = self.batch + 1 if self.batch < max_seqs else max_seqs
        return decode_step_s(self.law, batch, self.kv_tokens + prompt_tokens)

    def step_s(self, chunk_tokens: int, context_tokens: float) -> float:
        """Seconds for a step with one chunk and the decodes."""
        return self.law.chunk_step_s(chunk_tokens, context_tokens, self.batch, self.decode_s)

    def prefill_s(self, tokens: int, chunk_tokens: int, done_tokens: int = 0) -> float:
        """`prefill_s` in steps that the prompt shares with the decodes."""
        return prefill_s(self.law, tokens, chunk_tokens, done_tokens, self.batch, self.decode_s)

    def safe_chunk(
        self, tokens: int, step_s: float, sizes: Sequence[int] = CHUNK_CANDIDATES, done_tokens: int = 0
    ) -> int:
        """The largest chunk size with which every step of a prefill lasts at most `step_s` seconds; 0 if there is none.

        Full steps only grow longer, with the context and the decodes' KV, so it is enough to check the last full step
        and the rest.

        Args:
            tokens: tokens to prefill.
            step_s: longest step allowed, seconds.
            sizes: chunk sizes in decreasing order.
            done_tokens: tokens of the same prompt that are already computed.
        """
        for size in sizes:
            chunk = size if size < tokens else tokens
            if chunk > self.room:
                continue
            full, rest = divmod(tokens, chunk)
            if self.step_s(chunk, done_tokens + chunk * (full - 1)) + self.growth_s * (full - 1) > step_s:
                continue
            if not rest or self.step_s(rest, done_tokens + chunk * full) + self.growth_s * full <= step_s:
                return chunk
        return 0

    # ---- chunks that the engine chooses ---------------------------------------------------------------------------

    def engine_chunk(self, most_tokens: int, context_tokens: float) -> tuple[int, bool]:
        """The chunk that the engine chooses for a prompt, and whether its step keeps within the limit.

        Args:
            most_tokens: tokens of the prompt left to compute.
            context_tokens: its tokens that are already computed.
        """
        most = most_tokens if most_tokens < self.room else self.room
        if self.limit_s == inf:
            return most, True
        law = self.law
        limit_s = self.limit_s - law.chunk_const_s - self.decode_s
        chunk = law.largest_chunk(limit_s, self.batch, int(context_tokens), most, self.grain)
        return (chunk, True) if chunk else (min(self.grain, most), False)

    def engine_prefill(self, tokens: int, done_tokens: int = 0) -> LocalPrefill:
        """Predict the prefill of a prompt's last `tokens` tokens, after `done_tokens` others, in the engine's chunks.

        Chunks shrink as the context grows; all are assumed to be as large as the chunk at the middle of the prompt. The
        limit is kept if the smallest chunk keeps it at the prompt's end.
        """
        first, keeps = self.engine_chunk(tokens, done_tokens)
        if self.limit_s == inf:
            full, rest = divmod(tokens, first)
            longest_s = self.step_s(first, done_tokens + (full - 1) * first)
            if rest:
                longest_s = max(longest_s, self.step_s(rest, done_tokens + full * first))
            return LocalPrefill((), full + (rest > 0), self.prefill_s(tokens, first, done_tokens), longest_s, inf)
        if first == tokens:
            total_s = longest_s = self.step_s(first, done_tokens)
            steps = 1
        else:
            chunk, _ = self.engine_chunk(tokens, done_tokens + tokens // 2)
            steps = -(-tokens // chunk)
            total_s = self.prefill_s(tokens, chunk, done_tokens) + self.growth_s * (0.5 * steps * (steps - 1))
            least = min(self.grain, tokens, self.room)
            end_s = self.step_s(least, done_tokens + tokens - least) + self.growth_s * (steps - 1)
            keeps = end_s <= self.limit_s
            longest_s = max(end_s, self.step_s(first, done_tokens))
        slack_s = self.limit_s - longest_s
        return LocalPrefill((), steps, total_s, longest_s, max(0.0, slack_s) if keeps else slack_s)

    def engine_prefill_s(self, tokens: int, done_tokens: int = 0) -> float:
        """Seconds of `engine_prefill`."""
        if self.limit_s == inf:
            return self.prefill_s(tokens, self.room, done_tokens)
        return self.engine_prefill(tokens, done_tokens).total_s


def local_prefill(
    topology: Topology,
    node: int,
    report: NodeReport,
    prompt_tokens: int,
    tbt_slo_s: float,
    *,
    share: float = PLAN_BETA,
    sizes: Sequence[int] = CHUNK_CANDIDATES,
    smallest_if_none: bool = False,
    done_tokens: int = 0,
) -> LocalPrefill | None:
    """Predict a prefill on a node next to its decodes, under either step budget.

    Args:
        topology: the cluster's topology.
        node: the node.
        report: the node's report.
        prompt_tokens: tokens of the whole prompt.
        tbt_slo_s: under "fixed", the TBT SLO that the plan keeps if no request decodes there.
        share: under "fixed", share of the TBT SLO that a step of the plan may last; under "slo" it is `slo_share`.
        sizes: under "fixed", chunk sizes of the plan in decreasing order.
        smallest_if_none: prefill in the smallest chunks even if they exceed the limit.
        done_tokens: the prompt's first tokens that are cached and not computed; fewer than all of them.

    Returns:
        The prefill, or None if some step would exceed the limit.
    """
    if topology.step_budget == "fixed":
        slo_s = report.tbt_slo_s if report.tbt_slo_s < inf else tbt_slo_s
        return plan_chunks(
            topology.laws[node],
            prompt_tokens - done_tokens,
            report.decode_batch,
            report.decode_kv_tokens,
            share * slo_s,
            topology.token_budget,
            candidates=sizes,
            smallest_if_none=smallest_if_none,
            done_tokens=done_tokens,
        )
    local = NodeSteps(topology, node, report).engine_prefill(prompt_tokens - done_tokens, done_tokens)
    return local if smallest_if_none or local.slack_s >= 0.0 else None


def mean_queued_tokens(view: RouterView, node: int) -> int:
    """Mean length of the prompts queued on a node, tokens; 0 if there are none."""
    counters = view.counters
    queued = counters.queued_prompts[node]
    return counters.queued_prompt_tokens[node] // queued if queued else 0


def shared_queue_s(view: RouterView, node: int, steps: NodeSteps, tokens_ahead: int) -> float:
    """Seconds until the prompt tokens ahead on a node are computed, if prompts share steps.

    The engine chooses the chunk; its context is half the mean length of the prompts queued there.
    """
    if tokens_ahead <= 0:
        return 0.0
    context = 0.5 * mean_queued_tokens(view, node)
    chunk, _ = steps.engine_chunk(steps.room, context)
    return queue_wait_s(steps.law, tokens_ahead, chunk, context, steps.batch, steps.decode_s)


def planned_queue_s(view: RouterView, node: int, steps: NodeSteps, tokens_ahead: int, chunk_tokens: int) -> float:
    """Seconds until the prompt tokens ahead on a node are computed, if each prompt has a chunk plan.

    Prompts with a plan do not share steps: prompts of the mean length are computed one after the other, with
    `chunk_tokens` tokens per step.
    """
    if tokens_ahead <= 0:
        return 0.0
    mean_tokens = mean_queued_tokens(view, node) or tokens_ahead
    return tokens_ahead / mean_tokens * steps.prefill_s(mean_tokens, chunk_tokens)


def local_queue_s(
    view: RouterView, node: int, report: NodeReport, prompt_tokens: int, local: LocalPrefill, done_tokens: int = 0
) -> float:
    """Seconds until the prompts ahead on a node are computed, for a prompt that is prefilled next to its decodes.

    Prompts with plans are computed one after the other, at about this prompt's tokens per second; others share steps.
    If `done_tokens` of this prompt are cached, too few are left for such a rate, and the chunks of its plan are used
    instead.
    """
    ahead = report.prefill_tokens_ahead
    if ahead <= 0:
        return 0.0
    if local.chunks:
        if done_tokens:
            steps = NodeSteps(view.topology, node, report)
            return planned_queue_s(view, node, steps, ahead, max(local.chunks))
        return local.total_s * ahead / prompt_tokens
    return shared_queue_s(view, node, NodeSteps(view.topology, node, report), ahead)


# ---- TTFT on a prefill node -----------------------------------------------------------------------------------------


def tokens_to_send(request: RequestView, view: RouterView, decode_node: int) -> int:
    """Tokens of a prompt's KV that a transfer to `decode_node` moves: all except whole blocks cached there."""
    prompt_tokens = request.prompt_tokens
    if not view.has_prefix_caches:
        return prompt_tokens
    return prompt_tokens - view.topology.whole_blocks(view.prefix_hit_tokens(request, decode_node))


def decode_step_s(law: StepLaw, batch: int, kv_tokens: int) -> float:
    """Seconds for a decode step of `batch` >= 1 sequences without prompt tokens."""
    return law.token_time_s[batch] + law.decode_s(batch, kv_tokens)


def first_token_s(view: RouterView, node: int, report: NodeReport, prompt_tokens: int) -> float:
    """Predicted seconds from the end of a transfer to the first token: wait for a step boundary, and one step."""
    topology = view.topology
    steps = NodeSteps(topology, node, report)
    return steps.join_s() + steps.joined_step_s(prompt_tokens, topology.max_seqs)


def room_s(
    view: RouterView, node: int, prompt_tokens: int, step_s: float, generated_tokens: float
) -> tuple[float, int, float]:
    """Predict the room of a node for one more decoding request, and the wait until there is enough.

    Each request that decodes there takes a slot, and KV for its prompt and output so far; requests on their way are
    counted too, because they come first. A full node frees the share of one request each time that one finishes, which
    is every (mean output length x decode step / requests decoding) seconds. The mean is that of recently finished
    requests; without any, the wait is 0.

    Args:
        view: the cluster.
        node: the node.
        prompt_tokens: prompt tokens of the request.
        step_s: duration of a decode step there, seconds.
        generated_tokens: `RouterView.mean_generated_tokens` of the node.

    Returns:
        The wait in seconds; slots left; share of the KV capacity left. The last two are below 0 if the node is too
        full.
    """
    topology = view.topology
    counters = view.counters
    requests = counters.decode_requests[node] + 1
    slots = topology.max_seqs - requests
    capacity = topology.kv_capacity_tokens[node]
    tokens = counters.decode_prompt_tokens[node] + prompt_tokens
    tokens += int(generated_tokens * min(requests - 1, topology.max_seqs))
    left = 1.0 - tokens / capacity
    if slots >= 0 and left >= 0.0:
        return 0.0, slots, left
    excess = max(-slots, -left * capacity * requests / tokens)
    return excess * counters.mean_output_tokens * step_s / max(1.0, requests - excess), slots, left


class Remote(NamedTuple):
    """A prefill node as the prefill node of a request that decodes on another node.

    Attributes:
        node: the prefill node.
        steps: the node's steps.
        queue_s: predicted wait in its queue, seconds.
        ttft_s: predicted TTFT: queue, execution, KV transfer, and the first decode step.
    """

    node: int
    steps: NodeSteps
    queue_s: float
    ttft_s: float


def best_remote(request: RequestView, view: RouterView, decode_node: int, *, prefix: bool = True) -> Remote:
    """The prefill node with the least predicted TTFT for a request that decodes on `decode_node`.

    Args:
        request: the request.
        view: the cluster.
        decode_node: the node that decodes it.
        prefix: use the contents of prefix caches.
    """
    topology = view.topology
    prompt_tokens = request.prompt_tokens
    prefix = prefix and view.has_prefix_caches
    to_send = tokens_to_send(request, view, decode_node) if prefix else prompt_tokens
    decode_s = first_token_s(view, decode_node, view.report(decode_node), prompt_tokens)
    best: Remote | None = None
    best_s = inf
    for node in topology.prefill_nodes:
        report = view.report(node)
        steps = NodeSteps(topology, node, report)
        queue_s = shared_queue_s(view, node, steps, report.prefill_tokens_ahead)
        cached = view.prefix_hit_tokens(request, node) if prefix else 0
        ttft_s = queue_s + steps.engine_prefill_s(prompt_tokens - cached, cached)
        ttft_s += topology.transfer_s(node, decode_node, to_send) + decode_s
        if ttft_s < best_s:
            best = Remote(node, steps, queue_s, ttft_s)
            best_s = ttft_s
    assert best is not None  # a cluster has a prefill node
    return best
