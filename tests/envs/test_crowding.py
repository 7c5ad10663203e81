"""Crowded nodes: against the step law, in the direction that counts, and never without a row."""

from hypothesis import given, settings
from hypothesis import strategies as st

from envs.choices import Choices
from envs.cluster import RequestView
from envs.crowding import is_crowded, uncrowded_rows
from tests.envs.test_choices import any_views
from tests.policies.states import HandMade, asks, requests

SHAPES = ["2P2D", "3P3D", "2P5D"]


@given(requests_there=st.integers(0, 300), prompt_tokens=st.integers(1, 4000), tbt_slo_s=st.floats(0.001, 0.2))
def test_a_node_is_crowded_if_the_step_with_all_decodes_and_a_chunk_is_longer_than_the_slo(
    requests_there: int, prompt_tokens: int, tbt_slo_s: float
) -> None:
    view, request = HandMade("1P2D"), asks(prompt_tokens, tbt_slo_s=tbt_slo_s)
    view.counters.decode_requests[1] = requests_there
    view.counters.decode_prompt_tokens[1] = 100 * requests_there
    view.generated[1] = 50.0
    batch = min(requests_there + 1, view.topology.max_seqs)
    kv_tokens = int(batch * ((100 * requests_there + prompt_tokens) / (requests_there + 1) + 50.0))
    law, chunk = view.topology.laws[1], view.topology.chunk_grain_tokens
    step_s = law.chunk_step_s(chunk, 0.5 * prompt_tokens, batch, law.decode_s(batch, kv_tokens))
    if abs(step_s - tbt_slo_s) > 1e-4:  # the sums round differently
        assert is_crowded(1, request, view) == (step_s > tbt_slo_s)


@settings(max_examples=60)
@given(view=any_views(SHAPES), request=requests, node=st.integers(0, 3), more=st.integers(1, 100))
def test_more_requests_or_a_stricter_slo_never_make_room(
    view: HandMade, request: RequestView, node: int, more: int
) -> None:
    before = is_crowded(node, request, view)
    stricter = request._replace(tbt_slo_s=0.5 * request.tbt_slo_s)
    assert is_crowded(node, stricter, view) >= before
    view.counters.decode_requests[node] += more
    view.counters.decode_prompt_tokens[node] += 10_000 * more  # as long as any prompt of the state, or longer
    assert is_crowded(node, request, view) >= before


@settings(max_examples=100)
@given(view=any_views(SHAPES), request=requests)
def test_rows_with_crowded_nodes_are_left_out_unless_nothing_else_is_left(view: HandMade, request: RequestView) -> None:
    choices = Choices.of(request, view, "pairs")
    found = uncrowded_rows(choices)
    pairing = choices.pairing
    full = [
        is_crowded(choices.prefill[source].node, request, view)
        or is_crowded(choices.decode[target].node, request, view)
        for source, target in zip(pairing.prefill_index, pairing.decode_index, strict=True)
    ]
    kept = [feasible and not crowded for feasible, crowded in zip(choices.feasible, full, strict=True)]
    decoding = [one.node for one in choices.decode if one.is_decode_node]
    overloaded = all(is_crowded(node, request, view) for node in decoding)
    assert found == (choices.feasible if overloaded or not any(kept) else kept)
    assert any(found)


def test_requests_on_their_way_count_although_no_report_shows_them() -> None:
    view, request = HandMade("2P2D"), asks(1000, tbt_slo_s=0.02)
    choices = Choices.of(request, view, "pairs")
    assert uncrowded_rows(choices) == choices.feasible
    view.counters.decode_requests[3] = 200
    view.counters.decode_prompt_tokens[3] = 200_000
    choices = Choices.of(request, view, "pairs")
    assert all(choices.feasible)
    left = [choices.placement(row)[:2] for row, usable in enumerate(uncrowded_rows(choices)) if usable]
    assert left
    assert all(3 not in nodes for nodes in left)
