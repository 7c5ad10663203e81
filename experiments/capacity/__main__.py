"""`python -m experiments.capacity`."""

from experiments.capacity.command import capacity, parse
from hardware_profiles.cli import run_main

if __name__ == "__main__":
    run_main(lambda: capacity(parse()))
