"""The map as a table (map.csv), as a Markdown fragment (map.md), and as figures."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from experiments.analysis.csv_files import write_csv
from experiments.analysis.folders.comparison_folder import Folder
from experiments.analysis.map_conditions import Condition, Contest, Contests, Criterion, RuleRuns, tied
from experiments.analysis.metrics import ATTAINMENT_MARGIN
from experiments.reports import formatting as show
from experiments.reports.columns import Column, bullets, code, plain, table
from experiments.reports.figures import map_figures
from experiments.reports.figures.style import save
from experiments.runs.saturation import TARGET
from hardware_profiles.files import replacing
from policies import PolicySpec
from policies.kinds import RULE_KINDS, Kind, kind_of

TITLES: dict[Criterion, str] = {
    "usable": f"Lowest P95 TTFT among rules within {100 * ATTAINMENT_MARGIN:g} point of the best SLO attainment",
    "lowest": "Lowest P95 TTFT, whatever the SLO attainment",
}
_LEGEND = (
    "The columns of kinds show the rule of that kind with the lowest P95 TTFT: P95 TTFT in ms with its 95 % interval, "
    "then SLO attainment in %. **Bold**: lowest of the three, or tied with it. The ratio is the best role-free rule's "
    "P95 TTFT over that of the best rule that keeps roles (disaggregated or deflecting), paired by seed. The last "
    f"column is the winner among rules within {100 * ATTAINMENT_MARGIN:g} point of the best SLO attainment."
)
_Table = tuple[str, float]
"""Step budget and TBT SLO, seconds."""


def write_map(folders: Sequence[Folder], by_criterion: Mapping[Criterion, Contests], folder: Path) -> str:
    """Write map.csv, map.md and figures/ into `folder`; returns the text of map.md."""
    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    rows = [
        {"criterion": criterion} | condition._asdict() | _fields(contest)
        for criterion, contests in by_criterion.items()
        for condition, contest in contests.items()
    ]
    write_csv(folder / "map.csv", rows[0], [row.values() for row in rows])
    text = _fragment(folders, by_criterion)
    with replacing(folder / "map.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    for criterion, found in by_criterion.items():
        save(map_figures.winners(found, TITLES[criterion]), figures / f"map-winners-{criterion}.png")
        save(map_figures.ratios(found, TITLES[criterion]), figures / f"map-ratios-{criterion}.png")
    return text


def _fields(contest: Contest) -> dict[str, object]:
    """A row of map.csv after its condition; a field is empty if no rule of the kind takes part."""

    def bounds(column: str, interval: Sequence[object] | None, unit: str = "") -> dict[str, object]:
        names = [f"{column}{unit}", f"{column}_low{unit}", f"{column}_high{unit}"]
        return dict(zip(names, interval or [""] * 3, strict=True))

    winner = contest.winner
    fields: dict[str, object] = {
        "rate_rps": winner.rate_rps,
        "seeds": winner.seeds,
        "top_attainment": contest.top_attainment,
        "winner": winner.policy.label,
        "winner_kind": winner.kind,
        **bounds("winner_ttft_p95", winner.p95.interval(log=True), "_s"),
        **bounds("winner_slo_attainment", winner.attainment.interval()),
    }
    for kind in RULE_KINDS:
        runs, start = contest.best.get(kind), kind.replace("-", "_")
        fields[f"{start}_rule"] = runs.policy.label if runs else ""
        fields |= bounds(f"{start}_ttft_p95", runs and runs.p95.interval(log=True), "_s")
        fields[f"{start}_slo_attainment"] = runs.attainment.value if runs else ""
    fields["tied_kinds"] = " ".join(contest.tied_kinds)
    return fields | bounds("role_free_over_role_keeping", contest.role_free_ratio)


def _fragment(folders: Sequence[Folder], by_criterion: Mapping[Criterion, Contests]) -> str:
    """The Markdown fragment: what was run, counts of winners, and the tables of all conditions."""
    parts = ["### Rules and parameters", *_about(folders)]
    for criterion, contests in by_criterion.items():
        parts += [f"### {TITLES[criterion]}", "Number of conditions (workload and load) by result:", _counts(contests)]
    parts += ["### Every condition", _LEGEND]
    for one, lowest in _by_table(by_criterion["lowest"]).items():
        parts += [f"#### Step budget {_title(one)} TBT SLO", _conditions(lowest, by_criterion["usable"])]
    return "\n\n".join(parts) + "\n"


def _by_table(contests: Contests) -> dict[_Table, Contests]:
    found: dict[_Table, Contests] = {}
    for condition, contest in contests.items():
        found.setdefault((condition.step_budget, condition.tbt_slo_s), {})[condition] = contest
    return found


def _title(one: _Table) -> str:
    return f"`{one[0]}`, {1e3 * one[1]:g} ms"


_TABLE = Column[_Table]("step budget, TBT SLO", _title, left=True)


def _about(folders: Sequence[Folder]) -> list[str]:
    options, seeds = folders[0].options, folders[0].seeds
    lines = [
        f"Cluster {plain(str(options.get('cluster')))} of {code(str(options.get('profile')))}, TTFT SLO "
        f"{options['ttft_slo']} s, node reports {options.get('report_age_ms')} ms old, {options['requests']} requests "
        f"per run, seeds {seeds[0]} to {seeds[-1]}.",
        "Loads are multiples of the knee of `static` under the same TBT SLO and step budget.",
        *(f"Parameters of the rules: {plain(how)}." for how in dict.fromkeys(folder.tuning for folder in folders)),
    ]
    specs: dict[_Table, dict[str, PolicySpec]] = {}
    for folder in sorted(folders, key=lambda folder: folder.table):
        specs.setdefault(folder.table, {}).update(folder.policies)
    rules = Column[_Table]("rules", lambda one: ", ".join(map(_rule, specs[one].values())), left=True)
    return [bullets(lines), table([_TABLE, rules], specs)]


def _rule(spec: PolicySpec) -> str:
    """A rule with its parameters; one that takes no part in the map is marked."""
    text = spec.label if spec.learned else spec.text if spec.alias == spec.rule else str(spec)
    return code(text) + (" (left out)" if kind_of(spec) == "other" else "")


def _counts(contests: Contests) -> str:
    """How many conditions each kind wins, and how the role-free rules compare, by step budget and TBT SLO."""
    by_table = _by_table(contests)

    def count(header: str, holds: Callable[[Contest], bool]) -> Column[_Table]:
        return Column(header, lambda one: str(sum(map(holds, by_table[one].values()))))

    def wins(kind: Kind) -> Column[_Table]:
        return count(f"{kind} wins", lambda one: one.winner.kind == kind)

    columns: list[Column[_Table]] = [
        _TABLE,
        count("conditions", lambda _: True),
        *map(wins, RULE_KINDS),
        count("winner tied with another kind", lambda one: bool(one.tied_kinds)),
        count("role-free significantly lower", lambda one: bool((ratio := one.role_free_ratio) and ratio.high < 1)),
        count("role-free and role-keeping tied", lambda one: bool((ratio := one.role_free_ratio) and tied(ratio))),
        count("role-keeping significantly lower", lambda one: bool((ratio := one.role_free_ratio) and ratio.low > 1)),
        count("only one of the two takes part", lambda one: one.role_free_ratio is None),
        count(f"no rule reaches {TARGET:.0%}", lambda one: one.top_attainment < TARGET),
    ]
    return table(columns, by_table)


def _conditions(lowest: Contests, usable: Contests) -> str:
    def of_kind(kind: Kind) -> Column[Condition]:
        return Column(kind, lambda key: _best(lowest[key], kind))

    def ratio(key: Condition) -> str:
        found = lowest[key].role_free_ratio
        return show.with_interval(found, show.times) if found else "none"

    columns: list[Column[Condition]] = [
        Column("workload", lambda key: plain(key.workload), left=True),
        Column("load", lambda key: f"{key.load:g}", left=True),
        *map(of_kind, RULE_KINDS),
        Column("role-free / role-keeping", ratio),
        Column("winner within a point", lambda key: _named(usable[key].winner, show.ms(usable[key].winner.p95.value))),
    ]
    return table(columns, lowest)


def _best(contest: Contest, kind: Kind) -> str:
    runs = contest.best.get(kind)
    mark = "**" if kind in [contest.winner.kind, *contest.tied_kinds] else ""
    return _named(runs, show.latency(runs.p95.interval(log=True)), mark) if runs else "none"


def _named(runs: RuleRuns, p95: str, mark: str = "") -> str:
    return f"{mark}{show.name(runs.policy)} {p95}{mark}, {show.percent(runs.attainment.value)}"
