"""The order in which a router sends prompts to a node: that of vLLM's scheduler."""

import asyncio
from collections import deque

from experiments.serving.live_view import NodeState


class PromptTurns:
    """Holds the prompts of one node back until the node has less to compute than fits into a step.

    In vLLM a request whose KV has arrived comes before prompts that have not begun. A mock engine gets such a request
    as one more prompt, which would wait behind all that were sent before. So prompts wait here, in order of arrival.

    Args:
        state: the node's.
        token_budget: tokens of a step.
    """

    def __init__(self, state: NodeState, token_budget: int) -> None:
        self._state = state
        self._token_budget = token_budget
        self._sent_tokens = 0
        self._held: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def wait(self, tokens: int) -> None:
        """Wait for the turn of a prompt. Raises what `stop` was given."""
        turn = asyncio.get_running_loop().create_future()
        self._held.append((tokens, turn))
        self.release()
        await turn

    def computed(self, tokens: int) -> None:
        """Note that a prompt is computed whole, or given up."""
        self._sent_tokens -= tokens
        self._state.begun_tokens -= tokens
        if not self._sent_tokens:
            self._state.begun_tokens = 0  # a step report that was lost is forgotten
        self.release()

    def release(self) -> None:
        """Let the prompts go whose turn has come; called whenever the node has progressed."""
        while self._held and self._sent_tokens - self._state.begun_tokens < self._token_budget:
            tokens, turn = self._held.popleft()
            if not turn.done():  # its request was cancelled
                turn.set_result(None)
                self._sent_tokens += tokens

    def stop(self, error: Exception) -> None:
        """Raise an error for all prompts that wait: the node is lost."""
        while self._held:
            _, turn = self._held.popleft()
            if not turn.done():
                turn.set_exception(error)
