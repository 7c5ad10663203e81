"""What waiting for first tokens has cost so far."""

from collections.abc import Mapping

from envs.cluster.request import Sequence


class WaitingCost:
    """Waits in units of each request's TTFT SLO, and their squares.

    Attributes:
        requests: those that wait for their first token, in order of arrival; add one that has arrived.
    """

    __slots__ = ("_waited", "_waited_square", "requests")

    def __init__(self) -> None:
        self.requests: dict[Sequence, None] = {}
        self._waited = 0.0
        self._waited_square = 0.0

    def copy(self, twins: Mapping[Sequence, Sequence]) -> "WaitingCost":
        """An independent copy, of the sequences that `twins` gives for its own."""
        twin = WaitingCost()
        twin.requests = dict.fromkeys([twins[seq] for seq in self.requests])
        twin._waited = self._waited
        twin._waited_square = self._waited_square
        return twin

    def end(self, seq: Sequence) -> None:
        """Its first token is out at `seq.first_token_s`."""
        del self.requests[seq]
        waited = (seq.first_token_s - seq.arrival_s) / seq.ttft_slo_s
        self._waited += waited
        self._waited_square += waited * waited

    def linear(self, now_s: float) -> float:
        """Sum over requests of wait / SLO; TTFT / SLO once the first token is out."""
        return self._waited + sum([(now_s - seq.arrival_s) / seq.ttft_slo_s for seq in self.requests])

    def squared(self, now_s: float) -> float:
        """The same of the squares."""
        return self._waited_square + sum([((now_s - seq.arrival_s) / seq.ttft_slo_s) ** 2 for seq in self.requests])
