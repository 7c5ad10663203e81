"""`python -m experiments.reproduce`."""

from experiments.reproduce.command import parse, reproduce
from hardware_profiles.cli import run_main

if __name__ == "__main__":
    run_main(lambda: reproduce(parse()))
