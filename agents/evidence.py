"""Evidence about the regrets of a portfolio's members: predictions, corrected in hindsight.

Simulations of the recent past are noisy about the future. Their error is estimated from a bootstrap over blocks of
consecutive requests, and from the difference between two rates. Where it is large, as after a few bursts or near
saturation, the predictions count more. Where predictions and simulations disagree by more than their errors, as on a
cluster that was not trained on, the predictions count less (empirical Bayes).
"""

from collections.abc import Sequence

import numpy as np

from agents.hindsight import Hindsight
from agents.regret import MOST, regrets

_WARM_UP = 0.1  # share of the simulated requests that do not count
_BLOCKS, _SAMPLES = 12, 24
_LEAST_ERROR = 0.01
_FEW, _UNFINISHED = 10.0, 0.3  # errors: per number of requests, and per share of them that have not finished
_AGEING = 0.1  # error that a regret gains whenever others are simulated
_PREDICTED_ERROR, _PREDICTED_ERROR_SHARE = 0.004, 0.08  # errors of predictions: at least, and per predicted regret


class Evidence:
    """Regrets of M members in hindsight (`agents.regret`). None of the constants is from a paper.

    Attributes:
        regret: (M,), from 0 to 1; 1 for a member that has not been simulated.
        error: (M,), standard errors of the regrets.

    Args:
        is_rule: (M,), whether a member is a published rule.
    """

    def __init__(self, is_rule: np.ndarray) -> None:
        self._is_rule = is_rule
        self.regret = np.full(len(is_rule), MOST)
        self.error = np.full(len(is_rule), MOST)

    def add(self, members: Sequence[int], found: Sequence[Hindsight], seen: int, unfinished: float) -> None:
        """Take simulations of the same requests at several rates into account.

        Args:
            members: the simulated members.
            found: their results at each rate, in this order.
            seen: number of different requests in a simulation.
            unfinished: share of them whose output lengths are estimates.
        """
        chosen = list(members)
        behind = [_behind(one, self._is_rule[chosen]) for one in found]
        whole = np.array([one[0] for one in behind])
        spread = np.mean([np.std(one[1:], axis=0) for one in behind], axis=0)
        repeated = max(1.0, found[0].ttft_s.shape[1] / seen)
        self.error = np.hypot(self.error, _AGEING)
        self.error[chosen] = np.sqrt(
            spread**2 * repeated
            + np.var(whole, axis=0)
            + _LEAST_ERROR**2
            + (_FEW / seen + _UNFINISHED * unfinished) ** 2
        )
        self.regret[chosen] = whole.mean(axis=0)

    def corrected(self, predicted: np.ndarray) -> np.ndarray:
        """Predicted regrets (M,), corrected: means with those in hindsight, weighted by the inverse variances."""
        predicted = np.maximum(predicted, 0.0)
        of_hindsight = self.error**2
        of_prediction = (_PREDICTED_ERROR + _PREDICTED_ERROR_SHARE * predicted) ** 2
        surprise = (self.regret - predicted) ** 2 / (of_prediction + of_hindsight)
        of_prediction *= max(1.0, float(np.median(surprise)))
        trust = of_hindsight / (of_prediction + of_hindsight)
        corrected: np.ndarray = trust * predicted + (1.0 - trust) * self.regret
        return corrected


def _behind(one: Hindsight, is_rule: np.ndarray) -> np.ndarray:
    """The regrets of the simulated members, (1 + _SAMPLES, M): by all requests, and by samples of them."""
    warm_up = int(_WARM_UP * one.ttft_s.shape[1])
    ttft_s, missed = one.ttft_s[:, warm_up:], one.missed[:, warm_up:]
    blocks = np.array_split(np.arange(ttft_s.shape[1]), _BLOCKS)
    rng = np.random.default_rng(0)
    draws = [np.concatenate([blocks[block] for block in rng.integers(0, _BLOCKS, _BLOCKS)]) for _ in range(_SAMPLES)]
    return np.array(
        [
            regrets(np.quantile(ttft_s[:, rows], 0.95, axis=1), 1.0 - missed[:, rows].mean(axis=1), is_rule)
            for rows in (np.arange(ttft_s.shape[1]), *draws)
        ]
    )
