"""The report of `experiments.reproduce`: the claims first, then the evidence for them."""

from collections.abc import Callable, Sequence
from itertools import chain, product
from math import inf
from pathlib import Path

from experiments.analysis.comparison import BASE
from experiments.analysis.csv_files import CELL_COLUMNS, cell, write_csv
from experiments.analysis.metrics import METRIC
from experiments.analysis.paper.ablations import Variant, ablated, variants
from experiments.analysis.paper.paper_claims import BATCH, CHUNKS, CONTEXT_TOKENS, DECODES, added_s
from experiments.analysis.paper.paper_evidence import BURSTY, FORMS, KAIROS, TUNED, Cell, Evidence, Place, Setting
from experiments.analysis.request_table import DRAIN_S, PARTS, WARMUP_SHARE
from experiments.reports import formatting as show
from experiments.reports.columns import Column, bullets, code, plain, table
from experiments.reports.document import Part, Picture, Section, write_report
from experiments.reports.figures import claims_figures as figures
from experiments.reports.paper.claims_table import Claim, claims, claims_text, largest_by_machine
from experiments.runs.saturation import TARGET

PAPER = "arXiv 2607.02043"
_STATIC = code(BASE)
_CLAIMS = (
    'Every number under "here" and "why" is computed from the runs below. The best cell of an "up to" is chosen on the '
    "first half of the seeds and measured on the other half, so that it is not the luckiest."
)
_WORSE = (
    f"The whole interval of P95 TTFT is above that of {_STATIC}, or that of attainment below. A TBT attainment below "
    "TTFT attainment means that chunks stretch gaps of running streams beyond their SLO; a large decode wait of "
    f"{_STATIC}, that decode slots run out first, and deflection sends more work there."
)


def write_claims(evidence: Evidence, about: Sequence[str], made_by: Sequence[str], folder: Path) -> str:
    """Write claims.csv, cells.csv, figures/, summary.md and report.html into `folder`; returns the table of claims.

    `about` has the sizes and SLOs, one line of Markdown each, and `made_by` the text of each machine, see
    `document.made_by`.
    """
    found = claims(evidence)
    write_csv(folder / "claims.csv", Claim._fields, found)
    cells = (
        [setting.profile, setting.connector, setting.kind, setting.report_age_s, *cell(outcome)]
        for (setting, _, _), group in evidence.groups.items()
        for runs in group.values()
        for outcome in runs.outcomes
    )
    header = ["profile", "connector", "cluster", "report_age_s", *CELL_COLUMNS]
    write_csv(folder / "cells.csv", header, cells)
    title = f"The claims of {PAPER} compared with the simulator"
    write_report(title, _sections(evidence, found, about, made_by), folder)
    return claims_text(found)


def _text(header: str, text: Callable[[Cell], str]) -> Column[Cell]:
    return Column(header, text, left=True)


def _estimate(metric: str) -> Column[Cell]:
    return Column(show.heading(METRIC[metric]), lambda one: show.estimate(metric, one.runs.interval(metric)))


def _mean(metric: str) -> Column[Cell]:
    return Column(show.heading(METRIC[metric]), lambda one: show.value(METRIC[metric], one.runs.mean(metric)))


_WORKLOAD = _text("workload", lambda one: plain(one.place.family))
_LOAD = _text("load", lambda one: f"{one.place.load:g}")
_POLICY = _text("policy", lambda one: show.name(one.runs.policy))
_CUT = Column[Cell](
    f"TTFT P95 against {_STATIC} (%)",
    lambda one: "itself" if one.runs is one.base else show.change(one.ratio("ttft_p95_s")),
)
_POINTS = Column[Cell](f"SLO attainment against {_STATIC} (points)", lambda one: show.points(one.points))
_WAIT = Column[Cell](
    f"decode wait in P95 of {_STATIC} (%)", lambda one: show.percent(one.base.mean("decode_wait_share_p95"))
)
_P95, _SLO, _TTFT, _TBT = map(_estimate, ("ttft_p95_s", "slo_attainment", "ttft_attainment", "tbt_attainment"))
_DEFLECTED = _mean("deflected_share")
_TAIL = [
    _text("machine", lambda one: one.place.setting.machine),
    *(_WORKLOAD, _LOAD, _P95),
    *(_estimate(f"{part}_share_p95") for part in PARTS),
]
_AGAINST = [_text("cluster", lambda one: str(one.place.setting)), _WORKLOAD, _LOAD, _POLICY, _CUT, _POINTS]
_WORSE_COLUMNS = [*_AGAINST, _WAIT, *map(_mean, ("ttft_attainment", "tbt_attainment", "preemptions"))]
_RULES = [_WORKLOAD, _POLICY, _P95, _CUT, _SLO, _TTFT, _TBT, _DEFLECTED]


