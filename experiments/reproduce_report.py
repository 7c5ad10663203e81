"""The report of `experiments.reproduce`: claims first, then what they rest on."""

import csv
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

import policies
from experiments.ablations import ablation_table
from experiments.cells import DRAIN_S, Cell
from experiments.chunk_cost import CHUNKS, Decodes, curve_s
from experiments.claims import Claim, claim_table
from experiments.deflection_claims import deflection_claims
from experiments.evidence import KAIROS, Evidence, Place, cut, points, share
from experiments.groups import BASE
from experiments.illustrate import Picture
from experiments.knee import TARGET
from experiments.machine_claims import machine_claims
from experiments.markdown import bullets, code, figure, plain, table
from experiments.metrics import PARTS, WARMUP_SHARE, Metrics
from experiments.output import write_report
from experiments.printed import change_of, name, percent, share_of, signed, time_of, with_interval
from experiments.provenance import made_by
from experiments.reproduce_pictures import draw_all
from experiments.settings import Setting, every_machine, stressed
from experiments.tail_claims import tail_claims
from hardware_profiles.files import replacing

BURSTY = "burst"


def write(evidence: Evidence, args: Namespace, folder: Path) -> str:
    """Write claims.csv, cells.csv, figures/, summary.md and report.html; returns the table of claims."""
    machines = every_machine(args.profiles, args.connectors)
    places = evidence.main(machines, args.families)
    swept = [place for setting in machines for place in evidence.by_load(setting, BURSTY)]
    found = [
        *tail_claims(evidence, machines, BURSTY),
        *(deflection_claims(evidence, list(dict.fromkeys([*places, *swept]))) if places else []),
        *machine_claims(machines),
    ]
    _write_claims(found, folder / "claims.csv")
    _write_cells(evidence, folder / "cells.csv")
    (folder / "figures").mkdir(exist_ok=True)
    pictures = draw_all(evidence, machines, args.families, BURSTY, folder / "figures")
    write_report(_summary(evidence, args, found, pictures), [picture.path for picture in pictures.values()], folder)
    return claim_table(found)


def _write_claims(found: Sequence[Claim], path: Path) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(Claim._fields)
        rows.writerows(found)


def _write_cells(evidence: Evidence, path: Path) -> None:
    """A row a cell; what the cluster was in front."""
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["profile", "connector", "cluster", "report_age_s", *Cell._fields, "rate_rps", *Metrics.names()])
        for (setting, _, _), group in evidence.groups.items():
            cluster = [setting.profile, setting.connector, setting.kind, setting.report_age_s]
            for policy, runs in group.items():
                rows.writerows(
                    [*cluster, policies.label(policy), *out.cell[1:], out.rate_rps, *astuple(out.metrics)]
                    for out in runs.outcomes
                )


# ---- tables ---------------------------------------------------------------------------------------------------------


def _parts_table(evidence: Evidence, places: Sequence[Place]) -> str:
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
    header = [
        "machine",
        "workload",
        "load",
        "TTFT P95 (ms)",
        "queue (%)",
        "execution (%)",
        "transfer (%)",
        "decode wait (%)",
    ]
    return table(header, rows, left=2)


def _kairos_table(evidence: Evidence, places: Sequence[Place]) -> str:
    """Kairos against static, with the paper's defaults and tuned."""
    rows = []
    for place in places:
        group = evidence.groups[place]
        cells = []
        for policy in (KAIROS, evidence.tuned_at(place)):
            cells += [change_of(cut(group, policy)), with_interval(points(group, policy), signed(percent), -1, 1)]
        rows.append([str(place.setting), plain(place.family), f"{place.load:g}", *cells])
    header = [
        "cluster",
        "workload",
        "load",
        "P95 (%)",
        "attainment (points)",
        "tuned: P95 (%)",
        "tuned: attainment (points)",
    ]
    return table(header, rows, left=2)


def _rules_table(evidence: Evidence, places: Sequence[Place]) -> str:
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
    header = [
        "workload",
        "policy",
        "TTFT P95 (ms)",
        f"against {name(BASE)} (%)",
        "SLO attainment (%)",
        "by TTFT (%)",
        "by TBT (%)",
    ]
    return table([*header, "deflected (%)"], rows, left=2)


def _worse_table(evidence: Evidence, places: Sequence[Place]) -> str:
    """Where kairos is worse than static for sure, and what is to be seen there; "" where it nowhere is."""
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
    header = [
        "cluster",
        "workload",
        "load",
        "policy",
        "P95 (%)",
        "attainment (points)",
        "static's decode wait in P95 (%)",
    ]
    return (
        table([*header, "its TTFT attainment (%)", "its TBT attainment (%)", "its preemptions"], rows, left=2)
        if rows
        else ""
    )


def _step_table(args: Namespace) -> str:
    """What a chunk adds to a decode step."""
    rows = []
    for profile in args.profiles:
        law = Setting(profile, args.connectors[0]).config.profile.law
        for decodes in (Decodes(), Decodes(batch=8), Decodes(batch=128)):
            added = curve_s(law, decodes)
            rows.append(
                [
                    profile,
                    f"{decodes.batch} of {decodes.context_tokens}",
                    *(f"{1e3 * seconds:.1f}" for seconds in added),
                ]
            )
    return table(["profile", "decodes beside it", *(f"{chunk} tokens (ms)" for chunk in CHUNKS)], rows, left=1)


