"""Which rule has the lowest P95 TTFT under a condition, and what its kind gains over the others."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from experiments import statistics
from experiments.cost import ATTAINMENT_MARGIN
from experiments.map.folders import Condition, Conditions, RuleRuns
from experiments.map.kinds import ROLE_KEEPING, Kind
from experiments.statistics import Interval
from hardware_profiles import InputError

Criterion = Literal["usable", "lowest"]
"""Which rules take part.

- usable: those whose SLO attainment is within a point of the highest under the same condition;
- lowest: all of them.
"""


@dataclass(frozen=True)
class Contest:
    """The rules that take part under one condition, compared by the mean over seeds of P95 TTFT.

    Attributes:
        best: the best rule of each kind that takes part; the kind with the lowest P95 TTFT first.
        top_attainment: the highest mean SLO attainment of a rule, whether or not it takes part.
    """

    best: dict[Kind, RuleRuns]
    top_attainment: float

    @property
    def winner(self) -> RuleRuns:
        """The rule with the lowest P95 TTFT."""
        return next(iter(self.best.values()))

    @property
    def tied_kinds(self) -> list[Kind]:
        """Kinds whose best rule is tied with the winner: the paired 95 % interval of the ratio includes 1."""
        return [kind for kind, runs in self.best.items() if runs is not self.winner and tied(ratio(runs, self.winner))]

    @property
    def best_role_keeping(self) -> RuleRuns | None:
        """The best rule that keeps roles, None if none takes part."""
        return next((runs for kind, runs in self.best.items() if kind in ROLE_KEEPING), None)

    @property
    def role_free_ratio(self) -> Interval | None:
        """P95 TTFT of the best role-free rule over that of the best role-keeping one, None if either is missing."""
        role_free, role_keeping = self.best.get("role-free"), self.best_role_keeping
        return ratio(role_free, role_keeping) if role_free and role_keeping else None


Contests = dict[Condition, Contest]


def ratio(runs: RuleRuns, base: RuleRuns) -> Interval:
    """P95 TTFT of one rule over that of another, paired by seed."""
    return statistics.ratio_interval(runs.ttft_p95_s, base.ttft_p95_s)


def tied(ratio_to_base: Interval) -> bool:
    """Whether the interval of a ratio includes 1."""
    return ratio_to_base.low <= 1 <= ratio_to_base.high


def contest(rules: Sequence[RuleRuns], criterion: Criterion) -> Contest:
    """Compare the rules under one condition; policies of kind "other" are left out.

    Raises:
        InputError: there are no other rules.
    """
    known = [runs for runs in rules if runs.kind != "other"]
    if not known:
        raise InputError("no rule to compare: learned policies, users' classes and bounds are left out of the map")
    top_attainment = max(float(runs.slo_attainment.mean()) for runs in known)
    least = top_attainment - ATTAINMENT_MARGIN if criterion == "usable" else 0.0
    entered = [runs for runs in known if runs.slo_attainment.mean() >= least]
    best: dict[Kind, RuleRuns] = {}
    for runs in sorted(entered, key=lambda runs: float(runs.ttft_p95_s.mean())):
        best.setdefault(runs.kind, runs)
    return Contest(best, top_attainment)


def contests(conditions: Conditions, criterion: Criterion) -> Contests:
    """The contest under each condition."""
    return {condition: contest(rules, criterion) for condition, rules in conditions.items()}
