"""Arithmetic of spans: runs of steps that last first_s, first_s + growth_s, first_s + 2 * growth_s, ..."""

from math import sqrt

Snapshot = tuple[float, int, float, float, int, int, int, int, int, float]
"""An engine at the start of a span, what a node's report is read off: start_s, steps, first_s, growth_s, decode_batch,
decode_kv_tokens, chunk_tokens, computed_tokens, kv_used_tokens, tbt_slo_s.

Until the next snapshot, step i lasts first_s + i * growth_s, adds decode_batch to the decode KV and computes
chunk_tokens prompt tokens; after `steps` steps nothing moves. A plain tuple: one is made for every span.
"""


def steps_within(elapsed_s: float, first_s: float, growth_s: float) -> float:
    """How many steps fit into `elapsed_s` (a real number).

    The positive root of growth/2 * k^2 + (first - growth/2) * k = elapsed, in the form without cancellation.
    """
    if growth_s == 0.0:
        return elapsed_s / first_s
    linear = first_s - 0.5 * growth_s
    return 2.0 * elapsed_s / (linear + sqrt(linear * linear + 2.0 * growth_s * elapsed_s))


def whole_steps_within(elapsed_s: float, steps: int, first_s: float, growth_s: float) -> int:
    """How many whole steps of `steps` are over after `elapsed_s`; one that ends just then is."""
    done = int(steps_within(elapsed_s, first_s, growth_s) + 1e-9)
    return done if done < steps else steps


def steps_up_to(limit_s: float, steps: int, first_s: float, growth_s: float) -> int:
    """How many of `steps` steps last no longer than `limit_s`; steps never grow shorter."""
    if first_s > limit_s:
        return 0
    if growth_s == 0.0:
        return steps
    return min(steps, int((limit_s - first_s) / growth_s) + 1)
