"""How a run's requests are made: recipes, which identify requests without holding them.

Equal recipes make equal requests on every machine, whatever the policy (common random numbers). `Family` and
`TraceRequests` are also sources of training: both `draw` requests to train on, give recipes for `tuning` and
`evaluation`, and the arguments of an `environment`.
"""

from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import ceil, nan
from pathlib import Path
from typing import Any, Self

import numpy as np

from envs.generators import generate, slos_of_family
from envs.slos import DEFAULT_SLOS, Slos
from envs.traces import read_trace, slos_of_format
from envs.variation import Variation
from envs.workload import Workload
from experiments.runs.data_splits import EVALUATION_PART, TRAINING_PART, TRAINING_SEED, TUNING_PART
from experiments.runs.fingerprint import digest
from hardware_profiles import InputError

Range = tuple[float, float]

_TRACE_EPISODE_REQUESTS = 1024
"""Decisions of a training episode on a trace."""
_TTFT_VARIED, _TTFT_FACTORS = 0.5, (0.5, 4.0)
"""Share of the training episodes with another TTFT SLO, and the range of its factor. Not from a paper."""
_LONG_EPISODE_S = 35.0
_LONG_EPISODE_REQUESTS = (1500, 6000)
_FEWEST_REQUESTS = 1000


@dataclass(frozen=True)
class FamilyRequests:
    """Requests of a generated family.

    A queue must grow before an SLO is missed, so a run that is not much longer than the TTFT SLO meets a rate that the
    cluster cannot sustain; at hundreds of requests per second a fixed number of them is such a run.
    """

    family: str
    nominal_rps: float
    count: int  # or as many more as arrive in span_s
    seed: int
    slos: Slos = DEFAULT_SLOS
    span_s: float = 0.0

    def make(self) -> Workload:
        """Draw them."""
        count = max(self.count, ceil(self.nominal_rps * self.span_s))
        return generate(self.family, rate_rps=self.nominal_rps, requests=count, seed=self.seed, slos=self.slos)


@dataclass(frozen=True)
class Family:
    """A generated family at loads that are multiples of `unit_rps`, such as the knee of `static`.

    With `tbt_range_s`, the TBT SLO of each training episode is drawn from it, log-uniformly, and half of the episodes
    have another TTFT SLO. With `variation`, the requests of training episodes are changed.
    """

    name: str
    unit_rps: float = 1.0
    slos: Slos = DEFAULT_SLOS
    span_s: float = 0.0
    tbt_range_s: Range | None = None
    variation: Variation | None = None

    @property
    def own_slos(self) -> Slos:
        """The SLOs, with the family's default for what they leave open."""
        return slos_of_family(self.name, self.slos)

    def at(self, load: float, count: int, seed: int) -> FamilyRequests:
        """The recipe of a run."""
        return FamilyRequests(self.name, load * self.unit_rps, count, seed, self.slos, self.span_s)

    tuning = evaluation = at
    """The purpose is a matter of the seed, see `data_splits`."""

    @property
    def reward_scale(self) -> float:
        """Factor on rewards in training, so that costs per second are of one size in all workloads."""
        return 10.0 / self.unit_rps

    def draw(self, requests: int, load: float, seed: int) -> Workload:
        """Requests to train on."""
        recipe = self.at(load, requests, seed)
        if self.tbt_range_s is not None:
            rng = np.random.default_rng(seed)
            tbt_s = float(np.exp(rng.uniform(*np.log(self.tbt_range_s))))
            factor = float(np.exp(rng.uniform(*np.log(_TTFT_FACTORS)))) if rng.random() < _TTFT_VARIED else 1.0
            slos = self.slos.changed(lambda one: replace(one, tbt_s=tbt_s, ttft_s=factor * one.ttft_s))
            recipe = replace(recipe, slos=slos)
        workload = recipe.make()
        if self.variation is None:
            return workload
        # A TTFT SLO may grow with the prompt, so it is that of the changed one.
        return slos_of_family(self.name, recipe.slos).apply(self.variation.applied(workload, seed), seed)

    @property
    def long_episode_requests(self) -> int:
        """Requests of an episode in which P95 TTFT means something: about _LONG_EPISODE_S seconds of them."""
        return int(np.clip(_LONG_EPISODE_S * self.unit_rps, *_LONG_EPISODE_REQUESTS))

    def environment(self, low_load: float, high_load: float) -> dict[str, Any]:
        """The environment's arguments for episodes at loads from `low_load` to `high_load`."""
        return {
            "workload": self._at_rate,
            "rate_rps": (low_load * self.unit_rps, high_load * self.unit_rps),
            "horizon_requests": self.long_episode_requests,
        }

    def _at_rate(self, requests: int, rate_rps: float, seed: int) -> Workload:
        return self.draw(requests, rate_rps / self.unit_rps, TRAINING_SEED + seed)


