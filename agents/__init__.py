"""Learned placement: the network, PPO, warm starts, and trained policies as files and as policies."""
