"""Alarms that warn of broken TTFT: when they fire, when TTFT breaks, and the time between the two.

Definitions, not from a paper:

- TTFT is *broken* from the first sample at which the P95 of TTFT / SLO, over the requests whose first token came in the
  last WINDOW_S, is above 1, until WINDOW_S after the last such sample: a return within that time is the same break.
- An alarm *fires* when its signal is above its threshold, and is then silent for HORIZON_S. A firing is false unless
  TTFT breaks within HORIZON_S; an alarm that is always on is false once every HORIZON_S. One that is on when a break
  ends has been raised and is silent for HORIZON_S too.
- The *lead* of an alarm on a break is the time from its firing in the HORIZON_S before the break until the break.
  Without one it is late: the lead is negative if the signal rises above the threshold during the break, and minus
  infinity, *missed*, if it does not.
- False alarms are counted per hour in which a firing would be false: not in a break, nor in the HORIZON_S before one or
  before the end of the watch, because nobody knows what came after.
"""

from collections.abc import Callable, Sequence
from itertools import chain, takewhile
from math import inf, isnan, nan
from typing import NamedTuple

import numpy as np

from experiments.analysis.bootstrap import Floats, Interval, clustered

WINDOW_S = 30.0
HORIZON_S = 30.0
LEAST = 20
"""Values that a running P95 needs; with fewer it would be hardly less than the largest."""
_CANDIDATES = 300


def running_p95(event_s: Floats, values: Floats, time_s: Floats) -> Floats:
    """P95 of the values of the events in the WINDOW_S up to each time, shape (n,); nan if there are fewer than LEAST.

    The time of an event that never happened is nan.
    """
    order = np.argsort(event_s)[: np.count_nonzero(~np.isnan(event_s))]  # nan sorts last
    event_s, values = event_s[order], values[order]
    first = np.searchsorted(event_s, time_s - WINDOW_S, side="right").tolist()
    last = np.searchsorted(event_s, time_s, side="right").tolist()
    p95 = np.full(len(time_s), nan)
    for rank, (i, j) in enumerate(zip(first, last, strict=True)):
        if j - i >= LEAST:  # as np.quantile, several times as fast
            low, rest = divmod(0.95 * (j - i - 1), 1.0)
            below, above = np.sort(values[i:j])[int(low) : int(low) + 2]
            p95[rank] = below + rest * (above - below)
    return p95


class Break(NamedTuple):
    """A time in which TTFT is broken, seconds."""

    start_s: float
    end_s: float


def breaks(time_s: Floats, ttft_p95: Floats) -> list[Break]:
    """The breaks of a run, from the running P95 of TTFT / SLO at each sample."""
    found: list[Break] = []
    for at_s in time_s[ttft_p95 > 1.0].tolist():
        start_s = found.pop().start_s if found and at_s <= found[-1].end_s else at_s
        found.append(Break(start_s, at_s + WINDOW_S))
    return found


class Watched(NamedTuple):
    """One run as an alarm sees it: samples (seconds), the alarm's signal at each (nan if it has none), and breaks."""

    time_s: Floats
    signal: Floats
    breaks: Sequence[Break]


class Verdict(NamedTuple):
    """The leads of an alarm on each break of a run, when it fired falsely, and the time in which it could have."""

    leads_s: list[float]
    false_s: list[float]
    quiet_s: float


def judge(run: Watched, threshold: float) -> Verdict:
    """Judge an alarm with a threshold on one run."""
    on = run.signal > threshold
    on_s = run.time_s[on]
    leads_s: list[float] = []
    false_s: list[float] = []
    quiet_s = 0.0
    began_s = armed_s = float(run.time_s[0])
    for start_s, end_s in chain(run.breaks, [Break(float(run.time_s[-1]), inf)]):
        valid_s = start_s - HORIZON_S
        quiet_s += max(0.0, valid_s - began_s)
        while (fired_s := _first(on_s, armed_s)) < valid_s:
            false_s.append(fired_s)
            armed_s = fired_s + HORIZON_S
        if end_s < inf:
            leads_s.append(start_s - fired_s if fired_s <= end_s else -inf)
            still_on = on[np.searchsorted(run.time_s, end_s, side="right") - 1]
            began_s, armed_s = end_s, end_s + HORIZON_S if still_on else end_s
    return Verdict(leads_s, false_s, quiet_s)


