"""What a watch writes: queue.csv.gz, leads.csv, summary.md, report.html and figures."""

import csv
import gzip
import io
from collections.abc import Mapping, Sequence
from math import inf, isnan
from pathlib import Path

import numpy as np

import policies
from envs.cluster import Samples
from experiments.cells import Cell
from experiments.markdown import bullets, figure, plain, table
from experiments.output import write_report
from experiments.printed import label, name, percent, signed, with_interval
from experiments.watch.alarms import AHEAD_S, ALARMS, END_TO_END, QUEUE_WAIT, TREND_S, UNITS
from experiments.watch.early_warning import HORIZON_S, LEAST, WINDOW_S, false_rate
from experiments.watch.figures import Timeline, node_timeline, warned
from experiments.watch.runs import Judged, Seen, Setting, fired_s
from hardware_profiles.files import replacing

Settings = Mapping[Setting, Mapping[str, Judged]]

_QUEUE_COLUMNS = (
    "queued_prompts",
    "queued_prompt_tokens",
    "busy_share",
    "kv_used_tokens",
    "kv_share",
    "decode_batch",
    "step_s",
    "tbt_slo_s",
    "decode_slack",
    "sending_bytes",
    "receiving_bytes",
)


def write(seen: Mapping[Cell, Seen], settings: Settings, definitions: str, about: Sequence[str], folder: Path) -> str:
    """Write everything into `folder`.

    Args:
        seen: all runs; queue.csv.gz, timelines and the table of runs are of those with samples.
        settings: the alarms; empty where none could be calibrated.
        definitions: what the table of alarms counts, as Markdown.
        about: how this was made, a line of Markdown each.
        folder: where to write.

    Returns:
        The main table, to print.
    """
    whole = {cell: one.samples for cell, one in seen.items() if one.samples is not None}
    write_queue(whole, folder / "queue.csv.gz")
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    sections = ["# The queue, watched"]
    if settings:
        write_leads(seen, settings, folder / "leads.csv")
        sections += ["## Early warning", came_out(settings), early_warning(settings), definitions]
        sections += _draw_warnings(settings, figures)
    timelines = [_draw_timeline(cell, seen[cell], settings, figures) for cell in whole]
    sections += ["## Runs", runs(whole, seen), *timelines, "## How this was made", bullets(about)]
    write_report("\n\n".join(sections) + "\n", sorted((folder / "figures").glob("*.png")), folder)
    return early_warning(settings) if settings else runs(whole, seen)


def write_queue(watched: Mapping[Cell, Samples], path: Path) -> None:
    """A gzipped CSV file with a row a run, sample and node; equal samples give equal bytes.

    Slack is nan where nothing decodes; tbt_slo_s is inf there.
    """
    with (
        replacing(path) as temporary,
        temporary.open("wb") as raw,
        # No name and no time in the header, or two runs would differ.
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="") as file,
    ):
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow([*Cell._fields, "time_s", "node", *_QUEUE_COLUMNS])
        for cell, samples in watched.items():
            key = [policies.label(cell.policy), *cell[1:]]
            count, nodes = samples.busy_s.shape
            time_s = np.repeat(samples.time_s, nodes).tolist()
            node = list(range(nodes)) * count
            columns = [getattr(samples, column).ravel().tolist() for column in _QUEUE_COLUMNS]
            rows.writerows([*key, *row] for row in zip(time_s, node, *columns, strict=True))


def write_leads(seen: Mapping[Cell, Seen], settings: Settings, path: Path) -> None:
    """A CSV file with a row an evaluated run, break and alarm: when TTFT broke, and the lead (-inf: missed)."""
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow([*Cell._fields, "break_start_s", "break_end_s", "alarm", "threshold", "lead_s"])
        for (workload, load, policy), by_alarm in settings.items():
            for alarm, one in by_alarm.items():
                # Evaluation seeds count from 0.
                for seed, verdict in enumerate(one.verdicts):
                    broken = seen[Cell(policy, workload, load, seed)].breaks
                    for span, lead_s in zip(broken, verdict.leads_s, strict=True):
                        rows.writerow(
                            [policies.label(policy), workload, load, seed, *span, alarm, one.threshold, lead_s]
                        )


