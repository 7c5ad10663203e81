"""How fast it is: `python -m experiments.bench`."""
