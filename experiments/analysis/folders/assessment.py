"""Policies against the virtual best of each cell, on the same requests: margins, Holm's correction, totals.

docs/protocol.md states the margins and which cells count.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from math import log, nan, sqrt
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

from experiments.analysis.bootstrap import Estimate, Interval, geometric_mean_ratio, seed_mean, stratified
from experiments.analysis.folders.virtual_best import Candidate, Cell, CellRuns, Portfolio, ranked
from experiments.analysis.ranking import POINTS_MARGIN, RATIO_MARGIN
from hardware_profiles import InputError
from hardware_profiles.errors import unknown_name

ENGINE_BUDGET = "slo"
"""The step budget under which policies are assessed; another one only if they were run under no other."""
COUNTED_ATTAINMENT = 0.9
"""Margins apply in cells where the virtual best meets at least this share of the SLOs."""
ERROR_RATE = 0.05
"""The chance, at most, that any cell is wrongly called better."""


class Margins(NamedTuple):
    """By how much a policy's P95 TTFT may be above the virtual best, as a share, and its SLO attainment below it."""

    ratio: float
    points: float

    def __str__(self) -> str:
        unit = "point" if self.points == 0.01 else "points"
        return f"{100 * self.ratio:g} % of P95 TTFT and {100 * self.points:g} {unit} of SLO attainment"


MarginSet = Literal["main", "other"]
MARGINS: dict[MarginSet, Margins] = {"main": Margins(RATIO_MARGIN, POINTS_MARGIN), "other": Margins(0.03, 0.01)}


@dataclass(frozen=True)
class Against:
    """A policy against a virtual best in one cell, paired by seed.

    Attributes:
        base: the virtual best.
        ratio: of P95 TTFT, with the 95 % interval on the logarithmic scale.
        difference: of SLO attainment.
        counted: whether the virtual best meets COUNTED_ATTAINMENT; the margins apply only then.
        within: whether both estimates keep the margins.
        non_inferior: whether both whole intervals keep them.
        p: see `p_lower`.
        holm_p: `p` with Holm's correction over the cells of the set.
        better: P95 TTFT is significantly lower by `holm_p`, and the interval of the attainment keeps its margin.
    """

    base: Candidate
    ratio: Interval
    difference: Interval
    counted: bool
    within: bool
    non_inferior: bool
    p: float
    holm_p: float
    better: bool


class Assessed(NamedTuple):
    """A policy in a cell, against the virtual best of the portfolio and against that chosen on the test seeds."""

    cell: Cell
    rate_rps: float
    policy: Candidate
    chosen: Against
    on_test: Against

    @property
    def outside(self) -> bool:
        """Whether the margins apply and are not kept."""
        return self.chosen.counted and not self.chosen.within


