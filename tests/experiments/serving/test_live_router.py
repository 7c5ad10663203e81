"""The live router: every token arrives once, counts return to zero, and lost workers lose no request."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

import policies
from envs.cluster import Placement, RequestView, RouterView
from envs.cluster.router_counters import RouterCounters
from experiments.mock_stack.worker import Tokens, WorkerLostError
from experiments.serving.live_router import LiveRouter, RejectedError
from experiments.serving.recorder import Recorder
from hardware_profiles import InputError
from tests.experiments.serving.made_up_workers import SHARED, MadeUpWorker, request, router_of

PER_NODE = (
    "queued_prompts",
    "queued_prompt_tokens",
    "decode_requests",
    "decode_prompt_tokens",
    "deflected_requests",
    "kv_leaving_tokens",
    "kv_coming_tokens",
    "unplanned_prompt_tokens",
)


class Fixed:
    """Places every request alike; rejects it if there is no placement."""

    name = "fixed placement"

    def __init__(self, placement: Placement | None) -> None:
        self._placement = placement

    def place(self, _request: RequestView, _view: RouterView) -> Placement | None:
        return self._placement


def nothing_left(router: LiveRouter) -> None:
    counters: RouterCounters = router.view.counters
    assert not router.lifecycle.in_flight
    assert not router.lifecycle.first_token_wait.requests
    for name in PER_NODE:
        assert not any(getattr(counters, name)), name
    assert not any(state.decoding for state in router.view.nodes)


async def all_served(router: LiveRouter, lengths: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Serve requests of these prompt and output tokens at once; the tokens of each."""
    answers: list[list[int]] = [[] for _ in lengths]

    def relay(number: int, new: Tokens) -> None:
        answers[number].extend(new)

    await asyncio.gather(
        *[
            router.serve(request(number, *length), SHARED[: length[0]], lambda new, number=number: relay(number, new))
            for number, length in enumerate(lengths)
        ]
    )
    return answers


LENGTHS = st.lists(st.tuples(st.integers(1, 4000), st.integers(1, 20)), min_size=1, max_size=12)


@given(
    LENGTHS, st.sampled_from(["static", "round-robin", "kairos", "shortest-ttft:choices=pairs", "dynaserve:splits=3"])
)
def test_every_token_arrives_and_every_count_returns_to_zero(lengths: list[tuple[int, int]], rule: str) -> None:
    workers = [MadeUpWorker(node) for node in range(4)]
    router, recorder = router_of(policies.make(rule), workers)
    answers = asyncio.run(all_served(router, lengths))
    assert [len(answer) for answer in answers] == [output for _, output in lengths]
    nothing_left(router)
    result = recorder.result(router.view.nodes, router.lifecycle, 1.0)
    assert sorted(one.request for one in result.records) == list(range(len(lengths)))
    assert len(result.decision_s) == len(lengths)
    assert result.gaps.weight.sum() == sum(output - 1 for _, output in lengths)
    for one in result.records:
        times_s = one.arrival_s, one.prefill_start_s, one.prefill_end_s, one.kv_ready_s, one.first_token_s
        assert list(times_s) == sorted(times_s)
        assert one.first_token_s <= one.last_token_s
        sent = [len(prompt) for prompt, _ in workers[one.prefill_node].prompts]
        assert one.prompt_tokens in sent


def test_a_deflected_request_is_sent_once_and_any_other_to_both_nodes() -> None:
    for placement in (Placement(2, 2, chunk_plan=(64,)), Placement(0, 3, split_tokens=10)):
        workers = [MadeUpWorker(node) for node in range(4)]
        router, recorder = router_of(Fixed(placement), workers)
        asyncio.run(all_served(router, [(100, 7)]))
        (record,) = recorder.result(router.view.nodes, router.lifecycle, 1.0).records
        assert (record.prefill_node, record.decode_node) == placement[:2]
        asked = {worker.node: worker.prompts for worker in workers if worker.prompts}
        own = SHARED[:100]
        assert asked == ({2: [(own, 7)]} if record.deflected else {0: [(own, 1)], 3: [(own, 7)]})
        moved = recorder.result(router.view.nodes, router.lifecycle, 1.0).counters.kv_bytes_moved
        assert moved == (0 if record.deflected else router.view.topology.kv_bytes(100))


