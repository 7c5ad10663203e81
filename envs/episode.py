"""The requests of an episode, its first decision and its end."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil, exp, inf, log
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.generators import generate
from envs.slos import Slos
from envs.workload import Row, Workload
from hardware_profiles import InputError

WorkloadSource = str | Workload | Callable[[int, float, int], Workload]
"""The name of a generated family; a workload, of which each episode takes a stretch; or a function (number of requests,
rate in requests per second, seed) -> workload."""

Range = tuple[float, float]


class Episode(NamedTuple):
    """One episode's requests.

    Attributes:
        requests: in order of arrival; time 0 is the first arrival.
        first: index of the first request that the agent places; earlier ones warm the cluster up.
        last: index of the request at whose arrival the episode is truncated; it is observed but not placed.
    """

    requests: list[Row]
    first: int
    last: int


@dataclass(frozen=True)
class Horizon:
    """The end of an episode: a number of requests, or the first arrival after a number of seconds.

    Exactly one of the two is None.

    Raises:
        InputError: both or neither are given, or one is out of range.
    """

    requests: int | None
    seconds: float | None

    def __post_init__(self) -> None:
        if (self.requests is None) == (self.seconds is None):
            raise InputError("give one of horizon_requests and horizon_s, and None for the other")
        if self.requests is not None and self.requests < 1:
            raise InputError(f"horizon_requests must be at least 1, not {self.requests}")
        if self.seconds is not None and not 0.0 < self.seconds < inf:
            raise InputError(f"horizon_s must be a number of seconds above 0, not {self.seconds}")

    def last(self, arrival_s: NDArray[np.float64], first: int) -> int:
        """Index of the request that ends an episode starting at request `first`; it may be beyond the last arrival."""
        if self.requests is not None:
            return first + self.requests
        assert self.seconds is not None  # one of them is given
        return max(first + 1, int(np.searchsorted(arrival_s, arrival_s[first] + self.seconds)))


@dataclass(frozen=True)
class EpisodeSource:
    """Draws episodes.

    Attributes:
        workload: source of the requests.
        rate_rps: range of the mean arrival rate of a generated workload, requests/s, drawn uniformly.
        slos: SLOs of generated requests.
        tbt_slo_s: range of an episode's TBT SLO, seconds, drawn log-uniformly; None: the TBT SLO of `slos`.
        warm_up_s: range of the time that the cluster has run before the first decision, seconds, drawn uniformly.
        horizon: when episodes end.
    """

    workload: WorkloadSource
    rate_rps: Range
    slos: Slos
    tbt_slo_s: Range | None
    warm_up_s: Range
    horizon: Horizon

    def draw(self, rng: np.random.Generator) -> Episode:
        """Draw an episode from the environment's generator.

        Raises:
            InputError: the workload has too few requests.
        """
        warm_s = float(rng.uniform(*self.warm_up_s)) if self.warm_up_s[1] > 0.0 else 0.0
        if isinstance(self.workload, Workload):
            return self._stretch(self.workload, warm_s, rng)
        rate_rps = float(rng.uniform(*self.rate_rps))
        slos = self.slos
        if self.tbt_slo_s is not None:
            low_s, high_s = self.tbt_slo_s
            tbt_s = exp(float(rng.uniform(log(low_s), log(high_s))))
            slos = slos.changed(lambda one: replace(one, tbt_s=tbt_s))
        seed = int(rng.integers(2**31))
        # A longer workload begins with the shorter one, so drawing more requests does not change these.
        count = (self.horizon.requests or 0) + 1
        if warm_s or self.horizon.seconds is not None:
            count += ceil(1.25 * rate_rps * (warm_s + (self.horizon.seconds or 0.0))) + 64
        while True:
            if isinstance(self.workload, str):
                workload = generate(self.workload, rate_rps=rate_rps, requests=count, seed=seed, slos=slos)
            else:
                workload = self.workload(count, rate_rps, seed)
                if len(workload) < count:
                    raise InputError(f"the workload function gave {len(workload)} requests when asked for {count}")
            arrival_s = workload.arrival_s - workload.arrival_s[0]
            first = int(np.searchsorted(arrival_s, warm_s)) if warm_s else 0
            last = self.horizon.last(arrival_s, first) if first < count else count
            if last < count:
                return _episode(workload, 0, first, last)
            count *= 2

    def _stretch(self, workload: Workload, warm_s: float, rng: np.random.Generator) -> Episode:
        """A random stretch of a workload, uniform among those with enough time before and after the first decision."""
        arrival_s = workload.arrival_s
        earliest = int(np.searchsorted(arrival_s, arrival_s[0] + warm_s))
        if self.horizon.requests is not None:
            latest = len(workload) - 1 - self.horizon.requests
        else:
            latest = int(np.searchsorted(arrival_s, arrival_s[-1] - (self.horizon.seconds or 0.0), "right")) - 1
        if latest < earliest:
            raise InputError(
                f"workload: an episode needs more than its {len(workload)} requests over"
                f" {arrival_s[-1] - arrival_s[0]:g} s; shorten horizon_requests, horizon_s or warm_up_s"
            )
        first = int(rng.integers(earliest, latest + 1))
        start = int(np.searchsorted(arrival_s, arrival_s[first] - warm_s)) if warm_s else first
        return _episode(workload, start, first, self.horizon.last(arrival_s, first))


def _episode(workload: Workload, start: int, first: int, last: int) -> Episode:
    """Requests `start` to `last` of a workload as an episode whose first decision is for request `first`."""
    rows = workload.rows(start, last + 1, since_s=float(workload.arrival_s[start]))
    return Episode(rows, first - start, last - start)