def _loads_table(evidence: Evidence) -> str:
    """What load 1 is."""
    rows = [
        [str(setting), plain(family), f"{rate:.3g}" if rate else "none: it misses its target at every rate"]
        for (setting, family), rate in evidence.knees.items()
    ]
    return table(["cluster", "workload", "knee (req/s)"], rows, left=2)


# ---- the whole ------------------------------------------------------------------------------------------------------


def _about(evidence: Evidence, args: Namespace) -> list[str]:
    tuned = "; ".join(f"{setting.machine} {code(rule.partition('=')[2])}" for setting, rule in evidence.tuned.items())
    return [
        "claims are those of arXiv 2607.02043 as its abstract and third-party readings give them; its workloads, SLOs "
        "and baselines are not public: those here are ours",
        f"a run has {args.requests:,} requests, or as many more as come in {args.span:g} s; {args.seeds} seeds",
        f"SLOs: TTFT {args.ttft_slo:g} s, TBT {args.tbt_slo:g} s",
        f"a load is a multiple of the knee of {name(BASE)} (see Loads)",
        f"the first {WARMUP_SHARE:.0%} of the span of arrivals is warm-up and left out; a run ends at the latest "
        f"{DRAIN_S:g} s after its last arrival",
        f"kairos-tuned is {name(KAIROS)} with alpha, beta and cap tuned on requests of their own, of all workloads "
        f"together, for each machine on 2P2D: {tuned}",
        "[95 % intervals] are bootstraps over seeds, in pairs between policies",
    ]


def _shown(pictures: dict[str, Picture], key: str) -> str:
    picture = pictures.get(key)
    return "" if picture is None else figure(f"figures/{picture.path.name}", picture.alt, picture.caption)


def _joined(*parts: str) -> str:
    return "\n\n".join(filter(None, parts))


def _summary(evidence: Evidence, args: Namespace, found: Sequence[Claim], pictures: dict[str, Picture]) -> str:
    machines = every_machine(args.profiles, args.connectors)
    stress = stressed(every_machine(args.profiles, args.connectors[:1]))
    all_settings = [*machines, *stress]
    shown = evidence.shown_load
    main = evidence.main(machines, args.families)
    hard = evidence.main(stress, [BURSTY])
    at_shown = [place for place in main if place.load == shown]
    swept = [place for setting in machines for place in evidence.by_load(setting, BURSTY)]
    command = f"python -m experiments.reproduce {args.line}"
    made = [made_by(command, setting.config.profile, f"0 to {args.seeds - 1}") for setting in machines]
    sections = [
        ("# The claims of arXiv 2607.02043 beside what is found here", bullets(_about(evidence, args))),
        (
            "## Claims",
            'Every number under "here" and "why" is computed from the runs below. The best cell of an "up to" is '
            "chosen on the first half of the seeds and measured on the other half, so that it is not the luckiest.\n\n"
            + claim_table(found),
        ),
        (
            f"## Where the P95 TTFT of {name(BASE)} goes",
            _joined(
                _shown(pictures, "breakdown"),
                _parts_table(evidence, at_shown),
                _shown(pictures, "execution"),
                f"{plain(BURSTY)} at every load:",
                _parts_table(evidence, swept),
            ),
        ),
        (
            f"## {name(KAIROS)} against {name(BASE)}",
            _joined(_shown(pictures, "tails"), _kairos_table(evidence, [*main, *hard])),
        ),
    ]
    if worse := _worse_table(evidence, [*main, *hard]):
        sections.append(
            (
                "### Where it is worse",
                "Its P95 TTFT is longer or its attainment lower, by the whole interval. A TBT attainment below the "
                "TTFT attainment: its chunks stretch gaps of running streams beyond their SLO. A large decode wait of "
                f"{name(BASE)}: decode slots run out first, and deflection sends more work there.\n\n" + worse,
            )
        )
    of_setting = {one: [place for place in [*at_shown, *hard] if place[::2] == (one, shown)] for one in all_settings}
    sections += [
        (f"## All rules on {setting}, load {shown:g}", _rules_table(evidence, places))
        for setting, places in of_setting.items()
        if places
    ]
    sections.append(("## What a chunk adds to a decode step", _joined(_shown(pictures, "step"), _step_table(args))))
    for place in [place for place in at_shown if f"ablation {place.setting}" in pictures and place.family == BURSTY]:
        picture = _shown(pictures, f"ablation {place.setting}")
        sections.append(
            (
                f"## Parts of {name(KAIROS)}: {plain(BURSTY)}, load {shown:g}, {place.setting}",
                _joined(picture, ablation_table(evidence, place)),
            )
        )
    sections += [
        (
            "## Loads",
            f"Load 1 is the highest rate at which {name(BASE)} meets both SLOs of {TARGET:.0%} of the requests.\n\n"
            + _loads_table(evidence),
        ),
        ("## How this was made", bullets(dict.fromkeys(line for lines in made for line in lines))),
    ]
    return "\n\n".join(f"{head}\n\n{body}" for head, body in sections if body) + "\n"
