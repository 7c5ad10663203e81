"""What the tables of a report need of a cell's requests beyond its metrics, kept so that nothing is read again."""

from dataclasses import dataclass

import numpy as np

from experiments.digests import digest
from experiments.metrics import Records, around_quantile, measured, parts_at_quantile_s

PROMPT_BUCKETS = (512, 2048, 8192)
"""Upper ends of buckets of prompt tokens: the border of the families, a chunk budget, a long prompt."""


@dataclass(frozen=True)
class Tally:
    """Counts over the measured window of one run.

    Attributes:
        requests: digest of what arrived: times, prompt and output tokens.
        parts_s: mean parts of the TTFT around P95, seconds; see `parts_at_quantile_s`.
        prompts: how many in each bucket of prompt tokens; one more bucket than PROMPT_BUCKETS.
        deflected: how many of these were deflected.
        prompt_tokens: mean prompt tokens.
        tail_prompt_tokens: mean prompt tokens around P95 of TTFT.
    """

    requests: str
    parts_s: list[float]
    prompts: list[int]
    deflected: list[int]
    prompt_tokens: float
    tail_prompt_tokens: float

    @classmethod
    def of(cls, records: Records, end_s: float) -> "Tally":
        """Count the records of a run that ended at `end_s` seconds."""
        window = records[measured(records)]
        bucket = np.searchsorted(PROMPT_BUCKETS, window["prompt_tokens"])
        buckets = len(PROMPT_BUCKETS) + 1
        return cls(
            digest(*(window[name].tobytes().hex() for name in ("arrival_s", "prompt_tokens", "output_tokens"))),
            parts_at_quantile_s(window, end_s).tolist(),
            np.bincount(bucket, minlength=buckets).tolist(),
            np.bincount(bucket[window["deflected"]], minlength=buckets).tolist(),
            float(window["prompt_tokens"].mean()),
            float(around_quantile(window, end_s)["prompt_tokens"].mean()),
        )
