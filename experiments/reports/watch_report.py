"""The report of a watch: queue.csv.gz, leads.csv, summary.md, report.html and figures."""

from collections.abc import Iterator, Sequence
from math import inf, isnan, nan
from pathlib import Path
from typing import NamedTuple

import numpy as np

from envs.cluster import Samples
from experiments.analysis.alarms import AHEAD_S, ALARMS, END_TO_END, QUEUE_WAIT, TREND_S, UNITS
from experiments.analysis.bootstrap import Floats
from experiments.analysis.csv_files import packed, write_csv
from experiments.analysis.early_warning import HORIZON_S, LEAST, WINDOW_S, JudgedAlarm, false_rate, fired_s
from experiments.reports import formatting as show
from experiments.reports.columns import Column, bullets, plain, table
from experiments.reports.document import Part, Picture, Section, for_console, write_report
from experiments.reports.figures.watch_figures import alarms_around_breaks, node_timeline
from experiments.runs.trial import Trial
from experiments.runs.watched_run import WatchedSetting
from hardware_profiles.files import replacing

_KEY = ("policy", "workload", "load", "seed")
_QUEUE_COLUMNS = (
    "queued_prompts", "queued_prompt_tokens", "busy_share", "kv_used_tokens", "kv_share", "decode_batch", "step_s",
    "tbt_slo_s", "decode_slack", "sending_bytes", "receiving_bytes",
)  # fmt: skip


