"""The map as a table (map.csv) and as a Markdown fragment (map.md)."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import policies
from experiments import statistics
from experiments.cost import ATTAINMENT_MARGIN
from experiments.knee import TARGET
from experiments.map.folders import Folder, RuleRuns
from experiments.map.kinds import MAPPED_KINDS, kind_of
from experiments.map.winners import Contest, Contests, Criterion, tied
from experiments.markdown import bullets, code, plain, table
from experiments.printed import ms, name, percent, time_of, with_interval
from experiments.statistics import Interval
from hardware_profiles.files import replacing

TITLES: dict[Criterion, str] = {
    "usable": f"Lowest P95 TTFT among rules within {100 * ATTAINMENT_MARGIN:g} point of the best SLO attainment",
    "lowest": "Lowest P95 TTFT, whatever the SLO attainment",
}


def p95(runs: RuleRuns) -> Interval:
    """P95 TTFT, mean over seeds."""
    return statistics.mean_interval(runs.ttft_p95_s)


def attainment(runs: RuleRuns) -> Interval:
    """SLO attainment, mean over seeds."""
    return statistics.mean_interval(runs.slo_attainment)


def times(ratio: float) -> str:
    """A ratio, with two or three digits."""
    return f"{ratio:#.2g}" if ratio < 0.0995 else f"{ratio:.2f}" if ratio < 9.995 else f"{ratio:.1f}"


def _bounds(column: str, unit: str = "") -> list[str]:
    return [f"{column}{unit}", f"{column}_low{unit}", f"{column}_high{unit}"]


def write_csv(by_criterion: Mapping[Criterion, Contests], path: Path) -> None:
    """Write one row per criterion and condition; a field is empty if no rule of the kind takes part."""
    header = ["criterion", "step_budget", "tbt_slo_s", "workload", "load", "rate_rps", "seeds", "top_attainment"]
    header += ["winner", "winner_kind", *_bounds("winner_ttft_p95", "_s"), *_bounds("winner_slo_attainment")]
    for kind in MAPPED_KINDS:
        start = kind.replace("-", "_")
        header += [f"{start}_rule", *_bounds(f"{start}_ttft_p95", "_s"), f"{start}_slo_attainment"]
    header += ["tied_kinds", *_bounds("role_free_over_role_keeping")]
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(header)
        for criterion, contests in by_criterion.items():
            for condition, contest in contests.items():
                rows.writerow([criterion, *condition, *_fields(contest)])


def _fields(contest: Contest) -> list[object]:
    winner = contest.winner
    fields: list[object] = [winner.rate_rps, len(winner.ttft_p95_s), contest.top_attainment]
    fields += [winner.label, winner.kind, *p95(winner), *attainment(winner)]
    for kind in MAPPED_KINDS:
        runs = contest.best.get(kind)
        fields += [runs.label, *p95(runs), float(runs.slo_attainment.mean())] if runs else [""] * 5
    return [*fields, " ".join(contest.tied_kinds), *(contest.role_free_ratio or [""] * 3)]


def fragment(folders: Sequence[Folder], by_criterion: Mapping[Criterion, Contests]) -> str:
    """The Markdown fragment: what was run, counts of winners, and the tables of all conditions."""
    parts = ["### Rules and parameters", _about(folders)]
    for criterion, contests in by_criterion.items():
        parts += [f"### {TITLES[criterion]}", "Number of conditions (workload and load) by result:", _counts(contests)]
    parts += ["### Every condition", _LEGEND]
    for budget, tbt_slo_s in _tables(by_criterion["lowest"]):
        chosen = {name: _of(contests, budget, tbt_slo_s) for name, contests in by_criterion.items()}
        parts += [f"#### Step budget {_title(budget, tbt_slo_s)} TBT SLO", _conditions(chosen)]
    return "\n\n".join(parts) + "\n"


_LEGEND = (
    "Each of the three columns of kinds shows the rule with the lowest P95 TTFT of that kind: P95 TTFT in ms with its "
    "95 % interval, then SLO attainment in %. **Bold**: lowest of the three, or tied with it. The ratio is the best "
    "role-free rule's P95 TTFT over that of the best rule that keeps roles (disaggregated or deflecting), paired by "
    f"seed. The last column names the winner among the rules within {100 * ATTAINMENT_MARGIN:g} point of the best SLO "
    "attainment."
)


def _tables(contests: Contests) -> list[tuple[str, float]]:
    return list(dict.fromkeys((condition.step_budget, condition.tbt_slo_s) for condition in contests))


def _of(contests: Contests, budget: str, tbt_slo_s: float) -> Contests:
    return {key: found for key, found in contests.items() if (key.step_budget, key.tbt_slo_s) == (budget, tbt_slo_s)}


def _about(folders: Sequence[Folder]) -> str:
    command = folders[0].command
    lines = [
        f"Cluster {plain(str(command.get('cluster')))} of {code(str(command.get('profile')))}, TTFT SLO "
        f"{command.get('ttft_slo')} s, node reports {command.get('report_age_ms')} ms old, {command.get('requests')} "
        f"requests per run, seeds 0 to {command['seeds'] - 1}.",
        "Loads are multiples of the knee of `static` under the same TBT SLO and step budget.",
        *(f"Parameters of the rules: {plain(how)}." for how in dict.fromkeys(folder.tuning for folder in folders)),
    ]
    settings: dict[tuple[str, float], dict[str, str]] = {}
    for folder in sorted(folders, key=lambda folder: folder.table):
        settings.setdefault(folder.table, {}).update(folder.settings)
    rows = [
        [_title(*key), ", ".join(_setting(label, setting) for label, setting in chosen.items())]
        for key, chosen in settings.items()
    ]
    return f"{bullets(lines)}\n\n{table(['step budget, TBT SLO', 'rules'], rows, left=2)}"


def _setting(label: str, setting: str) -> str:
    """A rule with its parameters; one that takes no part in the map is marked."""
    if policies.trained_path(setting):
        named = label
    else:
        named = setting.removeprefix(f"{label}=") if setting.startswith(f"{label}={label}:") else setting
    return code(named) + (" (left out)" if kind_of(setting) == "other" else "")


def _title(budget: str, tbt_slo_s: float) -> str:
    return f"`{budget}`, {1e3 * tbt_slo_s:g} ms"


def _counts(contests: Contests) -> str:
    """How many conditions each kind wins, and how the role-free rules compare, by step budget and TBT SLO."""
    header = ["step budget, TBT SLO", "conditions", *(f"{kind} wins" for kind in MAPPED_KINDS)]
    header += ["winner tied with another kind", "role-free significantly lower", "role-free and role-keeping tied"]
    header += ["role-keeping significantly lower", "only one of the two takes part", f"no rule reaches {TARGET:.0%}"]
    rows = []
    for budget, tbt_slo_s in _tables(contests):
        found = list(_of(contests, budget, tbt_slo_s).values())
        both = [ratio for ratio in (one.role_free_ratio for one in found) if ratio is not None]
        numbers = [len(found), *(sum(one.winner.kind == kind for one in found) for kind in MAPPED_KINDS)]
        numbers += [sum(bool(one.tied_kinds) for one in found)]
        numbers += [sum(each.high < 1 for each in both), sum(map(tied, both)), sum(each.low > 1 for each in both)]
        numbers += [len(found) - len(both), sum(one.top_attainment < TARGET for one in found)]
        rows.append([_title(budget, tbt_slo_s), *map(str, numbers)])
    return table(header, rows)


def _conditions(by_criterion: Mapping[Criterion, Contests]) -> str:
    header = ["workload", "load", *MAPPED_KINDS, "role-free / role-keeping", "winner within a point"]
    rows = []
    for condition, contest in by_criterion["lowest"].items():
        row = [plain(condition.workload), f"{condition.load:g}"]
        for kind in MAPPED_KINDS:
            runs = contest.best.get(kind)
            leads = kind == contest.winner.kind or kind in contest.tied_kinds
            row.append("none" if runs is None else _shown(runs, "**" if leads else ""))
        ratio = contest.role_free_ratio
        row.append("none" if ratio is None else with_interval(ratio, times, least=0))
        winner = by_criterion["usable"][condition].winner
        row.append(f"{name(winner.label)} {ms(p95(winner).value)}, {percent(attainment(winner).value)}")
        rows.append(row)
    return table(header, rows, left=2)


def _shown(runs: RuleRuns, mark: str) -> str:
    return f"{mark}{name(runs.label)} {time_of(p95(runs))}{mark}, {percent(attainment(runs).value)}"
