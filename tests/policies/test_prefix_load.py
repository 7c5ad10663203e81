"""`prefix-load` on states set by hand: a weighted score of cached share and load, per phase."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import policies
from envs.cluster import Placement, RequestView
from hardware_profiles import InputError
from policies.fixed import Static
from policies.prefix_load import PrefixLoad
from tests.policies.states import HandMade, asks, requests, views


@given(view=views(), request=requests)
def test_with_weight_0_it_equals_static_without_prefixes(view: HandMade, request: RequestView) -> None:
    placed = PrefixLoad(prefill_weight=0.0, decode_weight=0.0).place(request, view)
    assert placed == Static(prefix=False).place(request, view)


@given(view=views(), request=requests)
def test_with_a_large_weight_the_longest_hit_wins(view: HandMade, request: RequestView) -> None:
    placed = PrefixLoad(prefill_weight=1e9, decode_weight=1e9).place(request, view)
    hits = [view.prefix_hit_tokens(request, node) for node in range(view.topology.nodes)]
    assert hits[placed.prefill_node] == max(hits[node] for node in view.topology.prefill_nodes)
    assert hits[placed.decode_node] == max(hits[node] for node in view.topology.decode_nodes)


@pytest.mark.parametrize(("weight", "node"), [(1.9, 0), (2.1, 1)])
def test_the_weight_sets_the_share_that_offsets_the_longest_queue(weight: float, node: int) -> None:
    view = HandMade("2P2D")
    view.counters.queued_prompt_tokens[:2] = [100, 9000]
    view.counters.decode_requests[2:] = [1, 9]
    view.hits[:] = [0, 512, 0, 512]
    request = asks(1024)
    assert PrefixLoad(prefill_weight=weight, decode_weight=0.0).place(request, view) == Placement(node, 2)
    assert PrefixLoad(prefill_weight=0.0, decode_weight=weight).place(request, view) == Placement(0, 2 + node)


@given(tokens=st.permutations([10, 20, 30]), prompts=st.permutations([1, 2, 3]))
def test_the_load_of_a_prefill_node_counts_tokens_or_requests(tokens: list[int], prompts: list[int]) -> None:
    view = HandMade("3P1D")
    view.counters.queued_prompt_tokens[:3] = tokens
    view.counters.queued_prompts[:3] = prompts
    assert PrefixLoad().place(asks(100), view).prefill_node == tokens.index(10)
    assert PrefixLoad(load="requests").place(asks(100), view).prefill_node == prompts.index(1)


@pytest.mark.parametrize(
    "knobs", ["prefill_weight=-1", "prefill_weight=nan", "decode_weight=inf", "decode_weight=-0.1", "load=work"]
)
def test_invalid_knobs_are_an_error(knobs: str) -> None:
    with pytest.raises(InputError, match=f"prefix-load: {knobs.partition('=')[0]} must be"):
        policies.make(f"prefix-load:{knobs}")
