"""The tables of `experiments.reproduce` beside the one of claims."""

from collections.abc import Sequence

from experiments.groups import BASE
from experiments.markdown import plain, table
from experiments.metrics import PARTS
from experiments.printed import change_of, name, percent, share_of, signed, time_of, with_interval
from experiments.reproduce.chunk_cost import CHUNKS, Decodes, curve_s
from experiments.reproduce.deflection_claims import largest_cut, largest_gain
from experiments.reproduce.evidence import KAIROS, Evidence, Place, cut, gain, points, share
from experiments.reproduce.settings import Setting


def _columns(text: str) -> list[str]:
    return text.split(", ")


def parts(evidence: Evidence, places: Sequence[Place]) -> str:
    """The parts of the P95 TTFT of static."""
    rows = [
        [
            place.setting.machine,
            plain(place.family),
            f"{place.load:g}",
            time_of(evidence.groups[place][BASE].estimate("ttft_p95_s")),
            *(share_of(share(evidence.groups[place], BASE, part)) for part in PARTS),
        ]
        for place in places
    ]
    header = "machine, workload, load, TTFT P95 (ms), queue (%), execution (%), transfer (%), decode wait (%)"
    return table(_columns(header), rows, left=2)


def largest(evidence: Evidence, places: Sequence[Place]) -> str:
    """The largest cut and gain of each machine, chosen on one half of the seeds and measured on the other."""
    rows = []
    for setting in dict.fromkeys(place.setting for place in places):
        several = [place for place in places if place.setting == setting]
        for form, policy in evidence.forms().items():
            at, seeds = largest_cut(evidence, several, policy)
            gained, others = largest_gain(evidence, several, policy)
            rows.append(
                [
                    setting.machine,
                    form,
                    change_of(cut(evidence.groups[at], policy(at), seeds)),
                    f"{plain(at.family)}, load {at.load:g}",
                    change_of(gain(evidence.groups[gained], policy(gained), others)),
                    with_interval(points(evidence.groups[gained], policy(gained), others), signed(percent), -1, 1),
                    f"{plain(gained.family)}, load {gained.load:g}",
                ]
            )
    header = "machine, knobs, P95 (%), at, attainment (%), attainment (points), at"
    return table(_columns(header), rows, left=2)


def deflection(evidence: Evidence, places: Sequence[Place]) -> str:
    """Deflection against static at each place, with the paper's defaults and tuned."""
    rows = []
    for place in places:
        group = evidence.groups[place]
        cells = []
        for policy in (KAIROS, evidence.tuned_at(place)):
            cells += [change_of(cut(group, policy)), with_interval(points(group, policy), signed(percent), -1, 1)]
        rows.append([str(place.setting), plain(place.family), f"{place.load:g}", *cells])
    header = "cluster, workload, load, P95 (%), attainment (points), tuned: P95 (%), tuned: attainment (points)"
    return table(_columns(header), rows, left=2)


def rules(evidence: Evidence, places: Sequence[Place]) -> str:
    """Every rule at some places of one cluster."""
    rows = []
    for place in places:
        group = evidence.groups[place]
        for policy in evidence.rules_at(place):
            runs = group[policy]
            rows.append(
                [
                    plain(place.family),
                    name(policy),
                    time_of(runs.estimate("ttft_p95_s")),
                    "itself" if policy == BASE else change_of(cut(group, policy)),
                    share_of(runs.estimate("slo_attainment")),
                    share_of(runs.estimate("ttft_attainment")),
                    share_of(runs.estimate("tbt_attainment")),
                    percent(runs.mean("deflected_share")),
                ]
            )
    header = "workload, policy, TTFT P95 (ms), against static (%), SLO attainment (%), by TTFT (%), by TBT (%)"
    return table([*_columns(header), "deflected (%)"], rows, left=2)


def worse(evidence: Evidence, places: Sequence[Place]) -> str:
    """Where deflection is worse than static for sure, and what is to be seen there; "" where it nowhere is."""
    rows = []
    for place in places:
        group = evidence.groups[place]
        for policy in (KAIROS, evidence.tuned_at(place)):
            tail, met = cut(group, policy), points(group, policy)
            if not (tail.low > 1 or met.high < 0):
                continue
            runs, base = group[policy], group[BASE]
            rows.append(
                [
                    str(place.setting),
                    plain(place.family),
                    f"{place.load:g}",
                    name(policy),
                    change_of(tail),
                    with_interval(met, signed(percent), -1, 1),
                    percent(base.mean("decode_wait_share_p95")),
                    percent(runs.mean("ttft_attainment")),
                    percent(runs.mean("tbt_attainment")),
                    f"{runs.mean('preemptions'):,.0f}",
                ]
            )
    header = (
        "cluster, workload, load, policy, P95 (%), attainment (points), static's decode wait in P95 (%), "
        "its TTFT attainment (%), its TBT attainment (%), its preemptions"
    )
    return table(_columns(header), rows, left=2) if rows else ""


def steps(profiles: Sequence[str], connector: str) -> str:
    """What a chunk adds to a decode step."""
    rows = []
    for profile in profiles:
        law = Setting(profile, connector).config.profile.law
        for decodes in (Decodes(), Decodes(batch=8), Decodes(batch=128)):
            added_s = curve_s(law, decodes)
            beside = f"{decodes.batch} of {decodes.context_tokens}"
            rows.append([profile, beside, *(f"{1e3 * seconds:.1f}" for seconds in added_s)])
    return table(["profile", "decodes beside it", *(f"{chunk} tokens (ms)" for chunk in CHUNKS)], rows)


def loads(evidence: Evidence) -> str:
    """What load 1 is."""
    rows = [
        [str(setting), plain(family), f"{rate:.3g}" if rate else "none: it misses its target at every rate"]
        for (setting, family), rate in evidence.knees.items()
    ]
    return table(["cluster", "workload", "knee (req/s)"], rows, left=2)
