"""The order in which prompts are sent: first come first served, and never much more than a step ahead."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.serving.live_view import NodeState
from experiments.serving.prompt_turns import PromptTurns

BUDGET = 1000


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=20), st.integers(1, 1000))
def test_prompts_are_sent_in_order_and_at_most_a_step_ahead(lengths: list[int], per_step: int) -> None:
    state = NodeState()
    turns = PromptTurns(state, BUDGET)
    sent: list[int] = []

    async def send(number: int) -> None:
        await turns.wait(lengths[number])
        sent.append(number)

    async def node() -> None:
        """Compute the prompts that were sent, some tokens per step."""
        waiting = [asyncio.create_task(send(number)) for number in range(len(lengths))]
        for done in range(len(lengths)):
            computed = 0
            while computed < lengths[done]:
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                assert sent == list(range(len(sent)))
                assert len(sent) > done
                uncomputed = sum(lengths[number] for number in sent) - sum(lengths[:done]) - computed
                assert uncomputed < BUDGET + lengths[sent[-1]]
                step = min(per_step, lengths[done] - computed)
                computed += step
                state.begun_tokens += step
                turns.release()
            turns.computed(lengths[done])
        await asyncio.gather(*waiting)

    asyncio.run(node())
    assert sent == list(range(len(lengths)))
    assert state.begun_tokens == 0


def test_a_lost_node_raises_for_prompts_that_wait_and_cancelled_ones_are_skipped() -> None:
    turns = PromptTurns(NodeState(), BUDGET)

    async def scene() -> None:
        await turns.wait(2 * BUDGET)
        left, cancelled = asyncio.create_task(turns.wait(10)), asyncio.create_task(turns.wait(20))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.sleep(0)
        turns.stop(RuntimeError("lost"))
        with pytest.raises(RuntimeError, match="lost"):
            await left

    asyncio.run(scene())


def test_lost_step_reports_do_not_hold_prompts_back_for_ever() -> None:
    turns = PromptTurns(NodeState(), BUDGET)

    async def scene() -> None:
        for _ in range(5):
            waiting = [asyncio.create_task(turns.wait(600)) for _ in range(3)]
            for one in waiting:
                await asyncio.wait_for(one, 5.0)
                turns.computed(600)

    asyncio.run(scene())
