"""SLOs: classes of requests, each with a share of the requests, a TTFT SLO and a TBT SLO.

A TTFT SLO may grow with the prompt, because no node computes 30,000 tokens as fast as 300: it is
`ttft_s + ttft_per_1k_tokens_s * prompt_tokens / 1000`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from typing import Self

import numpy as np

from envs.streams import stream
from envs.workload import TBT_SLO_S, TTFT_SLO_S, Workload
from hardware_profiles.errors import InputError

MOONCAKE_TTFT_PER_1K_TOKENS_S = 0.25
"""Default for Mooncake's prompts, whose mean is above 8,000 tokens. Not from a paper."""

_CLASS_STREAM = 102  # differs from the keys of the readers and the generators
_SHARES_OFF = 1e-3  # tolerance, because shares are typed by hand: 0.33 0.33 0.34


@dataclass(frozen=True)
class SloClass:
    """The SLOs of one class of requests.

    Attributes:
        ttft_s: TTFT SLO, seconds; > 0.
        tbt_s: TBT SLO, seconds; > 0.
        ttft_per_1k_tokens_s: seconds that each 1,000 prompt tokens add to the TTFT SLO; >= 0. None: the default of the
            family or of the trace format, which is usually 0.
        share: the share of the requests in this class; above 0, at most 1.

    Raises:
        InputError: a value is out of range.
    """

    ttft_s: float = TTFT_SLO_S
    tbt_s: float = TBT_SLO_S
    ttft_per_1k_tokens_s: float | None = None
    share: float = 1.0

    def __post_init__(self) -> None:
        for name, slo_s in (("ttft_slo_s", self.ttft_s), ("tbt_slo_s", self.tbt_s)):
            if not 0.0 < slo_s < inf:
                raise InputError(f"{name} {slo_s:g}: must be finite seconds above 0")
        if not 0.0 <= (self.ttft_per_1k_tokens_s or 0.0) < inf:
            raise InputError(
                f"ttft_per_1k_tokens_s {self.ttft_per_1k_tokens_s:g}: must be finite seconds per 1,000 prompt tokens,"
                " 0 or more"
            )
        if not 0.0 < self.share <= 1.0:
            raise InputError(f"share {self.share:g}: must be above 0, at most 1")

    def __str__(self) -> str:
        added_s = self.ttft_per_1k_tokens_s
        added = f" + {added_s:g} s per 1,000 prompt tokens" if added_s else ""
        return f"TTFT {self.ttft_s:g} s{added}, TBT {self.tbt_s:g} s"


@dataclass(frozen=True)
class Slos:
    """The SLOs of a workload.

    Attributes:
        classes: the classes; their shares add up to 1 (within 0.001).

    Raises:
        InputError: there is no class, or the shares do not add up to 1.
    """

    classes: tuple[SloClass, ...] = (SloClass(),)

    def __post_init__(self) -> None:
        if not self.classes:
            raise InputError("SLOs: must have at least one class of requests")
        total = sum(one.share for one in self.classes)
        if abs(total - 1.0) > _SHARES_OFF:
            raise InputError(f"the shares of the SLO classes add up to {total:g}: must add up to 1")

    @classmethod
    def of(
        cls, ttft_s: float = TTFT_SLO_S, tbt_s: float = TBT_SLO_S, ttft_per_1k_tokens_s: float | None = None
    ) -> Self:
        """The same SLOs for all requests; see `SloClass`."""
        return cls((SloClass(ttft_s, tbt_s, ttft_per_1k_tokens_s),))

    def __str__(self) -> str:
        if len(self.classes) == 1:
            return str(self.classes[0])
        return "; ".join(f"{one.share:.3g} of the requests: {one}" for one in self.classes)

    @property
    def flat_ttft_s(self) -> float | None:
        """The TTFT SLO in seconds if all requests have the same one; otherwise None."""
        if any(one.ttft_per_1k_tokens_s for one in self.classes):
            return None
        found = {one.ttft_s for one in self.classes}
        return found.pop() if len(found) == 1 else None

    def changed(self, change: Callable[[SloClass], SloClass]) -> Self:
        """Return these SLOs with every class changed."""
        return replace(self, classes=tuple([change(one) for one in self.classes]))

    def with_default(self, ttft_per_1k_tokens_s: float) -> Self:
        """Return these SLOs with a value for every class whose `ttft_per_1k_tokens_s` is None."""
        return self.changed(
            lambda one: (
                one if one.ttft_per_1k_tokens_s is not None else replace(one, ttft_per_1k_tokens_s=ttft_per_1k_tokens_s)
            )
        )

    def apply(self, workload: Workload, seed: int) -> Workload:
        """Return the workload with these SLOs.

        The class of request i depends only on (seed, i), so a longer workload begins with the shorter one, and classes
        do not depend on the rate.
        """
        of_each = np.zeros(len(workload), dtype=np.int64)
        if len(self.classes) > 1:
            ends = np.cumsum([one.share for one in self.classes])[:-1]
            of_each = np.searchsorted(ends, stream(seed, _CLASS_STREAM).random(len(workload)), side="right")
        ttft_s, tbt_s, per_1k_s = np.array(
            [(one.ttft_s, one.tbt_s, one.ttft_per_1k_tokens_s or 0.0) for one in self.classes]
        )[of_each].T
        return workload.with_slos(ttft_s + per_1k_s * workload.prompt_tokens / 1000, tbt_s)


DEFAULT_SLOS = Slos()
