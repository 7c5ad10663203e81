"""The decode batch of an engine: its members, the step at which each finishes, and the gaps between their tokens.

Members are ordered by the step at which they finish, in the engine's count of decode steps, so that no work is done per
member and step.
"""

from collections.abc import Mapping
from heapq import heapify, heappush
from math import inf
from operator import itemgetter

from mypy_extensions import mypyc_attr

from envs.cluster.gaps import GapLog, SuffixMax, segment
from envs.cluster.lifecycle import Lifecycle
from envs.cluster.request import Request
from envs.cluster.span import steps_up_to

_order = itemgetter(1)  # sorts entries of `members` by order of joining
_FORGET_EVERY = 256  # entries of the stack of maxima before it is pruned


@mypyc_attr(allow_interpreted_subclasses=True)
class DecodeBatch:
    """Requests that decode together.

    Attributes:
        members: heap of (step at which it finishes, order of joining, request).
        step: number of decode steps so far.
        kv_tokens: summed context of the members.
        prompt_tokens: prompt tokens in `kv_tokens`.
        fresh: members whose KV was transferred here and whose first token comes out of the next step.
        tbt_slo_s: the strictest TBT SLO among the members; inf if there are none.

    Args:
        gaps: log of the gaps between tokens.
        lifecycle: is notified of joining members and first tokens.
    """

    __slots__ = (
        "_classes",
        "_first_token_wait",
        "_joined",
        "_lifecycle",
        "_log_gaps",
        "_longest",
        "_stamped",
        "_tbt_excess",
        "fresh",
        "kv_tokens",
        "members",
        "prompt_tokens",
        "step",
        "tbt_slo_s",
    )

    def __init__(self, gaps: GapLog, lifecycle: Lifecycle) -> None:
        self.members: list[tuple[int, int, Request]] = []
        self.step = 0
        self.kv_tokens = 0
        self.prompt_tokens = 0
        self.fresh: list[Request] = []
        self.tbt_slo_s = inf
        self._classes: dict[float, int] = {}  # number of members by TBT SLO
        self._joined = 0
        self._stamped = (
            False  # whether the first tokens of `fresh` are stamped, which may be before the span is committed
        )
        self._tbt_excess = 0.0
        self._longest = SuffixMax()
        self._log_gaps = gaps.append
        self._lifecycle = lifecycle
        self._first_token_wait = lifecycle.first_token_wait

    def copy_state(self, other: "DecodeBatch", twins: Mapping[Request, Request]) -> None:
        """Copy another batch's state; `twins` maps its requests to their copies."""
        self.step = other.step
        self.kv_tokens = other.kv_tokens
        self.prompt_tokens = other.prompt_tokens
        self.tbt_slo_s = other.tbt_slo_s
        self._joined = other._joined
        self._stamped = other._stamped
        self._tbt_excess = other._tbt_excess
        self.members = [(step, order, twins[request]) for step, order, request in other.members]
        self.fresh = [twins[request] for request in other.fresh]
        self._classes = other._classes.copy()
        self._longest = other._longest.copy()

    # ---- members ------------------------------------------------------------------------------------------------

    def join(self, request: Request, *, fresh: bool) -> None:
        """Add a request that holds `request.kv_tokens`.

        The KV of a fresh request was transferred: the next step gives its first token (its next token, after the loss
        of a node).
        """
        self._lifecycle.joined(request)
        step = self.step
        request.finish_step = finish_step = step + request.output_tokens - request.generated_tokens
        if fresh:
            request.first_gap_step = step + 1
            self.fresh.append(request)
        else:
            request.first_gap_step = step
        self._joined = order = self._joined + 1
        heappush(self.members, (finish_step, order, request))
        self.kv_tokens += request.kv_tokens
        self.prompt_tokens += request.prompt_tokens
        slo = request.tbt_slo_s
        classes = self._classes
        if slo in classes:
            classes[slo] += 1
        else:
            classes[slo] = 1
            if slo < self.tbt_slo_s:
                self.tbt_slo_s = slo

    def take_youngest(self, now_s: float) -> tuple[Request, int]:
        """Remove the member that joined last; returns it and the tokens of its KV."""
        entry = max(self.members, key=_order)
        self.members.remove(entry)
        heapify(self.members)
        return self._taken(entry[2], now_s)

    def take_all(self, now_s: float) -> None:
        """Remove every member."""
        members = sorted(self.members)
        self.members = []
        for _, _, request in members:
            self._taken(request, now_s)
        self.fresh = []
        self._stamped = False

    def _taken(self, request: Request, now_s: float) -> tuple[Request, int]:
        """Record the tokens that a member has generated when it leaves before its end."""
        kv_tokens = self.leave(request)
        if request in self.fresh:
            self.fresh.remove(request)
        else:
            request.generated_tokens = request.output_tokens - (request.finish_step - self.step)
            request.last_token_s = now_s
        return request, kv_tokens

    def leave(self, request: Request) -> int:
        """Subtract a removed member from the sums and record its longest gap; returns the tokens of its KV."""
        step = self.step
        kv_tokens = request.kv_tokens + request.output_tokens - request.generated_tokens - (request.finish_step - step)
        self.kv_tokens -= kv_tokens
        self.prompt_tokens -= request.prompt_tokens
        request.kv_tokens = 0
        first_gap_step = request.first_gap_step
        if step > first_gap_step:
            longest = self._longest
            gap_s = longest.since(first_gap_step)
            if gap_s > request.tbt_max_s:
                request.tbt_max_s = gap_s
            if len(longest.ends) > _FORGET_EVERY:
                longest.forget_before(min([member.first_gap_step for _, _, member in self.members], default=step))
        slo = request.tbt_slo_s
        classes = self._classes
        others = classes[slo] - 1
        if others:
            classes[slo] = others
        else:
            del classes[slo]
            if slo == self.tbt_slo_s:
                self.tbt_slo_s = min(classes, default=inf)
        return kv_tokens

    # ---- steps and tokens ---------------------------------------------------------------------------------------

    def advance(self, start_s: float, steps: int, first_s: float, growth_s: float) -> int:
        """Advance by `steps` steps, each of which gives every member a token; returns the number of tokens."""
        batch = len(self.members)
        fresh = self.fresh
        last_s = first_s + (steps - 1) * growth_s
        if not fresh:
            self._log_gaps(segment(start_s, steps, first_s, growth_s, batch))
        else:
            if not self._stamped:
                self.stamp_first_tokens(start_s + first_s)
            if batch > len(fresh):
                self._log_gaps(segment(start_s, 1.0, first_s, 0.0, batch - len(fresh)))
            if steps > 1:
                self._log_gaps(segment(start_s + first_s, steps - 1.0, first_s + growth_s, growth_s, batch))
        if last_s > self.tbt_slo_s:
            self._tbt_excess += self._excess(steps, first_s, growth_s)
        if fresh:
            self.fresh = []
            self._stamped = False
        # Steps never grow shorter within a span, and no member leaves early: the last step is the longest.
        self.step = step = self.step + steps
        self._longest.push(step, last_s)
        tokens = steps * batch
        self.kv_tokens += tokens
        return tokens

    def stamp_first_tokens(self, now_s: float) -> None:
        """Stamp the first tokens of the fresh members with `now_s`, unless they are stamped already."""
        if not self._stamped:
            self._stamped = True
            for request in self.fresh:
                if request.first_token_s != request.first_token_s:  # nan, the usual case: `token`, inlined
                    self._first_token_wait.end(request, now_s)
                else:
                    self.token(request, now_s)

    def token(self, request: Request, now_s: float) -> None:
        """Record a request's first token, or its next one after a pause (a preemption, the loss of a node)."""
        if request.first_token_s != request.first_token_s:  # nan
            self._first_token_wait.end(request, now_s)
            return
        pause_s = now_s - request.last_token_s
        request.tbt_max_s = max(request.tbt_max_s, pause_s)
        self._log_gaps(segment(request.last_token_s, 1.0, pause_s, 0.0, 1.0))
        self._tbt_excess += max(0.0, pause_s / request.tbt_slo_s - 1.0)

    def _excess(self, steps: int, first_s: float, growth_s: float) -> float:
        """Sum of max(0, gap / SLO - 1) over the gaps of the next `steps` steps."""
        excess = 0.0
        for slo, count in self._classes.items():
            below = steps_up_to(slo, steps, first_s, growth_s)
            over = steps - below
            total_s = over * first_s + growth_s * (steps * (steps - 1) - below * (below - 1)) / 2
            excess += count * (total_s / slo - over)
        for request in self.fresh:
            excess -= max(0.0, first_s / request.tbt_slo_s - 1.0)
        return excess

    def unstamped_misses(self, steps_over: int, first_s: float, growth_s: float) -> int:
        """Number of members that have missed an SLO only by a gap since they joined.

        Such a gap is not in a request's stamps before it leaves the batch.

        Args:
            steps_over: finished steps of the span in progress.
            first_s: duration of the span's first step.
            growth_s: growth of its steps.
        """
        longest = self._longest
        latest_s = first_s + (steps_over - 1) * growth_s if steps_over else 0.0
        if latest_s <= self.tbt_slo_s and (not longest.values or longest.values[0] <= self.tbt_slo_s):
            return 0
        step = self.step
        misses = 0
        for _, _, request in self.members:
            slo_s = request.tbt_slo_s
            first_gap_step = request.first_gap_step
            late = latest_s > slo_s and step + steps_over > first_gap_step
            if not late and step > first_gap_step:
                late = longest.since(first_gap_step) > slo_s
            if late and not request.misses(request.first_token_s):  # it has a first token, because it has a gap
                misses += 1
        return misses

    def tbt_excess(self, steps_over: int, first_s: float, growth_s: float) -> float:
        """Sum of max(0, gap / SLO - 1) over all gaps so far.

        Args:
            steps_over: finished steps of the span in progress.
            first_s: duration of the span's first step.
            growth_s: growth of its steps.
        """
        if steps_over == 0 or first_s + (steps_over - 1) * growth_s <= self.tbt_slo_s:
            return self._tbt_excess
        return self._tbt_excess + self._excess(steps_over, first_s, growth_s)
