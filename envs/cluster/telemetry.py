"""Node reports: a snapshot of the engine for every span, and the report that a router gets from them."""

from bisect import bisect_right
from math import inf

from mypy_extensions import mypyc_attr

from envs.cluster.span import whole_steps_within

Snapshot = tuple[float, int, float, float, int, int, int, int, int, float]
"""An engine at the start of a span: start_s, steps, first_s, growth_s, decode_batch, decode_kv_tokens, chunk_tokens,
computed_tokens, kv_used_tokens, tbt_slo_s.

Until the next snapshot, step i lasts first_s + i * growth_s, adds decode_batch tokens to the decode KV and computes
chunk_tokens prompt tokens; after `steps` steps nothing changes. It is a plain tuple, because one is made for every
span.
"""

PRUNE_AT = 32  # number of snapshots above which those too old for any report are pruned


@mypyc_attr(acyclic=True, free_list_len=1)
class NodeReport:
    """The state of a node `report_age_s` ago.

    Attributes:
        decode_batch: requests decoding.
        decode_kv_tokens: their summed context.
        prefill_tokens_ahead: prompt tokens that a prompt sent now would wait for: those that the node had not computed
            at the time of the report, and those dispatched to it since, which the router knows without a report. They
            do not include tokens that the router knew to be cached there when it sent them.
        kv_used_tokens: KV held or reserved when the node's scheduler last ran, plus the tokens of its decodes since.
        tbt_slo_s: strictest TBT SLO among the decoding requests; inf if there are none.
    """

    __slots__ = ("decode_batch", "decode_kv_tokens", "kv_used_tokens", "prefill_tokens_ahead", "tbt_slo_s")

    def __init__(
        self,
        decode_batch: int,
        decode_kv_tokens: int,
        prefill_tokens_ahead: int,
        kv_used_tokens: int,
        tbt_slo_s: float,
    ) -> None:
        self.decode_batch = decode_batch
        self.decode_kv_tokens = decode_kv_tokens
        self.prefill_tokens_ahead = prefill_tokens_ahead
        self.kv_used_tokens = kv_used_tokens
        self.tbt_slo_s = tbt_slo_s


class Telemetry:
    """The recent snapshots of an engine.

    Attributes:
        snapshots: the snapshots in order of time; the engine appends to them.

    Args:
        history_s: age of the oldest report that may be requested, seconds.
    """

    __slots__ = ("_history_s", "snapshots")

    def __init__(self, history_s: float) -> None:
        self._history_s = history_s
        self.snapshots: list[Snapshot] = [(0.0, 0, 0.0, 0.0, 0, 0, 0, 0, 0, inf)]

    def idle(self, now_s: float, computed_tokens: int, kv_used_tokens: int) -> None:
        """Record that the engine is idle from `now_s` on."""
        snapshots = self.snapshots
        if snapshots[-1][0] >= now_s:
            snapshots.pop()  # this instant was planned before
        snapshots.append((now_s, 0, 0.0, 0.0, 0, 0, 0, computed_tokens, kv_used_tokens, inf))

    def prune(self, now_s: float) -> None:
        """Drop the snapshots that no report needs any more."""
        snapshots = self.snapshots
        known = bisect_right(snapshots, (now_s - self._history_s, inf))  # not later than the oldest report
        if known > 1:
            del snapshots[: known - 1]

    def _before(self, time_s: float) -> Snapshot:
        """The snapshot that is valid at `time_s`, which is at most `history_s` ago."""
        snapshots = self.snapshots
        i = len(snapshots) - 1
        while i and snapshots[i][0] > time_s:
            i -= 1
        return snapshots[i]

    def mean_generated_tokens(self, at_s: float, prompt_tokens: int) -> float:
        """Tokens from decode steps per request that decodes at `at_s`; 0 if there is none.

        Args:
            at_s: the time, not before the latest snapshot.
            prompt_tokens: tokens of their prompts, and of their outputs before they joined the batch.
        """
        start_s, steps, first_s, growth_s, batch, kv_tokens, _, _, _, _ = self.snapshots[-1]
        if not batch:
            return 0.0
        if steps and at_s > start_s:
            kv_tokens += whole_steps_within(at_s - start_s, steps, first_s, growth_s) * batch
        return (kv_tokens - prompt_tokens) / batch

    def report(self, at_s: float, enqueued_tokens: int) -> NodeReport:
        """The node's report as of `at_s`.

        Args:
            at_s: time of the report, at most `history_s` ago.
            enqueued_tokens: prompt tokens sent to the node by now.
        """
        snapshot = self.snapshots[-1]
        if snapshot[0] > at_s:
            snapshot = self._before(at_s)
        start_s, steps, first_s, growth_s, batch, kv_tokens, chunk, computed, kv_used, tbt_slo_s = snapshot
        if steps and at_s > start_s:
            done = whole_steps_within(at_s - start_s, steps, first_s, growth_s)
            grown = done * batch
            kv_tokens += grown
            kv_used += grown
            computed += done * chunk
        return NodeReport(batch, kv_tokens, enqueued_tokens - computed, kv_used, tbt_slo_s)
