"""NVIDIA Dynamo with mock engines on this machine, for `experiments.serving`."""
