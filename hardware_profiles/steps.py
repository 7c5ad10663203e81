"""The engine steps that a law is fitted to (a grid) and tested on (random draws), for sources that know any step."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from hardware_profiles.step_sources import Kind, Step

KINDS: tuple[Kind, ...] = ("prefill", "decode", "mixed", "averaged")

MAX_CHUNK_TOKENS = 8192
MAX_CHUNK_CONTEXT_TOKENS = 32768
MAX_PROMPTS = 8
MAX_DECODE_BATCH = 256
DECODE_CONTEXT_TOKENS = (16, 16384)
MIXED_CHUNK_TOKENS = (64, 2048)
MAX_MIXED_BATCH = 128
# A full chunk plus the largest batch that engines are commonly run with.
MAX_STEP_TOKENS = MAX_CHUNK_TOKENS + 512


def grid(kv_capacity_tokens: int) -> dict[Kind, list[Step]]:
    """The prefill and mixed steps that a law is fitted to: products of ladders; decode contexts fit the KV capacity.

    Single chunks without context and decode steps are not among them, because the law has tables for them (`fit`).
    """
    contexts = [0, *ladder(64, MAX_CHUNK_CONTEXT_TOKENS, 5, 4)]
    prefill = [
        Step(prompts, tokens // prompts, context, 0, 0)
        for prompts in (1, 2, 4, MAX_PROMPTS)
        for tokens in ladder(1, MAX_CHUNK_TOKENS, 16, 16)
        for context in contexts
        if tokens >= prompts and prompts + context > 1
    ]
    chunks_with_decodes = [
        (tokens, batch, decode_context)
        for tokens in ladder(*MIXED_CHUNK_TOKENS, 8, 8)
        for batch in ladder(1, MAX_MIXED_BATCH, 12, 12)
        for decode_context in ladder(*_decode_contexts(batch, kv_capacity_tokens), 3, 3)
    ]
    mixed = [
        Step(prompts, tokens // prompts, context, batch, decode_context)
        for prompts, context in ((1, 0), (1, 8192), (4, 1024))
        for tokens, batch, decode_context in chunks_with_decodes
    ]
    averaged = [
        _averaged(tokens, batch, decode_context)
        for tokens, batch, decode_context in chunks_with_decodes
        if decode_context >= tokens
    ]
    return {"prefill": prefill, "mixed": mixed, "averaged": averaged}


def grid_description(steps: Mapping[Kind, Sequence[Step]]) -> str:
    """Describe the steps of `grid` in one line."""
    counts = ", ".join(f"{len(group)} {kind}" for kind, group in steps.items())
    ladders = f"ladders, half even and half geometric: {counts} steps"
    return f"{ladders}; tables for single chunks without context and decode steps; {_ranges()}"


def draw(kind: Kind, count: int, kv_capacity_tokens: int, rng: np.random.Generator) -> list[Step]:
    """Draw steps of one kind at random from the grid's ranges.

    Each quantity is drawn uniformly or log-uniformly, with equal probability, so that small and large values occur.
    """

    def pick(low: int, high: int) -> int:
        if rng.random() < 0.5:
            return int(rng.integers(low, high + 1))
        return int(math.exp(rng.uniform(math.log(low), math.log(high + 1))))

    def draw_one() -> Step:
        if kind == "averaged":
            tokens = pick(*MIXED_CHUNK_TOKENS)
            batch = pick(1, min(MAX_MIXED_BATCH, kv_capacity_tokens // tokens))
            return _averaged(tokens, batch, pick(tokens, _decode_contexts(batch, kv_capacity_tokens)[1]))
        prompts = new_tokens = context = batch = decode_context = 0
        if kind != "decode":
            tokens = pick(*(MIXED_CHUNK_TOKENS if kind == "mixed" else (1, MAX_CHUNK_TOKENS)))
            prompts = min(tokens, pick(1, MAX_PROMPTS))
            new_tokens = tokens // prompts
            context = 0 if rng.random() < 1 / 3 else pick(1, MAX_CHUNK_CONTEXT_TOKENS)
        if kind != "prefill":
            batch = pick(1, MAX_MIXED_BATCH if kind == "mixed" else MAX_DECODE_BATCH)
            decode_context = pick(*_decode_contexts(batch, kv_capacity_tokens))
        return Step(prompts, new_tokens, context, batch, decode_context)

    return [draw_one() for _ in range(count)]


def draw_description() -> str:
    """Describe the distribution of `draw` in one line."""
    drawn = "each quantity uniform or log-uniform with equal probability, a third of the chunks without context"
    return f"{drawn}; {_ranges()}"


def _ranges() -> str:
    return (
        f"prefill 1 to {MAX_CHUNK_TOKENS} new tokens in 1 to {MAX_PROMPTS} prompts of context 0 to "
        f"{MAX_CHUNK_CONTEXT_TOKENS}; decode batch 1 to {MAX_DECODE_BATCH}, contexts {DECODE_CONTEXT_TOKENS[0]} to "
        f"{DECODE_CONTEXT_TOKENS[1]} within KV capacity; mixed {MIXED_CHUNK_TOKENS[0]} to {MIXED_CHUNK_TOKENS[1]} "
        f"chunk tokens next to a batch of 1 to {MAX_MIXED_BATCH}, other ranges as above; averaged: the library's own "
        f"mixed call, one chunk at the mean context of a prompt as long as the decodes' contexts"
    )


def _averaged(tokens: int, batch: int, prompt_tokens: int) -> Step:
    return Step(1, tokens, (prompt_tokens - tokens) // 2, batch, prompt_tokens, averaged=True)


def _decode_contexts(batch: int, kv_capacity_tokens: int) -> tuple[int, int]:
    low, high = DECODE_CONTEXT_TOKENS
    return low, max(low, min(high, kv_capacity_tokens // batch))


def ladder(low: int, high: int, even: int, geometric: int) -> list[int]:
    """Counts from low to high: `even` evenly and `geometric` geometrically spaced ones, without duplicates."""
    rungs = (*np.linspace(low, high, even), *np.geomspace(low, high, geometric))
    return sorted({round(float(rung)) for rung in rungs})
