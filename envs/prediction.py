"""What a router can compute of a request before it is placed: step times, queue waits and TTFT, from its old reports.

Every step time is the step law's (`hardware_profiles.StepLaw`). Sums over the steps of a prompt are closed: chunk i of
c tokens has i * c tokens of its prompt before it, and attention is linear in those, so that c full chunks take c times
the step at their mean context.

The greedy chunk schedule is that of Algorithm 1 in arXiv 2607.02043, as far as its public descriptions go; see
`policies/kairos.py` for what is open.
"""

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from envs.cluster import NodeReport, RequestView, RouterView
from hardware_profiles import StepLaw

CHUNK_CANDIDATES = (2048, 1024, 512, 256, 128)
"""Chunk sizes that a router's chunk plan may have, tokens (arXiv 2607.02043)."""

PLAN_BETA = 0.9
"""Share of the strictest TBT SLO among the decoding sequences that a step of a chunk plan may last.

Not from a paper: reports are old and batches grow while a plan runs, so at 1.0 a few steps in a thousand exceed the SLO
by a hair, and each is a miss for every sequence in its batch.
"""

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


class NodeSteps(NamedTuple):
    """A node's steps, as far as its report tells; prompts share them with the sequences that decode there.

    Attributes:
        law: the node's step law.
        batch: sequences decoding there; 0 on an ordinary prefill node.
        decode_s: D of these sequences, seconds; 0 without any.
        growth_s: what D grows by with each step, seconds.
    """

    law: StepLaw
    batch: int
    decode_s: float
    growth_s: float

    @classmethod
    def of(cls, law: StepLaw, report: NodeReport) -> "NodeSteps":
        """A node by its law and its report."""
        batch = report.decode_batch
        if not batch:
            return cls(law, 0, 0.0, 0.0)
        base_s, kv_s, _ = law.decode_line(batch, report.decode_kv_tokens)
        return cls(law, batch, base_s + kv_s * report.decode_kv_tokens, kv_s * batch)

    def step_s(self, chunk_tokens: int, context_tokens: float) -> float:
        """Seconds for a step with one chunk and the decodes."""
        return self.law.chunk_step_s(chunk_tokens, context_tokens, self.batch, self.decode_s)

    def prefill_s(self, tokens: int, chunk_tokens: int, done_tokens: int = 0) -> float:
        """`prefill_s` beside the decodes."""
        return prefill_s(self.law, tokens, chunk_tokens, done_tokens, self.batch, self.decode_s)

    def safe_chunk(
        self, prompt_tokens: int, step_s: float, token_budget: int, sizes: Sequence[int] = CHUNK_CANDIDATES
    ) -> int:
        """The largest chunk with which no step of a prompt lasts longer than `step_s` seconds; 0 if there is none.

        Full steps only grow longer, as the context and the decodes' KV do: the last of them and the rest decide.
        """
        for size in sizes:
            chunk = size if size < prompt_tokens else prompt_tokens
            if chunk + self.batch > token_budget:
                continue
            full, rest = divmod(prompt_tokens, chunk)
            if self.step_s(chunk, chunk * (full - 1)) + self.growth_s * (full - 1) > step_s:
                continue
            if not rest or self.step_s(rest, chunk * full) + self.growth_s * full <= step_s:
                return chunk
        return 0


def mean_queued_tokens(view: RouterView, node: int) -> int:
    """Mean length of the prompts queued on a node, tokens; 0 if there are none."""
    counters = view.counters
    queued = counters.queued_prompts[node]
    return counters.queued_prompt_tokens[node] // queued if queued else 0


def shared_queue_s(view: RouterView, node: int, steps: NodeSteps, tokens_ahead: int) -> float:
    """Seconds until the prompt tokens ahead on a node are computed where prompts fill steps together.

    The chunk is what the engine's token budget leaves, its context half the mean length of the prompts queued there.
    """
    chunk = view.topology.token_budget - steps.batch
    context = 0.5 * mean_queued_tokens(view, node)
    return queue_wait_s(steps.law, tokens_ahead, chunk, context, steps.batch, steps.decode_s)


def planned_queue_s(view: RouterView, node: int, steps: NodeSteps, tokens_ahead: int, chunk_tokens: int) -> float:
    """Seconds until the prompt tokens ahead on a node are computed where each prompt has a plan, `chunk_tokens` a step.

    Prompts with a plan do not share steps: as many prompts of their mean length, one after the other.
    """
    if tokens_ahead <= 0:
        return 0.0
    mean_tokens = mean_queued_tokens(view, node) or tokens_ahead
    return tokens_ahead / mean_tokens * steps.prefill_s(mean_tokens, chunk_tokens)


# ---- the greedy chunk schedule --------------------------------------------------------------------------------------


class ChunkPlan(NamedTuple):
    """Chunks for a prompt on a node that decodes.

    Attributes:
        chunks: tokens of each successive chunk.
        total_s: sum of the steps that carry them, seconds.
        slack_s: TBT budget left in the longest of them, seconds; negative if the budget is broken.
    """

    chunks: tuple[int, ...]
    total_s: float
    slack_s: float


