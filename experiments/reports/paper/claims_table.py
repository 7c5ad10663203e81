"""The table of claims: what arXiv 2607.02043 says, what the simulator finds, whether they agree, and the reason."""

from collections.abc import Iterable, Sequence
from itertools import chain, product
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from envs.cluster import Topology
from experiments.analysis.bootstrap import Interval
from experiments.analysis.comparison import BASE, Runs
from experiments.analysis.metrics import METRIC
from experiments.analysis.paper import paper_claims as paper
from experiments.analysis.paper.paper_claims import CHUNKS, crossing, up_to, within
from experiments.analysis.paper.paper_evidence import BURSTY, FORMS, KAIROS, Evidence, Place
from experiments.analysis.request_table import PARTS
from experiments.reports import formatting as show
from experiments.reports.columns import Column, code, table
from hardware_profiles import Profile

OTHER_BASE = "round-robin"  # the paper does not name its second baseline
_PAPER = {
    "ttft_p95_s": "P95 TTFT up to -81 %",
    "slo_attainment": "SLO attainment up to +79 %, in its conclusion +71 %",
}


class Claim(NamedTuple):
    """One row: what the paper says, and, computed, the measurement, the verdict and the reason for it, or ""."""

    claim: str
    here: str
    agrees: str
    why: str


def claims(evidence: Evidence) -> list[Claim]:
    """All claims that something was run for: the tail, deflection, the decision, and the machines."""
    found: list[Claim] = []
    for setting in evidence.machines:
        if places := evidence.among([setting], [BURSTY]):
            found += [_execution(evidence, places), _rest(evidence, places)]
    if evidence.main:
        places = list(dict.fromkeys([*evidence.main, *chain(*evidence.swept.values())]))
        highest = max(1.0, *(place.load for place in places))
        found += [*_improvements(evidence, places, (1.0, highest)), _routing(evidence, places)]
    for name, profile in {one.profile: one.config.profile for one in evidence.machines}.items():
        found += _of_profile(name, profile)
    return found


def claims_text(found: Sequence[Claim], fields: Sequence[str] = Claim._fields) -> str:
    """Some fields of the claims as Markdown."""
    return table([Column(name, attrgetter(name), left=True) for name in fields], found)


def _execution(evidence: Evidence, places: Sequence[Place]) -> Claim:
    """Prefill execution as a share of P95 TTFT; the reason is the load from which it is in the claimed band."""
    shares = {place: evidence.share(place, "exec") for place in places}
    agrees = within(list(shares.values()), *paper.EXECUTION_SHARE)
    at = max(places, key=lambda place: shares[place].value)
    most, curve = paper.EXECUTION_SHARE[1], evidence.by_load(*at[:2])
    load = crossing([(one.load, evidence.share(one, "exec").value) for one in curve], most)
    bound = "more at every load tried" if load is None else f"at most {show.percent(most)} % from load {load:.2f} on"
    runs = evidence.groups[at][BASE]
    tail, mean = _prompt_tokens(runs)
    why = (
        f"queues grow with load, execution does not: {bound}. At load {at.load:g} prompts around P95 have {tail:,.0f} "
        f"tokens, {tail / mean:.1f} times the mean, and their execution takes {1e3 * runs.parts_s[1]:,.0f} ms"
    )
    return Claim(
        f"prefill execution is 2 to 23 % of P95 TTFT ({at.setting.machine}, {at.family})",
        "; ".join(f"load {place.load:g}: {show.share(interval)} %" for place, interval in shares.items()),
        agrees,
        "" if agrees == "yes" else why,
    )


def _prompt_tokens(runs: Runs) -> list[float]:
    """Mean prompt tokens around P95 of TTFT, and of all requests."""
    summaries = [outcome.summary for outcome in runs.outcomes]
    means: list[float] = np.mean([(one.tail_prompt_tokens, one.prompt_tokens) for one in summaries], axis=0).tolist()
    return means


