"""Independent random streams of one seed, each named by a key."""

import numpy as np

from hardware_profiles.errors import InputError


def stream(seed: int, *key: int) -> np.random.Generator:
    """Return the random stream of `key` under `seed`, at its beginning.

    It equals child number `key` of SeedSequence(seed).spawn, but does not depend on how often it was requested before.
    A key never changes its meaning, so that results do not change.
    """
    if seed < 0:
        raise InputError(f"seed {seed}: must be 0 or more")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
