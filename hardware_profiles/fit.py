"""Fit the step law to a source of step times.

The most frequent steps are tabulated: steps with only a prompt's first chunk give F (minus the other terms of the law),
and decode steps give D piece by piece. The other coefficients are fitted by non-negative least squares: c_ctx and c_up
to chunks with context, c_self to several chunks in a step, cP to mixed steps. Errors are relative and iteratively
reweighted towards absolute values, because a law is judged by its mean absolute relative error.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression, nnls

from hardware_profiles.schema import StepLawSection, rounded
from hardware_profiles.step_sources import Kind, Step, StepSource, steps_s
from hardware_profiles.tables import step_law

Array = npt.NDArray[np.float64]
Counts = Sequence[int]

_ROUNDS = 15
# Smaller relative errors get no more weight; otherwise the reweighting would fit single points.
_FLOOR = 1e-3
# From this mean context on, D must not be negative. At shorter contexts it may be slightly negative, because a few
# short sequences decode in less time than a prompt of as many tokens takes.
_ORDINARY_CONTEXT = 256
# Tables keep enough knots that interpolation is off by no more than this.
_KNOT_TOLERANCE = 2e-6
# The constant part of a decode step is averaged over these mean contexts, because NVIDIA's kernel tables jitter by a
# microsecond from one context to the next. Long contexts are left out: there attention is not linear in the batch.
_CONST_CONTEXTS = range(256, 1024, 11)
# A fall of attention by more than this towards longer contexts is a bad reading; a smaller one is jitter.
_HUMP_S = 1e-4


def fit(source: StepSource, steps: Mapping[Kind, Sequence[Step]]) -> StepLawSection:
    """Fit the law to a source's times for `steps`, for single chunks without context and for decode steps.

    Args:
        source: step times.
        steps: prefill steps and kinds of mixed steps; each kind of mixed steps has the same total weight, whatever its
            number of steps. Without mixed steps, cP is as small as possible.
    """
    fresh_s = np.array([source.prefill_s(1, n, 0) for n in range(1, source.max_tokens + 1)])
    context_s, reread_s, self_s = _fit_chunks(fresh_s, steps["prefill"], steps_s(source, steps["prefill"]))
    counts = np.arange(1, len(fresh_s) + 1)
    token_time_s = np.asarray(isotonic_regression(fresh_s - self_s * counts**2 / 2, weights=fresh_s**-2).x)
    batches, contexts = source.decode_knots
    measured = np.array([_attention(source, batch, contexts) for batch in batches])
    const = _decode_const(source, batches, contexts, measured) - token_time_s[: batches[-1]]
    attention = np.array([_never_falling(row) for row in measured])

    def law(chunk_const_s: float) -> StepLawSection:
        chunk = (chunk_const_s, context_s, reread_s, self_s)
        return _section(token_time_s - chunk_const_s, chunk, batches, const + chunk_const_s, contexts, attention)

    # F - cP, cP, D + cP and F, 0, D give the same prefill and decode steps; only mixed steps, which have all three
    # terms, differ, by cP. The estimator counts the launch of attention twice when it adds up passes, and hardly at all
    # in its own mixed call; cP is the least-squares compromise, but large enough that D is not negative.
    ordinary = np.array(contexts) >= min(_ORDINARY_CONTEXT, contexts[-1])
    least_s = -float((const[:, None] + _by_batch(batches, attention)[:, ordinary]).min())
    most_s = float(token_time_s[0]) / 2
    without = step_law(law(min(max(least_s, 0.0), most_s)))
    residual = square = 0.0
    for group in [group for kind, group in steps.items() if kind != "prefill"]:
        seconds = steps_s(source, group)
        law_s = np.array([without.time_s(step.chunks, step.batch, step.kv_tokens) for step in group])
        residual += float(np.mean((1.0 - law_s / seconds) / seconds))
        square += float(np.mean(seconds**-2))
    more_s = max(residual / square, 0.0) if square else 0.0
    return law(min(without.chunk_const_s + more_s, most_s))


def _fit_chunks(fresh_s: Array, steps: Sequence[Step], seconds: Array) -> tuple[float, float, float]:
    """Fit c_ctx, c_up and c_self; `fresh_s` holds the time of one chunk without context by its tokens, from 1 on."""
    prompts, new, context, *_ = np.array(steps, dtype=np.float64).T
    target = 1.0 - fresh_s[(prompts * new).astype(int) - 1] / seconds
    # Several chunks have fewer pairs of new tokens than the single chunk of as many tokens that F was measured with.
    pairs = (prompts * new) ** 2 / 2 - prompts * new**2 / 2
    design = np.column_stack([prompts * new * context, prompts * context, -pairs]) / seconds[:, None]
    weight = np.ones_like(seconds)
    unknowns = np.zeros(3)
    for _ in range(_ROUNDS):
        root = np.sqrt(weight)
        unknowns, _ = nnls(design * root[:, None], target * root)
        weight = 1.0 / np.maximum(np.abs(design @ unknowns - target), _FLOOR)
    return float(unknowns[0]), float(unknowns[1]), float(unknowns[2])


def _attention(source: StepSource, batch: int, contexts: Counts) -> Array:
    """Attention time of a decode batch at each mean context of `contexts`.

    The piecewise linear function is fitted by least squares to steps at very many contexts, so that it has no bias on
    any piece. A function through single readings would take over their jitter, which adds up in a long run of steps.
    """
    sampled = _sampled_contexts(contexts[-1])
    kv_tokens = batch * sampled + (batch - 1) // 2  # the middle of the totals whose mean is rounded down to this
    whole_s = np.array([source.decode_s(batch, int(kv)) for kv in kv_tokens])
    attention_s = np.array([source.decode_attention_s(batch, int(kv)) for kv in kv_tokens[::50]])
    hats = np.array([np.interp(kv_tokens / batch, contexts, hat) for hat in np.eye(len(contexts))]).T
    fitted, *_ = np.linalg.lstsq(hats, whole_s - np.mean(whole_s[::50] - attention_s))
    return np.asarray(fitted)


def _never_falling(measured: Array) -> Array:
    """Attention by context, made non-negative and without the humps that single bad readings make.

    A hump is cut down to the value at longer contexts; an isotonic fit alone would spread it over them.
    """
    ahead_s = np.minimum.accumulate(measured[::-1])[::-1]
    cut = np.minimum(measured, ahead_s + _HUMP_S)
    return np.maximum(np.asarray(isotonic_regression(cut).x), 0.0)


def _sampled_contexts(last: int) -> npt.NDArray[np.int_]:
    """Every context up to 1024, and fewer and fewer of the longer ones."""
    parts = [np.arange(2, 1024), np.arange(1024, 4096, 3), np.arange(4096, 16384, 11), np.arange(16384, last + 1, 61)]
    sampled = np.concatenate(parts)
    return sampled[sampled <= last]


def _decode_const(source: StepSource, batches: Counts, contexts: Counts, attention: Array) -> Array:
    """Time of a decode step without its attention, by batch from 1 on."""
    means = np.array([mean for mean in _CONST_CONTEXTS if mean <= contexts[-1]] or contexts[1:])
    const = []
    for batch, row in enumerate(_by_batch(batches, attention), start=1):
        kv_tokens = batch * means + (batch - 1) // 2
        whole_s = [source.decode_s(batch, int(kv)) for kv in kv_tokens]
        const.append(float(np.mean(whole_s - np.interp(kv_tokens / batch, contexts, row))))
    return np.array(const)


def _by_batch(batches: Counts, attention: Array) -> Array:
    """Attention at every batch from 1 on, interpolated linearly; shape (batches, contexts)."""
    every = np.arange(1, batches[-1] + 1)
    return np.column_stack([np.interp(every, batches, column) for column in attention.T])


def _section(
    token_time_s: Array,
    chunk: tuple[float, float, float, float],
    batches: Counts,
    const: Array,
    contexts: Counts,
    attention: Array,
) -> StepLawSection:
    """The law in the form of a profile file."""
    tokens, sequences = _knots(token_time_s, token_time_s), _knots(const, token_time_s)
    return StepLawSection.model_validate(
        {
            "token_time": {"tokens": tokens, "seconds": [rounded(token_time_s[n - 1]) for n in tokens]},
            "chunk_const_s": rounded(chunk[0]),
            "chunk_context_s": rounded(chunk[1]),
            "chunk_reread_s": rounded(chunk[2]),
            "chunk_self_s": rounded(chunk[3]),
            "decode_const": {"sequences": sequences, "seconds": [rounded(const[n - 1]) for n in sequences]},
            "decode_attention": {
                "sequences": list(batches),
                "context_tokens": list(contexts),
                "seconds": [[rounded(s) for s in row] for row in attention],
            },
        }
    )


def _knots(values: Array, unit: Array) -> list[int]:
    """Counts, from 1 on, between which `values` is linear within `_KNOT_TOLERANCE` times `unit`."""
    tolerance = _KNOT_TOLERANCE * unit
    kept = [0, len(values) - 1]
    open_ends = [(0, len(values) - 1)]
    while open_ends:
        left, right = open_ends.pop()
        inner = np.arange(left, right + 1)
        off = np.abs(values[inner] - np.interp(inner, (left, right), (values[left], values[right])))
        worst = left + int(np.argmax(off - tolerance[inner]))
        if off[worst - left] > tolerance[worst]:
            kept.append(worst)
            open_ends += [(left, worst), (worst, right)]
    return [index + 1 for index in sorted(kept)]
