"""Learning a policy: the mixture that it is trained on, what it starts from, and the training run."""
