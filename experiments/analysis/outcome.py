"""The outcome of one run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.analysis.request_table import Flags, Records, RequestSummary
from policies import PolicySpec


@dataclass(frozen=True)
class Outcome:
    """A finished run: one policy on one workload at one load with one seed.

    Attributes:
        load: multiple of the knee, or of a trace's own rate.
        metrics: by name, see `metrics.METRICS`.
        label: how the requests were made.
        nominal_rps: the rate that was asked for, requests per second; nan for a trace.
        rate_rps: requests per second that arrived, over the whole run.
        end_s: when the run ended.
        requests_digest: of arrivals, prompts and outputs.
        path: the file of its requests; its rows of requests.csv.gz are next to it.
    """

    policy: PolicySpec
    workload: str
    load: float
    seed: int
    metrics: Mapping[str, float]
    summary: RequestSummary
    label: str
    nominal_rps: float
    rate_rps: float
    end_s: float
    requests_digest: str
    path: Path

    @property
    def requests(self) -> tuple[Records, Flags]:
        """The record of each request, and whether it met both SLOs; read from the file each time."""
        with np.load(self.path) as arrays:
            return arrays["records"], arrays["met"]
