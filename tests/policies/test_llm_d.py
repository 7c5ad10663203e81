"""`llm-d` on states set by hand: scores, and the threshold of uncached tokens."""

import pytest

import policies
from envs.cluster import Placement
from hardware_profiles import InputError
from policies.llm_d import LlmD
from tests.policies.states import HandMade, asks


@pytest.mark.parametrize(
    ("prompt", "hit", "placed"),
    [
        (15, 0, Placement(1, 1)),
        (16, 0, Placement(0, 1)),
        (1024 + 15, 1024, Placement(1, 1)),
        (1024 + 16, 1024, Placement(0, 1)),
        (30_000, 0, Placement(0, 1)),
    ],
)
def test_a_few_uncached_tokens_are_prefilled_locally(prompt: int, hit: int, placed: Placement) -> None:
    view = HandMade("1P1D")
    view.hits[1] = hit
    assert LlmD().place(asks(prompt), view) == placed


def test_the_threshold_is_a_knob_and_0_never_disaggregates() -> None:
    view = HandMade("1P1D")
    assert LlmD(uncached_tokens=2000).place(asks(1999), view) == Placement(1, 1)
    assert LlmD(uncached_tokens=2000).place(asks(2000), view) == Placement(0, 1)
    assert LlmD(uncached_tokens=0).place(asks(30_000), view) == Placement(1, 1)


def test_without_cached_prefixes_the_shortest_queues_are_used() -> None:
    view = HandMade("2P2D")
    view.counters.queued_prompts[:2] = [3, 2]
    view.counters.queued_prompt_tokens[:2] = [10, 90_000]  # llm-d counts prompts
    view.counters.decode_requests[2:] = [7, 6]
    assert LlmD().place(asks(1000), view) == Placement(1, 3)


def test_a_cached_prefix_has_twice_the_weight_of_the_queue() -> None:
    # The longest queue scores 0 and the shortest 1, so half the prompt must be cached to compensate.
    view = HandMade("2P2D")
    view.counters.queued_prompts[:2] = [1, 9]
    view.counters.decode_requests[2:] = [1, 9]
    view.hits[:] = [0, 512, 0, 512]
    assert LlmD().place(asks(1025), view) == Placement(0, 2)
    assert LlmD().place(asks(1023), view) == Placement(1, 3)


def test_the_decode_nodes_cache_decides() -> None:
    view = HandMade("1P1D")
    view.hits[0] = 512
    assert LlmD().place(asks(520), view) == Placement(0, 1)
    view.hits[1] = 512
    assert LlmD().place(asks(520), view) == Placement(1, 1)


def test_a_negative_threshold_is_an_error() -> None:
    with pytest.raises(InputError, match="uncached_tokens must be 0 or more, not -1"):
        policies.make("llm-d:uncached_tokens=-1")
