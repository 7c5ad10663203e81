"""Expand the knots of a profile file to the dense tables of a step law."""

import numpy as np
import numpy.typing as npt

from hardware_profiles.schema import StepLawSection, rounded
from hardware_profiles.step_law import CONTEXT_GRAIN_TOKENS, DecodePieces, StepLaw

Array = npt.NDArray[np.float64]

# Mean contexts at which a straight line is fitted to D for each batch: the usual ones in traces of chats and of code
# completion.
_ORDINARY_CONTEXTS = np.geomspace(256.0, 4096.0, 25).round(3)


def step_law(section: StepLawSection) -> StepLaw:
    """The step law of a profile file: every table is filled by linear interpolation, and an empty step takes 0 s."""
    token_time = section.token_time
    counts = np.arange(1, token_time.tokens[-1] + 1)
    # np.interp rounds each segment separately; the table must not fall by a rounding error between two of them.
    token_time_s = np.maximum.accumulate(np.interp(counts, token_time.tokens, token_time.seconds))
    attention = section.decode_attention
    contexts = np.array(attention.context_tokens, dtype=np.float64)
    batches = np.arange(1, attention.sequences[-1] + 1)
    table = np.array(attention.seconds)
    dense = np.column_stack([np.interp(batches, attention.sequences, column) for column in table.T])
    const = np.interp(batches, section.decode_const.sequences, section.decode_const.seconds)
    # One more token of context never makes a step shorter.
    decode_s = np.maximum.accumulate(const[:, None] + dense, axis=1)
    const_s, seq_s, kv_s = _straight_lines(batches, contexts, decode_s, token_time_s[batches - 1])
    beyond = np.full(len(token_time_s) - len(batches), kv_s[-1])
    return StepLaw(
        token_time_s=(0.0, *token_time_s.tolist()),
        chunk_const_s=section.chunk_const_s,
        chunk_context_s=section.chunk_context_s,
        chunk_self_s=section.chunk_self_s,
        chunk_reread_s=section.chunk_reread_s,
        decode_const_s=const_s,
        decode_seq_s=seq_s,
        decode_kv_s=(0.0, *kv_s.tolist(), *beyond.tolist()),
        pieces=_pieces(batches, contexts, decode_s),
    )


def _pieces(batches: npt.NDArray[np.int_], contexts: Array, decode_s: Array) -> DecodePieces:
    """The pieces of D between its contexts; `decode_s` has shape (batches, contexts)."""
    slopes = np.diff(decode_s, axis=1) / np.diff(contexts)  # seconds per token of mean context
    bases = decode_s[:, :-1] - slopes * contexts[:-1]
    ends = np.outer(batches, [*contexts[1:-1], np.inf])
    columns = zip(bases.tolist(), (slopes / batches[:, None]).tolist(), ends.tolist(), strict=True)
    cells = np.arange(0, contexts[-1], CONTEXT_GRAIN_TOKENS)
    return DecodePieces(
        piece_at=tuple((np.searchsorted(contexts, cells, side="right") - 1).tolist()),
        lines=((), *(tuple(zip(*of_batch, strict=True)) for of_batch in columns)),
    )


def _straight_lines(
    batches: npt.NDArray[np.int_], contexts: Array, decode_s: Array, token_time_s: Array
) -> tuple[float, float, Array]:
    """Fit non-negative cD, cB and cK by batch so that cD + cB * B + cK[B] * KV is close to D, relative to a step.

    The best line of each batch gives an intercept; cD and cB are fitted to the intercepts, and then cK to the rest. The
    results are rounded, because the last digits of logarithms, sums and fits depend on the processor.
    """
    at = np.array([np.interp(_ORDINARY_CONTEXTS, contexts, row) for row in decode_s])
    weight = (token_time_s[:, None] + at) ** -2
    mean_context = (weight * _ORDINARY_CONTEXTS).sum(axis=1) / weight.sum(axis=1)
    mean_s = (weight * at).sum(axis=1) / weight.sum(axis=1)
    offset = _ORDINARY_CONTEXTS - mean_context[:, None]
    slope = (weight * offset * at).sum(axis=1) / (weight * offset**2).sum(axis=1)
    share = 1.0 / (token_time_s + mean_s) / np.sqrt(batches)  # the same weight for each octave of batches
    seq_s, const_s = np.polyfit(batches, mean_s - slope * mean_context, 1, w=share)
    const_s, seq_s = max(const_s, 0.0), max(seq_s, 0.0)
    rest = at - (const_s + seq_s * batches)[:, None]
    slope = (weight * _ORDINARY_CONTEXTS * rest).sum(axis=1) / (weight * _ORDINARY_CONTEXTS**2).sum(axis=1)
    kv_s = np.maximum(slope, 0.0) / batches
    return rounded(const_s), rounded(seq_s), np.array([rounded(one) for one in kv_s])
