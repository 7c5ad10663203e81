"""A router's chunk plan for a prompt that is prefilled next to decodes (`step_budget="fixed"`).

The greedy schedule follows Algorithm 1 of arXiv 2607.02043, as far as it is described publicly; `policies/kairos.py`
lists the open points.
"""

from collections.abc import Sequence
from math import inf

from mypy_extensions import mypyc_attr

from hardware_profiles import StepLaw

CHUNK_CANDIDATES = (2048, 1024, 512, 256, 128)
"""Chunk sizes that a router's chunk plan may have, tokens (arXiv 2607.02043)."""

PLAN_BETA = 0.9
"""Share of the strictest TBT SLO among the decoding sequences that a step of a chunk plan may last.

Not from a paper. Reports are old and batches grow while a plan runs; at 1.0 a few steps in a thousand would slightly
exceed the SLO, and each of them is a miss for every sequence in its batch.
"""


@mypyc_attr(acyclic=True, free_list_len=1)
class LocalPrefill:
    """A prompt prefilled on a node next to the sequences that decode there.

    Attributes:
        chunks: the router's plan: tokens of each successive chunk of the whole prompt, as in a `Placement`; empty if
            the engine chooses the chunks. The first chunks may be cached tokens, which the engine skips.
        steps: number of chunks that are computed.
        total_s: sum of the steps with these chunks, seconds.
        longest_s: the longest of these steps, seconds.
        slack_s: limit on the time of a step minus `longest_s`, seconds; negative if the limit is exceeded, inf if there
            is no limit.
    """

    __slots__ = ("chunks", "longest_s", "slack_s", "steps", "total_s")

    def __init__(self, chunks: tuple[int, ...], steps: int, total_s: float, longest_s: float, slack_s: float) -> None:
        self.chunks = chunks
        self.steps = steps
        self.total_s = total_s
        self.longest_s = longest_s
        self.slack_s = slack_s

    @property
    def keeps(self) -> bool:
        """Whether every step keeps within the limit."""
        return self.slack_s >= 0.0


def plan_chunks(
    law: StepLaw,
    tokens: int,
    decode_batch: int,
    decode_kv_tokens: int,
    budget_s: float,
    token_budget: int,
    *,
    candidates: Sequence[int] = CHUNK_CANDIDATES,
    smallest_if_none: bool = False,
    done_tokens: int = 0,
) -> LocalPrefill | None:
    """The greedy schedule of Algorithm 1: each step takes the largest candidate with which it lasts at most `budget_s`.

    Args:
        law: the node's step law.
        tokens: tokens to prefill.
        decode_batch: sequences that decode in the same steps.
        decode_kv_tokens: their summed context; it grows by `decode_batch` per step.
        budget_s: longest step allowed, seconds (beta * tau).
        token_budget: the engine's tokens per step; the decodes and the chunk fit into it together.
        candidates: chunk sizes in decreasing order.
        smallest_if_none: use the smallest candidate if none fits.
        done_tokens: cached tokens at the beginning of the prompt, which are not computed. The plan begins with chunks
            for them, no larger than the first computed chunk (or the smallest candidate), so that the plan stays safe
            if they are evicted. The other fields of the result do not count them.

    Returns:
        The plan, or None if at some step no candidate fits.
    """
    chunks: tuple[int, ...] = ()
    total_s = longest_s = decode_s = kv_s = step_s = 0.0
    done = done_tokens
    end_tokens = done_tokens + tokens
    pick = 0  # steps only grow longer, so a candidate that does not fit now does not fit later
    last = len(candidates) - 1
    room = token_budget - decode_batch
    line_end = inf
    while done < end_tokens:
        if decode_batch:
            base_s, kv_s, line_end = law.decode_line(decode_batch, decode_kv_tokens)
            decode_s = base_s + kv_s * decode_kv_tokens
        remaining = end_tokens - done
        if pick and candidates[pick] < remaining < candidates[pick - 1]:
            pick -= 1  # shortened to the remaining tokens, the larger size may fit
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
        if count > 1:  # a run of equal chunks
            if pick:  # until the remaining tokens are fewer than the next larger size, which is then tried again
                before = (remaining - candidates[pick - 1]) // n + 1
                if before < count:
                    count = before if before > 1 else 1
            end = decode_kv_tokens + (count - 1) * decode_batch
            if end >= line_end:  # only while D stays on its linear piece
                count = max(1, int(-((decode_kv_tokens - line_end) // decode_batch)))
        if count > 1:
            later = count - 1
            grown_s = decode_s + later * kv_s * decode_batch
            longest = law.chunk_step_s(n, done + later * n, decode_batch, grown_s)
            if fits and longest > budget_s:  # and only while the steps fit
                longer_s = (longest - step_s) / later
                later = int((budget_s - step_s) / longer_s)
                longest = step_s + later * longer_s
                count = later + 1
        chunks += (n,) * count
        total_s += count * 0.5 * (step_s + longest)
        if longest > longest_s:
            longest_s = longest
        done += count * n
        decode_kv_tokens += count * decode_batch
    steps = len(chunks)
    if done_tokens:
        chunks = _chunks_of(done_tokens, max(chunks[0], min(candidates[-1], room))) + chunks
    return LocalPrefill(chunks, steps, total_s, longest_s, budget_s - longest_s)


def _chunks_of(tokens: int, size: int) -> tuple[int, ...]:
    """Chunks of `size` tokens that cover `tokens`; the first one may be shorter."""
    full, rest = divmod(tokens, size)
    return ((rest,) if rest else ()) + (size,) * full
