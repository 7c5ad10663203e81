"""Learned placement: the network, PPO, warm starts, and trained policies as files and as policies.

Importing it makes policy files (.npz) known to `policies.make`; it does not import torch.
"""

import policies
from agents.placement_policy import LearnedPolicy

policies.register_loader(".npz", LearnedPolicy)
