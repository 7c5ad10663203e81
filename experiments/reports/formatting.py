"""How numbers and names are printed: milliseconds, percent, intervals in brackets."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import inf, isnan
from typing import Any

from envs.slos import Slos
from experiments.analysis.bootstrap import Interval
from experiments.analysis.metrics import METRIC, Metric
from experiments.reports.columns import Column, code, plain
from policies import PolicySpec

Show = Callable[[float], str]


def known(value: float, show: Show) -> str:
    """A value that may be nan: "none"."""
    return "none" if isnan(value) else show(value)


def with_interval(interval: Interval, show: Show, least: float = -inf, most: float = inf) -> str:
    """A value with its interval, cut to what is possible: Student's interval of a few shares may leave 0 to 1."""
    if isnan(interval.low) or isnan(interval.value):
        return known(interval.value, show)
    return f"{show(interval.value)} [{show(max(interval.low, least))}, {show(min(interval.high, most))}]"


def ms(seconds: float) -> str:
    """Seconds as milliseconds."""
    return f"{seconds * 1e3:,.1f}" if abs(seconds) < 1 else f"{seconds * 1e3:,.0f}"


def percent(share: float) -> str:
    """A share as percent; a tenth of it if that says more than zero."""
    return f"{100 * share:.1f}" if abs(share) >= 0.0005 or share == 0 else f"{100 * share:.3f}"


def signed(show: Show) -> Show:
    """`show`, with a plus before numbers above zero."""
    return lambda value: ("+" if value > 0 else "") + show(value)


def times(ratio: float) -> str:
    """A ratio, with two or three digits."""
    return f"{ratio:#.2g}" if ratio < 0.0995 else f"{ratio:.2f}" if ratio < 9.995 else f"{ratio:.1f}"


latency = partial(with_interval, show=ms)
"""A time in milliseconds with its interval."""
share = partial(with_interval, show=percent, least=0.0, most=1.0)
"""A share in percent with its interval."""
points = partial(with_interval, show=signed(percent), least=-1, most=1)
"""A difference of shares in points with its interval."""


def change(ratio: Interval) -> str:
    """A ratio as a signed change in percent with its interval; that of two seeds has no useful upper end."""
    return with_interval(Interval(*(100 * (value - 1) for value in ratio)), _change, least=-100.0)


def _change(percent: float) -> str:
    return f"{percent:+.1f}" if percent < 1e5 else "over +99999"


UNITS: dict[str, tuple[str, Show]] = {
    "s": (" (ms)", ms),
    "share": (" (%)", percent),
    "count": ("", "{:,.0f}".format),
    "tokens": (" (tokens)", "{:,.0f}".format),
    "rps": (" (req/s)", "{:.2f}".format),
    "bytes": (" (GB)", lambda value: f"{value / 1e9:,.1f}"),
    "us": (" (us)", "{:.1f}".format),
}
"""By the unit of a metric: what follows its title, and how a value is printed."""


def heading(metric: Metric) -> str:
    """A metric as the header of a column."""
    return metric.title + UNITS[metric.unit][0]


def value(metric: Metric, number: float) -> str:
    """A value of a metric, without an interval."""
    return known(number, UNITS[metric.unit][1])


def estimate(metric: str, interval: Interval) -> str:
    """A metric with its interval."""
    unit = METRIC[metric].unit
    return with_interval(interval, UNITS[unit][1], 0.0, 1.0 if unit == "share" else inf)


def compared(metric: str, interval: Interval) -> str:
    """A change of a metric: a latency in percent, a share in points."""
    return f"{change(interval)} %" if METRIC[metric].is_latency else f"{points(interval)} points"


def label(policy: PolicySpec) -> str:
    """A policy in a figure; the label of a clairvoyant policy says so."""
    return policy.label + (" (learned)" if policy.learned else "")


def name(policy: PolicySpec) -> str:
    """A policy in Markdown."""
    return code(policy.label) + (" (learned)" if policy.learned else "")


def keys(run: Callable[[Any], Any]) -> list[Column[Any]]:
    """The columns that say what was run: a trial or an outcome, which `run` takes from a row."""
    return [
        Column("workload", lambda row: plain(run(row).workload), left=True),
        Column("load", lambda row: f"{run(row).load:g}", left=True),
        Column("policy", lambda row: name(run(row).policy), left=True),
    ]


def counted(number: int, one: str, several: str = "") -> str:
    """Format a count with its noun: 1 seed, 3 seeds. Pass `several` for an irregular plural."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def listing(names: Sequence[str], most: int = 4) -> str:
    """Names in a sentence; of many the first, and how many more."""
    if len(names) > most:
        return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def slos_line(of_each: Mapping[str, Slos], *, native: bool = False) -> str:
    """A line of a report with the SLOs of each workload; `native`: its requests come from a native trace."""
    same = {
        str(slos): [name for name, other in of_each.items() if str(other) == str(slos)] for slos in of_each.values()
    }
    texts = list(same) if len(same) == 1 else [f"{', '.join(names)}: {slos}" for slos, names in same.items()]
    return f"SLOs (not from a paper): {'; '.join(texts)}" + (
        "; a native trace's own columns come first" if native else ""
    )
