"""The figures as ratios to bare SimPy, and the table of them in the documentation that a later run is compared with."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hardware_profiles import InputError
from hardware_profiles.files import replacing

TOLERANCE = 0.2
"""A figure that is worse than its baseline by more than this share has fallen: machines drift by half as much."""

BEGIN, END = "<!-- baseline: make bench-baseline writes this table -->", "<!-- end of the baseline -->"

Ratios = dict[str, float]


@dataclass(frozen=True)
class Figure:
    """A figure of the bench.

    Attributes:
        name: its key in the JSON.
        meaning: what tables call it.
        per_event: it is a rate, and its ratio a share of bare SimPy's events; otherwise it is a time, in such events.
    """

    name: str
    meaning: str
    per_event: bool = True

    def ratio(self, found: Mapping[str, Any]) -> float:
        """The figure of a run as a ratio to that run's bare SimPy."""
        bare = found["simpy_events_per_s"]
        return float(found[self.name] / bare if self.per_event else found[self.name] * bare)

    def worse_by(self, ratio: float, baseline: float) -> float:
        """By which share a ratio is worse than a baseline; below 0: better."""
        return 1.0 - ratio / baseline if self.per_event else ratio / baseline - 1.0


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


def ratios(found: Mapping[str, Any]) -> Ratios:
    """All figures of a run as ratios to its bare SimPy."""
    return {figure.name: figure.ratio(found) for figure in FIGURES}


def table(modes: Mapping[str, Ratios]) -> str:
    """Ratios by mode ("compiled", "plain") as a Markdown table."""
    lines = ["| " + " | ".join(["figure", *modes]) + " |", "|---" + "|---:" * len(modes) + "|"]
    for figure in FIGURES:
        cells = [_shown(figure, of_mode[figure.name]) for of_mode in modes.values()]
        lines.append("| " + " | ".join([figure.meaning, *cells]) + " |")
    return "\n".join(lines)


def read(path: Path) -> dict[str, Ratios]:
    """The baseline in a file: ratios by mode.

    Raises:
        InputError: the file has no such table; names it.
    """
    lines = _parts(path)[1].strip().splitlines()
    meanings = {figure.meaning: figure.name for figure in FIGURES}
    try:
        modes = _cells(lines[0])[1:]
        found: dict[str, Ratios] = {mode: {} for mode in modes}
        for line in lines[2:]:
            meaning, *values = _cells(line)
            for mode, value in zip(modes, values, strict=True):
                found[mode][meanings[meaning]] = float(value.replace(",", ""))
    except (IndexError, KeyError, ValueError) as error:
        raise InputError(f"{path}: the table of ratios cannot be read ({error}); make bench-baseline") from error
    return found


def write(path: Path, modes: Mapping[str, Ratios]) -> None:
    """Put ratios into a file as its baseline.

    Raises:
        InputError: the file has no place for them; names it.
    """
    before, _, after = _parts(path)
    with replacing(path) as temporary:
        temporary.write_text(f"{before}{BEGIN}\n{table(modes)}\n{END}{after}")


def compare(modes: Mapping[str, Ratios], baseline: Mapping[str, Ratios]) -> tuple[str, list[str]]:
    """Compare a run with the baseline.

    Returns:
        A text table, and the figures that have fallen by more than TOLERANCE.
    """
    lines = [f"{'':10} {'figure':55} {'now':>10} {'baseline':>10} {'change':>8}"]
    fallen = []
    for mode, of_mode in modes.items():
        for figure in FIGURES:
            then = baseline.get(mode, {}).get(figure.name)
            if then is None:
                continue
            now = of_mode[figure.name]
            worse = figure.worse_by(now, then)
            cells = f"{_shown(figure, now):>10} {_shown(figure, then):>10} {-100 * worse:+7.0f}%"
            lines.append(f"{mode:10} {figure.meaning:55} {cells}")
            if worse > TOLERANCE:
                fallen.append(f"{figure.meaning} ({mode})")
    return "\n".join(lines), fallen


def _shown(figure: Figure, ratio: float) -> str:
    return f"{ratio:.4f}" if figure.per_event else f"{ratio:,.0f}"


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _parts(path: Path) -> tuple[str, str, str]:
    """The text before the baseline's table, the table, and the text after it."""
    try:
        text = path.read_text()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    before, begun, rest = text.partition(BEGIN)
    inside, ended, after = rest.partition(END)
    if not begun or not ended:
        raise InputError(f"{path}: the table of the baseline stands between {BEGIN!r} and {END!r}; they are missing")
    return before, inside, after
