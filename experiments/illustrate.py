"""Which pictures a set of results gets."""

from pathlib import Path

import numpy as np

from experiments import figures
from experiments.metrics import Records
from experiments.report import Group

TIMELINE_S = 15.0


def illustrate(groups: dict[tuple[str, float], Group], ttft_slo_s: float, load_is: str, folder: Path) -> list[Path]:
    """Draw a workload's TTFT, its parts and the queues at one load, and attainment where there are several loads.

    The one load is the highest that is not above 1 (the knee, or the trace as it was asked for), else the
    lowest.

    Args:
        groups: results by (workload, load).
        ttft_slo_s: drawn as a line, seconds.
        load_is: what a load is, for the axis.
        folder: where the PNG files go.

    Returns:
        The files, in order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for workload in dict.fromkeys(workload for workload, _ in groups):
        loads = sorted(load for name, load in groups if name == workload)
        shown = max((load for load in loads if load <= 1), default=loads[0])
        group = groups[workload, shown]
        title = f"{workload}, load {shown:g} ({group_rate(group):.1f} requests/s)"

        drawn.append(folder / f"ttft_cdf-{workload}.png")
        figures.ttft_cdf(
            {policy: np.concatenate(runs.ttft_s) for policy, runs in group.items()}, ttft_slo_s, title, drawn[-1]
        )
        drawn.append(folder / f"ttft_breakdown-{workload}.png")
        figures.ttft_breakdown({policy: runs.parts_s for policy, runs in group.items()}, title, drawn[-1])
        records = {policy: runs.outcomes[0].requests[0] for policy, runs in group.items()}
        arrival_s = next(iter(records.values()))["arrival_s"]
        seed = next(iter(group.values())).outcomes[0].cell.seed
        drawn.append(folder / f"queue_depth-{workload}.png")
        figures.queue_depth(records, arrival_s[-1], f"{title}, seed {seed}", drawn[-1])
        drawn.append(folder / f"node_timeline-{workload}.png")
        start_s = busiest_s(next(iter(records.values())), TIMELINE_S)
        figures.node_timeline(records, start_s, start_s + TIMELINE_S, f"{title}, seed {seed}", drawn[-1])
        if len(loads) > 1:
            drawn.append(folder / f"slo_attainment-{workload}.png")
            figures.attainment_by_load(
                {
                    policy: [(load, groups[workload, load][policy].estimate("slo_attainment")) for load in loads]
                    for policy in group
                },
                load_is,
                f"{workload}, 95 % intervals",
                drawn[-1],
            )
    return drawn


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
