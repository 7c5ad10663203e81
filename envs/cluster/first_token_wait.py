"""The cost of waiting for first tokens so far."""

from collections.abc import Mapping

from envs.cluster.request import Request


class FirstTokenWait:
    """Waits for first tokens in units of each request's TTFT SLO, and their squares.

    Attributes:
        requests: those that wait for their first token, in order of arrival; add one that has arrived.
    """

    __slots__ = ("_waited", "_waited_square", "requests")

    def __init__(self) -> None:
        self.requests: dict[Request, None] = {}
        self._waited = 0.0
        self._waited_square = 0.0

    def copy(self, twins: Mapping[Request, Request]) -> "FirstTokenWait":
        """An independent copy, of the requests that `twins` gives for its own."""
        twin = FirstTokenWait()
        twin.requests = dict.fromkeys([twins[request] for request in self.requests])
        twin._waited = self._waited
        twin._waited_square = self._waited_square
        return twin

    def end(self, request: Request) -> None:
        """A request's first token is out at `request.first_token_s`."""
        del self.requests[request]
        waited = (request.first_token_s - request.arrival_s) / request.ttft_slo_s
        self._waited += waited
        self._waited_square += waited * waited

    def linear(self, now_s: float) -> float:
        """Sum over requests of wait / SLO; TTFT / SLO once the first token is out."""
        return self._waited + sum([(now_s - one.arrival_s) / one.ttft_slo_s for one in self.requests])

    def squared(self, now_s: float) -> float:
        """The same of the squares."""
        return self._waited_square + sum([((now_s - one.arrival_s) / one.ttft_slo_s) ** 2 for one in self.requests])