def _lead(seconds: float) -> str:
    return "missed" if seconds == -inf else signed("{:.2f}".format)(seconds)


def came_out(settings: Settings) -> str:
    """What each alarm was worth over all settings, a line an alarm."""
    lines = []
    for alarm in ALARMS:
        every = [verdict for by_alarm in settings.values() for verdict in by_alarm[alarm].verdicts]
        leads_s = np.array([lead_s for verdict in every for lead_s in verdict.leads_s])
        if not len(leads_s):
            return "TTFT never broke: there was nothing to warn of."
        median_s = float(np.quantile(leads_s, 0.5, method="inverted_cdf"))
        false_per_h = false_rate(every)
        lines.append(
            f"{alarm}: in time on {percent(float((leads_s >= 0).mean()))} % of {len(leads_s)} breaks, missed "
            f"{percent(float((leads_s == -inf).mean()))} %; median lead {_lead(median_s)}"
            + ("" if median_s == -inf else " s")
            + ("" if isnan(false_per_h) else f"; {false_per_h:.1f} false alarms an hour")
        )
    return "Over all rows of the table:\n\n" + bullets(lines)


def early_warning(settings: Settings) -> str:
    """The table of what each alarm was worth."""
    rows = []
    for (workload, load, policy), by_alarm in settings.items():
        for alarm, one in by_alarm.items():
            found = one.worth
            false_per_h = false_rate(one.verdicts)
            rows.append(
                [
                    plain(workload),
                    f"{load:g}",
                    name(policy),
                    alarm,
                    "none" if isnan(one.threshold) else f"{one.threshold:.2f} {UNITS[alarm]}",
                    f"{found.breaks}",
                    with_interval(found.lead_s, _lead),
                    with_interval(found.in_time, percent),
                    "none" if isnan(found.missed) else percent(found.missed),
                    "" if alarm == END_TO_END else with_interval(found.earlier, percent),
                    "none"
                    if isnan(false_per_h)
                    else f"{false_per_h:.1f} ({found.false_alarms} in {found.quiet_h:.2f} h)",
                ]
            )
    header = [
        "workload",
        "load",
        "policy",
        "alarm",
        "threshold",
        "breaks",
        "lead, median (s)",
        "in time (%)",
        "missed (%)",
        "earlier than end-to-end (%)",
        "false alarms an hour",
    ]
    return table(header, rows, left=4)


def definitions(interval_s: float, validation_seeds: int, false_per_h: float) -> str:
    """What the table of early warnings counts."""
    window, horizon = f"{WINDOW_S:g} s", f"{HORIZON_S:g} s"
    lines = [
        f"TTFT is broken while the P95 of TTFT / SLO over the first tokens of the last {window} ({LEAST} at least) is "
        f"above 1, and for {window} after; what comes back within that time is one break. Runs are sampled every "
        f"{interval_s:g} s until their last arrival.",
        "Queue wait: prompt tokens queued at the prefill nodes over the tokens a second these compute, from the "
        f"router's own counters. With trend: what it will be in {AHEAD_S:g} s at the slope of its last {TREND_S:g} s. "
        "TTFT P95: the one that is to break, with a threshold of its own. End-to-end P95: of the latencies of the "
        f"requests that finished in the last {window}.",
        f"Thresholds: for each row the lowest with at most {false_per_h:g} false alarms an hour on {validation_seeds} "
        f"validation seeds; the table is of others. An alarm is silent for {horizon} after it fired; it is false where "
        "TTFT does not break within them. False alarms are counted per hour in which a firing would be false.",
        "Lead: from the alarm to the break; negative where it fired only during the break, missed where it never did. "
        "In time: leads of 0 and more. The median is over all breaks, missed ones last. Earlier: breaks on which it "
        "fired before the end-to-end alarm; equals count half.",
        "[95 % intervals] are bootstraps over seeds, none where fewer than five had a break; one without width says no "
        "more than that all breaks went the same way.",
    ]
    return bullets(lines)