def _rest(evidence: Evidence, places: Sequence[Place]) -> Claim:
    """The other parts of P95 TTFT at the shown load; the reason is how long the link needs for the transfer alone."""
    place = next(one for one in places if one.load == evidence.shown_load)
    queue, transfer, wait = (evidence.share(place, part) for part in ("queue", "transfer", "decode_wait"))
    small = wait.value <= paper.SMALL_WAIT
    runs, topology = evidence.groups[place][BASE], Topology(place.setting.config)
    tokens, _ = _prompt_tokens(runs)
    alone_s = topology.transfer_s(topology.prefill_nodes[0], topology.decode_nodes[0], round(tokens))
    transfer_s = float(runs.parts_s[2])
    waiting = max(0.0, 1.0 - alone_s / transfer_s) if transfer_s else 0.0
    contention = (
        f"a prompt of {tokens:,.0f} tokens takes the link {1e3 * alone_s:,.0f} ms alone, and "
        f"{1e3 * transfer_s:,.0f} ms around P95: {show.percent(waiting)} % of that is waiting for other transfers, "
        "for room or for a step to end"
    )
    return Claim(
        f"queueing and KV transfer are the rest of it ({place.setting.machine}, {place.family})",
        f"load {place.load:g}: queue {show.share(queue)} %, transfer {show.share(transfer)} %, decode wait "
        f"{show.share(wait)} %",
        "yes" if small else "no",
        contention if small else f"requests of {code(BASE)} wait for a decode slot",
    )


def _improvements(evidence: Evidence, places: Iterable[Place], loads: Iterable[float]) -> list[Claim]:
    """The largest improvements among the places up to each load, with both forms of the rule."""
    among = {load: [place for place in places if place.load <= load] for load in loads}
    wanted = product(paper.IMPROVEMENTS, [load for load in among if among[load]], FORMS)
    return [_improvement(evidence, metric, load, among[load], form) for metric, load, form in wanted]


def largest_by_machine(evidence: Evidence) -> list[Claim]:
    """The largest improvements of each machine at loads up to 1."""
    of_machine = [[place for place in evidence.main if place.setting == setting] for setting in evidence.machines]
    return [claim for places in of_machine for claim in _improvements(evidence, places, [1.0])]


def _improvement(evidence: Evidence, metric: str, load: float, places: Sequence[Place], form: str) -> Claim:
    policy = FORMS[form]
    cell = evidence.largest(places, policy, metric)
    place, ratio = cell.place, cell.ratio(metric)
    changes = 100 * np.array([one.ratio(metric).value - 1 for one in evidence.cells(places, [policy])])
    of = f"({place}); median of {len(places)} cells"
    if METRIC[metric].is_latency:
        here = f"{show.change(ratio)} % against {code(BASE)}"
        if OTHER_BASE in evidence.groups[place]:
            other = evidence.cell(place, policy, OTHER_BASE).of(evidence.halves[1])
            here += f", {show.change(other.ratio(metric))} % against {code(OTHER_BASE)}"
        here += f" {of} {np.median(changes):+.0f} %, longer in {(changes > 0).sum()}"
        gained, why = Interval(1 - ratio.value, 1 - ratio.high, 1 - ratio.low), _why_cut(evidence, place, policy)
    else:
        here = f"{show.change(ratio)} %, {show.points(cell.points)} points"
        here += f" {of} {np.nanmedian(changes):+.1f} %, lower in {(changes < 0).sum()}"
        gained, why = Interval(*(value - 1 for value in ratio)), _why_gain(evidence, place, policy)
    scope = f"{form}, loads up to {load:g}"
    return Claim(f"{_PAPER[metric]} ({scope})", here, up_to(gained, paper.IMPROVEMENTS[metric]), why)


def _why_cut(evidence: Evidence, place: Place, policy: str) -> str:
    """The parts of the tail that the rule could shorten, and the cut by load."""
    parts = {part: evidence.share(place, part).value for part in PARTS}
    largest = max(parts, key=parts.__getitem__)
    curve = evidence.cells(evidence.by_load(place.setting, place.family), [policy])
    cuts = {one.place.load: 100 * (one.ratio("ttft_p95_s").value - 1) for one in curve}
    by_load = ", ".join(f"load {load:g} {cut:+.0f} %" for load, cut in cuts.items())
    return (
        f"{show.percent(parts['exec'])} % of {code(BASE)}'s P95 there is execution, {show.percent(parts[largest])} % "
        f"{largest.replace('_', ' ')}; by load: {by_load}"
    )


