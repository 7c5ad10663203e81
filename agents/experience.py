"""Correction of predicted regrets: members that miss more SLOs in a run than the model expects are selected less.

A model of regrets (`agents.selection`) can be wrong where clusters or requests are unlike those in training. The router
sees which requests miss an SLO, so it sees when a member does worse than the model expects of it.
"""

from math import exp, log

import numpy as np

from agents.regret import MISSED
from envs.cluster import RouterView

_NOT_NOTABLE = 0.3  # of the logarithm; smaller differences are chance, or a prediction that is a little off
_EXPECTED_REQUESTS = 50.0  # the weight of the expectation, as if so many requests had confirmed it
_KEPT = 0.998  # factor on the weight of a finished request per later one: some 500 requests count
_FORGOTTEN_S = 3000.0  # time constant after which a member is tried again


class Experience:
    """How many more requests than expected have missed an SLO in a run, by the member that placed them.

    While a member places the requests, the share of the finished ones that missed an SLO is compared with the expected
    share. The excess of the logarithm, without the first 0.3, is added to the member's predicted regret, because the
    regret (`agents.regret`) has the same logarithm in it. If one prediction is so far off, the others in this run are
    worth less, too: where the members' mean regrets in training are higher, predictions move towards these. The share
    of the way is the largest excess, at most 1. It keeps the selection from trying one unsuitable member after another.
    The constants are not from a paper; docs/protocol.md (amendment 39) says how they were chosen.

    Attributes:
        excess: (M,) what is added to the regret of each member.

    Args:
        mean_regret: (M,) the mean regret of each member in training.
    """

    def __init__(self, mean_regret: np.ndarray) -> None:
        self._mean_regret = mean_regret
        self.excess = np.zeros(len(mean_regret))
        self._last_s: float | None = None
        self._finished = self._missed = self._of_others = 0
        self._requests = self._misses = self._expected = 0.0

    def take_over(self, view: RouterView) -> None:
        """Begin to count for another member, which places the requests from now on.

        Requests that are unfinished now were placed by others. As many of those that finish next are not counted.
        """
        counters = view.counters
        self._finished, self._missed = counters.finished_count, counters.missed_count
        self._of_others = self._finished + sum(counters.decode_requests)
        self._requests = self._misses = self._expected = 0.0

    def learn(self, member: int, expected: float, view: RouterView) -> None:
        """Take into account what has finished since the last call.

        Args:
            member: index of the member that places the requests.
            expected: the share of its requests that the model expects to miss an SLO.
            view: the cluster now.
        """
        if self._last_s is not None:
            self.excess *= exp((self._last_s - view.now_s) / _FORGOTTEN_S)
        self._last_s = view.now_s
        counters = view.counters
        requests, misses = counters.finished_count - self._finished, counters.missed_count - self._missed
        self._finished, self._missed = counters.finished_count, counters.missed_count
        if not requests or self._finished <= self._of_others:
            return
        kept = _KEPT**requests
        self._requests = self._requests * kept + requests
        self._misses = self._misses * kept + misses
        self._expected = self._expected * kept + requests * expected
        mean = self._expected / self._requests
        share = (self._misses + _EXPECTED_REQUESTS * mean) / (self._requests + _EXPECTED_REQUESTS)
        self.excess[member] = max(0.0, log((share + MISSED) / (mean + MISSED)) - _NOT_NOTABLE)

    def corrected(self, regret: np.ndarray) -> np.ndarray:
        """Predicted regrets (M,), corrected for the excess."""
        doubt = min(1.0, float(self.excess.max()))
        found: np.ndarray = regret + doubt * np.maximum(0.0, self._mean_regret - regret) + self.excess
        return found
