"""`lmetric` on states set by hand: the least product of tokens to prefill and batch size."""

from hypothesis import given

from envs.cluster import Placement, RequestView
from policies.lmetric import LMetric
from tests.policies.states import HandMade, asks, requests, views


@given(view=views(), request=requests)
def test_the_least_product_wins_and_tokens_break_ties(view: HandMade, request: RequestView) -> None:
    counters = view.counters
    nodes = range(view.topology.nodes)
    tokens = [
        counters.queued_prompt_tokens[n] + request.prompt_tokens - min(view.hits[n], request.prompt_tokens - 1)
        for n in nodes
    ]
    scores = [(tokens[n] * (counters.decode_requests[n] + 1), tokens[n], n) for n in nodes]
    best = min(scores)[2]
    assert LMetric().place(request, view) == Placement(best, best, (512,))


def test_an_idle_node_still_counts_the_tokens_to_compute() -> None:
    view = HandMade("1P1D")
    view.counters.decode_requests[1] = 1  # has all but 100 tokens of the prompt, and one request
    view.hits[1] = 2048
    assert LMetric().place(asks(2148), view).prefill_node == 1
    view.counters.decode_requests[1] = 40
    assert LMetric().place(asks(2148), view).prefill_node == 0


def test_under_slo_the_engine_chooses_the_chunks() -> None:
    assert LMetric().place(asks(3000), HandMade("1P1D", step_budget="slo")) == Placement(0, 0)
