"""The summary of an episode: TTFT, SLO attainment and placements, from its requests' records."""

from math import nan
from typing import Any

import numpy as np

from envs.cluster import RequestRecord
from envs.workload import Row


def episode_summary(records: list[RequestRecord], requests: list[Row], decisions: int) -> dict[str, Any]:
    """Sum up the finished requests of an episode.

    Requests that are still running when the episode is truncated are left out, so a summary of a short episode is
    biased towards short outputs; `finished` / `decisions` is the share that was counted. A request that the cluster
    rejected, because no node can hold it, has no TTFT and met no SLO.

    Args:
        records: records of the requests that the agent placed and that have finished or were rejected.
        requests: the episode's requests, by their number.
        decisions: number of requests that the agent placed.

    Returns:
        "decisions", "finished", "rejected", "ttft_mean_s", "ttft_p50_s", "ttft_p95_s", "ttft_p99_s" (seconds, of the
        finished requests), "slo_attainment" (share of the finished and rejected requests that met both SLOs) and
        "deflected_share" (share of the finished requests that were prefilled where they decode). nan if there are no
        such requests.
    """
    served = [record for record in records if record.decode_node >= 0]
    summary: dict[str, Any] = {
        "decisions": decisions,
        "finished": len(served),
        "rejected": len(records) - len(served),
    } | dict.fromkeys(
        ("ttft_mean_s", "ttft_p50_s", "ttft_p95_s", "ttft_p99_s", "slo_attainment", "deflected_share"), nan
    )
    if served:
        ttft_s = np.array([record.first_token_s - record.arrival_s for record in served])
        p50_s, p95_s, p99_s = np.percentile(ttft_s, (50, 95, 99)).tolist()
        summary |= {"ttft_mean_s": float(ttft_s.mean()), "ttft_p50_s": p50_s, "ttft_p95_s": p95_s, "ttft_p99_s": p99_s}
        summary["deflected_share"] = sum(record.deflected for record in served) / len(served)
    if records:
        met = 0
        for record in served:
            ttft_slo_s, tbt_slo_s = requests[record.request][3:5]
            met += record.first_token_s - record.arrival_s <= ttft_slo_s and record.tbt_max_s <= tbt_slo_s
        summary["slo_attainment"] = met / len(records)
    return summary
