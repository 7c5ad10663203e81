"""What a router can compute of a request before it is placed: step times, queue waits and TTFT, from its old reports.

Every step time is the step law's (`hardware_profiles.StepLaw`). Sums over the steps of a prompt are closed: chunk i of
c tokens has i * c tokens of its prompt before it, and attention is linear in those, so that all full chunks together
take as many times the step at their mean context.

Under `step_budget="fixed"` prompts prefilled next to decodes have a chunk plan (`envs.chunk_plan`). Under "slo"
the engine chooses each chunk, so that the step keeps within `slo_share` of the strictest TBT SLO in its batch; the same
law is applied here to the router's report.

With prefix caches a prefill starts after the tokens of the prompt that the router knows to be cached on its node
(`done_tokens`), and a transfer leaves out those cached on the decode node. Reports and the router's counts of queued
prompts leave out what the router knew to be cached when it sent them.
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
    """Seconds to prefill `tokens` tokens, `chunk_tokens` a step, the last chunk shortened.

    Args:
        law: the node's step law.
        tokens: tokens to prefill.
        chunk_tokens: of them in a step.
        done_tokens: tokens of the same prompt that were computed before.
        decode_batch: sequences that decode in each step.
        decode_s: D of these sequences, seconds; it is taken to stay the same.
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
    """Seconds until the prompt tokens ahead are computed, where prompts fill steps together.

    L / c * T(c, k) with L tokens ahead, a fractional number of steps, each with a chunk of c tokens that has k tokens
    of context.
    """
    if tokens_ahead <= 0:
        return 0.0
    return tokens_ahead / chunk_tokens * law.chunk_step_s(chunk_tokens, context_tokens, decode_batch, decode_s)


@mypyc_attr(acyclic=True, free_list_len=1)
class NodeSteps:
    """A node's steps, as far as its report tells; prompts share them with the sequences that decode there.

    Attributes:
        law: the node's step law.
        batch: sequences decoding there; 0 on an ordinary prefill node.
        kv_tokens: their summed context.
        decode_s: D of these sequences, seconds; 0 without any.
        growth_s: what D grows by with each step, seconds.
        room: prompt tokens that the token budget leaves a step.
        limit_s: how long the engine lets a step with prompt tokens last, seconds; inf: the token budget alone decides.
        grain: tokens that a chunk cut short by `limit_s` is a multiple of, and at least.

    Args:
        topology: of the cluster.
        node: the node.
        report: the node's.
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
        """`prefill_s` next to the decodes."""
        return prefill_s(self.law, tokens, chunk_tokens, done_tokens, self.batch, self.decode_s)

    def safe_chunk(
        self, tokens: int, step_s: float, sizes: Sequence[int] = CHUNK_CANDIDATES, done_tokens: int = 0
    ) -> int:
        """The largest chunk with which no step of a prefill lasts longer than `step_s` seconds; 0 if there is none.

        Full steps only grow longer, as the context and the decodes' KV do: the last of them and the rest decide.

        Args:
            tokens: tokens to prefill.
            step_s: how long a step may last, seconds.
            sizes: chunk sizes, falling.
            done_tokens: tokens of the same prompt that were computed before.
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
        """The chunk that the engine gives a prompt, and whether its step keeps within the limit.

        Args:
            most_tokens: tokens that are left of the prompt.
            context_tokens: its tokens computed before.
        """
        most = most_tokens if most_tokens < self.room else self.room
        if self.limit_s == inf:
            return most, True
        law = self.law
        limit_s = self.limit_s - law.chunk_const_s - self.decode_s
        chunk = law.largest_chunk(limit_s, self.batch, int(context_tokens), most, self.grain)
        return (chunk, True) if chunk else (min(self.grain, most), False)

    def engine_prefill(self, tokens: int, done_tokens: int = 0) -> LocalPrefill:
        """A prompt's last `tokens` tokens, after `done_tokens` others, in chunks that the engine chooses.

        Chunks shrink as the context grows; all are taken to be as the one at half the prompt. The promise is kept if
        the smallest chunk keeps it at the prompt's end.
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
    """A prompt prefilled on a node next to its decodes, under either step budget.

    Args:
        topology: of the cluster.
        node: the node.
        report: the node's.
        prompt_tokens: tokens of the whole prompt.
        tbt_slo_s: under "fixed", the TBT SLO that the plan keeps if nothing decodes there.
        share: under "fixed", share of the TBT SLO that a step of the plan may last; under "slo" it is `slo_share`.
        sizes: under "fixed", chunk sizes of the plan, falling.
        smallest_if_none: prefill in the smallest chunks even if they break the promise.
        done_tokens: the prompt's first tokens that are not computed, since they are cached; fewer than all of them.

    Returns:
        None if some step would break the promise.
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
    """Seconds until the prompt tokens ahead on a node are computed where prompts fill steps together.

    The chunk is the engine's, its context half the mean length of the prompts queued there.
    """
    if tokens_ahead <= 0:
        return 0.0
    context = 0.5 * mean_queued_tokens(view, node)
    chunk, _ = steps.engine_chunk(steps.room, context)
    return queue_wait_s(steps.law, tokens_ahead, chunk, context, steps.batch, steps.decode_s)