@given(LENGTHS, st.integers(0, 3), st.integers(0, 60), st.sampled_from(["kairos", "round-robin", "lmetric"]))
def test_requests_of_a_lost_worker_keep_their_tokens(
    lengths: list[tuple[int, int]], lost: int, after: int, rule: str
) -> None:
    workers = [MadeUpWorker(node, after if node == lost else None) for node in range(4)]
    router, recorder = router_of(policies.make(rule), workers)
    answers = asyncio.run(all_served(router, lengths))
    assert [len(answer) for answer in answers] == [output for _, output in lengths]
    nothing_left(router)
    assert len(recorder.result(router.view.nodes, router.lifecycle, 1.0).records) == len(lengths)
    if router.view.topology.lost:
        assert router.view.topology.lost == {lost}


def test_without_workers_of_a_role_requests_fail_and_none_hangs() -> None:
    workers = [MadeUpWorker(node, breaks_after=1) for node in range(4)]
    router, _ = router_of(policies.make("kairos"), workers)

    async def serve_some() -> list[bool | BaseException]:
        serving = [router.serve(request(number), SHARED[:100], repr) for number in range(6)]
        return await asyncio.gather(*serving, return_exceptions=True)

    found = asyncio.run(asyncio.wait_for(serve_some(), 10.0))
    assert all(isinstance(one, WorkerLostError) for one in found)
    assert len(router.view.topology.lost) >= 2
    with pytest.raises(WorkerLostError, match=r"the worker of node \d is lost"):
        asyncio.run(router.serve(request(9), SHARED[:100], repr))
    nothing_left(router)


def test_a_client_that_leaves_frees_its_request() -> None:
    router, recorder = router_of(policies.make("static"), [MadeUpWorker(node) for node in range(4)])

    async def leave_after(tokens: int) -> None:
        answer = router.answer(request(0, output_tokens=1000), SHARED[:100])
        async for _ in answer:
            tokens -= 1
            if not tokens:
                break
        await answer.aclose()
        await asyncio.sleep(0.01)

    asyncio.run(leave_after(3))
    nothing_left(router)
    assert not recorder.result(router.view.nodes, router.lifecycle, 1.0).records


def test_a_rejected_request_and_one_that_is_too_long_say_so() -> None:
    async def first_of(router: LiveRouter, tokens: Sequence[int]) -> None:
        async for _ in router.answer(request(0, len(tokens)), tokens):
            pass

    router, recorder = router_of(Fixed(None), [MadeUpWorker(node) for node in range(4)])
    with pytest.raises(RejectedError, match="fixed placement rejected the request"):
        asyncio.run(first_of(router, SHARED[:10]))
    assert [one.decode_node for one in recorder.result(router.view.nodes, router.lifecycle, 1.0).records] == [-1]
    with pytest.raises(InputError, match="a prompt of 5,001 tokens; at most 5,000 are allowed"):
        asyncio.run(first_of(router, [*SHARED, 1]))
    nothing_left(router)


def test_the_shared_prompt_is_used_again_before_it_is_evicted() -> None:
    workers = [MadeUpWorker(node) for node in range(4)]
    router, _ = router_of(Fixed(Placement(0, 2)), workers)

    async def serve_many() -> None:
        await router.warm()
        for number in range(80):
            await router.serve(request(number, 4000, 1), SHARED[:4000], repr)
        router.view.topology.lose(3)
        await router.serve(request(99, 10, 1), SHARED[:10], repr)

    asyncio.run(serve_many())
    assert all(worker.prompts[0] == (SHARED, 1) for worker in workers)
    recorder = Recorder()
    assert recorder.result(router.view.nodes, router.lifecycle, 0.0).records == []
    assert workers[0].prompts.count((SHARED, 1)) == 1  # it gets no hand-overs
