"""`mooncake` on states set by hand: queue + prefill + transfer, and rejections."""

import pytest
from hypothesis import given

import policies
from envs.cluster import ClusterConfig, Placement, RequestView, simulate
from envs.generators import generate
from hardware_profiles import InputError
from policies.mooncake import Mooncake
from tests.policies.states import IDLE, HandMade, asks, behind, decoding, requests, views
from tests.toy import TOY_LAW, toy_profile

# The toy machine with 1000 prompt tokens: prefill 61.5 ms; 63 whole blocks of 16 tokens over the network 5.14 ms; a
# step with one decode of 1000 tokens 8.68 ms.
PREFILL_S = TOY_LAW.time_s([(1000, 0)], 0, 0)
TRANSFER_S = 1e-4 + 63 * 16 * 100_000 / 20e9
STEP_S = TOY_LAW.time_s([], 1, 1000)
TTFT_S = PREFILL_S + TRANSFER_S + STEP_S


def test_the_constants_equal_the_hand_computation() -> None:
    assert pytest.approx(0.0615) == PREFILL_S
    assert pytest.approx(0.00514) == TRANSFER_S
    assert pytest.approx(0.00868) == STEP_S


def test_the_shortest_wait_wins_and_decode_nodes_are_never_used() -> None:
    assert Mooncake().place(asks(1000), HandMade("2P1D", behind(3000), behind(2999), IDLE)) == Placement(1, 2)
    assert Mooncake().place(asks(1000), HandMade("1P1D", behind(10**6), IDLE)) == Placement(0, 1)


def test_a_cached_prefix_is_worth_a_longer_queue() -> None:
    view = HandMade("2P1D", behind(400), IDLE, IDLE)
    assert Mooncake().place(asks(2000), view) == Placement(1, 2)
    view.hits[0] = 512
    assert Mooncake().place(asks(2000), view) == Placement(0, 2)
    view.reports[0] = behind(900)
    assert Mooncake().place(asks(2000), view) == Placement(1, 2)


def test_the_prefix_is_context_of_every_later_chunk() -> None:
    view = HandMade("1P1D")
    for cached in (0, 2048, 8192):
        view.hits[0] = cached
        prompt = cached + 100
        prefill_s = TOY_LAW.time_s([(100, cached)], 0, 0)
        step_s = TOY_LAW.time_s([], 1, prompt)
        ttft_s = prefill_s + view.topology.transfer_s(0, 1, prompt) + step_s
        assert Mooncake(reject=True).place(asks(prompt, ttft_slo_s=ttft_s * (1 + 1e-9)), view) is not None
        assert Mooncake(reject=True).place(asks(prompt, ttft_slo_s=ttft_s * (1 - 1e-9)), view) is None


def test_the_link_affects_the_choice() -> None:
    view = HandMade("2P1D", behind(50), IDLE, IDLE, hosts=(0, 1, 0))  # node 0 and the decode node share a host
    assert Mooncake().place(asks(2000), view) == Placement(0, 2)
    view.reports[0] = behind(5000)
    assert Mooncake().place(asks(2000), view) == Placement(1, 2)


def test_it_rejects_a_predicted_miss_only_with_the_knob() -> None:
    view = HandMade("1P1D")
    late, in_time = asks(1000, ttft_slo_s=TTFT_S * 0.999), asks(1000, ttft_slo_s=TTFT_S * 1.001)
    assert Mooncake(reject=True).place(in_time, view) == Placement(0, 1)
    assert Mooncake(reject=True).place(late, view) is None
    assert Mooncake().place(late, view) == Placement(0, 1)


def test_it_rejects_a_predicted_tbt_miss_too() -> None:
    view = HandMade("1P1D", IDLE, decoding(20, 10_000))
    step_s = TOY_LAW.time_s([], 21, 11_000)
    assert Mooncake(reject=True).place(asks(1000, tbt_slo_s=step_s * 1.001), view) == Placement(0, 1)
    assert Mooncake(reject=True).place(asks(1000, tbt_slo_s=step_s * 0.999), view) is None


def test_tokens_cached_on_the_decode_node_are_not_sent() -> None:
    view = HandMade("1P1D")
    view.hits[1] = 512
    saved_s = 32 * 16 * 100_000 / 20e9
    between = asks(1000, ttft_slo_s=TTFT_S - 0.5 * saved_s)
    assert Mooncake(reject=True).place(between, view) == Placement(0, 1)
    view.hits[1] = 0
    assert Mooncake(reject=True).place(between, view) is None


@given(view=views(), request=requests)
def test_rejecting_does_not_change_placements(view: HandMade, request: RequestView) -> None:
    placed = Mooncake(reject=True).place(request, view)
    assert placed is None or placed == Mooncake().place(request, view)


def test_under_overload_rejecting_serves_the_rest_in_time() -> None:
    workload = generate("burst", rate_rps=40.0, requests=300, seed=4)
    served: dict[str, int] = {}
    for name in ("mooncake", "mooncake:reject=true"):
        result = simulate(workload, policies.make(name), ClusterConfig(toy_profile()))
        served[name] = sum(record.first_token_s - record.arrival_s <= 2.0 for record in result.records)
    assert served["mooncake:reject=true"] > served["mooncake"]


def test_reject_must_be_a_boolean() -> None:
    with pytest.raises(InputError, match="reject must be true or false, not 'often'"):
        policies.make("mooncake:reject=often")
