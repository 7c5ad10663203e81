"""The live view: reports follow from the router's counts and the nodes' step reports."""

from math import inf

from envs.cluster import Placement, Topology
from envs.cluster.lifecycle import Lifecycle
from experiments.serving.live_view import LiveView
from tests.experiments.serving.made_up_workers import CONFIG, request, step


def test_a_report_has_the_tokens_that_are_left_and_the_batch_that_the_router_relays() -> None:
    lifecycle = Lifecycle(4, repr)
    view = LiveView(Topology(CONFIG), lifecycle.counters).at(3.0)
    assert view.now_s == 3.0
    prompt, decoding = request(0, 3000), request(1, 500)
    lifecycle.submitted(prompt, Placement(0, 2))
    view.nodes[0].stepped(step(prefill_tokens=1024))
    ahead = view.report(0)
    assert (ahead.prefill_tokens_ahead, ahead.decode_batch, ahead.tbt_slo_s) == (1976, 0, inf)
    assert ahead.kv_used_tokens == 1024
    view.nodes[2].decoding[decoding] = 7
    view.nodes[2].stepped(step(decodes=1, kv_tokens=506))
    there = view.report(2)
    assert (there.decode_batch, there.decode_kv_tokens, there.tbt_slo_s) == (1, 507, 0.1)
    assert view.mean_generated_tokens(2) == 7.0
    assert view.mean_generated_tokens(3) == 0.0
    del view.nodes[2].decoding[decoding]
    assert view.report(2).decode_kv_tokens == 0  # an idle engine sends no report
    assert [state.steps for state in view.nodes] == [1, 0, 1, 0]


def test_reports_never_count_more_computed_tokens_than_there_are() -> None:
    lifecycle = Lifecycle(4, repr)
    view = LiveView(Topology(CONFIG), lifecycle.counters)
    lifecycle.submitted(request(0, 100), Placement(1, 1))
    for tokens in (40, 100, 0):
        view.nodes[1].stepped(step(prefill_tokens=tokens))
        assert 0 <= view.report(1).prefill_tokens_ahead <= 100
