"""`arrow` on states with known answers, and the laws of its pools."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import policies
from envs.cluster import ClusterConfig, NodeReport, Placement, Policy, RequestView, simulate
from envs.generators import generate
from hardware_profiles import InputError
from policies.arrow import Arrow
from tests.policies.states import IDLE, HandMade, asks, behind, decoding, requests, views
from tests.toy import TOY_LAW, toy_profile

SWAMPED = behind(100_000)
FULL = decoding(256, 256)
"""As many sequences as an engine takes."""


def swamped(shape: str = "2P2D", at_s: float = 0.0) -> HandMade:
    """A view in which all prefill nodes have long queues and the decode nodes are idle."""
    prefill, decode = int(shape[0]), int(shape[2])
    return HandMade(shape, *[SWAMPED] * prefill, *[IDLE] * decode, at_s=at_s)


# ---- within the pools -----------------------------------------------------------------------------------------------


def test_arrow_starts_from_the_clusters_roles() -> None:
    view = HandMade("2P2D", behind(10), IDLE, IDLE, IDLE)
    view.counters.decode_requests[2:] = [3, 2]
    assert Arrow().place(asks(1000), view) == Placement(1, 3)


def test_meeting_the_tbt_slo_precedes_having_fewer_requests() -> None:
    view = HandMade("1P2D", IDLE, IDLE, decoding(64, 64_000))
    view.counters.decode_requests[1:] = [80, 64]
    step_s = TOY_LAW.time_s([], 65, 65_000)
    assert Arrow().place(asks(1000, tbt_slo_s=step_s + 1e-6), view).decode_node == 2
    assert Arrow().place(asks(1000, tbt_slo_s=step_s - 1e-6), view).decode_node == 1


def test_a_decode_node_without_room_for_the_kv_misses_the_slo() -> None:
    # The toy's nodes have room for 400,000 tokens.
    view = HandMade("1P2D", IDLE, IDLE, NodeReport(1, 399_000, 0, 399_000, 0.1))
    view.counters.decode_requests[1:] = [80, 1]
    assert Arrow().place(asks(1000), view).decode_node == 2
    assert Arrow().place(asks(1001), view).decode_node == 1


# ---- flips ----------------------------------------------------------------------------------------------------------


def test_if_all_prefill_nodes_miss_the_emptiest_decode_node_flips() -> None:
    arrow, view = Arrow(), swamped()
    view.counters.decode_requests[2:] = [2, 1]
    assert arrow.place(asks(1000), view) == Placement(3, 2)
    # It keeps this role for later requests.
    view.counters.decode_requests[2:] = [3, 1]
    view.at_s = 60.0
    assert arrow.place(asks(1000), view) == Placement(3, 2)


def test_a_flipped_node_that_still_decodes_is_used_last() -> None:
    arrow, view = Arrow(), swamped()
    view.counters.decode_requests[2:] = [2, 1]
    arrow.place(asks(1000), view)
    view.reports[0] = behind(5000)  # meets the SLO again, although node 3 would be faster
    assert arrow.place(asks(1000), view) == Placement(0, 2)


def test_a_flipped_nodes_chunks_keep_the_tbt_slo_of_its_decodes() -> None:
    view = swamped("1P2D")
    view.reports[1:] = [decoding(20, 10_000, 0.05), decoding(20, 10_000, 0.05)]
    view.counters.decode_requests[1:] = [20, 21]
    assert Arrow().place(asks(3000), view) == Placement(1, 2, (512,))
    assert TOY_LAW.time_s([(512, 2048)], 20, 10_000 + 4 * 20) <= 0.9 * 0.05 < TOY_LAW.time_s([(1024, 0)], 20, 10_000)


def test_the_last_decode_node_never_flips() -> None:
    assert Arrow().place(asks(1000), swamped("2P1D")) == Placement(0, 2)


def test_the_decode_pool_must_keep_low_of_the_slo_without_the_node() -> None:
    # Two nodes with 8 requests of 500 tokens each: the remaining node would have 17 of 500 tokens, plus 1,000 tokens.
    busy = decoding(8, 4000)
    step_s = TOY_LAW.time_s([], 17, 9000)
    for slo_s, flips in ((2 * step_s + 1e-6, True), (2 * step_s - 1e-6, False)):
        view = HandMade("1P2D", SWAMPED, busy, busy)
        assert (Arrow(low=0.5).place(asks(1000, tbt_slo_s=slo_s), view).prefill_node == 1) is flips


def test_no_flip_for_a_prompt_that_misses_even_on_an_idle_node() -> None:
    view = HandMade("1P2D", behind(500), IDLE, IDLE)
    assert Arrow().place(asks(20_000, ttft_slo_s=0.3), view).prefill_node == 0
    assert Arrow().place(asks(1000, ttft_slo_s=0.1), view).prefill_node == 1


def test_if_all_decode_nodes_miss_the_emptiest_prefill_node_flips() -> None:
    arrow, view = Arrow(), HandMade("2P1D", behind(800), behind(10), FULL)
    view.counters.queued_prompt_tokens[:2] = [800, 10]
    assert arrow.place(asks(1000), view) == Placement(0, 1)


def test_a_busy_prefill_pool_spares_no_node() -> None:
    # 60,000 tokens are 3.6 s of work; the remaining node would have all of it.
    view = HandMade("2P1D", behind(60_000), IDLE, FULL)
    assert Arrow().place(asks(1000), view) == Placement(1, 2)
    assert Arrow().place(asks(1000, ttft_slo_s=10.0), view).decode_node in (0, 1)


def test_a_flipped_node_keeps_its_role_for_the_cool_down() -> None:
    def third_placement(at_s: float) -> Placement:
        arrow, view = Arrow(cooldown_s=5.0), swamped()
        view.counters.decode_requests[2:] = [2, 1]
        assert arrow.place(asks(1000), view).prefill_node == 3
        # Now decoding is the bottleneck, and node 3 has the shortest queue.
        view.at_s = at_s
        view.reports[:] = [IDLE, IDLE, FULL, IDLE]
        view.counters.queued_prompt_tokens[:] = [20, 10, 0, 0]
        return arrow.place(asks(1000), view)

    assert third_placement(4.9).decode_node == 1
    assert third_placement(5.0).decode_node == 3


def test_a_clock_that_runs_backwards_is_a_new_run() -> None:
    arrow = Arrow()
    assert arrow.place(asks(1000), swamped(at_s=9.0)).prefill_node == 2
    assert arrow.place(asks(1000), HandMade("1P1D", at_s=1.0)) == Placement(0, 1)


def test_lost_nodes_leave_their_pools_and_no_pool_stays_empty() -> None:
    arrow, view = Arrow(), swamped()
    view.counters.decode_requests[2:] = [2, 1]
    assert arrow.place(asks(1000), view) == Placement(3, 2)
    view.topology.lose(2)
    view.reports[:2] = [IDLE, IDLE]
    placed = arrow.place(asks(1000), view)
    assert placed.decode_node in (0, 1, 3)
    assert placed.prefill_node in {0, 1, 3} - {placed.decode_node}


@settings(max_examples=30)
@given(
    data=st.data(),
    shape=st.sampled_from(["1P1D", "2P2D", "1P3D", "3P1D"]),
    low=st.sampled_from([0.2, 1.0]),
    cooldown_s=st.sampled_from([0.0, 5.0]),
)
def test_pools_are_never_empty_and_a_flip_waits_for_the_cool_down(
    data: st.DataObject, shape: str, low: float, cooldown_s: float
) -> None:
    arrow = Arrow(low, cooldown_s)
    role_since: dict[int, tuple[bool, float]] = {}
    now_s = 0.0
    for _ in range(8):
        view: HandMade = data.draw(views(shape))
        request: RequestView = data.draw(requests)
        now_s += data.draw(st.floats(0.0, 4.0))
        view.at_s = now_s
        placed = arrow.place(request, view)
        prefill_pool, decode_pool = set(arrow._prefill_pool), set(arrow._decode_pool)
        assert prefill_pool
        assert decode_pool
        assert not prefill_pool & decode_pool
        assert prefill_pool | decode_pool == set(range(view.topology.nodes))
        assert placed.prefill_node in prefill_pool
        assert placed.decode_node in decode_pool
        for node in range(view.topology.nodes):
            prefills = node in prefill_pool
            was, since_s = role_since.get(node, (not view.topology.decodes[node], -1e9))
            if prefills != was:
                assert now_s - since_s >= cooldown_s
                role_since[node] = (prefills, now_s)


# ---- in a run -------------------------------------------------------------------------------------------------------


def mean_ttft_s(policy: Policy) -> float:
    workload = generate("burst", rate_rps=9.0, requests=300, seed=1)
    records = simulate(workload, policy, ClusterConfig(toy_profile(), shape="1P3D")).records
    return sum(record.first_token_s - record.arrival_s for record in records) / len(records)


def test_flips_help_if_there_are_too_few_prefill_nodes() -> None:
    assert mean_ttft_s(Arrow()) < 0.5 * mean_ttft_s(policies.make("static"))


@pytest.mark.parametrize("knobs", ["low=0", "low=1.1", "low=nan", "cooldown_s=-1", "cooldown_s=inf"])
def test_a_knob_out_of_range_is_an_input_error(knobs: str) -> None:
    with pytest.raises(InputError, match=f"arrow: {knobs.partition('=')[0]} must"):
        policies.make(f"arrow:{knobs}")
