"""The figures as ratios to bare SimPy, and the table of them in the documentation that a later run is compared with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from experiments.reports.columns import Column, around_marks, each, table
from hardware_profiles import InputError
from hardware_profiles.files import replacing

TOLERANCE = 0.2
"""A figure that is worse than its baseline by more than this share has fallen: machines drift by half as much."""

BEGIN, END = "<!-- baseline: make bench-baseline writes this table -->", "<!-- end of the baseline -->"

Ratios = dict[str, float]  # by name of the figure


class Figure(NamedTuple):
    """A figure of the bench: its key in the JSON, and its name in tables."""

    name: str
    meaning: str
    per_event: bool = True  # a rate, and its ratio a share of bare SimPy's events; else a time, in such events

    def ratio(self, found: Mapping[str, Any]) -> float:
        """The figure of a run as a ratio to that run's bare SimPy."""
        bare = found["simpy_events_per_s"]
        return float(found[self.name] / bare if self.per_event else found[self.name] * bare)

    def worse_by(self, ratio: float, baseline: float) -> float:
        """By which share a ratio is worse than a baseline; below 0: better."""
        return 1.0 - ratio / baseline if self.per_event else ratio / baseline - 1.0

    def shown(self, ratio: float) -> str:
        """A ratio in a table."""
        return f"{ratio:.4f}" if self.per_event else f"{ratio:,.0f}"


FIGURES = (
    Figure("simulated_requests_per_s", "simulated requests, `static`"),
    Figure("simulated_requests_per_s_kairos", "simulated requests, `kairos`, fresh reports"),
    Figure("env_steps_per_s", "environment steps"),
    Figure("env_steps_per_s_8p8d", "environment steps on 8P8D"),
    Figure("vector_env_steps_per_s", "environment steps, 32 in one process"),
    Figure("ppo_steps_per_s", "PPO decisions"),
    Figure("ppo_ceiling_steps_per_s", "PPO decisions, steps for free"),
    Figure("copy_s", "copy of a cluster with 200 requests in flight, events", per_event=False),
)


def ratio_table(modes: Mapping[str, Ratios]) -> str:
    """Ratios by mode ("compiled", "plain") as a Markdown table."""
    names = Column[Figure]("figure", lambda figure: figure.meaning, left=True)
    return table([names, *each(modes, lambda ratios, figure: figure.shown(ratios[figure.name]))], FIGURES)


def read(path: Path) -> dict[str, Ratios]:
    """The baseline in a file: ratios by mode; InputError if it has no such table."""
    lines = around_marks(path, BEGIN, END)[1].strip().splitlines()
    names = {figure.meaning: figure.name for figure in FIGURES}
    try:
        (_, *modes), _, *rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
        meanings, *columns = zip(*rows, strict=True)
        numbers = [[float(text.replace(",", "")) for text in column] for column in columns]
        named = [names[meaning] for meaning in meanings]
        return {mode: dict(zip(named, of_mode, strict=True)) for mode, of_mode in zip(modes, numbers, strict=True)}
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: the table of ratios cannot be read ({error}); make bench-baseline") from error


def write(path: Path, modes: Mapping[str, Ratios]) -> None:
    """Put ratios into a file as its baseline; InputError if it has no place for them."""
    before, _, after = around_marks(path, BEGIN, END)
    with replacing(path) as temporary:
        temporary.write_text(f"{before}\n{ratio_table(modes)}\n{after}", encoding="utf-8")


def compare(modes: Mapping[str, Ratios], baseline: Mapping[str, Ratios]) -> tuple[str, list[str]]:
    """A text table of a run and the baseline, and the figures that have fallen by more than TOLERANCE."""
    lines = [f"{'':10} {'figure':55} {'now':>10} {'baseline':>10} {'change':>8}"]
    fallen = []
    for mode, ratios in modes.items():
        for figure in [figure for figure in FIGURES if figure.name in baseline.get(mode, {})]:
            now, then = ratios[figure.name], baseline[mode][figure.name]
            worse = figure.worse_by(now, then)
            cells = f"{figure.shown(now):>10} {figure.shown(then):>10} {-100 * worse:+7.0f}%"
            lines.append(f"{mode:10} {figure.meaning:55} {cells}")
            if worse > TOLERANCE:
                fallen.append(f"{figure.meaning} ({mode})")
    return "\n".join(lines), fallen
