"""`colocated` on states set by hand: least load by each measure, whatever the roles."""

import pytest

import policies
from envs.cluster import ClusterConfig, Placement, simulate
from envs.generators import generate
from hardware_profiles import InputError
from policies.colocated import Colocated
from tests.policies.states import HandMade, asks
from tests.toy import toy_profile


def loaded() -> HandMade:
    """Node 1, a prefill node, has the fewest requests; node 2 the fewest tokens held; node 3 the fewest to prefill."""
    view = HandMade("2P2D")
    view.counters.decode_requests[:] = [5, 2, 3, 4]
    view.counters.decode_prompt_tokens[:] = [9000, 8000, 500, 7000]
    view.counters.queued_prompt_tokens[:] = [3000, 4000, 2000, 1000]
    return view


@pytest.mark.parametrize(("load", "node"), [("requests", 1), ("tokens", 2), ("prefill", 3)])
def test_the_least_loaded_of_all_nodes_does_both(load: str, node: int) -> None:
    placed = Colocated(load=load).place(asks(1000), loaded())
    assert placed[:2] == (node, node)


def test_requests_break_ties_of_prefill_work() -> None:
    view = HandMade("2P2D")
    view.counters.decode_requests[:] = [5, 2, 3, 4]
    assert Colocated().place(asks(1000), view).decode_node == 1


def test_a_step_has_one_chunk_or_the_rest_of_the_budget() -> None:
    view = HandMade("1P1D")
    assert Colocated().place(asks(3000), view) == Placement(0, 0, (512,))
    assert Colocated(chunk=0).place(asks(3000), view) == Placement(0, 0)


def test_all_nodes_are_used_and_no_kv_is_sent() -> None:
    result = simulate(
        generate("burst", rate_rps=16.0, requests=100, seed=4),
        policies.make("colocated"),
        ClusterConfig(toy_profile(), shape="2P2D"),
    )
    assert result.counters.kv_bytes_moved == 0
    assert {record.prefill_node for record in result.records} == {0, 1, 2, 3}
    assert all(record.last_token_s > record.arrival_s for record in result.records)


@pytest.mark.parametrize(
    ("knobs", "says"),
    [("load=fewest", "load must be prefill, requests or tokens, not fewest"), ("chunk=-1", "chunk must be 0 or more")],
)
def test_invalid_knobs_are_an_error(knobs: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        policies.make(f"colocated:{knobs}")
