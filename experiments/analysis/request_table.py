"""The requests of one run as a table, and what follows from a row: TTFT, its parts, attainment.

Measured window: requests that arrived after the warm-up (the first `WARMUP_SHARE` of the span of arrivals), up to the
last arrival. Every one of them counts. A request that never finished misses its SLOs; one without a first token enters
the TTFT statistics with the time it had waited when the run ended, a lower bound. So does a rejected request: turning
requests away never makes a TTFT look better. A rejected request has no gaps and is left out of their statistics.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.cluster import RequestRecord

WARMUP_SHARE = 0.1
DRAIN_S = 600.0
"""How long a run may continue after the last arrival, seconds; a request that is unfinished then counts as a miss."""
PARTS = ("queue", "exec", "transfer", "decode_wait")
"""Parts of the TTFT, in order of time."""
PROMPT_BUCKETS = (512, 2048, 8192)
"""Upper ends of buckets of prompt tokens: the border of the workload families, a chunk budget, a long prompt."""

RECORD = np.dtype(list(RequestRecord.__annotations__.items()))
"""One RequestRecord as a row of an array; the fields are the record's own, in its order."""

Records = NDArray[np.void]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def as_array(records: Sequence[RequestRecord]) -> Records:
    """Records as a structured array (dtype RECORD) in request order."""
    table = np.array(records, dtype=RECORD)
    return np.asarray(table[np.argsort(table["request"])])


def window_start_s(records: Records) -> float:
    """When the measured window begins: after WARMUP_SHARE of the span of arrivals, seconds."""
    first_s, last_s = records["arrival_s"].min(), records["arrival_s"].max()
    return float(first_s + WARMUP_SHARE * (last_s - first_s))


def measured(records: Records) -> Flags:
    """Which requests arrived in the measured window, shape (requests,)."""
    return np.asarray(records["arrival_s"] >= window_start_s(records))


def rejected(records: Records) -> Flags:
    """Which requests were never taken in, shape (requests,)."""
    return np.asarray(records["decode_node"] < 0)


def ttft_s(records: Records, end_s: float) -> Floats:
    """Time to first token of each request, seconds; the time waited until `end_s` if none came."""
    first_s = records["first_token_s"]
    return np.asarray(np.where(np.isnan(first_s), end_s, first_s) - records["arrival_s"])


def ttft_parts_s(records: Records, end_s: float) -> Floats:
    """Queue, execution, transfer and decode wait of each request, shape (requests, 4); rows sum to `ttft_s`.

    The part that a request was in when the run ended gets its time until then.
    """
    stamps = ("arrival_s", "prefill_start_s", "prefill_end_s", "kv_ready_s", "first_token_s")
    times_s = np.stack([np.where(np.isnan(records[name]), end_s, records[name]) for name in stamps], axis=1)
    return np.diff(times_s, axis=1)


def around_quantile(records: Records, end_s: float, q: float = 0.95, least: int = 20) -> Records:
    """The requests around the q-quantile of TTFT, shortest first.

    "Around" means the ranks within one per cent of all requests on either side (P94 to P96), or `least` requests if
    that is more (all of them if there are no more).
    """
    half = max(int(np.ceil(0.01 * len(records))), least // 2)
    centre = round(q * (len(records) - 1))
    order = np.lexsort((records["request"], ttft_s(records, end_s)))
    return np.asarray(records[order[max(centre - half, 0) : centre + half + 1]])


def parts_at_quantile_s(records: Records, end_s: float, q: float = 0.95) -> Floats:
    """Mean parts (see PARTS) of the requests around the q-quantile of TTFT, seconds, shape (4,)."""
    return np.asarray(ttft_parts_s(around_quantile(records, end_s, q), end_s).mean(axis=0))


class Attainment(NamedTuple):
    """Which requests met their SLOs, shape (requests,) each.

    TTFT: the first token came within the SLO. TBT: the request finished, and no gap between two of its tokens exceeded
    the SLO; one token has no gap.
    """

    ttft: Flags
    tbt: Flags

    @classmethod
    def of(cls, records: Records, ttft_slo_s: Floats | float, tbt_slo_s: Floats | float) -> "Attainment":
        """Compare records with their SLOs, in seconds, one for all or one per record."""
        ttft_s = records["first_token_s"] - records["arrival_s"]  # nan without a first token, which compares false
        gap_s = np.where(records["output_tokens"] > 1, records["tbt_max_s"], 0.0)
        return cls(ttft_s <= ttft_slo_s, ~np.isnan(records["last_token_s"]) & (gap_s <= tbt_slo_s))

    @property
    def both(self) -> Flags:
        """Which requests met both."""
        return self.ttft & self.tbt


@dataclass(frozen=True)
class RequestSummary:
    """Summary of one run's requests in the measured window, kept so that reports need not reload the records.

    Attributes:
        parts_s: mean parts of the TTFT around P95, seconds; see `parts_at_quantile_s`.
        prompts: requests, all and deflected ones, per bucket of prompt tokens; one more bucket than PROMPT_BUCKETS.
        prompt_tokens: mean prompt tokens, of all requests and around P95 of TTFT.
    """

    parts_s: list[float]
    prompts: list[int]
    deflected: list[int]
    prompt_tokens: float
    tail_prompt_tokens: float

    @classmethod
    def of(cls, records: Records, end_s: float) -> "RequestSummary":
        """Summarise the records of a run that ended at `end_s` seconds."""
        window = records[measured(records)]
        bucket = np.searchsorted(PROMPT_BUCKETS, window["prompt_tokens"])
        buckets = len(PROMPT_BUCKETS) + 1
        tail = around_quantile(window, end_s)
        return cls(
            ttft_parts_s(tail, end_s).mean(axis=0).tolist(),
            np.bincount(bucket, minlength=buckets).tolist(),
            np.bincount(bucket[window["deflected"]], minlength=buckets).tolist(),
            float(window["prompt_tokens"].mean()),
            float(tail["prompt_tokens"].mean()),
        )
