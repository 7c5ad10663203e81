"""The workload: the arrival times, lengths and SLOs of requests.

A workload is generated or read before the simulation, and does not depend on any placement, so that every policy gets
the same requests (common random numbers).
"""

from dataclasses import dataclass, replace
from itertools import repeat
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.streams import stream
from hardware_profiles.errors import InputError

Row = tuple[float, int, int, float, float, tuple[int, ...]]
"""One request: arrival_s, prompt_tokens, output_tokens, ttft_slo_s, tbt_slo_s, block_hashes (empty if unknown)."""

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
_Selection = slice | IntArray  # `Workload.slice` hides the type's own name inside the class

# Default SLOs. Not from a paper.
TTFT_SLO_S = 2.0
TBT_SLO_S = 0.1

# Tokens of a hashed block, as in the Mooncake traces (FAST'25).
HASH_BLOCK_TOKENS = 512

# Key of the random stream that thins a workload; it differs from the keys of the readers and the generators.
_THINNING_STREAM = 100


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Workload:
    """Requests in order of arrival; request i is row i of every array. The arrays are read-only copies.

    Attributes:
        arrival_s: (n,) seconds since the start of the workload; finite, >= 0, sorted.
        prompt_tokens: (n,) tokens to prefill, >= 1.
        output_tokens: (n,) tokens to generate, >= 1; routers do not see them.
        ttft_slo_s: (n,) SLO for the time to first token, seconds, > 0.
        tbt_slo_s: (n,) SLO for the time between tokens, seconds, > 0.
        label: the workload's origin in words: source, arrival process, and later changes.
        block_hashes: one tuple per request, or () if unknown. Hash i of a request identifies blocks 0 to i of its
            prompt (512 tokens each, the last one may be shorter): two prompts with the same hash i share these blocks.
            A request has at most as many hashes as its prompt has blocks; blocks without a hash are unique.

    Raises:
        InputError: an array violates its description above, lengths differ, or there is no request.
    """

    arrival_s: FloatArray
    prompt_tokens: IntArray
    output_tokens: IntArray
    ttft_slo_s: FloatArray
    tbt_slo_s: FloatArray
    label: str
    block_hashes: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        for name in ("arrival_s", "ttft_slo_s", "tbt_slo_s"):
            self._keep(name, np.array(getattr(self, name), dtype=np.float64))
        for name in ("prompt_tokens", "output_tokens"):
            self._keep(name, _whole(name, getattr(self, name)))
        if self.arrival_s.ndim != 1 or not len(self):
            raise InputError("arrival_s: a workload is a list of at least one arrival")
        for name in ("prompt_tokens", "output_tokens", "ttft_slo_s", "tbt_slo_s"):
            if getattr(self, name).shape != self.arrival_s.shape:
                raise InputError(f"{name}: must hold one value for each of the {len(self)} arrivals")
        _demand(
            "arrival_s",
            np.isfinite(self.arrival_s) & (self.arrival_s >= 0),
            "must be finite seconds, 0 or more",
        )
        _demand(
            "arrival_s",
            np.diff(self.arrival_s, prepend=0.0) >= 0,
            "comes before the one it follows; sort by arrival",
        )
        for name in ("prompt_tokens", "output_tokens"):
            _demand(name, getattr(self, name) >= 1, "must be at least 1 token")
        for name in ("ttft_slo_s", "tbt_slo_s"):
            slo_s = getattr(self, name)
            _demand(name, np.isfinite(slo_s) & (slo_s > 0), "must be finite seconds above 0")
        if self.block_hashes:
            if len(self.block_hashes) != len(self):
                raise InputError(f"block_hashes: must hold one tuple for each of the {len(self)} arrivals")
            _demand(
                "block_hashes",
                np.array([len(hashes) for hashes in self.block_hashes]) <= -(-self.prompt_tokens // HASH_BLOCK_TOKENS),
                f"has more blocks than its prompt, of {HASH_BLOCK_TOKENS} tokens each",
            )

    @classmethod
    def of(
        cls,
        arrival_s: ArrayLike,
        prompt_tokens: ArrayLike,
        output_tokens: ArrayLike,
        *,
        label: str,
        ttft_slo_s: ArrayLike = TTFT_SLO_S,
        tbt_slo_s: ArrayLike = TBT_SLO_S,
        block_hashes: tuple[tuple[int, ...], ...] = (),
    ) -> Self:
        """Make a workload from array-likes; an SLO may be one number for all requests."""
        arrivals = np.asarray(arrival_s, dtype=np.float64)
        return cls(
            arrivals,
            np.asarray(prompt_tokens),
            np.asarray(output_tokens),
            _for_each("ttft_slo_s", ttft_slo_s, arrivals),
            _for_each("tbt_slo_s", tbt_slo_s, arrivals),
            label,
            block_hashes,
        )

    def __len__(self) -> int:
        return int(self.arrival_s.size)

    def __repr__(self) -> str:
        return f"<Workload: {len(self)} requests at {self.rate_rps:.3g} req/s; {self.label}>"

    @property
    def rate_rps(self) -> float:
        """Requests per second from first to last arrival; 0 for one request, inf if all arrive at once."""
        if len(self) == 1:
            return 0.0
        span_s = float(self.arrival_s[-1] - self.arrival_s[0])
        return (len(self) - 1) / span_s if span_s > 0 else float("inf")

    def head(self, count: int) -> Self:
        """Return the first `count` requests, or all if there are fewer."""
        if count < 1:
            raise InputError(f"limit {count}: must be at least 1 request")
        return self if count >= len(self) else self._rows(slice(count), f"first {count} requests")

    def slice(self, first: int, last: int) -> Self:
        """Return requests `first` to `last` (not included), with time 0 at the arrival of the first of them."""
        if not 0 <= first < last <= len(self):
            raise InputError(f"requests {first} to {last}: needs 0 <= first < last <= {len(self)}")
        part = self._rows(slice(first, last), f"requests {first} to {last}")
        return replace(part, arrival_s=part.arrival_s - part.arrival_s[0])

    def rows(self, first: int = 0, last: int | None = None, since_s: float = 0.0) -> list[Row]:
        """Requests `first` to `last` (not included) as plain values, for a simulation's inner loop.

        Args:
            first: the first request.
            last: the request after the last one; None: all that follow.
            since_s: seconds to subtract from the arrival times.
        """
        part = slice(first, last)
        count = len(self.arrival_s[part])
        return list(
            zip(
                (self.arrival_s[part] - since_s).tolist(),
                self.prompt_tokens[part].tolist(),
                self.output_tokens[part].tolist(),
                self.ttft_slo_s[part].tolist(),
                self.tbt_slo_s[part].tolist(),
                self.block_hashes[part] if self.block_hashes else repeat((), count),
                strict=True,
            )
        )

    def window(self, start_s: float, end_s: float | None = None) -> Self:
        """Return the requests that arrive in [start_s, end_s), with time 0 at start_s."""
        end = float("inf") if end_s is None else end_s
        if not (0 <= start_s < end and start_s < float("inf")):
            raise InputError(f"time slice from {start_s:g} to {end:g} s: needs 0 <= start < end")
        first, last = np.searchsorted(self.arrival_s, [start_s, end])
        if first == last:
            raise InputError(
                f"time slice from {start_s:g} to {end:g} s: no request arrives in it; "
                f"they arrive from {self.arrival_s[0]:g} to {self.arrival_s[-1]:g} s"
            )
        until = "the end" if end_s is None else f"{end_s:g} s"
        part = self._rows(slice(first, last), f"slice from {start_s:g} s to {until}")
        return replace(part, arrival_s=part.arrival_s - start_s)

    def rate_scale(self, factor: float) -> Self:
        """Return the workload with `factor` times the rate by compressing time, which also shortens bursts."""
        if not (0 < factor < float("inf")):
            raise InputError(f"rate scale {factor:g}: must be a finite number above 0")
        if factor == 1:
            return self
        did = (
            f"arrivals compressed in time x{factor:g}" if factor > 1 else f"arrivals stretched in time x{1 / factor:g}"
        )
        return replace(self, arrival_s=self.arrival_s / factor, label=f"{self.label}, {did}")

    def subsample(self, fraction: float, seed: int = 0) -> Self:
        """Return the workload with each request kept with probability `fraction` (thinning).

        Thinning makes arrivals more like a Poisson process. For one seed the sets are nested: a larger fraction keeps
        every request that a smaller one keeps.
        """
        if not (0 < fraction <= 1):
            raise InputError(f"subsample {fraction:g}: must be above 0 and at most 1")
        if fraction == 1:
            return self
        keep = np.flatnonzero(stream(seed, _THINNING_STREAM).random(len(self)) < fraction)
        if not keep.size:
            raise InputError(f"subsample {fraction:g}: keeps none of {len(self)} requests; use a larger fraction")
        return self._rows(keep, f"thinned to {fraction:.3g} of the requests at random (seed {seed})")

    def with_slos(self, ttft_s: ArrayLike, tbt_s: ArrayLike) -> Self:
        """Return the workload with other SLOs, in seconds: one number, or one per request."""
        return replace(
            self,
            ttft_slo_s=_for_each("ttft_slo_s", ttft_s, self.arrival_s),
            tbt_slo_s=_for_each("tbt_slo_s", tbt_s, self.arrival_s),
        )

    def beyond_context(self, max_context_tokens: int) -> int:
        """Count the requests whose prompt and output are together longer than a model's context.

        Args:
            max_context_tokens: the model's limit (`hardware_profiles.Profile.max_context_tokens`).
        """
        return int(np.count_nonzero(self.prompt_tokens + self.output_tokens > max_context_tokens))

    def _keep(self, name: str, values: FloatArray | IntArray) -> None:
        values.flags.writeable = False
        object.__setattr__(self, name, values)

    def _rows(self, rows: _Selection, did: str) -> Self:
        hashes = self.block_hashes
        if hashes:
            hashes = hashes[rows] if isinstance(rows, slice) else tuple([hashes[row] for row in rows.tolist()])
        return replace(
            self,
            arrival_s=self.arrival_s[rows],
            prompt_tokens=self.prompt_tokens[rows],
            output_tokens=self.output_tokens[rows],
            ttft_slo_s=self.ttft_slo_s[rows],
            tbt_slo_s=self.tbt_slo_s[rows],
            label=f"{self.label}, {did}",
            block_hashes=hashes,
        )


def _for_each(name: str, value: ArrayLike, arrivals: FloatArray) -> FloatArray:
    values = np.asarray(value, dtype=np.float64)
    if values.ndim and values.shape != arrivals.shape:
        raise InputError(f"{name}: must be one number, or one for each of the {arrivals.size} arrivals")
    return np.broadcast_to(values, arrivals.shape)


def _whole(name: str, values: ArrayLike) -> IntArray:
    given = np.asarray(values)
    if given.dtype.kind not in "iuf":
        raise InputError(f"{name}: must be numbers of tokens, not {given.dtype}")
    # Checked before the cast, because a float beyond int64 would overflow with a warning.
    _demand(name, (np.floor(given) == given) & (np.abs(given) < 2**53), "must be a whole number of tokens")
    return np.array(given, dtype=np.int64)


def _demand(name: str, good: NDArray[np.bool_], what: str) -> None:
    if not good.all():
        raise InputError(f"{name}: request {int(np.argmin(good))} {what}")