def p_lower(ratio: Estimate) -> float:
    """The one-sided p-value of "the ratio is 1 or more" from its bootstrap.

    Student's t of the logarithm of the ratio, with the spread of its replicates widened for few seeds as in
    `bootstrap.simultaneous`. Shares of replicates would be too coarse for Holm's correction over 100 cells.
    """
    if ratio.units < 2:
        return nan
    if not (spread := ratio.spread(log=True)):
        return 0.0 if ratio.value < 1 else 1.0
    widened = spread * sqrt(ratio.units / (ratio.units - 1))
    return float(stats.t.cdf(log(ratio.value) / widened, ratio.units - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values with Holm's (1979) correction: those at or below a level are significant together at that level."""
    adjusted = [nan] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(np.argsort(p_values)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def compare(pairs: Sequence[tuple[Candidate, Candidate]], margins: Margins) -> list[Against]:
    """Compare a policy with the virtual best, pairs of one per cell; Holm's correction is over all of them."""
    ratios = [seed_mean(policy.p95_s).over(seed_mean(base.p95_s)) for policy, base in pairs]
    p_values = [p_lower(ratio) for ratio in ratios]
    found = []
    for (policy, base), estimate, p, holm_p in zip(pairs, ratios, p_values, holm(p_values), strict=True):
        ratio = estimate.interval(log=True)
        difference = seed_mean(policy.attainment).minus(seed_mean(base.attainment)).interval()
        kept = difference.low >= -margins.points
        found.append(
            Against(
                base=base,
                ratio=ratio,
                difference=difference,
                counted=base.mean_attainment >= COUNTED_ATTAINMENT,
                within=ratio.value <= 1 + margins.ratio and difference.value >= -margins.points,
                non_inferior=ratio.high <= 1 + margins.ratio and kept,
                p=p,
                holm_p=holm_p,
                better=holm_p <= ERROR_RATE and kept,
            )
        )
    return found


def assess(label: str, runs: dict[Cell, CellRuns], portfolio: Portfolio, margins: Margins) -> list[Assessed]:
    """Compare a policy with the virtual best of every cell.

    Raises:
        InputError: a cell without the policy or its virtual best, or that the portfolio has not.
    """
    policies = [_of_label(label, cell, one.candidates) for cell, one in runs.items()]
    bases = [_base(portfolio, cell, one) for cell, one in runs.items()]
    on_test = [ranked(one.candidates)[0] for one in runs.values()]
    chosen, best = (compare(list(zip(policies, those, strict=True)), margins) for those in (bases, on_test))
    rates_rps = [one.rate_rps for one in runs.values()]
    return [Assessed(*row) for row in zip(runs, rates_rps, policies, chosen, best, strict=True)]


def check_labels(labels: Collection[str], runs: dict[Cell, CellRuns]) -> None:
    """Raise InputError for a label that no run has."""
    known = list(dict.fromkeys(one.policy.label for each in runs.values() for one in each.candidates))
    for label in labels:
        if label not in known:
            raise unknown_name("policy label", label, known)


def _of_label(label: str, cell: Cell, candidates: Iterable[Candidate]) -> Candidate:
    """The runs of a policy in a cell, under ENGINE_BUDGET if there are any."""
    named = [one for one in candidates if one.policy.label == label]
    found = [one for one in named if one.step_budget == ENGINE_BUDGET] or named
    if not found:
        raise InputError(f"no folder has {label} on {cell}; run it there, or leave the folder out")
    if len(found) > 1:
        raise InputError(f"{label} is {' and '.join(str(one.policy) for one in found)} on {cell}; give one folder")
    return found[0]


def _base(portfolio: Portfolio, cell: Cell, runs: CellRuns) -> Candidate:
    """The runs of the virtual best of a cell."""
    wanted = portfolio.of_cell(cell, runs.rate_rps)
    for one in runs.candidates:
        if wanted.is_of(one):
            return one
    raise InputError(
        f"no folder has the virtual best of {cell}: {wanted.policy} under step budget {wanted.step_budget}; run it "
        "with experiments.compare on the same seeds"
    )


class Totals(NamedTuple):
    """A policy against the virtual best of every cell.

    Attributes:
        counted: cells in which the margins apply; `within` and `non_inferior` are numbers of these.
        at_or_below: cells, counted or not, in which its P95 TTFT is at or below that of the virtual best.
        better: cells, counted or not, with a lower P95 TTFT after Holm's correction, see `Against`.
        ratio: geometric mean over all cells of the ratios of P95 TTFT.
        worst: the cell with the highest ratio, and `worst_loss` that with the largest loss of SLO attainment; of the
            counted cells, or of all if none is counted.
    """

    cells: int
    counted: int
    within: int
    non_inferior: int
    at_or_below: int
    better: int
    ratio: Interval
    worst: tuple[float, Cell]
    worst_loss: tuple[float, Cell]


def totals(found: Sequence[tuple[Cell, Candidate, Against]]) -> Totals:
    """Count the cells of one policy against one virtual best."""
    counted = [(cell, against) for cell, _, against in found if against.counted]
    those = counted or [(cell, against) for cell, _, against in found]
    values = np.stack([policy.p95_s for _, policy, _ in found], axis=1)
    bases = np.stack([against.base.p95_s for *_, against in found], axis=1)
    return Totals(
        cells=len(found),
        counted=len(counted),
        within=sum(against.within for _, against in counted),
        non_inferior=sum(against.non_inferior for _, against in counted),
        at_or_below=sum(against.ratio.value <= 1 for *_, against in found),
        better=sum(against.better for *_, against in found),
        ratio=stratified(geometric_mean_ratio, values, bases).interval(log=True),
        worst=max((against.ratio.value, cell) for cell, against in those),
        worst_loss=min((against.difference.value, cell) for cell, against in those),
    )
