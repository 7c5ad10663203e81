"""Crowded nodes: against the step law, in the direction that counts, and never without a row."""

from hypothesis import given, settings
from hypothesis import strategies as st

from envs.choices import Choices
from envs.cluster import RequestView
from envs.crowding import is_crowded, uncrowded_rows
from tests.envs.test_choices import any_views
from tests.policies.states import HandMade, asks, requests

SHAPES = ["2P2D", "3P3D", "2P5D"]


def crowded_by(choices: Choices, row: int) -> tuple[bool, bool]:
    """Whether a row crowds the node that prefills, and the one that decodes."""
    request, view = choices.request, choices.view
    source = choices.prefill[choices.pairing.prefill_index[row]].node
    target = choices.decode[choices.pairing.decode_index[row]].node
    queued = view.counters.queued_prompt_tokens[target] > 0
    return (
        is_crowded(source, request, view, joins=False, chunk=True),
        is_crowded(target, request, view, joins=True, chunk=queued),
    )


@given(
    there=st.integers(0, 300),
    prompt_tokens=st.integers(1, 4000),
    mean_output=st.integers(0, 2000),
    tbt_slo_s=st.floats(0.001, 0.2),
    joins=st.booleans(),
    chunk=st.booleans(),
)
def test_a_node_is_crowded_if_a_later_step_of_all_is_longer_than_the_slo_or_their_kv_does_not_fit(
    there: int, prompt_tokens: int, mean_output: int, tbt_slo_s: float, joins: bool, chunk: bool
) -> None:
    view, request = HandMade("1P2D"), asks(prompt_tokens, tbt_slo_s=tbt_slo_s)
    view.counters.decode_requests[1] = there
    view.counters.decode_prompt_tokens[1] = 100 * there
    view.counters.finished_requests, view.counters.finished_output_tokens = 2.0, 2.0 * mean_output
    view.generated[1] = 50.0
    found = is_crowded(1, request, view, joins=joins, chunk=chunk)
    if not there + joins:
        assert not found
        return
    batch = min(there + joins, view.topology.max_seqs)
    kv_tokens = 100 * there + prompt_tokens * joins + (there + joins) * (50.0 + 0.5 * mean_output)
    law = view.topology.laws[1]
    decode_s = law.decode_s(batch, int(kv_tokens * batch / (there + joins)))
    step_s = law.token_time_s[batch] + decode_s
    if chunk:
        step_s = law.chunk_step_s(view.topology.chunk_grain_tokens, 0.5 * prompt_tokens, batch, decode_s)
    assert found == (step_s > tbt_slo_s or kv_tokens > view.topology.kv_capacity_tokens[1])


@settings(max_examples=60)
@given(view=any_views(SHAPES), request=requests, node=st.integers(0, 3), more=st.integers(1, 100), chunk=st.booleans())
def test_more_requests_a_chunk_or_a_stricter_slo_never_make_room(
    view: HandMade, request: RequestView, node: int, more: int, chunk: bool
) -> None:
    before = is_crowded(node, request, view, joins=False, chunk=chunk)
    assert is_crowded(node, request, view, joins=False, chunk=True) >= before
    stricter = request._replace(tbt_slo_s=0.5 * request.tbt_slo_s)
    assert is_crowded(node, stricter, view, joins=False, chunk=chunk) >= before
    view.counters.decode_requests[node] += more
    view.counters.decode_prompt_tokens[node] += 10_000 * more  # as long as any prompt of the state, or longer
    assert is_crowded(node, request, view, joins=False, chunk=chunk) >= before


@settings(max_examples=100)
@given(view=any_views(SHAPES), request=requests)
def test_rows_that_crowd_a_node_are_left_out_unless_it_is_too_late(view: HandMade, request: RequestView) -> None:
    choices = Choices.of(request, view, "pairs")
    found = uncrowded_rows(choices)
    rows = range(len(choices))
    kept = [choices.feasible[row] and not any(crowded_by(choices, row)) for row in rows]
    of_decode_nodes = [row for row in rows if choices.decode[choices.pairing.decode_index[row]].is_decode_node]
    overloaded = all(crowded_by(choices, row)[1] for row in of_decode_nodes)
    in_time = any(kept[row] and choices.ttft_s[row] <= request.ttft_slo_s for row in rows)
    assert found == (kept if in_time and not overloaded else choices.feasible)
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