def _sections(
    evidence: Evidence, found: Sequence[Claim], about: Sequence[str], made_by: Sequence[str]
) -> list[Section]:
    tuned = "; ".join(f"{setting.machine} {code(rule.text)}" for setting, rule in evidence.tuned.items())
    reading = [
        f"the claims are those of {PAPER} as its abstract and third-party readings give them; its workloads, SLOs and "
        "baselines are not public, so those here are not from the paper",
        f"a load is a multiple of the knee of {_STATIC} (see Loads)",
        f"the first {WARMUP_SHARE:.0%} of the span of arrivals is warm-up and left out; a run ends at the latest "
        f"{DRAIN_S:g} s after its last arrival",
        f"{TUNED} is {code(KAIROS)} with alpha, beta and cap tuned on a separate set of requests, of all workloads "
        f"together, for each machine on 2P2D: {tuned}",
        "[95 % intervals] are bootstraps over seeds, in pairs between policies; those of latencies and of ratios are "
        "taken on the logarithmic scale",
    ]
    places = [*evidence.main, *evidence.hard]
    rules: dict[Setting, list[Cell]] = {}
    for one in evidence.cells(places, evidence.rules):
        if one.place.load == evidence.shown_load:
            rules.setdefault(one.place.setting, []).append(one)
    forms = evidence.cells(places, FORMS.values())
    worse = [one for one in forms if one.is_worse]
    loads = f"Load 1 is the highest rate at which {_STATIC} meets both SLOs of {TARGET:.0%} of the requests."
    return [
        ("", [bullets([*about, *reading])]),
        ("## Claims", [_CLAIMS, claims_text(found)]),
        (f"## The P95 TTFT of {_STATIC}", _tail(evidence)),
        (f"## {code(KAIROS)} against {_STATIC}", _deflection(evidence, forms)),
        ("### Significantly worse", [_WORSE, table(_WORSE_COLUMNS, worse)] if worse else []),
        *[
            (f"## All rules on {setting}, load {evidence.shown_load:g}", [table(_RULES, cells)])
            for setting, cells in rules.items()
        ],
        ("## The cost of a chunk in a decode step", _chunk(evidence)),
        *[(f"## Variants of {code(KAIROS)}: {place}", _variants(evidence, place)) for place in ablated(evidence)],
        ("## Loads", [loads, _knees(evidence)]),
        ("## How this was made", ["\n".join(dict.fromkeys("\n".join(made_by).splitlines()))]),
    ]


def _means(evidence: Evidence) -> str:
    return f"Means of {show.counted(evidence.seeds, 'seed')}"


def _tail(evidence: Evidence) -> list[Part]:
    parts: list[Part] = []
    if places := [place for place in evidence.main if place.load == evidence.shown_load]:
        caption = (
            f"Parts of the TTFT of {_STATIC} around P95 at load {evidence.shown_load:g}; that TTFT in brackets. "
            f"{_means(evidence)}."
        )
        alt = "parts of the P95 TTFT of static by machine and workload"
        picture = Picture("breakdown", figures.tail_parts(evidence, places), alt, caption)
        parts += [picture, table(_TAIL, evidence.cells(places, [BASE]))]
    if evidence.swept:
        caption = (
            f"Prefill execution in the P95 TTFT of {_STATIC} on {plain(BURSTY)}: queues grow with load, execution "
            f"does not. {_means(evidence)}, bands of 95 %."
        )
        alt = "share of prefill execution in the P95 TTFT of static by load"
        picture = Picture("execution_share", figures.execution_by_load(evidence), alt, caption)
        cells = evidence.cells(chain(*evidence.swept.values()), [BASE])
        parts += [picture, f"{plain(BURSTY)} at every load:", table(_TAIL, cells)]
    return parts


