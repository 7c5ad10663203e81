"""Finished folders of `experiments.compare`: reading several of them, and the virtual best of their rules."""
