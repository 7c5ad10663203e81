"""Which pictures a set of results gets, and what each of them shows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments import figures
from experiments.groups import Group, Groups, base_of, highlighted, named, of_workload, shown_load, workloads
from experiments.markdown import plain
from experiments.metrics import Records
from experiments.overview_figure import overview
from experiments.printed import counted, name

TIMELINE_S = 15.0


class Picture(NamedTuple):
    """A figure in a report.

    Attributes:
        path: its file.
        alt: what it is, in a few words.
        caption: what is to be seen, of how many requests; Markdown.
    """

    path: Path
    alt: str
    caption: str


def illustrate(groups: Groups, ttft_slo_s: Mapping[str, float], load_is: str, folder: Path) -> dict[str, list[Picture]]:
    """Draw an overview, and of each workload its TTFT, the parts of it, the queues, and attainment by load.

    Where it is of one load, that is `shown_load`. Policies that a crowded picture shows in colour are `highlighted`.

    Args:
        groups: results.
        ttft_slo_s: drawn as a line, seconds; of each workload that has one TTFT SLO for all requests.
        load_is: what a load is, for the axis.
        folder: where the PNG files go.

    Returns:
        Pictures by workload, and "" for those of all of them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn: dict[str, list[Picture]] = {"": []}
    if len(named(groups)) > 1 and len(groups) > 1:
        path = folder / "overview.png"
        overview(groups, path)
        drawn[""].append(
            Picture(
                path,
                "P95 TTFT and SLO attainment by policy, workload and load",
                f"Policies (rows, in order of P95 TTFT) by workload and {plain(load_is)} (columns). Above, P95 TTFT "
                f"against that of {name(base_of(groups))} on the same requests, blue where it is lower: colours end at "
                "four times, and a number in brackets is not told apart. Below, the share of requests that met both "
                f"SLOs. Means of {_size(groups)}.",
            )
        )
    for workload in workloads(groups):
        slo_s = ttft_slo_s.get(workload)
        drawn[workload] = _of_workload(of_workload(groups, workload), highlighted(groups), slo_s, load_is, folder)
    return drawn


def _of_workload(
    groups: Groups, coloured: Sequence[str], ttft_slo_s: float | None, load_is: str, folder: Path
) -> list[Picture]:
    (workload,) = workloads(groups)
    load = shown_load(groups, workload)
    group = groups[workload, load]
    title = f"{workload}, load {load:g} ({group_rate(group):.1f} requests/s)"
    at = f"{plain(workload)} at load {load:g}, {_size({(workload, load): group})}"
    few = len(coloured) < len(group)
    greys = f"; the other {len(group) - len(coloured)} policies are grey" if few else ""
    only = f"; {len(coloured)} of {len(group)} policies" if few else ""
    file_name = "".join(char if char.isalnum() or char in "-_." else "_" for char in workload)
    drawn = []

    def picture(kind: str, alt: str, caption: str) -> Path:
        path = folder / f"{kind}-{file_name}.png"
        drawn.append(Picture(path, f"{alt}, {workload}", caption))
        return path

    dashed = "" if ttft_slo_s is None else f"Dashed, the SLO of {ttft_slo_s:g} s; "
    figures.ttft_cdf(
        {policy: np.concatenate(runs.ttft_s) for policy, runs in group.items()},
        ttft_slo_s,
        title,
        picture(
            "ttft_cdf",
            "distribution of TTFT by policy",
            "Share of requests (up) whose first token came within a time (right, logarithmic): further left is better. "
            f"{dashed}dotted, P95. {at}{greys}.",
        ),
        coloured,
    )
    if len(groups) > 1:
        figures.attainment_by_load(
            {
                policy: [(load, runs_at[policy].estimate("slo_attainment")) for (_, load), runs_at in groups.items()]
                for policy in group
            },
            load_is,
            f"{workload}, 95 % intervals",
            picture(
                "slo_attainment",
                "SLO attainment by load",
                "Share of requests that met both SLOs (up) by load (right), with 95 % intervals. Points of one load "
                f"stand side by side. {plain(workload)}, {_size(groups)}{greys}.",
            ),
            coloured,
        )
    figures.ttft_breakdown(
        {policy: runs.parts_s for policy, runs in group.items()},
        title,
        picture(
            "ttft_breakdown",
            "parts of the TTFT around P95",
            "What the TTFT around P95 is made of: means over the requests from P94 to P96, in milliseconds (left) and "
            f"as shares of it (right), shortest first. {at}.",
        ),
    )
    records = {policy: group[policy].outcomes[0].requests[0] for policy in coloured}
    first = next(iter(records.values()))
    seed = group[coloured[0]].outcomes[0].cell.seed
    figures.queue_depth(
        records,
        first["arrival_s"][-1],
        f"{title}, seed {seed}",
        picture(
            "queue_depth",
            "prompts that wait for their prefill over time",
            f"Prompts whose prefill has not started (up, logarithmic above 10) over the time of a run (right). "
            f"{plain(workload)} at load {load:g}, seed {seed} alone, n = {len(first):,} requests{only}.",
        ),
    )
    start_s = busiest_s(first, TIMELINE_S)
    figures.node_timeline(
        records,
        start_s,
        start_s + TIMELINE_S,
        f"{title}, seed {seed}",
        picture(
            "node_timeline",
            "where prompts are prefilled in the busiest seconds",
            f"The {TIMELINE_S:g} s in which most prompt tokens arrive: each bar is a prompt from the start to the end "
            "of its prefill (right), on the node that prefills it (rows), orange where that node decodes it too. "
            f"{plain(workload)} at load {load:g}, seed {seed} alone{only}.",
        ),
    )
    return drawn


def _size(groups: Groups) -> str:
    """How many requests a policy was measured on."""
    runs = [next(iter(group.values())) for group in groups.values()]
    requests = sum(out.metrics.requests for one in runs for out in one.outcomes)
    return f"n = {requests:,} measured requests a policy ({counted(len(runs[0].outcomes), 'seed')})"


def group_rate(group: Group) -> float:
    """Mean arrival rate over seeds, requests per second."""
    outcomes = next(iter(group.values())).outcomes
    return sum(out.rate_rps for out in outcomes) / len(outcomes)


def busiest_s(records: Records, span_s: float) -> float:
    """The arrival that begins the `span_s` seconds in which most prompt tokens come, seconds."""
    arrival_s = records["arrival_s"]
    tokens_before = np.concatenate([[0], np.cumsum(records["prompt_tokens"])])
    last = np.searchsorted(arrival_s, arrival_s + span_s, side="right")
    tokens = tokens_before[last] - tokens_before[: len(arrival_s)]
    return float(arrival_s[np.argmax(tokens)])
