"""Claims about what deflection is worth, and what a decision costs."""

from collections.abc import Callable, Sequence

import numpy as np

from experiments.groups import BASE
from experiments.markdown import code
from experiments.metrics import PARTS
from experiments.printed import change_of, percent, signed, with_interval
from experiments.reproduce.claims import Claim, up_to
from experiments.reproduce.evidence import KAIROS, Best, Evidence, Place, best, crossing, cut, gain, points, share
from experiments.statistics import Interval

LARGEST_CUT = 0.81
LARGEST_GAINS = (0.71, 0.79)
ROUTING_US = 1000.0
OTHER_BASE = "round-robin"
"""The paper's second baseline is not known either; ours."""

Form = Callable[[Place], str]


def deflection_claims(evidence: Evidence, places: Sequence[Place]) -> list[Claim]:
    """The largest cut of P95 TTFT and gain in attainment, and the time of a decision.

    Args:
        evidence: what was found.
        places: where the best case is looked for; at least one.
    """
    scopes = {"loads up to 1": [place for place in places if place.load <= 1]}
    if any(place.load > 1 for place in places):
        scopes[f"loads up to {max(place.load for place in places):g}"] = list(places)
    found = [
        made(evidence, scope, several, form, policy)
        for made in (_cut, _gain)
        for scope, several in scopes.items()
        if several
        for form, policy in evidence.forms().items()
    ]
    return [*found, _routing(evidence, places)]


def _at(place: Place) -> str:
    return f"{place.family}, load {place.load:g}, {place.setting}"


def largest_cut(evidence: Evidence, places: Sequence[Place], policy: Form) -> Best:
    """Where a rule cuts most from P95 TTFT."""
    groups = evidence.groups
    return best(places, lambda one, seeds: -cut(groups[one], policy(one), seeds).value, evidence.seeds)


def largest_gain(evidence: Evidence, places: Sequence[Place], policy: Form) -> Best:
    """Where a rule adds most to SLO attainment, relative to that of the base."""
    groups = evidence.groups
    return best(places, lambda one, seeds: gain(groups[one], policy(one), seeds).value, evidence.seeds)


def _cut(evidence: Evidence, scope: str, places: Sequence[Place], form: str, policy: Form) -> Claim:
    groups = evidence.groups
    place, rest = largest_cut(evidence, places, policy)
    group, rule = groups[place], policy(place)
    ratio = cut(group, rule, rest)
    every = np.array([cut(groups[one], policy(one)).value - 1 for one in places])
    other = ""
    if OTHER_BASE in group:
        other = f", {change_of(cut(group, rule, rest, OTHER_BASE))} % against {code(OTHER_BASE)}"
    return Claim(
        f"P95 TTFT up to -81 % ({form}, {scope})",
        f"{change_of(ratio)} % against {code(BASE)}{other} ({_at(place)}); median of {len(every)} cells "
        f"{100 * np.median(every):+.0f} %, longer in {int((every > 0).sum())}",
        up_to(Interval(1 - ratio.value, 1 - ratio.high, 1 - ratio.low), LARGEST_CUT),
        _why_cut(evidence, place, policy),
    )


def _why_cut(evidence: Evidence, place: Place, policy: Form) -> str:
    """What of the tail there was to take away, and how the cut goes with load."""
    groups = evidence.groups
    parts = {part: share(groups[place], BASE, part).value for part in PARTS}
    largest = max(parts, key=parts.__getitem__)
    curve = [
        f"load {one.load:g} {100 * (cut(groups[one], policy(one)).value - 1):+.0f} %"
        for one in evidence.by_load(place.setting, place.family)
    ]
    return (
        f"{percent(parts['exec'])} % of {code(BASE)}'s P95 there is execution, {percent(parts[largest])} % "
        f"{largest.replace('_', ' ')}; by load: {', '.join(curve)}"
    )


def _gain(evidence: Evidence, scope: str, places: Sequence[Place], form: str, policy: Form) -> Claim:
    groups = evidence.groups
    place, rest = largest_gain(evidence, places, policy)
    group, rule = groups[place], policy(place)
    ratio, more = gain(group, rule, rest), points(group, rule, rest)
    every = np.array([gain(groups[one], policy(one)).value - 1 for one in places])
    return Claim(
        f"SLO attainment up to +79 %, in its conclusion +71 % ({form}, {scope})",
        f"{change_of(ratio)} %, {with_interval(more, signed(percent))} points ({_at(place)}); median of {len(every)} "
        f"cells {100 * np.nanmedian(every):+.1f} %, lower in {int((every < 0).sum())}",
        up_to(Interval(*(bound - 1 for bound in ratio)), *LARGEST_GAINS),
        _why_gain(evidence, place, policy),
    )


def _why_gain(evidence: Evidence, place: Place, policy: Form) -> str:
    """What there was to gain: the base must miss much for so much to be won."""
    base_met = evidence.groups[place][BASE].mean("slo_attainment")
    curve = [
        (one.load, evidence.groups[one][BASE].mean("slo_attainment"))
        for one in evidence.by_load(place.setting, place.family)
    ]
    most = 1 / (1 + max(LARGEST_GAINS))
    load = crossing(curve, most)
    where = f"which it does from load {load:.2f} on" if load is not None else "which it does at no load tried"
    runs = evidence.groups[place][policy(place)]
    missed, by_gaps = 1 - runs.mean("slo_attainment"), runs.mean("ttft_attainment") - runs.mean("slo_attainment")
    gaps = f"; {percent(by_gaps / missed)} % of the rule's own misses are of the TBT SLO alone" if missed > 0 else ""
    most_gain = f"{100 * (1 / base_met - 1):+.0f} %" if base_met else "any gain"
    return (
        f"{code(BASE)} meets {percent(base_met)} % there, so {most_gain} is the most to gain; +79 % needs one that "
        f"meets at most {percent(most)} %, {where} (SLOs are ours){gaps}"
    )


def _routing(evidence: Evidence, places: Sequence[Place]) -> Claim:
    runs = [evidence.groups[place][KAIROS] for place in places]
    p50, p99 = (np.concatenate([one.column(name) for one in runs]) for name in ("decision_us_p50", "decision_us_p99"))
    under = int((p99 < ROUTING_US).sum())
    return Claim(
        "routing takes under 1 ms a request",
        f"of {len(p99):,} runs the median P50 is {np.median(p50):.0f} us and the median P99 {np.median(p99):.0f} us; "
        f"P99 is under 1 ms in {percent(under / len(p99))} % of them",
        "yes" if np.median(p99) < ROUTING_US else "no",
        "wall time of the rule alone, in Python, on a machine that simulates meanwhile, whose pauses count; no network",
    )
