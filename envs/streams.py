"""One seed, many independent random streams, each named by a key."""

import numpy as np

from hardware_profiles.errors import InputError


def stream(seed: int, *key: int) -> np.random.Generator:
    """Return the stream of `key` under `seed`, at its beginning.

    It is the one that SeedSequence(seed).spawn would give as child number `key`, but asking twice gives it twice:
    no hidden counter decides what is drawn. A key never changes its meaning, so that results do not change.
    """
    if seed < 0:
        raise InputError(f"seed {seed}: must be 0 or more")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