def write_watch(
    settings: Sequence[WatchedSetting], about: Sequence[str], definitions: str, folder: Path, *, made_by: str
) -> str:
    """Write the report into `folder`, and return the main table, to print; for `about` see `write_comparison`."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "queue.csv.gz") as temporary:
        temporary.write_bytes(packed(_queue(settings), level=6))
    judged = [setting for setting in settings if setting.alarms]
    warning, shown = early_warning(judged), runs(settings)
    warned: list[Part] = []
    if judged:
        header = [*_KEY, "break_start_s", "break_end_s", "alarm", "threshold", "lead_s"]
        write_csv(folder / "leads.csv", header, _leads(judged))
        warned = [_result(judged), warning, definitions, *_warnings(judged)]
    sections: list[Section] = [
        ("## Early warning", warned),
        ("## Runs", [shown, *map(_timeline, settings)]),
        ("## How it was run", [bullets(about)]),
        ("## How this was made", [made_by]),
    ]
    write_report("Queues over time", sections, folder)
    return for_console(warning or shown)


def _queue(settings: Sequence[WatchedSetting]) -> Iterator[list[object]]:
    """The header, and one row per run, sample and node; slack is nan and tbt_slo_s inf if nothing decodes."""
    yield [*_KEY, "time_s", "node", *_QUEUE_COLUMNS]
    for setting in settings:
        trial, samples = setting.trial, setting.samples
        count, nodes = samples.busy_s.shape
        columns = [getattr(samples, name).ravel().tolist() for name in _QUEUE_COLUMNS]
        time_s = np.repeat(samples.time_s, nodes).tolist()
        key = [trial.policy.label, trial.workload, trial.load, trial.seed]
        yield from ([*key, *row] for row in zip(time_s, [*range(nodes)] * count, *columns, strict=True))


def _leads(settings: Sequence[WatchedSetting]) -> Iterator[list[object]]:
    """One row per judged run, break and alarm: when TTFT broke, and the lead (-inf: missed)."""
    for trial, _, signals_of, alarms in settings:
        for alarm, one in alarms.items():
            for (seed, signals), verdict in zip(signals_of.items(), one.verdicts, strict=True):
                key = [trial.policy.label, trial.workload, trial.load, seed]
                for broken, lead_s in zip(signals.breaks, verdict.leads_s, strict=True):
                    yield [*key, *broken, alarm, one.threshold, lead_s]


def _lead(seconds: float) -> str:
    return "missed" if seconds == -inf else show.signed("{:.2f}".format)(seconds)


def _result(settings: Sequence[WatchedSetting]) -> str:
    """The performance of each alarm over all settings, one line per alarm."""
    lines = []
    for alarm in ALARMS:
        verdicts = [verdict for setting in settings for verdict in setting.alarms[alarm].verdicts]
        one, rate = JudgedAlarm(nan, verdicts, verdicts), false_rate(verdicts)
        if not len(one.leads_s):
            return "TTFT never broke, so there was nothing to warn of."
        lead_s = one.lead_s.value
        lines.append(
            f"{alarm}: in time on {show.percent(one.in_time.value)} % of {show.counted(len(one.leads_s), 'break')}, "
            f"missed {show.percent(one.missed)} %; median lead {_lead(lead_s)}{' s' if lead_s > -inf else ''}"
            + ("" if isnan(rate) else f"; {rate:.1f} false alarms per hour")
        )
    return "Over all rows of the table:\n\n" + bullets(lines)


class _Row(NamedTuple):
    trial: Trial
    alarm: str
    judged: JudgedAlarm


def _false(row: _Row) -> str:
    verdicts = row.judged.verdicts
    count, quiet_h = sum(len(one.false_s) for one in verdicts), sum(one.quiet_s for one in verdicts) / 3600
    return show.known(false_rate(verdicts), f"{{:.1f}} ({count} in {quiet_h:.2f} h)".format)


def early_warning(settings: Sequence[WatchedSetting]) -> str:
    """The table of the performance of each alarm."""
    columns: list[Column[_Row]] = [
        *show.keys(lambda row: row.trial),
        Column("alarm", lambda row: row.alarm, left=True),
        Column("threshold", lambda row: show.known(row.judged.threshold, f"{{:.2f}} {UNITS[row.alarm]}".format)),
        Column("breaks", lambda row: f"{len(row.judged.leads_s)}"),
        Column("lead, median (s)", lambda row: show.with_interval(row.judged.lead_s, _lead)),
        Column("in time (%)", lambda row: show.share(row.judged.in_time)),
        Column("missed (%)", lambda row: show.known(row.judged.missed, show.percent)),
        Column(
            "earlier than end-to-end (%)", lambda row: "" if row.alarm == END_TO_END else show.share(row.judged.earlier)
        ),
        Column("false alarms per hour", _false),
    ]
    return table(columns, [_Row(one.trial, *alarm) for one in settings for alarm in one.alarms.items()])


def definitions(interval_s: float, validation_seeds: int, false_per_h: float) -> str:
    """The definitions behind the table of early warnings."""
    window, horizon = f"{WINDOW_S:g} s", f"{HORIZON_S:g} s"
    return bullets([
        f"TTFT is broken while the P95 of TTFT / SLO over the first tokens of the last {window} ({LEAST} at least) is "
        f"above 1, and for {window} after; a return within that time is the same break. Runs are sampled every "
        f"{interval_s:g} s until their last arrival.",
        "Queue wait: prompt tokens queued at the prefill nodes over the tokens per second these compute, by the "
        f"router's own counters. With trend: extrapolated by {AHEAD_S:g} s at the slope of its last {TREND_S:g} s. "
        "TTFT P95: the one that must not break, with a separate threshold. End-to-end P95: of the latencies of the "
        f"requests that finished in the last {window}.",
        f"Thresholds: for each row the lowest with at most {false_per_h:g} false alarms per hour on "
        f"{validation_seeds} validation seeds; the table is of others. An alarm is silent for {horizon} after it "
        "fired, and false if TTFT does not break within them; counted per hour in which a firing would be false.",
        "Lead: from the alarm to the break; negative if it fired only during the break, missed if it never did. In "
        "time: leads of 0 and more. The median is over all breaks, missed ones last. Earlier: breaks on which it fired "
        "before the end-to-end alarm; equals count half.",
        "[95 % intervals] are bootstraps over seeds, none if fewer than five had a break; one without width says only "
        "that all breaks went the same way.",
    ])  # fmt: skip


def _busy(samples: Samples, nodes: slice) -> str:
    return show.percent(float((samples.busy_s[-1] / samples.time_s[-1])[nodes].mean()))


def runs(settings: Sequence[WatchedSetting]) -> str:
    """The table of the runs that queue.csv.gz and the timelines show."""
    columns: list[Column[WatchedSetting]] = [
        *show.keys(lambda row: row.trial),
        Column("seed", lambda one: f"{one.trial.seed}"),
        Column("most prompts queued", lambda one: f"{one.samples.queued_prompts.sum(axis=1).max():,.0f}"),
        Column("most prompt tokens queued", lambda one: f"{one.samples.queued_prompt_tokens.sum(axis=1).max():,.0f}"),
        Column("prefill nodes busy (%)", lambda one: _busy(one.samples, slice(one.samples.prefill_nodes))),
        Column("decode nodes busy (%)", lambda one: _busy(one.samples, slice(one.samples.prefill_nodes, None))),
        Column("most KV in use on a node (%)", lambda one: show.percent(float(one.samples.kv_share.max()))),
        Column("most KV to send from a node (GB)", lambda one: f"{one.samples.sending_bytes.max() / 1e9:,.2f}"),
        Column(
            "least decode slack (%)",
            lambda one: show.known(np.fmin.reduce(one.samples.decode_slack, None), show.percent),
        ),
        Column(
            "P95 TTFT over its SLO (% of samples)",
            lambda one: show.percent((one.signals[one.trial.seed].ttft_p95 > 1).mean()),
        ),
    ]
    return table(columns, settings)


def _warnings(settings: Sequence[WatchedSetting]) -> Iterator[Picture]:
    """One figure per workload."""
    panels: dict[str, dict[str, dict[str, Floats]]] = {}
    for trial, _, _, alarms in settings:
        panel = {alarm: one.leads_s for alarm, one in alarms.items()}
        panels.setdefault(trial.workload, {})[f"{show.label(trial.policy)}, load {trial.load:g}"] = panel
    for workload, of_workload in panels.items():
        figure = alarms_around_breaks(of_workload, f"{workload}: alarms around breaks of P95 TTFT")
        caption = f"Share of the breaks on which an alarm has fired, by time since the break, on {plain(workload)}."
        yield Picture(f"early_warning-{workload}", figure, f"breaks with each alarm by time, {workload}", caption)


def _timeline(setting: WatchedSetting) -> Picture:
    """The node timeline of a run."""
    trial, signals = setting.trial, setting.signals[setting.trial.seed]
    shown = [alarm for alarm in (QUEUE_WAIT, END_TO_END) if alarm in setting.alarms]
    fired = {alarm: fired_s(signals.of(alarm), setting.alarms[alarm].threshold) for alarm in shown}
    policy, run = show.label(trial.policy), f"{trial.workload}, load {trial.load:g}, seed {trial.seed}"
    return Picture(
        f"watch-{trial.policy.label}-{trial.workload}-load{trial.load:g}",
        node_timeline(setting.samples, signals, fired, f"{policy} on {run}"),
        f"node timeline of {policy} on {trial.workload}",
        f"P95 TTFT over its SLO, alarms, and each node over time: {show.name(trial.policy)} on {plain(run)}.",
    )
