"""The commands: train, compare, replay and bench, and what they measure and draw with."""
