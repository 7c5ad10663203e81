"""Options of the requests: generated families, or a recorded trace."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple

from envs.generators import families
from envs.slos import Slos
from envs.traces import formats
from experiments.analysis.bootstrap import Interval
from experiments.options.parser import check_counts, check_positive, flag, option
from experiments.runs.requests import Family, Recipe, TraceRequests, made
from experiments.runs.saturation import TARGET, knee_text
from hardware_profiles import InputError, Profile
from hardware_profiles.errors import unknown_name

TracePart = Literal["tuning", "test"]
PARTS: dict[TracePart, str] = {"tuning": "15 % after the first 60 %", "test": "last 25 %"}
"""Parts of a trace's span, see `data_splits`."""
_FEWEST_REQUESTS = 100
KNEES = (
    "knees.json of experiments.compare: load 1 has its rate per node, instead of that of the knee on this cluster; "
    "shipped: the rates at which the settings that ship were tuned"
)
"""Help of --knees."""


class Plan(NamedTuple):
    """The requests of a command's runs."""

    recipes: list[tuple[str, float, int, Recipe]]  # workload, load, seed and recipe of each run
    slos: dict[str, Slos]  # of each workload
    load_is: str  # for an axis
    loads_are: str  # the same with the knees, for a report


def plan_families(
    rates: Mapping[str, float], slos: Slos, loads: Sequence[float], seeds: Iterable[int], count: int, loads_are: str
) -> Plan:
    """Runs of families at loads that are multiples of a rate, requests per second."""
    families = [Family(name, rate_rps, slos) for name, rate_rps in rates.items()]
    runs = product(families, loads, seeds)
    return Plan(
        [(family.name, load, seed, family.at(load, count, seed)) for family, load, seed in runs],
        {family.name: family.own_slos for family in families},
        loads_are,
        loads_are,
    )


def plan_at_knees(
    found: Mapping[str, Interval], slos: Slos, loads: Sequence[float], seeds: Iterable[int], count: int
) -> Plan:
    """Runs of families at multiples of the knee of `static`."""
    load_is = "load (multiple of the knee of static)"
    loads_are = (
        f"{load_is}, the highest rate at which static meets the SLOs of {TARGET:.0%} of the requests, in requests per "
        f"second: {knee_text(found)}"
    )
    rates = {name: knee.value for name, knee in found.items()}
    return plan_families(rates, slos, loads, seeds, count, loads_are)._replace(load_is=load_is)


def plan_trace(trace: TraceRequests, loads: Sequence[float], seeds: Iterable[int]) -> Plan:
    """Runs of a whole trace at multiples of its rate scale."""
    load_is = trace_load_is(trace)
    runs = product(loads, seeds)
    recipes: list[tuple[str, float, int, Recipe]] = [(trace.name, *run, trace.at(*run)) for run in runs]
    return Plan(recipes, {trace.name: trace.own_slos}, load_is, load_is)


def plan_trace_part(trace: TraceRequests, part: TracePart, knee: float, loads: Sequence[float]) -> Plan:
    """Runs of a part of a trace at multiples of the knee of `static` on its tuning part (a multiple of its scale)."""
    load_is = "load (multiple of the knee of static on the tuning part)"
    of_part = trace.evaluation if part == "test" else trace.tuning
    recipes: list[tuple[str, float, int, Recipe]] = []
    for load in loads:
        recipe = replace(of_part(load * knee, 0, 0), count=None)
        if len(made(recipe)) < _FEWEST_REQUESTS:
            raise InputError(
                f"{trace.name}: its {part} part has {len(made(recipe))} requests; {_FEWEST_REQUESTS} at least"
            )
        recipes.append((trace.name, load, 0, recipe))
    loads_are = (
        f"{load_is}, the highest rate scale at which static meets the SLOs of {TARGET:.0%} of the requests there: "
        f"{trace.rate_scale * knee:.3g}; the {part} part is the {PARTS[part]} of the span of the trace"
    )
    return Plan(recipes, {trace.name: trace.own_slos}, load_is, loads_are)


def trace_load_is(trace: TraceRequests) -> str:
    """The meaning of a trace's load, for an axis."""
    return f"load (multiple of rate scale {trace.rate_scale:g})"


@dataclass(frozen=True)
class RequestOptions:
    """Generated families, or a trace."""

    workload: tuple[str, ...] = option((), metavar="W", help=f"families: {', '.join(families())}")
    trace: Path | None = option(None, metavar="FILE", help="a recorded workload instead")
    trace_format: str | None = option(
        None, metavar="F", choices=formats(), help=f"{', '.join(formats())}; needed with --trace"
    )
    rate_scale: float | None = option(None, metavar="X", help="compress the trace's time by X (default 1)")
    limit: int | None = option(None, metavar="N", help="only the trace's first N requests")
    requests: int | None = option(None, metavar="N", help="requests per run of a family")

    def __post_init__(self) -> None:
        check_families(self.workload)
        check_counts(self, "limit", "requests")
        check_positive(self, "rate_scale")
        given = [name for name in ("trace_format", "rate_scale", "limit") if getattr(self, name) is not None]
        if self.trace is None and given:
            raise InputError(f"{flag(given[0])} goes with --trace only")
        if self.trace is not None and self.workload:
            raise InputError("--workload and --trace go one without the other")
        if self.trace is not None and self.requests is not None:
            raise InputError("--requests goes with --workload only; a trace has --limit")
        if self.trace is not None and self.trace_format is None:
            raise InputError(f"--trace needs --trace-format: {', '.join(formats())}")

    def read_trace(self, slos: Slos, profile: Profile) -> TraceRequests | None:
        """The trace, read so that InputError is raised before anything is written; None without --trace.

        Prompts beyond the model's context are noticed on stderr.
        """
        if self.trace is None:
            return None
        trace = TraceRequests.of(self.trace, str(self.trace_format), self.rate_scale or 1.0, self.limit, slos)
        longest = profile.max_context_tokens
        if longest is not None and (beyond := made(trace).beyond_context(longest)):
            print(
                f"note: {beyond:,} of {len(made(trace)):,} requests are longer than the context of {profile.model}, "
                f"{longest:,} tokens; the model itself would refuse them",
                file=sys.stderr,
            )
        return trace


def check_families(named: Sequence[str]) -> None:
    """Raise InputError if one of these is no workload family."""
    if unknown := [family for family in named if family not in families()]:
        raise unknown_name("workload", unknown[0], families())
