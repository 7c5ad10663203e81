"""Random observations for the network's laws."""

import numpy as np
import torch
from hypothesis import strategies as st

from agents.layout import FeatureSizes, Layout
from agents.placement_network import PlacementNetwork
from tests.agents.standin_env import CHOICE, GLOBAL, REQUEST

SIZES = FeatureSizes(REQUEST, GLOBAL, CHOICE)
LAYOUT = Layout(1, "pairs", ("r0", "r1", "r2"), ("g0", "g1"), ("c0", "c1", "c2", "c3", "c4"))


def make_observation(seed: int, choices: int, batch: int = 1) -> dict[str, np.ndarray]:
    """A batch of observations, each with at least one allowed choice."""
    rng = np.random.default_rng(seed)
    mask = rng.random((batch, choices)) < 0.6
    mask[np.arange(batch), rng.integers(choices, size=batch)] = True
    return {
        "request": rng.random((batch, REQUEST), dtype=np.float32),
        "global": rng.random((batch, GLOBAL), dtype=np.float32),
        "choices": rng.random((batch, choices, CHOICE), dtype=np.float32),
        "action_mask": mask.astype(np.int8),
    }


def make_network(seed: int, hidden: int = 16, skip_start: dict[int, float] | None = None) -> PlacementNetwork:
    """A network with random weights, of which no part is close to 0 as before training."""
    network = PlacementNetwork(SIZES, hidden, skip_start)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return network


def as_tensors(observation: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.as_tensor(array) for name, array in observation.items()}


seeds = st.integers(0, 2**32 - 1)
choice_counts = st.integers(1, 9)