def _deflection(evidence: Evidence, forms: Sequence[Cell]) -> list[Part]:
    parts: list[Part] = []
    if evidence.swept:
        caption = (
            f"P95 TTFT by load on {plain(BURSTY)}; a load is a multiple of the knee of {_STATIC} on that machine. "
            f"{_means(evidence)}, bands of 95 %."
        )
        alt = "P95 TTFT by load of static and kairos"
        parts.append(Picture("p95_by_load", figures.tail_by_load(evidence), alt, caption))
    if found := largest_by_machine(evidence):
        text = "The largest improvements of each machine, chosen and measured in the same way:"
        parts += [text, claims_text(found, ("claim", "here", "agrees"))]
    return [*parts, "All cells:", table(_AGAINST, forms)] if forms else parts


def _chunk(evidence: Evidence) -> list[Part]:
    """The time that a chunk adds to a decode step: a figure, and a row per profile and number of decodes."""
    laws = {setting.profile: setting.config.profile.law for setting in evidence.machines}

    def column(chunk: int) -> Column[tuple[str, int]]:
        return Column(f"{chunk} tokens (ms)", lambda row: f"{1e3 * added_s(laws[row[0]], chunk, row[1]):.1f}")

    columns: list[Column[tuple[str, int]]] = [
        Column("profile", lambda row: row[0], left=True),
        Column("decodes in the step", lambda row: f"{row[1]} of {CONTEXT_TOKENS} tokens"),
        *map(column, CHUNKS),
    ]
    caption = (
        f"Time that a chunk without context adds to a step with {DECODES} of context each (not "
        "from a paper), by the law of each profile."
    )
    alt = "time that a prefill chunk adds to a decode step by its tokens"
    picture = Picture("added_step_time", figures.added_step_time(evidence.machines), alt, caption)
    return [picture, table(columns, product(laws, (BATCH, 8, 128)))]


def _variants(evidence: Evidence, place: Place) -> list[Part]:
    base = evidence.groups[place][BASE]
    cells = {one: Cell(place, one.runs(evidence, place), base) for one in variants()}

    def of_cell(column: Column[Cell]) -> Column[Variant]:
        return Column(column.header, lambda one: column.text(cells[one]))

    columns: list[Column[Variant]] = [
        Column("knob", lambda one: one.knob, left=True),
        Column("value", lambda one: one.text, left=True),
        *map(of_cell, [_P95, _CUT, _SLO, _POINTS, _TBT, _DEFLECTED]),
    ]
    caption = (
        f"One knob of {code(KAIROS)} at a time, and prompts deflected at random; dark is the default. "
        f"{_means(evidence)} with 95 % intervals."
    )
    alt = f"P95 TTFT and SLO attainment of variants of kairos on {place.setting}"
    figure = figures.ablation({(one.knob, one.text): cell.runs for one, cell in cells.items()}, base, str(place))
    return [Picture(f"ablation-{place.setting.machine}", figure, alt, caption), table(columns, cells)]


def _knees(evidence: Evidence) -> str:
    """The unit of loads."""
    none = {0.0: "none: it misses its target at every rate", inf: "none: it meets its target at every rate"}
    knees = evidence.knees
    columns: list[Column[tuple[Setting, str]]] = [
        Column("cluster", lambda key: str(key[0]), left=True),
        Column("workload", lambda key: plain(key[1]), left=True),
        Column("knee (req/s)", lambda key: none.get(knees[key], f"{knees[key]:.3g}")),
    ]
    return table(columns, knees)