def runs(whole: Mapping[Cell, Samples], seen: Mapping[Cell, Seen]) -> str:
    """The table of the runs that queue.csv.gz and the timelines show."""
    rows = []
    for cell, samples in whole.items():
        split = samples.prefill_nodes
        busy = samples.busy_s[-1] / samples.time_s[-1]
        slack = samples.decode_slack[~np.isnan(samples.decode_slack)]
        rows.append(
            [
                plain(cell.workload),
                f"{cell.load:g}",
                name(cell.policy),
                f"{cell.seed}",
                f"{samples.queued_prompts.sum(axis=1).max():,.0f}",
                f"{samples.queued_prompt_tokens.sum(axis=1).max():,.0f}",
                percent(float(busy[:split].mean())),
                percent(float(busy[split:].mean())),
                percent(float(samples.kv_share.max())),
                f"{samples.sending_bytes.max() / 1e9:,.2f}",
                percent(float(slack.min())) if len(slack) else "none",
                percent(float((seen[cell].signals.ttft_p95 > 1).mean())),
            ]
        )
    header = [
        "workload",
        "load",
        "policy",
        "seed",
        "most prompts queued",
        "most prompt tokens queued",
        "prefill nodes busy (%)",
        "decode nodes busy (%)",
        "most KV in use on a node (%)",
        "most KV to send from a node (GB)",
        "least decode slack (%)",
        "P95 TTFT over its SLO (% of samples)",
    ]
    return table(header, rows, left=3)


def _draw_warnings(settings: Settings, folder: Path) -> list[str]:
    """A picture a workload; returns them as Markdown."""
    drawn = []
    for workload in dict.fromkeys(setting.workload for setting in settings):
        panels = {
            f"{label(setting.policy)}, load {setting.load:g}": {alarm: one.leads_s for alarm, one in by_alarm.items()}
            for setting, by_alarm in settings.items()
            if setting.workload == workload
        }
        path = folder / f"early_warning-{_safe(workload)}.png"
        warned(panels, f"{workload}: alarms around breaks of P95 TTFT", path)
        caption = f"{plain(workload)}: share of the breaks on which an alarm has fired, by time since the break"
        drawn.append(figure(f"figures/{path.name}", f"Breaks with each alarm by time, {workload}", caption))
    return drawn


def _draw_timeline(cell: Cell, one: Seen, settings: Settings, folder: Path) -> str:
    """The node timeline of a run; returns it as Markdown."""
    assert one.samples is not None
    by_alarm = settings.get(Setting(cell.workload, cell.load, cell.policy), {})
    fired = {alarm: fired_s(one.by(alarm), by_alarm[alarm].threshold) for alarm in (QUEUE_WAIT, END_TO_END) if by_alarm}
    shown = Timeline(one.samples, one.signals.time_s, one.signals.ttft_p95, one.breaks, fired)
    path = folder / f"watch-{_safe(policies.label(cell.policy))}-{_safe(cell.workload)}-load{cell.load:g}.png"
    node_timeline(shown, f"{label(cell.policy)} on {cell.workload}, load {cell.load:g}, seed {cell.seed}", path)
    caption = f"{name(cell.policy)} on {plain(cell.workload)}, load {cell.load:g}, seed {cell.seed}"
    return figure(f"figures/{path.name}", f"Node timeline of {label(cell.policy)} on {cell.workload}", caption)


def _safe(text: str) -> str:
    """`text` as part of a file's name."""
    return "".join(char if char.isalnum() or char in "-_.=" else "_" for char in text)
