"""The commands: train, compare, replay and bench, and what they measure and draw with."""

import agents  # noqa: F401 - makes trained policies known to policies.make, in spawned processes too
