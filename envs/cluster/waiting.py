"""What waiting for first tokens has cost so far, in O(1) whatever waits."""

from envs.cluster.request import Sequence


class WaitingCost:
    """Waits in units of each request's TTFT SLO, and their squares, of requests that wait and that have waited.

    (now - arrival) / SLO summed over waiting requests is now * sum(1 / SLO) - sum(arrival / SLO); its square expands
    alike.

    Attributes:
        requests: how many wait for their first token.
    """

    __slots__ = (
        "_per_s",
        "_since",
        "_square_per_s",
        "_square_per_s2",
        "_square_since",
        "_waited",
        "_waited_square",
        "requests",
    )

    def __init__(self) -> None:
        self.requests = 0
        self._per_s = self._since = self._waited = 0.0
        self._square_per_s2 = self._square_per_s = self._square_since = self._waited_square = 0.0

    def copy(self) -> "WaitingCost":
        """An independent copy."""
        twin = WaitingCost()
        for name in WaitingCost.__slots__:
            setattr(twin, name, getattr(self, name))
        return twin

    def begin(self, seq: Sequence) -> None:
        """A request has arrived."""
        weight = 1.0 / seq.ttft_slo_s
        since = seq.arrival_s * weight
        self.requests += 1
        self._per_s += weight
        self._since += since
        self._square_per_s2 += weight * weight
        self._square_per_s += weight * since
        self._square_since += since * since

    def end(self, seq: Sequence) -> None:
        """Its first token is out at `seq.first_token_s`."""
        weight = 1.0 / seq.ttft_slo_s
        since = seq.arrival_s * weight
        waited = seq.first_token_s * weight - since
        self.requests -= 1
        self._per_s -= weight
        self._since -= since
        self._waited += waited
        self._square_per_s2 -= weight * weight
        self._square_per_s -= weight * since
        self._square_since -= since * since
        self._waited_square += waited * waited

    def linear(self, now_s: float) -> float:
        """Sum over requests of wait / SLO; TTFT / SLO once the first token is out."""
        return self._waited + self._per_s * now_s - self._since

    def squared(self, now_s: float) -> float:
        """The same of the squares."""
        waiting = (self._square_per_s2 * now_s - 2.0 * self._square_per_s) * now_s + self._square_since
        return self._waited_square + waiting
