"""Alarms that are to warn of broken TTFT: when they fire, when TTFT breaks, and how far apart the two are.

What counts, all of it OURS:

- TTFT is *broken* from the first sample at which the P95 of TTFT / SLO, over the requests whose first token came in the
  last WINDOW_S, is above 1, until WINDOW_S after the last such sample: what comes back within that time is one break.
- An alarm *fires* when its signal is above its threshold, and is then silent for HORIZON_S. A firing is false unless
  TTFT breaks within HORIZON_S; so an alarm that is always on is false once every HORIZON_S. One that is on when a break
  ends has been raised and is silent for HORIZON_S too.
- The *lead* of an alarm on a break is the time from its firing in the HORIZON_S before the break until the break.
  Without one it is late: the lead is negative where the signal rises above the threshold during the break, and minus
  infinity, *missed*, where it does not.
- False alarms are counted per hour in which a firing would be false: not in a break, nor in the HORIZON_S before one or
  before the end of the watch, of which nobody knows what came after.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from math import inf, isnan, nan
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.statistics import LEVEL, RESAMPLES, Interval

Floats = NDArray[np.float64]

WINDOW_S = 30.0
HORIZON_S = 30.0
LEAST = 20
"""Values that a running P95 takes; of fewer it would be hardly less than the largest."""
_CANDIDATES = 300
_FEWEST_RUNS = 5  # with a break, for an interval
_STREAM = 20261101


def running_p95(event_s: Floats, values: Floats, time_s: Floats) -> Floats:
    """P95 of the values of the events in the WINDOW_S up to each time; nan where there are fewer than LEAST.

    Args:
        event_s: when each event happened, shape (events,), seconds; nan: it never did.
        values: of each event.
        time_s: when to look, shape (n,).
    """
    order = np.argsort(event_s)[: np.count_nonzero(~np.isnan(event_s))]  # nan sorts last
    event_s, values = event_s[order], values[order]
    first = np.searchsorted(event_s, time_s - WINDOW_S, side="right").tolist()
    last = np.searchsorted(event_s, time_s, side="right").tolist()
    return np.array([_p95(values[i:j]) if j - i >= LEAST else nan for i, j in zip(first, last, strict=True)])


def _p95(values: Floats) -> float:
    """`np.quantile(values, 0.95)` of two values or more, several times as fast."""
    ranked = np.sort(values)
    low, rest = divmod(0.95 * (len(ranked) - 1), 1.0)
    below, above = ranked[int(low)], ranked[int(low) + 1]
    return float(below + rest * (above - below))


class Break(NamedTuple):
    """A time in which TTFT is broken, seconds; see the module's text."""

    start_s: float
    end_s: float


def breaks(time_s: Floats, ttft_p95: Floats) -> list[Break]:
    """The breaks of a run.

    Args:
        time_s: samples, shape (n,).
        ttft_p95: running P95 of TTFT / SLO at each.
    """
    found: list[Break] = []
    for at_s in time_s[ttft_p95 > 1.0].tolist():
        if found and at_s <= found[-1].end_s:
            found[-1] = Break(found[-1].start_s, at_s + WINDOW_S)
        else:
            found.append(Break(at_s, at_s + WINDOW_S))
    return found


class Watched(NamedTuple):
    """One run as an alarm sees it.

    Attributes:
        time_s: samples, shape (n,), seconds; the watch lasts from the first to the last.
        signal: of the alarm, at each; nan where it has none.
        breaks: of TTFT, in order.
    """

    time_s: Floats
    signal: Floats
    breaks: Sequence[Break]


class Verdict(NamedTuple):
    """What an alarm was worth in one run.

    Attributes:
        leads_s: on each break; see the module's text.
        false_s: when it fired falsely.
        quiet_s: time in which a firing would have been false.
    """

    leads_s: list[float]
    false_s: list[float]
    quiet_s: float


def judge(run: Watched, threshold: float) -> Verdict:
    """Judge an alarm with a threshold on one run."""
    time_s = run.time_s
    on = run.signal > threshold
    on_s = time_s[on]
    leads_s: list[float] = []
    false_s: list[float] = []
    quiet_s = 0.0
    began_s = armed_s = float(time_s[0])
    for start_s, end_s in chain(run.breaks, [Break(float(time_s[-1]), inf)]):
        valid_s = start_s - HORIZON_S
        quiet_s += max(0.0, valid_s - began_s)
        while (fired_s := _first(on_s, armed_s)) < valid_s:
            false_s.append(fired_s)
            armed_s = fired_s + HORIZON_S
        if end_s == inf:
            break
        leads_s.append(start_s - fired_s if fired_s <= end_s else -inf)
        still_on = on[np.searchsorted(time_s, end_s, side="right") - 1]
        began_s = end_s
        armed_s = end_s + HORIZON_S if still_on else end_s
    return Verdict(leads_s, false_s, quiet_s)


