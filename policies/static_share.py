"""`static-share`: a fixed share of the prompts is deflected at random; for ablations, not from a paper."""

from typing import ClassVar

import numpy as np

from envs.cluster import Placement, RequestView, RouterView
from hardware_profiles import InputError
from policies.always_local import AlwaysLocal
from policies.fixed import Static


class StaticShare:
    """Deflect each prompt with a fixed probability to the least loaded decode node; place the others like `static`.

    It shows the effect of deflection without a choice of prompts and times. Chunks are those of `always-local`, also
    under `step_budget="slo"`.

    Args:
        share: probability of a deflection, in [0, 1].
        prefix: `static` takes cached tokens into account.
        seed: seed of the random draws.
    """

    name = "static-share"
    grid: ClassVar[dict[str, tuple[float, ...]]] = {
        "share": (
            *(0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35),
            *(0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0),
        ),
    }

    def __init__(self, share: float = 0.2, prefix: bool = True, seed: int = 0) -> None:
        if not 0.0 <= share <= 1.0:
            raise InputError(f"static-share: share must be from 0 to 1, not {share}")
        self._share = share
        self._random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0x5A2E,)))
        self._static = Static(prefix)
        self._always_local = AlwaysLocal()

    def place(self, request: RequestView, view: RouterView) -> Placement:
        """Place one request."""
        if self._random.random() < self._share:
            return self._always_local.place(request, view)
        return self._static.place(request, view)
