"""Workers that answer at once, or break, for tests of the router in front of them."""

import asyncio
from collections.abc import AsyncIterator

from envs.cluster import ClusterConfig, Policy
from envs.cluster.request import Request
from experiments.mock_stack.worker import Tokens, WorkerLostError
from experiments.serving.live_clock import LiveClock
from experiments.serving.live_router import LiveRouter
from experiments.serving.recorder import Recorder
from tests.toy import toy_profile

CONFIG = ClusterConfig(toy_profile(), step_budget="fixed", token_budget=1024)
SHARED = list(range(5000))


class MadeUpWorker:
    """Answers with the token numbers 0, 1, ...; reports its steps, and breaks after some tokens.

    Attributes:
        prompts: every prompt that it was sent, and the number of tokens asked for.
        breaks_after: tokens that it generates before it is lost; None: it is never lost.
    """

    def __init__(self, node: int, breaks_after: int | None = None) -> None:
        self.node = node
        self.breaks_after = breaks_after
        self.prompts: list[tuple[list[int], int]] = []
        self.router: LiveRouter | None = None

    async def generate(self, tokens: Tokens, max_tokens: int) -> AsyncIterator[Tokens]:
        """Answer a prompt."""
        self.prompts.append((list(tokens), max_tokens))
        for number in range(max_tokens):
            await asyncio.sleep(0)
            if self.breaks_after is not None:
                if self.breaks_after == 0:
                    raise WorkerLostError(self.node)
                self.breaks_after -= 1
            if number == 0 and self.router is not None:
                self.router.stepped(self.node, step(prefill_tokens=len(tokens)))
            yield [number]


def step(prefill_tokens: int = 0, decodes: int = 0, kv_tokens: int = 0) -> dict[str, object]:
    """A step report."""
    scheduled = {
        "sum_prefill_tokens": prefill_tokens,
        "num_decode_requests": decodes,
        "sum_decode_kv_tokens": kv_tokens,
    }
    return {"wall_time": 0.01, "scheduled_requests": scheduled}


def router_of(policy: Policy, workers: list[MadeUpWorker]) -> tuple[LiveRouter, Recorder]:
    """A router in front of workers, and what it did."""
    recorder = Recorder()
    router = LiveRouter(CONFIG, policy, workers, LiveClock(1000.0), SHARED, recorder)
    for worker in workers:
        worker.router = router
    return router, recorder


def request(number: int, prompt_tokens: int = 100, output_tokens: int = 5) -> Request:
    """A request that arrives now."""
    return Request(number, 0.0, prompt_tokens, output_tokens, 2.0, 0.1)