def planned_queue_s(view: RouterView, node: int, steps: NodeSteps, tokens_ahead: int, chunk_tokens: int) -> float:
    """Seconds until the prompt tokens ahead on a node are computed where each prompt has a plan, `chunk_tokens` a step.

    Prompts with a plan do not share steps: as many prompts of their mean length, one after the other.
    """
    if tokens_ahead <= 0:
        return 0.0
    mean_tokens = mean_queued_tokens(view, node) or tokens_ahead
    return tokens_ahead / mean_tokens * steps.prefill_s(mean_tokens, chunk_tokens)


def local_queue_s(
    view: RouterView, node: int, report: NodeReport, prompt_tokens: int, local: LocalPrefill, done_tokens: int = 0
) -> float:
    """Seconds until the prompts ahead on a node are computed, for a prompt that is prefilled next to its decodes.

    With plans they go one after the other, at about this prompt's pace; else they share steps. The few tokens that a
    cache leaves to compute have no pace: if `done_tokens` of the prompt are cached, the others go in its plan's chunks.
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
    """Tokens of a prompt's KV that a transfer to `decode_node` moves: all but the whole blocks cached there."""
    prompt_tokens = request.prompt_tokens
    if not view.has_prefix_caches:
        return prompt_tokens
    return prompt_tokens - view.topology.whole_blocks(view.prefix_hit_tokens(request, decode_node))


def decode_step_s(law: StepLaw, batch: int, kv_tokens: int) -> float:
    """Seconds for a plain decode step of `batch` >= 1 sequences."""
    return law.token_time_s[batch] + law.decode_s(batch, kv_tokens)


def first_token_s(view: RouterView, node: int, report: NodeReport, prompt_tokens: int) -> float:
    """Predicted time from the end of a transfer to the first token, seconds: join at a boundary, take one step."""
    topology = view.topology
    steps = NodeSteps(topology, node, report)
    return steps.join_s() + steps.joined_step_s(prompt_tokens, topology.max_seqs)


def room_s(
    view: RouterView, node: int, prompt_tokens: int, step_s: float, generated_tokens: float
) -> tuple[float, int, float]:
    """What a node has left for one more request to decode there, and the predicted wait until it has enough.

    Requests that decode there take a slot each and KV for prompt and output so far; those that are still to come are
    counted too, as they come first. A full node frees the share of one request with each one that finishes, which
    happens every (mean output length x decode step / requests decoding) seconds; the mean is that of the requests that
    finished lately, and with none the wait is 0.

    Args:
        view: the cluster.
        node: the node.
        prompt_tokens: of the request.
        step_s: a decode step there, seconds.
        generated_tokens: `RouterView.mean_generated_tokens` of the node.

    Returns:
        The wait, seconds; slots left (below 0: requests too many); share of the KV capacity left (likewise).
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
    finished = counters.finished_requests
    mean_output_tokens = counters.finished_output_tokens / finished if finished else 0.0
    excess = max(-slots, -left * capacity * requests / tokens)
    return excess * mean_output_tokens * step_s / max(1.0, requests - excess), slots, left


class Remote(NamedTuple):
    """A prefill node as the place for a whole prompt that decodes elsewhere.

    Attributes:
        node: the prefill node.
        steps: its steps.
        queue_s: predicted wait for its queue, seconds.
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
        decode_node: where it decodes.
        prefix: count what is cached of its prompt.
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
