"""Fitting the step law to estimated steps: one non-negative least squares problem.

F is written as its first value plus non-negative rises from knot to knot, so that a solution with no negative
unknown is a monotone table. Errors are relative, and reweighted towards their absolute value (iteratively
reweighted least squares), since the mean absolute relative error is what a law is judged by.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from hardware_profiles.estimator import Estimator
from hardware_profiles.steps import DECODE_BATCHES, MAX_STEP_TOKENS, Kind, Step, estimated_s

Array = npt.NDArray[np.float64]

_ROUNDS = 12
# Relative errors below this count as equal; without it the reweighting would chase single points.
_FLOOR = 1e-2
# A prefill step without context is worth so many with some: every prompt has one, and the estimator's attention
# takes 0.4 ms more for a small chunk without context than with a little, which the law cannot express.
_FRESH_WEIGHT = 6.0
_KERNEL_KINDS: tuple[Kind, ...] = ("prefill", "decode", "mixed")
_MIXED_KINDS: tuple[Kind, ...] = ("mixed", "averaged")
# A bend of F's slope, relative to F, from which a token count is a knot of its own.
_BEND = 1e-4


class FittedLaw(NamedTuple):
    """Knots and coefficients of a fitted step law, in the units of `step_law.StepLaw`.

    Attributes:
        tokens: knots of F, increasing from 1.
        token_time_s: F there, shape (len(tokens),), never decreasing.
        sequences: knots of cK, increasing from 1.
        decode_kv_s: cK there, shape (len(sequences),).
        constants: cP, c_ctx, c_self, cD, cB, shape (5,).
    """

    tokens: list[int]
    token_time_s: Array
    sequences: list[int]
    decode_kv_s: Array
    constants: Array

    def times_s(self, steps: list[Step]) -> Array:
        """Seconds of each step by the law, shape (steps,)."""
        rises = np.diff(self.token_time_s, prepend=0.0)
        unknowns = np.concatenate([rises, self.constants, self.decode_kv_s])
        return np.asarray(_design(steps, self.tokens, self.sequences) @ unknowns)


def token_knots(estimator: Estimator) -> list[int]:
    """Token counts where F gets a knot.

    Every bend of the estimator's own table (it interpolates between measured shapes, so bends are few), and
    eight to an octave, which lets F take up how the efficiency of attention grows with a chunk.
    """
    seconds = np.array([estimator.tokens_s(n) for n in range(1, MAX_STEP_TOKENS + 1)])
    bends = np.flatnonzero(np.abs(np.diff(seconds, 2)) > _BEND * seconds[1:-1]) + 2
    knots = {1, MAX_STEP_TOKENS, *bends.tolist()}
    octave = 16
    while octave < MAX_STEP_TOKENS:
        knots.update(range(octave, min(2 * octave, MAX_STEP_TOKENS), max(octave // 8, 8)))
        octave *= 2
    return sorted(knots)


def fit(estimator: Estimator, tokens: list[int], steps: dict[Kind, list[Step]]) -> FittedLaw:
    """Fit the law, F with knots at `tokens`, to what the estimator says of `steps`.

    Each kind of step weighs the same in all, whatever its number.
    """
    seconds = {kind: estimated_s(estimator, kind, group) for kind, group in steps.items()}
    law = _fit_kernels(tokens, {kind: steps[kind] for kind in _KERNEL_KINDS}, seconds)
    return _settle_constant(law, {kind: steps[kind] for kind in _MIXED_KINDS}, seconds)


def _fit_kernels(tokens: list[int], steps: dict[Kind, list[Step]], seconds: dict[Kind, Array]) -> FittedLaw:
    sequences = list(DECODE_BATCHES)
    # In units of the estimate every step should come to 1.
    design = np.vstack([_design(group, tokens, sequences) / seconds[kind][:, None] for kind, group in steps.items()])
    scale = np.abs(design).max(axis=0)
    design /= scale
    share = np.sqrt(np.concatenate([_weights(group) for group in steps.values()]))
    weight = share
    unknowns = np.zeros(len(scale))
    for _ in range(_ROUNDS):
        # The triangular factor has the same least squares solutions and only as many rows as unknowns.
        triangle = np.asarray(np.linalg.qr(np.column_stack([design * weight[:, None], weight]), mode="r"))
        unknowns, _ = nnls(triangle[:, :-1], triangle[:, -1], maxiter=100 * len(unknowns))
        error = np.abs(design @ unknowns - 1.0)
        weight = share / np.sqrt(np.maximum(error, _FLOOR))
    rises, constants, decode_kv_s = np.split(unknowns / scale, [len(tokens), len(tokens) + 5])
    return FittedLaw(tokens, np.cumsum(rises), sequences, decode_kv_s, constants)


def _weights(steps: list[Step]) -> Array:
    """A weight for each step, 1 in sum; prefill without context weighs as much as several with some."""
    fresh = [_FRESH_WEIGHT if not step.batch and not step.context_tokens else 1.0 for step in steps]
    return np.array(fresh) / sum(fresh)


def _settle_constant(law: FittedLaw, steps: dict[Kind, list[Step]], seconds: dict[Kind, Array]) -> FittedLaw:
    """Move a constant from cP and cD into F, so that mixed steps in both readings fit best.

    Pure steps cannot tell F + x, cP - x, cD - x from F, cP, cD; a mixed step, which has all three, gets x
    shorter. The estimator pays the launch of attention twice where it adds up passes, and hardly at all in its
    own mixed call; x is the least squares middle of the two, as far as neither constant turns negative.
    """
    residual = square = 0.0
    for kind, group in steps.items():
        residual += float(np.mean((law.times_s(group) / seconds[kind] - 1.0) / seconds[kind]))
        square += float(np.mean(seconds[kind] ** -2))
    moved_s = min(max(residual / square, 0.0), law.constants[0], law.constants[3])
    constants = law.constants - moved_s * np.array([1.0, 0.0, 0.0, 1.0, 0.0])
    return law._replace(token_time_s=law.token_time_s + moved_s, constants=constants)


def _design(steps: list[Step], tokens: list[int], sequences: list[int]) -> Array:
    """One row a step, one column an unknown: rises of F, the five constants, cK at its knots."""
    prompts, new, context, batch, decode_context = np.array(steps, dtype=np.float64).T
    step_tokens = prompts * new + batch
    knots = np.array(tokens, dtype=np.float64)
    rises = np.clip((step_tokens[:, None] - knots[:-1]) / np.diff(knots), 0.0, 1.0)
    constants = np.column_stack([prompts > 0, prompts * new * context, prompts * new**2 / 2, batch > 0, batch])
    hats = np.array([np.interp(batch, sequences, hat) for hat in np.eye(len(sequences))]).T
    decode_kv = hats * (batch * decode_context)[:, None]
    return np.column_stack([np.ones(len(steps)), rises, constants, decode_kv])
