"""The decode batch of an engine: who is in it, when each finishes, and the gaps it gives.

Members are kept by the step they finish at, in the engine's own count of decode steps, so that nothing is done per
member and step.
"""

from collections.abc import Callable, Mapping
from heapq import heapify, heappush
from math import inf, isnan
from operator import itemgetter

from envs.cluster.gaps import GapLog, SuffixMax, segment
from envs.cluster.request import Sequence
from envs.cluster.spans import steps_up_to

_order = itemgetter(1)  # of joining, of an entry of `members`
_FORGET_EVERY = 256  # entries of the maximum's stack between two prunings
_PLAIN_STATE = ("_joined", "_last_excess", "_stamped", "_tbt_excess", "kv_tokens", "step", "tbt_slo_s")


class DecodeBatch:
    """Sequences that decode together.

    Attributes:
        members: heap of (step it finishes at, order of joining, sequence).
        step: decode steps so far.
        kv_tokens: summed context of the members.
        fresh: members whose KV was transferred here and whose first token comes out of the coming step.
        tbt_slo_s: the strictest TBT SLO among the members; inf without any.

    Args:
        gaps: log of the gaps between tokens.
        on_first_token: called with a sequence when `first_token_s` has been set.
    """

    __slots__ = (
        "_classes",
        "_joined",
        "_last_excess",
        "_log_gaps",
        "_longest",
        "_on_first_token",
        "_stamped",
        "_tbt_excess",
        "fresh",
        "kv_tokens",
        "members",
        "step",
        "tbt_slo_s",
    )

    def __init__(self, gaps: GapLog, on_first_token: Callable[[Sequence], None]) -> None:
        self.members: list[tuple[int, int, Sequence]] = []
        self.step = 0
        self.kv_tokens = 0
        self.fresh: list[Sequence] = []
        self.tbt_slo_s = inf
        self._classes: dict[float, int] = {}  # members by TBT SLO
        self._joined = 0
        self._stamped = False  # the fresh ones' first tokens are, ahead of the commit
        self._tbt_excess = 0.0
        self._last_excess = 0.0  # of the last step that was counted
        self._longest = SuffixMax()
        self._log_gaps = gaps.append
        self._on_first_token = on_first_token

    def copy_state(self, other: "DecodeBatch", twins: Mapping[Sequence, Sequence]) -> None:
        """Take over another batch's state, with the sequences that `twins` gives for its own."""
        for name in _PLAIN_STATE:
            setattr(self, name, getattr(other, name))
        self.members = [(step, order, twins[seq]) for step, order, seq in other.members]
        self.fresh = [twins[seq] for seq in other.fresh]
        self._classes = other._classes.copy()
        self._longest = other._longest.copy()

    # ---- members ------------------------------------------------------------------------------------------------

    def join(self, seq: Sequence, *, fresh: bool) -> None:
        """Add a sequence that holds `seq.kv_tokens`.

        A fresh one has been transferred: the coming step gives its first token, or after the loss of a node the next.
        """
        step = self.step
        seq.finish_step = finish_step = step + seq.output_tokens - seq.generated_tokens
        if fresh:
            seq.first_gap_step = step + 1
            self.fresh.append(seq)
        else:
            seq.first_gap_step = step
        self._joined += 1
        heappush(self.members, (finish_step, self._joined, seq))
        self.kv_tokens += seq.kv_tokens
        slo = seq.tbt_slo_s
        classes = self._classes
        classes[slo] = classes.get(slo, 0) + 1
        if slo < self.tbt_slo_s:
            self.tbt_slo_s = slo

    def take_youngest(self, now_s: float) -> tuple[Sequence, int]:
        """Take out the member that joined last; returns it with the KV it held."""
        entry = max(self.members, key=_order)
        self.members.remove(entry)
        heapify(self.members)
        return self._taken(entry[2], now_s)

    def take_all(self, now_s: float) -> list[Sequence]:
        """Take out every member."""
        members = sorted(self.members)
        self.members = []
        taken = [self._taken(seq, now_s)[0] for _, _, seq in members]
        self.fresh = []
        self._stamped = False
        return taken

    def _taken(self, seq: Sequence, now_s: float) -> tuple[Sequence, int]:
        """A member that leaves before its end keeps the tokens it has given."""
        kv_tokens = self.leave(seq)
        if seq in self.fresh:
            self.fresh.remove(seq)
        else:
            seq.generated_tokens = seq.output_tokens - (seq.finish_step - self.step)
            seq.last_token_s = now_s
        return seq, kv_tokens

    def leave(self, seq: Sequence) -> int:
        """Take what a member that is no longer one held out of the sums and note its longest gap; returns its KV."""
        step = self.step
        kv_tokens = seq.kv_tokens + seq.output_tokens - seq.generated_tokens - (seq.finish_step - step)
        self.kv_tokens -= kv_tokens
        seq.kv_tokens = 0
        if step > seq.first_gap_step:
            longest = self._longest
            gap_s = longest.since(seq.first_gap_step)
            if gap_s > seq.tbt_max_s:
                seq.tbt_max_s = gap_s
            if len(longest) > _FORGET_EVERY:
                longest.forget_before(min([member.first_gap_step for _, _, member in self.members], default=step))
        slo = seq.tbt_slo_s
        classes = self._classes
        classes[slo] -= 1
        if not classes[slo]:
            del classes[slo]
            if slo == self.tbt_slo_s:
                self.tbt_slo_s = min(classes, default=inf)
        return kv_tokens

    # ---- steps and tokens ---------------------------------------------------------------------------------------

    def advance(self, start_s: float, steps: int, first_s: float, growth_s: float) -> None:
        """Let `steps` steps pass; each gives every member a token."""
        batch = len(self.members)
        fresh = self.fresh
        last_s = first_s + (steps - 1) * growth_s
        if not fresh:
            self._log_gaps(segment(start_s, steps, first_s, growth_s, batch))
        else:
            self.stamp_first_tokens(start_s + first_s)
            if batch > len(fresh):
                self._log_gaps(segment(start_s, 1.0, first_s, 0.0, batch - len(fresh)))
            if steps > 1:
                self._log_gaps(segment(start_s + first_s, steps - 1.0, first_s + growth_s, growth_s, batch))
        if last_s <= self.tbt_slo_s:
            self._last_excess = 0.0
        else:
            excess = self._excess(steps, first_s, growth_s)
            self._tbt_excess += excess
            self._last_excess = excess - (self._excess(steps - 1, first_s, growth_s) if steps > 1 else 0.0)
        if fresh:
            self.fresh = []
            self._stamped = False
        # Steps never grow shorter within a span, and no member leaves it early: its last one speaks for it.
        self.step = step = self.step + steps
        self.kv_tokens += steps * batch
        self._longest.push(step, last_s)

    def stamp_first_tokens(self, now_s: float) -> None:
        """The fresh members' first tokens are out at `now_s`; once for each."""
        if not self._stamped:
            self._stamped = True
            for seq in self.fresh:
                if seq.first_token_s != seq.first_token_s:  # nan, which is the rule: `token`, inlined
                    seq.first_token_s = now_s
                    self._on_first_token(seq)
                else:
                    self.token(seq, now_s)

    def token(self, seq: Sequence, now_s: float) -> None:
        """A sequence's first token, or its next one after a pause (a preemption, the loss of a node)."""
        if isnan(seq.first_token_s):
            seq.first_token_s = now_s
            self._on_first_token(seq)
            return
        pause_s = now_s - seq.last_token_s
        seq.tbt_max_s = max(seq.tbt_max_s, pause_s)
        self._log_gaps(segment(seq.last_token_s, 1.0, pause_s, 0.0, 1.0))
        self._tbt_excess += max(0.0, pause_s / seq.tbt_slo_s - 1.0)

    def _excess(self, steps: int, first_s: float, growth_s: float) -> float:
        """Sum over the gaps of the next `steps` steps of (gap - SLO) / SLO where positive."""
        excess = 0.0
        for slo, count in self._classes.items():
            below = steps_up_to(slo, steps, first_s, growth_s)
            over = steps - below
            total_s = over * first_s + growth_s * (steps * (steps - 1) - below * (below - 1)) / 2
            excess += count * (total_s / slo - over)
        for seq in self.fresh:
            excess -= max(0.0, first_s / seq.tbt_slo_s - 1.0)
        return excess

    def tbt_excess(self, steps_over: int, first_s: float, growth_s: float) -> float:
        """Sum over all gaps so far of (gap - SLO) / SLO where positive.

        Args:
            steps_over: steps of the span in progress that are over and not yet counted; -1: the last step counted has
                not ended yet.
            first_s: the span's first step.
            growth_s: what its steps grow by.
        """
        if steps_over < 0:
            return self._tbt_excess - self._last_excess
        if steps_over == 0 or first_s + (steps_over - 1) * growth_s <= self.tbt_slo_s:
            return self._tbt_excess
        return self._tbt_excess + self._excess(steps_over, first_s, growth_s)
