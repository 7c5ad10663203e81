"""Where a training run's requests come from: a generated family, or the earlier part of a trace.

Training, tuning and evaluation never share requests. Of a family each has seeds of its own: evaluation counts from
500,000 (the defaults of PPO and of its cost were chosen by trials on seeds below 1,000 and around 600,000 and 700,000),
tuning and the knee have theirs around 800,000 and 900,000, training's are 2^31 and above. A trace is cut in time: the
first 60 % of its span for training, the next 15 % for tuning, the rest for evaluation.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from agents.episodes import FIRST_TRAINING_SEED
from envs.generators import generate, slos_of_family
from envs.slos import DEFAULT_SLOS, Slos
from envs.workload import Workload
from hardware_profiles import InputError

EPISODE_REQUESTS = 1024
"""Decisions of a training episode."""

EVALUATION_SEED = 500_000
TUNING_SEEDS = tuple(range(800_001, 800_009))
_TRAINING_SHARE, _TUNING_SHARE = 0.6, 0.15


class Source(Protocol):
    """Requests for one training run; a load is a multiple of the knee of `static`, or of a trace's own rate."""

    @property
    def name(self) -> str:
        """What tables call it."""

    def draw(self, requests: int, load: float, seed: int) -> Workload:
        """Requests to train on."""

    def tuning(self, requests: int, load: float, seed: int) -> Workload:
        """Requests to tune a heuristic's knobs on."""

    def evaluation(self, requests: int, load: float, seed: int) -> Workload:
        """Requests that nothing was trained or tuned on."""

    def environment(self, low_load: float, high_load: float) -> dict[str, Any]:
        """The environment's arguments for episodes at loads from `low_load` to `high_load`."""

    @property
    def reward_scale(self) -> float:
        """What rewards are multiplied by in training, so that costs per second are of one size in all workloads."""


@dataclass(frozen=True)
class Family:
    """A generated family.

    Attributes:
        name: of the family.
        knee_rps: requests per second at load 1.
        slos: what requests are promised.
    """

    name: str
    knee_rps: float
    slos: Slos = DEFAULT_SLOS

    def draw(self, requests: int, load: float, seed: int) -> Workload:
        """Requests at `load` times the knee."""
        return generate(self.name, rate_rps=load * self.knee_rps, requests=requests, seed=seed, slos=self.slos)

    tuning = draw
    evaluation = draw

    def environment(self, low_load: float, high_load: float) -> dict[str, Any]:
        """Episodes of the family."""
        return {
            "workload": self.name,
            "rate_rps": (low_load * self.knee_rps, high_load * self.knee_rps),
            "slo_classes": [
                (one.share, one.ttft_s, one.tbt_s, one.ttft_per_1k_tokens_s or 0.0)
                for one in slos_of_family(self.name, self.slos).classes
            ],
            "horizon_requests": EPISODE_REQUESTS,
        }

    @property
    def reward_scale(self) -> float:
        """10 requests per second over the knee."""
        return 10.0 / self.knee_rps


@dataclass(frozen=True)
class Trace:
    """A trace, cut in time.

    Attributes:
        name: of the trace.
        whole: all of it, at its rate scale.
    """

    name: str
    whole: Workload

    def __post_init__(self) -> None:
        if len(self.whole) < 1000:
            raise InputError(f"{self.name}: {len(self.whole)} requests are too few to train on; 1000 at least")

    def _part(self, start: float, end: float, load: float) -> Workload:
        span_s = float(self.whole.arrival_s[-1])
        part = self.whole.window(start * span_s, end * span_s if end < 1.0 else None)
        return part.rate_scale(load)

    def draw(self, requests: int, load: float, seed: int) -> Workload:
        """A random stretch of the training part, its rate multiplied by `load`."""
        part = self._part(0.0, _TRAINING_SHARE, load)
        if len(part) < requests:
            raise InputError(f"{self.name}: its training part has {len(part)} requests, an episode needs {requests}")
        first = int(np.random.default_rng(seed).integers(len(part) - requests + 1))
        return part.slice(first, first + requests)

    def environment(self, low_load: float, high_load: float) -> dict[str, Any]:
        """Episodes of the training part; a third of it at most."""
        training = len(self._part(0.0, _TRAINING_SHARE, 1.0))
        return {
            "workload": Arrivals(self, low_load, high_load),
            "rate_rps": (low_load, high_load),
            "horizon_requests": min(EPISODE_REQUESTS, training // 3),
        }

    reward_scale = 1.0

    def tuning(self, requests: int, load: float, seed: int) -> Workload:  # noqa: ARG002 - there is one
        """The tuning part, as many of its requests as asked for."""
        return self._part(_TRAINING_SHARE, _TRAINING_SHARE + _TUNING_SHARE, load).head(requests)

    def evaluation(self, requests: int, load: float, seed: int) -> Workload:  # noqa: ARG002 - there is one
        """The evaluation part, all of it."""
        return self._part(_TRAINING_SHARE + _TUNING_SHARE, 1.0, load)


@dataclass(frozen=True)
class Arrivals:
    """What an environment draws its episodes from; picklable, for other processes.

    Attributes:
        source: the requests.
        low_load: lowest load of an episode.
        high_load: highest.
    """

    source: Source
    low_load: float
    high_load: float

    def __call__(self, requests: int, load: float, seed: int) -> Workload:
        """The environment's `workload` function, its rate read as a load."""
        return self.source.draw(requests, load, seed)


@dataclass(frozen=True)
class Episodes:
    """Workloads numbered from 0, for collecting examples.

    Attributes:
        arrivals: what they are drawn from, in turns.
        requests: of each.
        seed: of the run.
    """

    arrivals: tuple[Arrivals, ...]
    requests: int
    seed: int

    def __call__(self, episode: int) -> Workload:
        """The workload of one episode, at a load drawn uniformly."""
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(0xE915, episode)))
        arrivals = self.arrivals[episode % len(self.arrivals)]
        load = float(rng.uniform(arrivals.low_load, arrivals.high_load))
        return arrivals.source.draw(self.requests, load, FIRST_TRAINING_SEED + int(rng.integers(2**31)))
