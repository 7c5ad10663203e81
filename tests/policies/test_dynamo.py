"""Dynamo's rules on states set by hand: short prompts, busy nodes, and the KV limit on local prefills."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import policies
from envs.cluster import NodeReport, Placement, RequestView
from hardware_profiles import InputError
from policies.dynamo import DynamoISL, DynamoISLOrLoad, DynamoLegacy, DynamoLoad
from tests.policies.states import HandMade, asks, requests, views

REMOTE, LOCAL = Placement(0, 1), Placement(1, 1)
CAPACITY_TOKENS = 400_000  # of the toy profile


def one_of_each(hit_tokens: int = 0, queued_tokens: int = 0, queued_prompts: int = 0, kv_used: int = 0) -> HandMade:
    """1P1D with a prefix hit on the decode node, a queue on the prefill node, and KV in use."""
    view = HandMade("1P1D")
    view.hits[1] = hit_tokens
    view.counters.queued_prompt_tokens[0] = queued_tokens
    view.counters.queued_prompts[0] = queued_prompts
    view.reports[1] = NodeReport(0, 0, 0, kv_used, float("inf"))
    return view


# ---- dynamo-legacy --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "hit", "queued", "placed"),
    [
        (1000, 0, 0, LOCAL),  # at the threshold
        (1001, 0, 0, REMOTE),
        (1512, 512, 0, LOCAL),  # cached tokens need not be computed
        (1513, 512, 0, REMOTE),
        (5000, 0, 2, REMOTE),  # one is being computed, one waits
        (5000, 0, 3, LOCAL),  # two wait
    ],
)
def test_legacy_prefills_long_prompts_remotely_while_few_wait(
    prompt: int, hit: int, queued: int, placed: Placement
) -> None:
    assert DynamoLegacy().place(asks(prompt), one_of_each(hit, queued_prompts=queued)) == placed


def test_the_queue_of_legacy_counts_all_prefill_nodes() -> None:
    view = HandMade("2P1D")
    view.counters.queued_prompts[:2] = [2, 1]
    view.counters.queued_prompt_tokens[:2] = [500, 9000]
    assert DynamoLegacy().place(asks(5000), view) == Placement(0, 2)
    view.counters.queued_prompts[:2] = [2, 2]
    assert DynamoLegacy().place(asks(5000), view) == Placement(2, 2)
    assert DynamoLegacy(max_queue=3).place(asks(5000), view) == Placement(0, 2)


# ---- dynamo-isl -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "hit", "placed"),
    [
        (100, 0, REMOTE),  # nothing is cached, so all of it must be computed, however short
        (2047 + 2048, 2048, LOCAL),
        (2048 + 2048, 2048, REMOTE),  # a prompt at the threshold is too long
        (1000, 512, LOCAL),
        (1000, 300, REMOTE),  # at the ratio
        (1000, 301, LOCAL),
    ],
)
def test_isl_prefills_short_mostly_cached_prompts_locally(prompt: int, hit: int, placed: Placement) -> None:
    assert DynamoISL().place(asks(prompt), one_of_each(hit)) == placed


def test_isl_ignores_load() -> None:
    assert DynamoISL().place(asks(1000), one_of_each(queued_tokens=10**9)) == REMOTE


# ---- dynamo-load and dynamo-isl-or-load ------------------------------------------------------------------------------


def test_load_prefills_locally_when_the_prefill_node_is_busy() -> None:
    assert DynamoLoad().place(asks(1000), one_of_each(queued_tokens=16 * 2048)) == REMOTE
    assert DynamoLoad().place(asks(1000), one_of_each(queued_tokens=16 * 2048 + 1)) == LOCAL
    assert DynamoLoad(prefill_busy=0.5).place(asks(30_000), one_of_each(queued_tokens=1025)) == LOCAL
    assert DynamoLoad().place(asks(1000), one_of_each(hit_tokens=900)) == REMOTE


def test_load_considers_the_node_it_would_choose() -> None:
    view = HandMade("2P1D")
    view.counters.queued_prompt_tokens[:2] = [10**6, 100]
    assert DynamoLoad().place(asks(1000), view) == Placement(1, 2)


def test_high_kv_use_prevents_a_local_prefill() -> None:
    full = one_of_each(queued_tokens=10**6, kv_used=CAPACITY_TOKENS - 1000)
    assert DynamoLoad().place(asks(1000), full) == LOCAL
    assert DynamoLoad().place(asks(1001), full) == REMOTE
    assert DynamoLoad(decode_busy=0.9).place(asks(1000), full) == REMOTE
    cached = one_of_each(hit_tokens=900, kv_used=CAPACITY_TOKENS)
    assert DynamoISL().place(asks(1000), cached) == REMOTE


@given(view=views(), request=requests, prefill_busy=st.floats(0.0, 8.0))
def test_isl_or_load_is_local_if_either_rule_is(view: HandMade, request: RequestView, prefill_busy: float) -> None:
    either = {
        DynamoISL().place(request, view),
        DynamoLoad(prefill_busy=prefill_busy).place(request, view),
    }
    local = {placed for placed in either if placed.prefill_node == placed.decode_node}
    assert DynamoISLOrLoad(prefill_busy=prefill_busy).place(request, view) == (local or either).pop()


# ---- which nodes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["dynamo-legacy", "dynamo-isl", "dynamo-load", "dynamo-isl-or-load"])
def test_nodes_have_the_fewest_tokens_minus_cached_ones(rule: str) -> None:
    view = HandMade("2P2D")
    view.counters.queued_prompt_tokens[:2] = [600, 1000]
    view.counters.decode_prompt_tokens[2:] = [5000, 5400]
    policy = policies.make(rule)
    assert policy.place(asks(3000), view) == Placement(0, 2)
    view.hits[:] = [0, 512, 0, 512]
    assert policy.place(asks(3000), view) == Placement(1, 3)
    view.counters.queued_prompt_tokens[3] = 200  # a local prefill that has not finished
    assert policy.place(asks(3000), view) == Placement(1, 2)


@pytest.mark.parametrize("rule", ["dynamo-legacy", "dynamo-isl", "dynamo-load", "dynamo-isl-or-load"])
def test_a_local_prefill_has_no_chunk_plan(rule: str) -> None:
    placed = policies.make(rule).place(asks(900), one_of_each(hit_tokens=800, queued_tokens=10**6))
    assert placed == LOCAL


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("dynamo-legacy:max_local_tokens=-1", "dynamo-legacy: max_local_tokens must be 0 or more, not -1"),
        ("dynamo-legacy:max_queue=-1", "dynamo-legacy: max_queue must be 0 or more, not -1"),
        ("dynamo-isl:eff_isl=-1", "dynamo-isl: eff_isl must be 0 or more tokens, not -1"),
        ("dynamo-isl:ratio=1.1", "dynamo-isl: ratio must be from 0 to 1, not 1.1"),
        ("dynamo-isl:ratio=nan", "dynamo-isl: ratio must be from 0 to 1, not nan"),
        ("dynamo-load:prefill_busy=-0.5", "dynamo-load: prefill_busy must be 0 or more, not -0.5"),
        ("dynamo-load:prefill_busy=nan", "dynamo-load: prefill_busy must be 0 or more, not nan"),
        ("dynamo-load:decode_busy=0", "dynamo-load: decode_busy must be above 0 and at most 1, not 0"),
        ("dynamo-load:eff_isl=5", "dynamo-load has no knob 'eff_isl'; its knobs: prefill_busy, decode_busy"),
        ("dynamo-isl-or-load:decode_busy=2", "dynamo-isl-or-load: decode_busy must be above 0 and at most 1, not 2"),
    ],
)
def test_invalid_knobs_are_an_error(name: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        policies.make(name)
