"""The queues of requests on one node."""

from collections import deque
from collections.abc import Mapping

from mypy_extensions import mypyc_attr

from envs.cluster.decode_batch import DecodeBatch
from envs.cluster.kv_pool import KvPool
from envs.cluster.request import Request


@mypyc_attr(allow_interpreted_subclasses=True)
class NodeQueues:
    """The queues of one engine.

    Attributes:
        batch: the requests that decode.
        kv: the node's KV memory.
        prefilling: prompts whose prefill has begun; each holds KV for its whole target.
        ready: requests whose KV has arrived, in order of arrival.
        prompts: prompts whose prefill has not begun, preempted ones first.
        awaiting: requests that other nodes computed and that wait for room for their KV here, in order.
        inbound: number of requests whose KV has room here and has not arrived completely.
        enqueued_tokens: prompt tokens that routers have sent here so far, without those that they knew to be cached
            here.
        computed_tokens: tokens among `enqueued_tokens` that are computed and need not be computed again.

    Args:
        kv: the node's KV memory.
        batch: the node's decode batch.
    """

    __slots__ = (
        "_next_turn",
        "awaiting",
        "batch",
        "computed_tokens",
        "enqueued_tokens",
        "inbound",
        "kv",
        "prefilling",
        "prompts",
        "ready",
    )

    def __init__(self, kv: KvPool, batch: DecodeBatch) -> None:
        self.kv = kv
        self.batch = batch
        self.prefilling: list[Request] = []
        self.ready: deque[Request] = deque()
        self.prompts: deque[Request] = deque()
        self.awaiting: deque[Request] = deque()
        self.inbound = 0
        self.enqueued_tokens = 0
        self.computed_tokens = 0
        self._next_turn = 0

    def copy_queues(self, other: "NodeQueues", twins: Mapping[Request, Request]) -> None:
        """Copy another node's queues; `twins` maps its requests to their copies."""
        self.kv.used_tokens = other.kv.used_tokens
        self.batch.copy_state(other.batch, twins)
        self.prefilling = [twins[request] for request in other.prefilling]
        self.ready = deque([twins[request] for request in other.ready])
        self.prompts = deque([twins[request] for request in other.prompts])
        self.awaiting = deque([twins[request] for request in other.awaiting])
        self.inbound = other.inbound
        self.enqueued_tokens = other.enqueued_tokens
        self.computed_tokens = other.computed_tokens
        self._next_turn = other._next_turn

    def add_prompt(self, request: Request) -> None:
        """Queue a prompt that a router sent."""
        self.enqueued_tokens += request.target_tokens - request.known_hit_tokens
        self._next_turn = request.turn = self._next_turn + 1
        self.prompts.append(request)

    def add_expired(self, request: Request, sent_tokens: int) -> None:
        """Queue a prompt whose KV was dropped on another node; a router sent `sent_tokens` of its tokens here."""
        self.computed_tokens -= request.target_tokens - sent_tokens
        self._next_turn = request.turn = self._next_turn + 1
        self.prompts.append(request)

    def add_awaiting(self, request: Request) -> None:
        """Queue a request that another node computed, until there is room for its KV."""
        self._next_turn = request.turn = self._next_turn + 1
        self.awaiting.append(request)

    def add_arrived(self, request: Request) -> None:
        """Queue a request whose KV has arrived for decoding, or for the prefill of the rest of its prompt."""
        self.inbound -= 1
        (self.prefilling if request.rest_tokens else self.ready).append(request)

    def forget(self, request: Request) -> None:
        """Drop a request that was to come here: remove it from the queue, or free the KV reserved for it."""
        if request.reserved_tokens:
            self.kv.release(request.reserved_tokens)
            self.inbound -= 1
        elif request in self.awaiting:
            self.awaiting.remove(request)

    def clear(self, now_s: float) -> None:
        """Drop every request; decoding requests keep the tokens generated so far, the last of them at `now_s`."""
        self.batch.take_all(now_s)
        self.computed_tokens = self.enqueued_tokens
        self.prefilling = []
        self.prompts.clear()
        self.ready.clear()
        self.awaiting.clear()
        self.inbound = 0
        self.kv.used_tokens = 0
