"""The accrued cost of waiting for first tokens."""

from collections.abc import Mapping

from mypy_extensions import mypyc_attr

from envs.cluster.request import Request


@mypyc_attr(allow_interpreted_subclasses=True)
class FirstTokenWait:
    """Waits for first tokens in units of each request's TTFT SLO, and their squares.

    Attributes:
        requests: the requests that wait for their first token, in order of arrival; callers add new ones.
    """

    __slots__ = ("_waited", "_waited_square", "requests")

    def __init__(self) -> None:
        self.requests: dict[Request, None] = {}
        self._waited = 0.0
        self._waited_square = 0.0

    def copy_state(self, other: "FirstTokenWait", twins: Mapping[Request, Request]) -> None:
        """Copy another cluster's waits; `twins` maps its requests to their copies."""
        self.requests = dict.fromkeys([twins[request] for request in other.requests])
        self._waited = other._waited
        self._waited_square = other._waited_square

    def end(self, request: Request, now_s: float) -> None:
        """End a request's wait: its first token is out at `now_s` (now, or at the next step boundary)."""
        request.first_token_s = now_s
        del self.requests[request]
        waited = (now_s - request.arrival_s) / request.ttft_slo_s
        self._waited += waited
        self._waited_square += waited * waited

    def linear(self, now_s: float) -> float:
        """Sum over requests of wait / SLO, which is TTFT / SLO once the first token is out."""
        waited = 0.0
        for one in self.requests:
            waited += (now_s - one.arrival_s) / one.ttft_slo_s
        return self._waited + waited

    def squared(self, now_s: float) -> float:
        """Sum over requests of (wait / SLO)^2."""
        squared = 0.0
        for one in self.requests:
            squared += ((now_s - one.arrival_s) / one.ttft_slo_s) ** 2
        return self._waited_square + squared
