"""What an episode came to: TTFT, SLO attainment and placements, from its requests' records."""

from typing import Any

import numpy as np

from envs.cluster import RequestRecord
from envs.workload import Row


def episode_summary(records: list[RequestRecord], requests: list[Row], decisions: int) -> dict[str, Any]:
    """Sum up the finished requests of an episode.

    Requests that are still running when the episode is truncated are left out, so that a summary of a short episode
    leans towards short outputs; `finished` over `decisions` says how many were counted.

    Args:
        records: of the requests that the agent placed and that have finished.
        requests: of the episode, by their number.
        decisions: requests that the agent placed.

    Returns:
        "decisions", "finished", "ttft_mean_s", "ttft_p50_s", "ttft_p95_s", "ttft_p99_s" (seconds), "slo_attainment"
        (share of the finished requests that met both SLOs) and "deflected_share" (share of them that were prefilled
        where they decode). nan if none has finished.
    """
    summary: dict[str, Any] = {"decisions": decisions, "finished": len(records)}
    names = ("ttft_mean_s", "ttft_p50_s", "ttft_p95_s", "ttft_p99_s", "slo_attainment", "deflected_share")
    if not records:
        return summary | dict.fromkeys(names, float("nan"))
    ttft_s = np.array([record.first_token_s - record.arrival_s for record in records])
    longest_s = np.array([record.tbt_max_s for record in records])
    slos_s = np.array([requests[record.request][3:5] for record in records])
    met = (ttft_s <= slos_s[:, 0]) & (longest_s <= slos_s[:, 1])
    deflected = np.array([record.deflected for record in records])
    values = (ttft_s.mean(), *np.percentile(ttft_s, (50, 95, 99)), met.mean(), deflected.mean())
    return summary | dict(zip(names, map(float, values), strict=True))
