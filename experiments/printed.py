"""How numbers and names are printed: milliseconds, percent, intervals in brackets."""

from collections.abc import Callable, Mapping
from math import inf, isnan

import policies
from envs.slos import Slos
from experiments.markdown import code
from experiments.statistics import Interval


def with_interval(interval: Interval, show: Callable[[float], str], least: float = -inf, most: float = inf) -> str:
    """A value with its interval, cut to what is possible: Student's interval of a few shares may leave 0 to 1."""
    if isnan(interval.value):
        return "none"
    if isnan(interval.low):
        return show(interval.value)
    return f"{show(interval.value)} [{show(max(interval.low, least))}, {show(min(interval.high, most))}]"


def ms(seconds: float) -> str:
    """Seconds as milliseconds."""
    return f"{seconds * 1e3:,.1f}" if abs(seconds) < 1 else f"{seconds * 1e3:,.0f}"


def percent(share: float) -> str:
    """A share as percent."""
    return f"{100 * share:.1f}"


def signed(show: Callable[[float], str]) -> Callable[[float], str]:
    """`show`, with a plus before what is above zero."""
    return lambda value: ("+" if value > 0 else "") + show(value)


def time_of(interval: Interval) -> str:
    """A time in milliseconds with its interval."""
    return with_interval(interval, ms, least=0.0)


def share_of(interval: Interval) -> str:
    """A share in percent with its interval."""
    return with_interval(interval, percent, 0.0, 1.0)


def change_of(ratio: Interval) -> str:
    """A ratio as a signed change in percent with its interval."""
    return with_interval(Interval(*(100 * (value - 1) for value in ratio)), "{:+.1f}".format, least=-100.0)


def _mark(policy: str) -> str:
    """That a policy is learned; that it knows the future its label says."""
    return " (learned)" if policies.trained_path(policy) else ""


def label(policy: str) -> str:
    """A policy in a figure."""
    return policies.label(policy) + _mark(policy)


def name(policy: str) -> str:
    """A policy in Markdown."""
    return code(policies.label(policy)) + _mark(policy)


def counted(number: int, one: str, several: str = "") -> str:
    """A number of things; `several` where an s does not make it more."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def listing(names: list[str], most: int = 4) -> str:
    """Names in a sentence; of many the first, and how many more."""
    if len(names) > most:
        return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def slos_line(of_each: Mapping[str, Slos], *, native: bool = False) -> str:
    """A line of a report that says which SLOs the requests of each workload had.

    Args:
        of_each: by workload.
        native: they come from a native trace.
    """
    texts: dict[str, list[str]] = {}
    for workload, slos in of_each.items():
        texts.setdefault(str(slos), []).append(workload)
    one = next(iter(texts)) if len(texts) == 1 else None
    text = one or "; ".join(f"{', '.join(workloads)}: {text}" for text, workloads in texts.items())
    return f"SLOs (not from a paper): {text}" + ("; a native trace's own columns come first" if native else "")
