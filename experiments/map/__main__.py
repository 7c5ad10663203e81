"""`python -m experiments.map`."""

from experiments.map.command import draw_map, parse
from hardware_profiles.cli import run_main

if __name__ == "__main__":
    run_main(lambda: draw_map(parse()))
