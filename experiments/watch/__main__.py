"""`python -m experiments.watch`."""

from experiments.watch.command import parse, watch
from hardware_profiles.cli import run_main

if __name__ == "__main__":
    run_main(lambda: watch(parse()))
