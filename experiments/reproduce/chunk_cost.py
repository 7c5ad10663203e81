"""How much longer a decode step takes with a prefill chunk in it, from a profile's step law."""

from collections.abc import Sequence
from typing import NamedTuple

from hardware_profiles import StepLaw

BATCH = 32
CONTEXT_TOKENS = 1000
"""The decodes beside the chunk: how many, and how much context each has; ours."""
CHUNKS = (64, 128, 256, 512, 1024, 2048)


class Decodes(NamedTuple):
    """Sequences that decode in a step, and the context of each in tokens."""

    batch: int = BATCH
    context_tokens: int = CONTEXT_TOKENS


def added_s(law: StepLaw, chunk_tokens: int, decodes: Decodes, done_tokens: int = 0) -> float:
    """Seconds that a chunk adds to a decode step.

    Args:
        law: of the node.
        chunk_tokens: of the chunk.
        decodes: beside it.
        done_tokens: of the same prompt, computed before.
    """
    kv_tokens = decodes.batch * decodes.context_tokens
    with_chunk_s = law.time_s([(chunk_tokens, done_tokens)], decodes.batch, kv_tokens)
    return with_chunk_s - law.time_s((), decodes.batch, kv_tokens)


def curve_s(law: StepLaw, decodes: Decodes, chunks: Sequence[int] = CHUNKS) -> list[float]:
    """`added_s` of each chunk without context."""
    return [added_s(law, chunk, decodes) for chunk in chunks]