def plan_chunks(
    law: StepLaw,
    prompt_tokens: int,
    decode_batch: int,
    decode_kv_tokens: int,
    budget_s: float,
    token_budget: int,
    *,
    candidates: Sequence[int] = CHUNK_CANDIDATES,
    smallest_if_none: bool = False,
) -> ChunkPlan | None:
    """The greedy schedule of Algorithm 1: at each step the largest candidate whose step keeps within `budget_s`.

    Args:
        law: the node's step law.
        prompt_tokens: tokens to prefill.
        decode_batch: sequences decoding beside it.
        decode_kv_tokens: their summed context; it grows by `decode_batch` a step.
        budget_s: how long a step may last, seconds (beta * tau).
        token_budget: the engine's tokens a step; no candidate is larger than what it leaves.
        candidates: chunk sizes, falling.
        smallest_if_none: go on with the smallest candidate if none fits.

    Returns:
        The plan, or None if at some step no candidate fits.
    """
    chunks: list[int] = []
    total_s = longest_s = decode_s = kv_s = step_s = 0.0
    done = 0
    pick = 0  # steps only grow longer, so a candidate that no longer fits does not fit later
    last = len(candidates) - 1
    room = token_budget - decode_batch
    line_end = inf
    while done < prompt_tokens:
        if decode_batch:
            base_s, kv_s, line_end = law.decode_line(decode_batch, decode_kv_tokens)
            decode_s = base_s + kv_s * decode_kv_tokens
        remaining = prompt_tokens - done
        if pick and candidates[pick] < remaining < candidates[pick - 1]:
            pick -= 1  # shortened to what remains it may fit
        fits = False
        while True:
            n = candidates[pick] if candidates[pick] < remaining else remaining
            if n <= room:
                step_s = law.chunk_step_s(n, done, decode_batch, decode_s)
                fits = step_s <= budget_s
            if fits or pick == last:
                break
            pick += 1
        if not fits:
            if not smallest_if_none:
                return None
            n = min(n, room)
            step_s = law.chunk_step_s(n, done, decode_batch, decode_s)
        count = remaining // n
        longest = step_s
        if count > 1:  # equal chunks in a row
            if pick:  # until the next size up exceeds what remains, and is tried again
                count = min(count, max(1, (remaining - candidates[pick - 1]) // n + 1))
            if line_end < inf:  # as long as D stays on its linear piece
                count = min(count, max(1, int(-((decode_kv_tokens - line_end) // decode_batch))))
            longer_s = law.attention_s(n, done + n) - law.attention_s(n, done) + kv_s * decode_batch
            if fits and step_s + (count - 1) * longer_s > budget_s:  # and as long as they fit
                count = int((budget_s - step_s) / longer_s) + 1
            longest += (count - 1) * longer_s
        chunks += [n] * count
        total_s += count * 0.5 * (step_s + longest)
        longest_s = max(longest_s, longest)
        done += count * n
        decode_kv_tokens += count * decode_batch
    return ChunkPlan(tuple(chunks), total_s, budget_s - longest_s)


# ---- TTFT on a prefill node -----------------------------------------------------------------------------------------


def decode_step_s(law: StepLaw, batch: int, kv_tokens: int) -> float:
    """Seconds for a plain decode step of `batch` >= 1 sequences."""
    return law.token_time_s[batch] + law.decode_s(batch, kv_tokens)


def join_s(law: StepLaw, report: NodeReport) -> float:
    """Expected wait for a node's next step boundary, seconds: half a step if sequences decode there."""
    return 0.5 * decode_step_s(law, report.decode_batch, report.decode_kv_tokens) if report.decode_batch else 0.0


def first_token_s(view: RouterView, node: int, report: NodeReport, prompt_tokens: int) -> float:
    """Predicted time from the end of a transfer to the first token, seconds: join at a boundary, take one step."""
    law = view.topology.laws[node]
    batch = min(report.decode_batch + 1, view.topology.max_seqs)
    return join_s(law, report) + decode_step_s(law, batch, report.decode_kv_tokens + prompt_tokens)


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


def best_remote(request: RequestView, view: RouterView, decode_node: int) -> Remote:
    """The prefill node with the least predicted TTFT for a request that decodes on `decode_node`."""
    topology = view.topology
    prompt_tokens = request.prompt_tokens
    decode_s = first_token_s(view, decode_node, view.report(decode_node), prompt_tokens)
    best: Remote | None = None
    best_s = inf
    for node in topology.prefill_nodes:
        report = view.report(node)
        steps = NodeSteps.of(topology.laws[node], report)
        queue_s = shared_queue_s(view, node, steps, report.prefill_tokens_ahead)
        ttft_s = queue_s + steps.prefill_s(prompt_tokens, topology.token_budget - steps.batch)
        ttft_s += topology.transfer_s(node, decode_node, prompt_tokens) + decode_s
        if ttft_s < best_s:
            best = Remote(node, steps, queue_s, ttft_s)
            best_s = ttft_s
    assert best is not None  # a cluster has a prefill node
    return best
