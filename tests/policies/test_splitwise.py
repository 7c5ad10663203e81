"""`splitwise` on states set by hand: three pools, and membership of the mixed pool."""

import pytest

import policies
from envs.cluster import Placement
from hardware_profiles import InputError
from policies.splitwise import Splitwise
from tests.policies.states import HandMade, asks


def queued(shape: str, *tokens: int) -> HandMade:
    """A view with the given prompt tokens queued on each node."""
    view = HandMade(shape)
    view.counters.queued_prompt_tokens[:] = tokens
    return view


def test_the_nodes_have_the_fewest_pending_and_held_tokens() -> None:
    view = queued("2P2D", 4000, 3000, 0, 0)
    view.counters.decode_prompt_tokens[2:] = [900, 800]
    view.counters.decode_requests[2:] = [1, 2]
    assert Splitwise().place(asks(1000), view) == Placement(1, 3)


def test_a_queue_is_too_long_if_the_prompt_exceeds_the_limit() -> None:
    view = queued("2P1D", 9000, 7192, 0)
    assert Splitwise().place(asks(1000), view) == Placement(1, 2)
    assert Splitwise().place(asks(1001), view) == Placement(2, 2)
    assert Splitwise(max_pending_tokens=8193).place(asks(1001), view) == Placement(1, 2)


def test_an_empty_queue_accepts_a_prompt_of_any_length() -> None:
    assert Splitwise().place(asks(30_000), queued("1P1D", 0, 0)) == Placement(0, 1)
    assert Splitwise(max_pending_tokens=0).place(asks(1), queued("1P1D", 0, 0)) == Placement(0, 1)
    assert Splitwise(max_pending_tokens=0).place(asks(1), queued("1P1D", 1, 0)) == Placement(1, 1)


def test_the_decode_node_with_the_fewest_requests_is_borrowed() -> None:
    view = queued("1P3D", 8000, 0, 0, 0)
    view.counters.decode_requests[1:] = [3, 1, 2]
    view.counters.decode_prompt_tokens[1:] = [100, 900, 400]
    assert Splitwise().place(asks(1000), view) == Placement(2, 1)


def test_a_borrowed_node_gets_prompts_until_it_is_too_busy() -> None:
    view = queued("1P2D", 8000, 0, 0)
    view.counters.decode_requests[1:] = [3, 5]
    view.counters.decode_prompt_tokens[1:] = [900, 950]
    rule = Splitwise()
    assert rule.place(asks(1000), view) == Placement(1, 1)
    view.counters.queued_prompt_tokens[1] = 1000
    assert rule.place(asks(1000), view) == Placement(
        1, 2
    )  # it is in the mixed pool and prefills; the other node decodes
    assert rule.place(asks(100), view) == Placement(0, 2)  # this fits the prefill node's queue
    view.counters.queued_prompt_tokens[1] = 7500
    assert rule.place(asks(1000), view) == Placement(2, 2)  # the other node is borrowed, too
    view.counters.queued_prompt_tokens[2] = 1000
    view.counters.decode_prompt_tokens[1:] = [950, 900]
    assert rule.place(asks(1000), view) == Placement(2, 2)  # all decode nodes are in the mixed pool, which decodes, too
    view.counters.queued_prompt_tokens[1] = 500
    assert rule.place(asks(1000), view) == Placement(1, 2)  # the shorter of the mixed queues


def test_a_borrowed_node_is_returned_when_it_is_empty() -> None:
    view = queued("1P2D", 8000, 0, 0)
    rule = Splitwise()
    assert rule.place(asks(1000), view).prefill_node == 1
    view.counters.queued_prompt_tokens[:] = [0, 0, 0]
    view.counters.decode_requests[1:] = [1, 4]
    view.counters.decode_prompt_tokens[1:] = [10, 9000]
    assert rule.place(asks(1000), view) == Placement(0, 2)  # it still has its decodes
    view.counters.decode_requests[1] = 0
    view.counters.decode_prompt_tokens[1] = 0
    assert rule.place(asks(1000), view) == Placement(0, 1)


def test_if_all_nodes_are_too_busy_the_least_busy_does_both() -> None:
    view = queued("1P1D", 9000, 0)
    rule = Splitwise()
    assert rule.place(asks(1000), view) == Placement(1, 1)
    view.counters.queued_prompt_tokens[:] = [9000, 8500]
    assert rule.place(asks(1000), view) == Placement(1, 1)
    view.counters.queued_prompt_tokens[:] = [9000, 9500]
    assert rule.place(asks(1000), view) == Placement(0, 0)


def test_a_negative_limit_is_an_error() -> None:
    with pytest.raises(InputError, match="max_pending_tokens must be 0 or more, not -1"):
        policies.make("splitwise:max_pending_tokens=-1")
