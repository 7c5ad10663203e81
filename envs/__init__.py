"""Workloads, the simulated cluster, and the Gymnasium environment `envs:PrefillPlacement-v1`."""

import gymnasium

from hardware_profiles.compiled import activate

activate(__name__, __path__)
gymnasium.register(
    id="PrefillPlacement-v1",
    entry_point="envs.placement_env:PrefillPlacementEnv",
    vector_entry_point="envs.vector_env:PlacementVectorEnv",
)
