"""`splitwise`: a mixed pool between the prompt pool and the token pool (arXiv 2311.18677).

The rule is that of the paper's simulator (Mutinifni/splitwise-sim, scheduler.py, MixedPoolScheduler; its threshold of
8192 tokens is in configs/orchestrator_repo/schedulers/mixed_pool.yml). A prompt goes to the prefill node with the
fewest pending prompt tokens. If that queue is too long, it goes to the mixed pool. If that is too busy or empty, the
least loaded decode node is borrowed: it belongs to the mixed pool until it has no requests left. Requests decode on
decode nodes outside the mixed pool, if there are any. If every node is too busy, the least busy one does both jobs. The
TBT of requests decoding on a borrowed node is not protected.

Adaptations: the simulator chooses decode nodes by memory; here this is the prompt tokens of unfinished requests,
because a router does not know output lengths. The simulator's checks against the memory's size are left out, so that no
prefill node is borrowed for decoding.
"""

from typing import ClassVar

from envs.cluster import Placement, RequestView, RouterView
from hardware_profiles import InputError


class Splitwise:
    """Prefill on the shortest queue; borrow a decode node if every prefill queue is too long.

    Args:
        max_pending_tokens: a non-empty queue is too long for a prompt if it would exceed this with the prompt.
    """

    name = "splitwise"
    grid: ClassVar[dict[str, tuple[int, ...]]] = {
        "max_pending_tokens": (
            *(0, 1024, 2048, 3072, 4096, 5120, 6144, 8192, 10240),
            *(12288, 16384, 20480, 24576, 32768, 49152, 65536, 98304, 131072),
        ),
    }

    def __init__(self, max_pending_tokens: int = 8192) -> None:
        if max_pending_tokens < 0:
            raise InputError(f"splitwise: max_pending_tokens must be 0 or more, not {max_pending_tokens}")
        self._max_pending_tokens = max_pending_tokens
        self._mixed: list[int] = []

    def place(self, request: RequestView, view: RouterView) -> Placement:
        """Place one request."""
        topology = view.topology
        counters = view.counters
        pending = counters.queued_prompt_tokens
        unfinished = counters.decode_requests
        decode_nodes = topology.decode_nodes
        mixed = [n for n in decode_nodes if n in self._mixed and (pending[n] or unfinished[n])] if self._mixed else []
        token_pool = [n for n in decode_nodes if n not in mixed] if mixed else decode_nodes
        decode_node = min(token_pool or mixed, key=counters.decode_prompt_tokens.__getitem__)
        room = max(0, self._max_pending_tokens - request.prompt_tokens)
        prefill_node = view.shortest_prefill_queue()
        if pending[prefill_node] > room and mixed:
            prefill_node = min(mixed, key=pending.__getitem__)
        if pending[prefill_node] > room:
            if token_pool:
                prefill_node = min(token_pool, key=unfinished.__getitem__)
                mixed.append(prefill_node)
            else:
                everyone = topology.prefill_nodes + decode_nodes
                prefill_node = decode_node = min(everyone, key=pending.__getitem__)
        self._mixed = mixed
        return Placement(prefill_node, decode_node)