@dataclass(frozen=True)
class TraceRequests:
    """Requests of a recorded trace, or of a part of it in time."""

    path: Path = field(repr=False)  # not part of the identity, but the content is
    format: str
    rate_scale: float = 1.0  # by how much time is compressed
    limit: int | None = None  # only the first so many requests
    seed: int = 0  # of the arrivals inside a tick and of the SLO classes
    slos: Slos = DEFAULT_SLOS
    content: str = ""  # digest of the file
    part: tuple[float, float] | None = None  # start and end as shares of the trace's span
    load: float = 1.0  # further compression of a part
    count: int | None = None  # only the part's first so many requests

    nominal_rps = nan
    reward_scale = 1.0

    @classmethod
    def of(cls, path: Path, trace_format: str, rate_scale: float, limit: int | None, slos: Slos) -> Self:
        """All requests of a file. Raises OSError (the file cannot be read)."""
        return cls(path, trace_format, rate_scale, limit, slos=slos, content=digest(path.name, files=[path]))

    @property
    def name(self) -> str:
        """The trace in tables."""
        return self.path.name.partition(".")[0]

    @property
    def own_slos(self) -> Slos:
        """The SLOs, with the format's default for what they leave open."""
        return slos_of_format(self.format, self.slos)

    @property
    def flat_ttft_s(self) -> float | None:
        """The TTFT SLO, seconds, if all requests have the same one; else None."""
        ttft_slo_s = made(self).ttft_slo_s
        return float(ttft_slo_s[0]) if np.ptp(ttft_slo_s) == 0 else None

    def at(self, load: float, seed: int) -> "TraceRequests":
        """The whole trace at a multiple of its rate scale."""
        return replace(self, rate_scale=self.rate_scale * load, seed=seed)

    def make(self) -> Workload:
        """Read the requests. Raises InputError (the file, or a row of it, is bad)."""
        whole = _read(self.path, self.format, self.rate_scale, self.limit, self.seed, self.slos, self.content)
        if self.part is None:
            return whole
        start, end = self.part
        span_s = float(whole.arrival_s[-1])
        part = whole.window(start * span_s, end * span_s if end < 1.0 else None).rate_scale(self.load)
        return part if self.count is None else part.head(self.count)

    def check_length(self) -> None:
        """Raise InputError if there are too few requests to train on."""
        if len(made(self)) < _FEWEST_REQUESTS:
            raise InputError(
                f"{self.name}: {len(made(self))} requests are too few to train on; {_FEWEST_REQUESTS} at least"
            )

    def draw(self, requests: int, load: float, seed: int) -> Workload:
        """A random stretch of the training part, its rate multiplied by `load`."""
        part = replace(self, part=TRAINING_PART, load=load).make()
        if len(part) < requests:
            raise InputError(f"{self.name}: its training part has {len(part)} requests, an episode needs {requests}")
        first = int(np.random.default_rng(seed).integers(len(part) - requests + 1))
        return part.slice(first, first + requests)

    def tuning(self, load: float, count: int, seed: int) -> "TraceRequests":  # noqa: ARG002 - there is one
        """The tuning part, as many of its requests as asked for."""
        return replace(self, part=TUNING_PART, load=load, count=count)

    def evaluation(self, load: float, count: int, seed: int) -> "TraceRequests":  # noqa: ARG002 - there is one
        """The evaluation part, all of it."""
        return replace(self, part=EVALUATION_PART, load=load)

    @property
    def long_episode_requests(self) -> int:
        """Requests of an episode in which P95 TTFT means something, at most a third of the training part."""
        return min(_LONG_EPISODE_REQUESTS[0], len(replace(self, part=TRAINING_PART).make()) // 3)

    def environment(self, low_load: float, high_load: float) -> dict[str, Any]:
        """Episodes of the training part; a third of it at most."""
        training = len(replace(self, part=TRAINING_PART).make())
        return {
            "workload": self.draw,  # the environment's rate is the load
            "rate_rps": (low_load, high_load),
            "horizon_requests": min(_TRACE_EPISODE_REQUESTS, training // 3),
        }


Recipe = FamilyRequests | TraceRequests
"""Makes the requests of one run; hashable, and its text is its identity."""
Source = Family | TraceRequests
"""Requests to train on, and recipes of those to tune and evaluate on."""


@lru_cache(maxsize=4)
def made(recipe: Recipe) -> Workload:
    """The requests of a recipe. The last few are kept: policies that are compared share them."""
    return recipe.make()


@lru_cache(maxsize=2)
def _read(
    path: Path, trace_format: str, rate_scale: float, limit: int | None, seed: int, slos: Slos, _content: str
) -> Workload:
    return read_trace(path, trace_format, rate_scale=rate_scale, limit=limit, seed=seed, slos=slos)