def _first(times_s: Floats, from_s: float) -> float:
    """The first of some sorted times from `from_s` on; inf where there is none."""
    i = int(np.searchsorted(times_s, from_s))
    return float(times_s[i]) if i < len(times_s) else inf


def calibrate(runs: Sequence[Watched], false_per_h: float) -> float:
    """The lowest threshold from which on upwards no threshold gives more false alarms an hour than `false_per_h`.

    Thresholds tried are quantiles of the signal, ever closer together towards its largest value, which gives none.

    Args:
        runs: not those that the alarm is judged on.
        false_per_h: above 0.

    Returns:
        The threshold; nan, which no signal is above, where there is no signal or no time for a false alarm.
    """
    seen = np.concatenate([run.signal[~np.isnan(run.signal)] for run in runs])
    if not len(seen) or isnan(false_rate([judge(run, inf) for run in runs])):
        return nan
    chosen = float(seen.max())
    for threshold in np.unique(np.quantile(seen, 1.0 - np.geomspace(1.0 / len(seen), 1.0, _CANDIDATES)))[::-1].tolist():
        verdicts = [judge(run, threshold) for run in runs]
        if false_rate(verdicts) > false_per_h:
            break
        chosen = threshold
    return chosen


def false_rate(verdicts: Sequence[Verdict]) -> float:
    """False alarms an hour; nan where no firing could have been false."""
    quiet_h = sum(verdict.quiet_s for verdict in verdicts) / 3600
    return sum(len(verdict.false_s) for verdict in verdicts) / quiet_h if quiet_h else nan


class Worth(NamedTuple):
    """What an alarm was worth over many runs; intervals are 95 % bootstraps over runs, nan where few had a break.

    Attributes:
        breaks: how many.
        lead_s: median over all breaks, the missed ones at minus infinity.
        in_time: share of the breaks on which the lead is 0 or more.
        missed: share of the breaks that it missed.
        earlier: share of the breaks on which it fired before the alarm it is compared with; equals count half.
        false_alarms: how many.
        quiet_h: hours in which a firing would have been false.
    """

    breaks: int
    lead_s: Interval
    in_time: Interval
    missed: float
    earlier: Interval
    false_alarms: int
    quiet_h: float


def worth(verdicts: Sequence[Verdict], others: Sequence[Verdict]) -> Worth:
    """Sum up one alarm's verdicts, and compare them with another alarm's on the same runs."""
    leads_s = np.array([lead_s for verdict in verdicts for lead_s in verdict.leads_s])
    other_s = np.array([lead_s for verdict in others for lead_s in verdict.leads_s])
    run_of = np.repeat(np.arange(len(verdicts)), [len(verdict.leads_s) for verdict in verdicts])
    earlier = (leads_s > other_s) + 0.5 * (leads_s == other_s)
    return Worth(
        breaks=len(leads_s),
        lead_s=_interval(_median, leads_s, run_of, len(verdicts)),
        in_time=_interval(_mean, (leads_s >= 0).astype(float), run_of, len(verdicts)),
        missed=float((leads_s == -inf).mean()) if len(leads_s) else nan,
        earlier=_interval(_mean, earlier, run_of, len(verdicts)),
        false_alarms=sum(len(verdict.false_s) for verdict in verdicts),
        quiet_h=sum(verdict.quiet_s for verdict in verdicts) / 3600,
    )


def _mean(values: Floats, weights: Floats) -> Floats:
    means: Floats = weights @ values / weights.sum(axis=1)
    return means


def _median(values: Floats, weights: Floats) -> Floats:
    """The lower median: a value that is there, so that minus infinity is never averaged with a number."""
    order = np.argsort(values)
    up_to = np.cumsum(weights[:, order], axis=1)
    medians: Floats = values[order][np.argmax(up_to >= up_to[:, -1:] / 2, axis=1)]
    return medians


def _interval(
    statistic: Callable[[Floats, Floats], Floats], values: Floats, run_of: NDArray[np.int64], runs: int
) -> Interval:
    """A statistic over breaks with its interval over runs drawn again, each with all its breaks.

    Args:
        statistic: of values (breaks,) with weights (draws, breaks); returns (draws,).
        values: of each break.
        run_of: the run that each break is of.
        runs: how many.
    """
    if not len(values):
        return Interval(nan, nan, nan)
    value = float(statistic(values, np.ones((1, len(values))))[0])
    if len(np.unique(run_of)) < _FEWEST_RUNS:
        return Interval(value, nan, nan)
    drawn = np.random.default_rng(_STREAM).multinomial(runs, np.full(runs, 1 / runs), size=RESAMPLES)
    weights = drawn[:, run_of].astype(float)
    resampled = statistic(values, weights[weights.any(axis=1)])
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail], method="inverted_cdf")
    return Interval(value, float(low), float(high))
