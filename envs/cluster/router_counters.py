"""The router's counts of the requests that it dispatches and the tokens that it relays; always up to date."""

from math import exp

from mypy_extensions import mypyc_attr

from envs.cluster.request import Request

_FAST_S, _SLOW_S = 1.0, 10.0

RECENT_S = (_FAST_S, _SLOW_S)
"""Time constants of `RouterCounters.recent_requests` and `recent_prompt_tokens`, seconds."""

STEADY_S = 60.0
"""Time constant of the mean rates, seconds: long compared with bursts, so that they show what the workload is."""

_KEPT = 0.99  # factor on the weight of a finished request per later one

FIELDS = (
    "decode_prompt_tokens",
    "decode_requests",
    "deflected_requests",
    "finished_count",
    "finished_output_tokens",
    "finished_requests",
    "kv_coming_tokens",
    "kv_leaving_tokens",
    "last_arrival_s",
    "missed_count",
    "queued_prompt_tokens",
    "queued_prompts",
    "requests_fast",
    "requests_slow",
    "requests_steady",
    "steady_span_s",
    "tokens_fast",
    "tokens_slow",
    "tokens_steady",
    "unplanned_prompt_tokens",
)


@mypyc_attr(allow_interpreted_subclasses=True)
class RouterCounters:
    """The counts that a router keeps itself. Only the methods named after events change them.

    Attributes:
        queued_prompts: per node, prompts dispatched there whose prefill has not ended; the rest of a split prompt
            counts on its decode node.
        queued_prompt_tokens: their tokens, without those that the router knew to be cached on their node.
        unplanned_prompt_tokens: tokens among these of prompts that were sent without a chunk plan.
        decode_requests: per node, unfinished requests that decode there, including those still in prefill.
        decode_prompt_tokens: their prompt tokens.
        deflected_requests: per node, prompts among `queued_prompts` that decode there too.
        kv_leaving_tokens: per node, tokens prefilled there whose KV has not arrived on another node, their decode node.
        kv_coming_tokens: the same tokens per decode node.
        finished_count, missed_count: finished requests, and those of them that missed an SLO.
        finished_requests, finished_output_tokens: sums over finished requests of 1 and of the output tokens, weighted
            by 0.99 per later finish; their ratio is `mean_output_tokens`.
        last_arrival_s: time at which the latest request was placed.
        requests_steady, tokens_steady, steady_span_s: sums over the requests of 1 and of the prompt tokens, and over
            time of 1, decayed with STEADY_S; their ratios are mean rates, also soon after the start.
    """

    __slots__ = FIELDS

    def __init__(self, nodes: int) -> None:
        self.queued_prompts = [0] * nodes
        self.queued_prompt_tokens = [0] * nodes
        self.decode_requests = [0] * nodes
        self.decode_prompt_tokens = [0] * nodes
        self.deflected_requests = [0] * nodes
        self.unplanned_prompt_tokens = [0] * nodes
        self.kv_leaving_tokens = [0] * nodes
        self.kv_coming_tokens = [0] * nodes
        self.finished_count = self.missed_count = 0
        self.finished_requests = self.finished_output_tokens = 0.0
        self.last_arrival_s = 0.0
        self.requests_fast = self.requests_slow = 0.0
        self.tokens_fast = self.tokens_slow = 0.0
        self.requests_steady = self.tokens_steady = self.steady_span_s = 0.0

    def copy_state(self, other: "RouterCounters") -> None:
        """Copy another router's counts in place, because views refer to this object."""
        for name in FIELDS:
            value = getattr(other, name)
            setattr(self, name, value.copy() if isinstance(value, list) else value)

    @property
    def recent_requests(self) -> tuple[float, float]:
        """Requests placed, decayed with each of the time constants `RECENT_S`, at time `last_arrival_s`."""
        return self.requests_fast, self.requests_slow

    @property
    def recent_prompt_tokens(self) -> tuple[float, float]:
        """Their prompt tokens, decayed likewise."""
        return self.tokens_fast, self.tokens_slow

    @property
    def mean_output_tokens(self) -> float:
        """Recent mean output length of finished requests, tokens; 0 before the first one."""
        return self.finished_output_tokens / max(1.0, self.finished_requests)

    # ---- events ---------------------------------------------------------------------------------------------------

    def arrived(self, request: Request) -> None:
        """Count an arriving request in the decaying sums."""
        now_s = request.arrival_s
        prompt_tokens = request.prompt_tokens
        ago_s = self.last_arrival_s - now_s
        self.last_arrival_s = now_s
        fast = exp(ago_s / _FAST_S)
        slow = exp(ago_s / _SLOW_S)
        self.requests_fast = self.requests_fast * fast + 1.0
        self.requests_slow = self.requests_slow * slow + 1.0
        self.tokens_fast = self.tokens_fast * fast + prompt_tokens
        self.tokens_slow = self.tokens_slow * slow + prompt_tokens
        steady = exp(ago_s / STEADY_S)
        self.requests_steady = self.requests_steady * steady + 1.0
        self.tokens_steady = self.tokens_steady * steady + prompt_tokens
        self.steady_span_s = self.steady_span_s * steady + STEADY_S * (1.0 - steady)

    def placed(self, request: Request) -> None:
        """Count a request that is sent to its prefill node."""
        node = request.prefill_node
        decode_node = request.decode_node
        request.counted_as_queued = True
        self.queued_prompts[node] += 1
        tokens = request.target_tokens - request.known_hit_tokens
        self.queued_prompt_tokens[node] += tokens
        if not request.chunk_plan:
            self.unplanned_prompt_tokens[node] += tokens
        self.decode_requests[decode_node] += 1
        self.decode_prompt_tokens[decode_node] += request.prompt_tokens
        if node == decode_node:
            self.deflected_requests[node] += 1
        elif request.rest_tokens:
            self._count_rest(request, decode_node, 1)

    def prefilled(self, request: Request) -> None:
        """Count a computed prompt that the router sent (it did not send prompts that are computed again)."""
        if not request.counted_as_queued:
            return
        request.counted_as_queued = False
        node = request.prefill_node
        self.queued_prompts[node] -= 1
        tokens = request.target_tokens - request.known_hit_tokens
        request.known_hit_tokens = 0
        self.queued_prompt_tokens[node] -= tokens
        if not request.chunk_plan:
            self.unplanned_prompt_tokens[node] -= tokens
        if node == request.decode_node:
            self.deflected_requests[node] -= 1

    def kv_leaves(self, request: Request) -> None:
        """Count the KV of a prompt that was computed on another node than its decode node."""
        request.moving_tokens = tokens = request.target_tokens
        self.kv_leaving_tokens[request.prefill_node] += tokens
        self.kv_coming_tokens[request.decode_node] += tokens

    def kv_moved(self, request: Request) -> None:
        """Stop counting a request's KV as moving: it has arrived, or will never arrive."""
        tokens = request.moving_tokens
        if tokens:
            request.moving_tokens = 0
            self.kv_leaving_tokens[request.prefill_node] -= tokens
            self.kv_coming_tokens[request.decode_node] -= tokens

    def rest_done(self, request: Request) -> None:
        """Stop counting the rest of a split prompt: it is computed, or the prompt is not split any more."""
        self._count_rest(request, request.decode_node, -1)

    def finished(self, request: Request, missed: bool) -> None:
        """Count a request whose last token is out, and whether it has missed an SLO."""
        self._gone(request)
        self.finished_count += 1
        self.missed_count += missed
        self.finished_requests = self.finished_requests * _KEPT + 1.0
        self.finished_output_tokens = self.finished_output_tokens * _KEPT + request.output_tokens

    def _gone(self, request: Request) -> None:
        """Stop counting a request on its decode node."""
        node = request.decode_node
        self.decode_requests[node] -= 1
        self.decode_prompt_tokens[node] -= request.prompt_tokens

    def taken_back(self, request: Request) -> None:
        """Stop counting a request that will be placed again."""
        self.prefilled(request)
        self.kv_moved(request)
        if request.rest_tokens:
            self.rest_done(request)
        self._gone(request)

    def moved(self, request: Request, decode_node: int) -> None:
        """Count a request on another decode node; it is not prefilled on its decode node."""
        if request.rest_tokens:
            self._count_rest(request, request.decode_node, -1)
            self._count_rest(request, decode_node, 1)
        if request.moving_tokens:
            self.kv_coming_tokens[request.decode_node] -= request.moving_tokens
            self.kv_coming_tokens[decode_node] += request.moving_tokens
        self._gone(request)
        self.decode_requests[decode_node] += 1
        self.decode_prompt_tokens[decode_node] += request.prompt_tokens

    def _count_rest(self, request: Request, node: int, sign: int) -> None:
        self.queued_prompts[node] += sign
        self.queued_prompt_tokens[node] += sign * request.rest_tokens
        self.deflected_requests[node] += sign
