"""The setting of `kairos` that a trained policy is compared with: one that ships, or one tuned for the run."""

import sys
from collections.abc import Mapping, Sequence
from itertools import product

from envs.cluster import ClusterConfig
from envs.slos import Slos
from experiments.learning.mixture import Setting
from experiments.runs.cache import Cache
from experiments.runs.data_splits import TUNING_SEEDS
from experiments.runs.requests import TraceRequests
from experiments.runs.tuning import SETTINGS, SHIPPED, Cost, TunedSettings, best, tune_rules
from hardware_profiles import InputError
from policies import PolicySpec

_REQUESTS = 1000


def shipped_settings(slos: Sequence[Slos], config: ClusterConfig) -> dict[float, PolicySpec]:
    """The setting that ships for each TBT SLO, whatever the shape of the cluster. Raises InputError (there is none)."""
    try:
        found = {
            one.classes[0].tbt_s: TunedSettings.read_for(SHIPPED, config, one, any_shape=True).chosen["kairos"]
            for one in slos
        }
    except InputError as error:
        raise InputError(f"{error}; or give --rules tune or --rules default") from None
    return {tbt_slo_s: PolicySpec.parse(f"kairos-tuned={text}") for tbt_slo_s, text in found.items()}


def tuned_setting(
    settings: Sequence[Setting], loads: Sequence[float], cache: Cache
) -> tuple[PolicySpec, Mapping[PolicySpec, Cost]]:
    """The setting that is best over a mixture, and the mean cost of each one that was tried."""
    of_trace = isinstance(settings[0].source, TraceRequests)
    seeds = TUNING_SEEDS[: 1 if of_trace else -(-len(TUNING_SEEDS) // len(settings))]
    places = [
        (setting.source.tuning(load, _REQUESTS, seed), setting.config, seed)
        for setting, load, seed in product(settings, loads, seeds)
    ]
    print(f"tuning kairos: {SETTINGS} settings on {len(places)} runs each", file=sys.stderr)
    (tried,) = tune_rules([PolicySpec.parse("kairos")], places, SETTINGS, cache).values()
    spec = best(tried)
    print(f"tuned: {spec.text}", file=sys.stderr)
    return spec, tried
