"""The world: workloads, the cluster, and the Gymnasium environment `envs:PrefillPlacement-v0`."""

import gymnasium

from envs import compiled

compiled.check()
gymnasium.register(id="PrefillPlacement-v0", entry_point="envs.placement_env:PrefillPlacementEnv")
