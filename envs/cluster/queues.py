"""The requests on one node, by what they wait for."""

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
        prefilling: begun prompts; each holds KV for its whole target.
        ready: requests whose KV has arrived, in order of arrival.
        prompts: prompts that have not begun, preempted ones first.
        awaiting: requests computed elsewhere that ask for KV here, in order.
        inbound: requests whose KV is reserved here and has not all arrived.
        enqueued_tokens: prompt tokens that routers ever sent here, without those that they knew to be cached here.
        computed_tokens: of them, those computed; what must be computed again does not count.

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
        """Take over another node's queues, with the requests that `twins` gives for its own."""
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
        """A prompt reaches the node, sent by a router."""
        self.enqueued_tokens += request.target_tokens - request.known_hit_tokens
        self._next_turn = request.turn = self._next_turn + 1
        self.prompts.append(request)

    def add_expired(self, request: Request, sent_tokens: int) -> None:
        """A prompt whose KV was dropped elsewhere is to be computed here; a router sent `sent_tokens` tokens of it."""
        self.computed_tokens -= request.target_tokens - sent_tokens
        self._next_turn = request.turn = self._next_turn + 1
        self.prompts.append(request)

    def add_awaiting(self, request: Request) -> None:
        """A request computed elsewhere asks for KV."""
        self._next_turn = request.turn = self._next_turn + 1
        self.awaiting.append(request)

    def add_arrived(self, request: Request) -> None:
        """The KV of a request has arrived: it decodes next, or the rest of its prompt is prefilled."""
        self.inbound -= 1
        (self.prefilling if request.rest_tokens else self.ready).append(request)

    def forget(self, request: Request) -> None:
        """A request does not come here after all: it asks for KV no more, and what is reserved for it is free."""
        if request.reserved_tokens:
            self.kv.release(request.reserved_tokens)
            self.inbound -= 1
        elif request in self.awaiting:
            self.awaiting.remove(request)

    def clear(self, now_s: float) -> None:
        """Give up every request; those that decode keep the tokens they have given, the last of them at `now_s`."""
        self.batch.take_all(now_s)
        self.computed_tokens = self.enqueued_tokens
        self.prefilling = []
        self.prompts.clear()
        self.ready.clear()
        self.awaiting.clear()
        self.inbound = 0
        self.kv.used_tokens = 0
