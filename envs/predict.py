"""What a router can compute about a request before it is placed: step times, TTFT by path, TBT-safe chunk plans.

The formulas are those of Algorithm 1 in arXiv 2607.02043, as far as its public descriptions go; see
`policies/kairos.py` for what is open.
"""

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from hardware_profiles import StepLaw

CHUNK_CANDIDATES = (2048, 1024, 512, 256, 128)
"""Chunk sizes of the greedy schedule, tokens (arXiv 2607.02043)."""


def chunk_step_s(law: StepLaw, chunk_tokens: float, context_tokens: float) -> float:
    """Seconds for a step with one chunk alone; T_step(chunk, context) of Algorithm 1."""
    return (
        law.token_time_s[int(chunk_tokens)]
        + law.chunk_const_s
        + context_tokens * (law.chunk_context_s * chunk_tokens + law.chunk_reread_s)
        + law.chunk_self_s * 0.5 * chunk_tokens * chunk_tokens
    )


def prefill_execution_s(law: StepLaw, prompt_tokens: int, chunk_tokens: int) -> float:
    """Seconds to prefill a prompt alone in chunks of `chunk_tokens`, the last one shortened.

    The sum over the full chunks is closed: chunk i has i * chunk_tokens of context.
    """
    full, rest = divmod(prompt_tokens, chunk_tokens)
    total_s = 0.0
    if full:
        context_tokens = chunk_tokens * (full - 1) * 0.5
        total_s = full * chunk_step_s(law, chunk_tokens, context_tokens)
    if rest:
        total_s += chunk_step_s(law, rest, full * chunk_tokens)
    return total_s


def queue_wait_s(law: StepLaw, tokens_ahead: int, chunk_tokens: int) -> float:
    """Seconds to compute `tokens_ahead` prompt tokens: (L / chi) * T_step(chi, L / 2), L / chi fractional."""
    if tokens_ahead <= 0:
        return 0.0
    return tokens_ahead / chunk_tokens * chunk_step_s(law, chunk_tokens, tokens_ahead * 0.5)


class ChunkPlan(NamedTuple):
    """Chunks for a prompt on a decode node.

    Attributes:
        chunks: tokens of each successive chunk.
        total_s: sum of the steps that carry them, seconds.
        slack_s: TBT budget left in the longest of them, seconds; negative where the budget is broken.
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
        budget_s: what a step may last, seconds (beta * tau).
        token_budget: the engine's tokens a step; no candidate is larger than what it leaves.
        candidates: chunk sizes, falling.
        smallest_if_none: go on with the smallest candidate where none fits.

    Returns:
        The plan, or None where at some step no candidate fits.
    """
    table = law.token_time_s
    context_s = law.chunk_context_s
    reread_s = law.chunk_reread_s
    half_self_s = 0.5 * law.chunk_self_s
    base_s = law.chunk_const_s
    line_s = kv_s = line_end = 0.0
    chunks: list[int] = []
    total_s = 0.0
    longest_s = 0.0
    done = 0
    pick = 0  # steps only grow longer, so a candidate that no longer fits does not fit later
    last = len(candidates) - 1
    room = token_budget - decode_batch
    while done < prompt_tokens:
        if decode_batch:
            if decode_kv_tokens >= line_end:
                line_s, kv_s, line_end = law.decode_line(decode_batch, decode_kv_tokens)
            base_s = law.chunk_const_s + line_s + kv_s * decode_kv_tokens
            decode_kv_tokens += decode_batch
        remaining = prompt_tokens - done
        if pick and candidates[pick] < remaining < candidates[pick - 1]:
            pick -= 1  # shortened to what remains it may fit
        while True:
            n = candidates[pick]
            if n > remaining:
                n = remaining
            step_s = (
                base_s + table[n + decode_batch] + done * (context_s * n + reread_s) + half_self_s * n * n
                if n <= room
                else inf
            )
            if step_s <= budget_s:
                break
            if pick == last:
                if not smallest_if_none:
                    return None
                n = min(n, room)
                step_s = base_s + table[n + decode_batch] + done * (context_s * n + reread_s) + half_self_s * n * n
                break
            pick += 1
        chunks.append(n)
        total_s += step_s
        if step_s > longest_s:
            longest_s = step_s
        done += n
    return ChunkPlan(tuple(chunks), total_s, budget_s - longest_s)
