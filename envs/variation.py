"""Variations of a workload: other lengths and pauses, so that a policy can be trained on more than a few families."""

from dataclasses import dataclass, replace

import numpy as np

from envs.generators import MAX_OUTPUT_TOKENS, MAX_PROMPT_TOKENS
from envs.streams import stream
from envs.workload import FloatArray, Workload

_PAUSES = 103  # key of the stream; differs from the keys of the readers, the generators and the SLOs


@dataclass(frozen=True)
class Variation:
    """How the requests of a workload are changed.

    Attributes:
        prompt_factor: factor on the prompt tokens of each request.
        output_factor: factor on the output tokens of each request.
        busy_s: mean time between two pauses, seconds.
        pause_s: mean length of a pause without arrivals, seconds; 0: there are none. Between pauses the rate is higher,
            so that the mean rate stays the same. Both times are exponential.
    """

    prompt_factor: float = 1.0
    output_factor: float = 1.0
    busy_s: float = 1.0
    pause_s: float = 0.0

    def applied(self, workload: Workload, seed: int) -> Workload:
        """The changed workload; its SLOs are the same.

        Args:
            workload: the requests.
            seed: of the pauses.
        """
        arrival_s = workload.arrival_s
        if self.pause_s:
            arrival_s = self._with_pauses(arrival_s, stream(seed, _PAUSES))
        prompt_tokens = np.ceil(self.prompt_factor * workload.prompt_tokens)
        output_tokens = np.ceil(self.output_factor * workload.output_tokens)
        return replace(
            workload,
            arrival_s=arrival_s,
            prompt_tokens=np.minimum(prompt_tokens, MAX_PROMPT_TOKENS).astype(np.int64),
            output_tokens=np.minimum(output_tokens, MAX_OUTPUT_TOKENS).astype(np.int64),
            label=f"{workload.label}, varied",
            block_hashes=(),
        )

    def _with_pauses(self, arrival_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Arrival times that come faster, but with pauses."""
        busy_s = arrival_s * (self.busy_s / (self.busy_s + self.pause_s))
        count = 2 * int(busy_s[-1] / self.busy_s) + 20
        begins_s = np.cumsum(rng.exponential(self.busy_s, count))  # of the pauses, without earlier ones
        paused_s = np.concatenate([[0.0], np.cumsum(rng.exponential(self.pause_s, count))])
        found: FloatArray = busy_s + paused_s[np.searchsorted(begins_s, busy_s)]
        return found
