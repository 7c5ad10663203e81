"""The engine steps a law is fitted on (a grid) and held against (random draws), where any step can be asked for."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from hardware_profiles.sources import Kind, Step

KINDS: tuple[Kind, ...] = ("prefill", "decode", "mixed", "averaged")

MAX_CHUNK_TOKENS = 8192
MAX_CHUNK_CONTEXT_TOKENS = 32768
MAX_PROMPTS = 8
MAX_DECODE_BATCH = 256
DECODE_CONTEXT_TOKENS = (16, 16384)
MIXED_CHUNK_TOKENS = (64, 2048)
MAX_MIXED_BATCH = 128
# A full chunk beside the largest batch that engines are commonly run with.
MAX_STEP_TOKENS = MAX_CHUNK_TOKENS + 512


def grid(kv_capacity_tokens: int) -> dict[Kind, list[Step]]:
    """The prefill and mixed steps a law is fitted on: ladders crossed, decode contexts kept inside the KV capacity.

    Single chunks without context and decode steps are not among them: the law has them as tables (`fit`).
    """
    contexts = [0, *ladder(64, MAX_CHUNK_CONTEXT_TOKENS, 5, 4)]
    prefill = [
        Step(prompts, tokens // prompts, context, 0, 0)
        for prompts in (1, 2, 4, MAX_PROMPTS)
        for tokens in ladder(1, MAX_CHUNK_TOKENS, 16, 16)
        for context in contexts
        if tokens >= prompts and prompts + context > 1
    ]
    chunks_beside_decodes = [
        (tokens, batch, decode_context)
        for tokens in ladder(*MIXED_CHUNK_TOKENS, 8, 8)
        for batch in ladder(1, MAX_MIXED_BATCH, 12, 12)
        for decode_context in ladder(*_decode_contexts(batch, kv_capacity_tokens), 3, 3)
    ]
    mixed = [
        Step(prompts, tokens // prompts, context, batch, decode_context)
        for prompts, context in ((1, 0), (1, 8192), (4, 1024))
        for tokens, batch, decode_context in chunks_beside_decodes
    ]
    averaged = [
        _averaged(tokens, batch, decode_context)
        for tokens, batch, decode_context in chunks_beside_decodes
        if decode_context >= tokens
    ]
    return {"prefill": prefill, "mixed": mixed, "averaged": averaged}


def grid_description(steps: Mapping[Kind, Sequence[Step]]) -> str:
    """One line saying what `grid` made."""
    counts = ", ".join(f"{len(group)} {kind}" for kind, group in steps.items())
    ladders = f"ladders, half even and half geometric: {counts} steps"
    return f"{ladders}; single fresh chunks and decode steps by table; {_ranges()}"


def draw(kind: Kind, count: int, kv_capacity_tokens: int, rng: np.random.Generator) -> list[Step]:
    """Random steps of one kind, over the grid's ranges but not on it.

    Each quantity is drawn uniformly or log-uniformly, by a coin, so both small and large ones are seen.
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
    """One line saying how `draw` draws."""
    return f"each quantity uniform or log-uniform by a coin, a third of the chunks without context; {_ranges()}"


def _ranges() -> str:
    return (
        f"prefill 1 to {MAX_CHUNK_TOKENS} new tokens in 1 to {MAX_PROMPTS} prompts of context 0 to "
        f"{MAX_CHUNK_CONTEXT_TOKENS}; decode batch 1 to {MAX_DECODE_BATCH}, contexts {DECODE_CONTEXT_TOKENS[0]} to "
        f"{DECODE_CONTEXT_TOKENS[1]} within KV capacity; mixed {MIXED_CHUNK_TOKENS[0]} to {MIXED_CHUNK_TOKENS[1]} "
        f"chunk tokens beside a batch of 1 to {MAX_MIXED_BATCH}, otherwise as both; averaged: the library's own mixed "
        f"call, one chunk at the mean context of a prompt as long as the decodes' contexts"
    )


def _averaged(tokens: int, batch: int, prompt_tokens: int) -> Step:
    return Step(1, tokens, (prompt_tokens - tokens) // 2, batch, prompt_tokens, averaged=True)


def _decode_contexts(batch: int, kv_capacity_tokens: int) -> tuple[int, int]:
    low, high = DECODE_CONTEXT_TOKENS
    return low, max(low, min(high, kv_capacity_tokens // batch))


def ladder(low: int, high: int, even: int, geometric: int) -> list[int]:
    """Counts from low to high: so many evenly and so many geometrically spaced, doubles left out."""
    rungs = (*np.linspace(low, high, even), *np.geomspace(low, high, geometric))
    return sorted({round(float(rung)) for rung in rungs})
