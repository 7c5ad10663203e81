"""The regret of each member of a portfolio: how far it is behind the best one on the same requests."""

import numpy as np

MOST = 1.0
MISSED = 0.025
"""Added to shares of missed SLOs before their logarithms are taken."""
_USABLE = 0.01


def regrets(ttft_p95_s: np.ndarray, attainment: np.ndarray, is_rule: np.ndarray) -> np.ndarray:
    """Regrets (M,) of members with these results (M,), from 0 for the best one to 1.

    A member's score is the logarithm of its P95 TTFT plus that of its share of missed SLOs, increased by 0.025: where
    hardly any SLO is missed, a point more counts like 40 % more P95 TTFT, and in overload much less. Fewer misses than
    the best rule's do not count. The regret is the difference to the lowest score. The best rule has the lowest P95
    TTFT among those whose attainment is within a point of the highest, as the virtual best of docs/protocol.md. The
    constant is not from a paper.

    Args:
        ttft_p95_s: seconds; inf has the regret 1.
        attainment: share of the requests that met both SLOs.
        is_rule: whether the member is a published rule; if none is, all count as rules.
    """
    rules = is_rule if is_rule.any() else np.ones_like(is_rule)
    usable = np.flatnonzero(rules & (attainment >= attainment[rules].max() - _USABLE))
    enough = attainment[usable[ttft_p95_s[usable].argmin()]]
    scores = np.log(ttft_p95_s) + np.log(1.0 - np.minimum(attainment, enough) + MISSED)
    best = scores.min()
    found: np.ndarray = np.minimum(scores - best, MOST) if np.isfinite(best) else np.full(len(scores), MOST)
    return found
