"""The decode batch of an engine: its members, when each finishes, and the gaps between their tokens.

Members are kept by the step they finish at, in the engine's own count of decode steps, so that nothing is done per
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

_order = itemgetter(1)  # of joining, of an entry of `members`
_FORGET_EVERY = 256  # entries of the maximum's stack between two prunings


@mypyc_attr(allow_interpreted_subclasses=True)
class DecodeBatch:
    """Requests that decode together.

    Attributes:
        members: heap of (step it finishes at, order of joining, request).
        step: decode steps so far.
        kv_tokens: summed context of the members.
        prompt_tokens: of that, their prompts.
        fresh: members whose KV was transferred here and whose first token comes out of the coming step.
        tbt_slo_s: the strictest TBT SLO among the members; inf without any.

    Args:
        gaps: log of the gaps between tokens.
        lifecycle: told of members that join and of first tokens.
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
        self._classes: dict[float, int] = {}  # members by TBT SLO
        self._joined = 0
        self._stamped = False  # the fresh ones' first tokens are, ahead of the commit
        self._tbt_excess = 0.0
        self._longest = SuffixMax()
        self._log_gaps = gaps.append
        self._lifecycle = lifecycle
        self._first_token_wait = lifecycle.first_token_wait

    def copy_state(self, other: "DecodeBatch", twins: Mapping[Request, Request]) -> None:
        """Take over another batch's state, with the requests that `twins` gives for its own."""
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

        A fresh one has been transferred: the coming step gives its first token, or after the loss of a node the next.
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
        """Take out the member that joined last; returns it with the KV it held."""
        entry = max(self.members, key=_order)
        self.members.remove(entry)
        heapify(self.members)
        return self._taken(entry[2], now_s)

    def take_all(self, now_s: float) -> None:
        """Take out every member."""
        members = sorted(self.members)
        self.members = []
        for _, _, request in members:
            self._taken(request, now_s)
        self.fresh = []
        self._stamped = False

    def _taken(self, request: Request, now_s: float) -> tuple[Request, int]:
        """A member that leaves before its end keeps the tokens it has given."""
        kv_tokens = self.leave(request)
        if request in self.fresh:
            self.fresh.remove(request)
        else:
            request.generated_tokens = request.output_tokens - (request.finish_step - self.step)
            request.last_token_s = now_s
        return request, kv_tokens

    def leave(self, request: Request) -> int:
        """Take what a member that is no longer one held out of the sums and note its longest gap; returns its KV."""
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
        """Let `steps` steps pass; each gives every member a token. Returns how many tokens."""
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
        # Steps never grow shorter within a span, and no member leaves it early: its last one speaks for it.
        self.step = step = self.step + steps
        self._longest.push(step, last_s)
        tokens = steps * batch
        self.kv_tokens += tokens
        return tokens

    def stamp_first_tokens(self, now_s: float) -> None:
        """The fresh members' first tokens are out at `now_s`; once for each."""
        if not self._stamped:
            self._stamped = True
            for request in self.fresh:
                if request.first_token_s != request.first_token_s:  # nan: `token`, inlined, as it mostly is
                    self._first_token_wait.end(request, now_s)
                else:
                    self.token(request, now_s)

    def token(self, request: Request, now_s: float) -> None:
        """A request's first token, or its next one after a pause (a preemption, the loss of a node)."""
        if request.first_token_s != request.first_token_s:  # nan
            self._first_token_wait.end(request, now_s)
            return
        pause_s = now_s - request.last_token_s
        request.tbt_max_s = max(request.tbt_max_s, pause_s)
        self._log_gaps(segment(request.last_token_s, 1.0, pause_s, 0.0, 1.0))
        self._tbt_excess += max(0.0, pause_s / request.tbt_slo_s - 1.0)

    def _excess(self, steps: int, first_s: float, growth_s: float) -> float:
        """Sum over the gaps of the next `steps` steps of (gap - SLO) / SLO where positive."""
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
        """Members that have missed an SLO by a gap since they joined alone, which no stamp tells before they leave.

        Args:
            steps_over: steps of the span in progress that are over.
            first_s: the span's first step.
            growth_s: what its steps grow by.
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
            if late and not request.misses(request.first_token_s):  # its first token is out, or no gap could be
                misses += 1
        return misses

    def tbt_excess(self, steps_over: int, first_s: float, growth_s: float) -> float:
        """Sum over all gaps so far of (gap - SLO) / SLO where positive.

        Args:
            steps_over: steps of the span in progress that are over.
            first_s: the span's first step.
            growth_s: what its steps grow by.
        """
        if steps_over == 0 or first_s + (steps_over - 1) * growth_s <= self.tbt_slo_s:
            return self._tbt_excess
        return self._tbt_excess + self._excess(steps_over, first_s, growth_s)