def _first(times_s: Floats, from_s: float) -> float:
    """The first of some sorted times from `from_s` on; inf if there is none."""
    i = int(np.searchsorted(times_s, from_s))
    return float(times_s[i]) if i < len(times_s) else inf


def fired_s(run: Watched, threshold: float) -> list[float]:
    """When an alarm fired in one run: falsely, before a break, and late in one."""
    verdict = judge(run, threshold)
    true_s = [one.start_s - lead_s for one, lead_s in zip(run.breaks, verdict.leads_s, strict=True)]
    return sorted([*verdict.false_s, *[at_s for at_s in true_s if at_s < inf]])


def calibrate(runs: Sequence[Watched], false_per_h: float) -> float:
    """The lowest threshold such that neither it nor a higher one gives more than `false_per_h` false alarms per hour.

    Thresholds tried are quantiles of the signal, ever closer together towards its largest value, which gives none. The
    result is nan, which no signal is above, if there is no signal or no time for a false alarm.
    """
    seen = np.concatenate([run.signal[~np.isnan(run.signal)] for run in runs])
    if not len(seen) or isnan(false_rate([judge(run, inf) for run in runs])):
        return nan
    tried = np.unique(np.quantile(seen, 1.0 - np.geomspace(1.0 / len(seen), 1.0, _CANDIDATES)))[::-1].tolist()
    kept = takewhile(lambda threshold: false_rate([judge(run, threshold) for run in runs]) <= false_per_h, tried)
    return min(kept, default=float(seen.max()))


def false_rate(verdicts: Sequence[Verdict]) -> float:
    """False alarms per hour; nan if no firing could have been false."""
    quiet_h = sum(verdict.quiet_s for verdict in verdicts) / 3600
    return sum(len(verdict.false_s) for verdict in verdicts) / quiet_h if quiet_h else nan


class JudgedAlarm(NamedTuple):
    """An alarm with its calibrated threshold (or nan) on many runs, and the alarm it is compared with on the same runs.

    Intervals are 95 % bootstraps over runs, nan if few had a break.
    """

    threshold: float
    verdicts: Sequence[Verdict]
    others: Sequence[Verdict]

    @property
    def leads_s(self) -> Floats:
        """The leads on all breaks, shape (breaks,)."""
        return _leads_s(self.verdicts)

    @property
    def lead_s(self) -> Interval:
        """The median lead over all breaks, the missed ones at minus infinity."""
        return self._over_breaks(_median, self.leads_s)

    @property
    def in_time(self) -> Interval:
        """The share of the breaks on which the lead is 0 or more."""
        return self._over_breaks(_mean, (self.leads_s >= 0).astype(float))

    @property
    def missed(self) -> float:
        """The share of the breaks that it missed."""
        return self._over_breaks(_mean, (self.leads_s == -inf).astype(float)).value

    @property
    def earlier(self) -> Interval:
        """The share of the breaks on which it fired before the other alarm; equals count half."""
        leads_s, other_s = self.leads_s, _leads_s(self.others)
        return self._over_breaks(_mean, (leads_s > other_s) + 0.5 * (leads_s == other_s))

    def _over_breaks(self, statistic: Callable[[Floats, Floats], Floats], values: Floats) -> Interval:
        run_of = np.repeat(np.arange(len(self.verdicts)), [len(verdict.leads_s) for verdict in self.verdicts])
        return clustered(statistic, values, run_of, len(self.verdicts))


def _leads_s(verdicts: Sequence[Verdict]) -> Floats:
    return np.array([lead_s for verdict in verdicts for lead_s in verdict.leads_s])


def _mean(values: Floats, weights: Floats) -> Floats:
    return np.asarray(weights @ values / weights.sum(axis=1))


def _median(values: Floats, weights: Floats) -> Floats:
    """The lower median: a value that is there, so that minus infinity is never averaged with a number."""
    order = np.argsort(values)
    up_to = np.cumsum(weights[:, order], axis=1)
    return np.asarray(values[order][np.argmax(up_to >= up_to[:, -1:] / 2, axis=1)])
