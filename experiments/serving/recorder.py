"""Records a live run, in the form of a simulated one."""

from collections.abc import Sequence

import numpy as np

from envs.cluster import RequestRecord, RunResult
from envs.cluster.gaps import GapLog, segment
from envs.cluster.lifecycle import Lifecycle
from envs.cluster.simulate import RunCounters
from experiments.serving.live_view import NodeState


class Recorder:
    """Keeps everything that a router does; see `live_router.Observer`."""

    def __init__(self) -> None:
        self._records: list[RequestRecord] = []
        self._decision_s: list[float] = []
        self._gaps = GapLog()
        self._kv_bytes = 0

    def decided(self, seconds: float) -> None:
        """Keep the time of a decision."""
        self._decision_s.append(seconds)

    def gap(self, start_s: float, gap_s: float) -> None:
        """Keep a gap between tokens."""
        self._gaps.append(segment(start_s, 1.0, gap_s, 0.0, 1.0))

    def moved(self, kv_bytes: int) -> None:
        """Count bytes of KV."""
        self._kv_bytes += kv_bytes

    def recorded(self, record: RequestRecord) -> None:
        """Keep a record."""
        self._records.append(record)

    def result(self, nodes: Sequence[NodeState], lifecycle: Lifecycle, end_s: float) -> RunResult:
        """The result of a run that ended at `end_s`, as `envs.cluster.simulate` returns it.

        Requests without a last token have records, too. Counters that no router can see are 0.
        """
        unfinished = [request.record() for request in lifecycle.in_flight.values()]
        counters = RunCounters(
            events=sum([state.steps for state in nodes]),
            preemptions=0,
            displaced=lifecycle.displaced,
            kv_expired=0,
            chunk_steps=sum([state.mixed_steps for state in nodes]),
            chunk_steps_over_slo=0,
            over_slo_decode_alone=0,
            over_slo_minimum=0,
            kv_bytes_moved=self._kv_bytes,
            busy_s=tuple([state.busy_s for state in nodes]),
            misses=lifecycle.misses + len(unfinished),
        )
        return RunResult([*self._records, *unfinished], self._gaps, counters, np.array(self._decision_s), end_s)
