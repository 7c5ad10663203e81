"""The report of `experiments.reproduce`: claims first, then what they rest on."""

import csv
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

import policies
from envs.generators import slos_of_family
from experiments.arguments import slos
from experiments.cells import DRAIN_S, Cell
from experiments.groups import BASE
from experiments.illustrate import Picture
from experiments.knee import TARGET
from experiments.markdown import bullets, code, figure, plain
from experiments.metrics import WARMUP_SHARE, Metrics
from experiments.output import write_report
from experiments.printed import name, slos_line
from experiments.provenance import made_by
from experiments.reproduce import tables
from experiments.reproduce.ablations import ablation_table
from experiments.reproduce.claims import Claim, claim_table
from experiments.reproduce.deflection_claims import deflection_claims
from experiments.reproduce.evidence import BURSTY, KAIROS, Evidence, Place
from experiments.reproduce.machine_claims import machine_claims
from experiments.reproduce.pictures import draw_all
from experiments.reproduce.settings import every_machine, stressed
from experiments.reproduce.tail_claims import tail_claims
from hardware_profiles.files import replacing


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


def _about(evidence: Evidence, args: Namespace) -> list[str]:
    tuned = "; ".join(f"{setting.machine} {code(rule.partition('=')[2])}" for setting, rule in evidence.tuned.items())
    return [
        "claims are those of arXiv 2607.02043 as its abstract and third-party readings give them; its workloads, SLOs "
        "and baselines are not public: those here are ours",
        f"a run has {args.requests:,} requests, or as many more as come in {args.span:g} s; {args.seeds} seeds",
        slos_line({family: slos_of_family(family, slos(args)) for family in args.families}),
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
            "chosen on the first half of the seeds and measured on the other half, so that it is not the luckiest; "
            f"the largest of each machine are below.\n\n{claim_table(found)}",
        ),
        (
            f"## Where the P95 TTFT of {name(BASE)} goes",
            _joined(
                _shown(pictures, "breakdown"),
                tables.parts(evidence, at_shown),
                _shown(pictures, "execution"),
                f"{plain(BURSTY)} at every load:",
                tables.parts(evidence, swept),
            ),
        ),
        (
            f"## {name(KAIROS)} against {name(BASE)}",
            _joined(
                _shown(pictures, "tails"),
                "The largest of each machine at loads up to 1, chosen on one half of the seeds, measured on the other:",
                tables.largest(evidence, [place for place in main if place.load <= 1]),
                "Everywhere:",
                tables.deflection(evidence, [*main, *hard]),
            ),
        ),
    ]
    if worse := tables.worse(evidence, [*main, *hard]):
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
        (f"## All rules on {setting}, load {shown:g}", tables.rules(evidence, places))
        for setting, places in of_setting.items()
        if places
    ]
    sections.append(
        (
            "## What a chunk adds to a decode step",
            _joined(_shown(pictures, "step"), tables.steps(args.profiles, args.connectors[0])),
        )
    )
    sections += [
        (
            f"## Parts of {name(KAIROS)}: {plain(BURSTY)}, load {shown:g}, {setting}",
            _joined(_shown(pictures, key), ablation_table(evidence, Place(setting, BURSTY, shown))),
        )
        for setting in machines
        if (key := f"ablation {setting}") in pictures
    ]
    sections += [
        (
            "## Loads",
            f"Load 1 is the highest rate at which {name(BASE)} meets both SLOs of {TARGET:.0%} of the requests.\n\n"
            + tables.loads(evidence),
        ),
        ("## How this was made", bullets(dict.fromkeys(line for lines in made for line in lines))),
    ]
    return "\n\n".join(f"{head}\n\n{body}" for head, body in sections if body) + "\n"