def _why_gain(evidence: Evidence, place: Place, policy: str) -> str:
    """The largest possible gain: the base must miss much for so much to be won."""
    runs, base, metric = evidence.groups[place][policy], evidence.groups[place][BASE], "slo_attainment"
    most = 1 / (1 + max(paper.IMPROVEMENTS[metric]))
    curve = evidence.by_load(place.setting, place.family)
    load = crossing([(one.load, evidence.groups[one][BASE].mean(metric)) for one in curve], most)
    reached = "at no load tried" if load is None else f"from load {load:.2f} on"
    base_met, missed = base.mean(metric), 1 - runs.mean(metric)
    by_gaps = runs.mean("ttft_attainment") - runs.mean(metric)
    gaps = f"; {show.percent(by_gaps / missed)} % of the rule's misses are of the TBT SLO alone" if missed > 0 else ""
    most_gain = f"{100 * (1 / base_met - 1):+.0f} %" if base_met else "any gain"
    return (
        f"{code(BASE)} meets {show.percent(base_met)} % there, so {most_gain} is the most to gain; +79 % needs one "
        f"that meets at most {show.percent(most)} %, which it does {reached} (the SLOs are not from the paper){gaps}"
    )


def _routing(evidence: Evidence, places: Iterable[Place]) -> Claim:
    runs = [evidence.groups[place][KAIROS] for place in places]
    p50, p99 = (np.concatenate([one.column(name) for one in runs]) for name in ("decision_us_p50", "decision_us_p99"))
    return Claim(
        "routing takes under 1 ms per request",
        f"of {len(p99):,} runs the median P50 is {np.median(p50):.0f} us and the median P99 {np.median(p99):.0f} us; "
        f"P99 is under 1 ms in {show.percent(float((p99 < paper.ROUTING_US).mean()))} % of them",
        "yes" if np.median(p99) < paper.ROUTING_US else "no",
        "wall time of the rule alone, in Python, on a machine that simulates meanwhile, whose pauses count; no network",
    )


def _of_profile(name: str, profile: Profile) -> list[Claim]:
    """The errors of its step law, and the time that a chunk adds to a decode step by it."""
    errors = paper.model_errors(profile)
    kept = [kind for kind, error in errors.items() if error < paper.MODEL_ERROR_PERCENT]
    nature = str(profile.provenance.get("nature", "not said"))
    added_ms = {chunk: 1e3 * paper.added_s(profile.law, chunk) for chunk in CHUNKS}
    flat_ms = max(added for chunk, added in added_ms.items() if chunk <= paper.FLAT_UP_TO)
    flat, steep = added_ms[paper.FLAT_UP_TO], added_ms[paper.STEEP_AT]
    growth, proportional = flat / added_ms[CHUNKS[0]], paper.STEEP_AT / paper.FLAT_UP_TO
    why = "the profile is anchored to this claim, so this is no evidence" if "anchored" in nature else ""
    return [
        Claim(
            f"analytical step models are off by less than 10 % on average ({name})",
            ", ".join(f"{kind} {error:.1f} %" for kind, error in errors.items()) or "not known",
            "yes" if errors and len(kept) == len(errors) else f"for {', '.join(kept)}" if kept else "no",
            f"steps that the fit did not see, compared with what the profile was made from: {nature.partition(';')[0]}",
        ),
        Claim(
            f"a chunk of up to 512 tokens adds at most 30 ms, flat ({name})",
            f"at most {flat_ms:.1f} ms next to {paper.DECODES}",
            "yes" if flat_ms <= 1e3 * paper.FLAT_S else "no",
            why or f"512 tokens add {growth:.1f} times what {CHUNKS[0]} do: {'flat' if growth < 2 else 'not flat'}",
        ),
        Claim(
            f"a chunk of 2048 tokens adds more than 200 ms ({name})",
            f"{steep:.0f} ms next to {paper.DECODES}",
            "yes" if steep > 1e3 * paper.STEEP_S else "no",
            why or f"{steep / flat:.1f} times what 512 tokens add; proportional would be {proportional:g}",
        ),
    ]
