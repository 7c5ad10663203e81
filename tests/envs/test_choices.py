"""The choices for a request: their placements, feasibility and predictions."""

from math import inf

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from librt.strings import BytesWriter

from envs.choices import CHOICE_SETS, SHORTLIST, Choices, check_choice_set, most_choices
from envs.chunk_plan import PLAN_BETA
from envs.cluster import ClusterConfig, Placement, RequestView, RouterView, simulate
from envs.cluster.config import StepBudget
from envs.features import write_decode, write_prefill
from envs.outlook import DecodeOutlook, PrefillOutlook
from envs.prediction import NodeSteps, first_token_s, local_prefill, local_queue_s, room_s
from envs.workload import Workload
from hardware_profiles import InputError
from tests.policies.states import IDLE, HandMade, asks, decoding, mixed_views, requests, row_of
from tests.toy import TOY_LAW, toy_profile

SHAPES = ["1P1D", "2P2D", "1P3D", "3P1D", "4P4D"]
LARGE = ["5P2D", "2P6D", "8P8D"]
BUDGETS: list[StepBudget] = ["slo", "fixed"]


@st.composite
def any_views(draw: st.DrawFn, shapes: list[str] | None = None) -> HandMade:
    """A random view of a small cluster under either step budget; nodes may be lost."""
    view = draw(mixed_views(draw(st.sampled_from(shapes or SHAPES)), draw(st.sampled_from(BUDGETS))))
    for node in draw(st.lists(st.integers(0, view.topology.nodes - 1), max_size=2, unique=True)):
        kind = view.topology.prefill_nodes if not view.topology.decodes[node] else view.topology.decode_nodes
        if len(kind) > 1:
            view.topology.lose(node)
    return view


def as_a_source(node: int, request: RequestView, view: HandMade) -> PrefillOutlook:
    """The outlook of a node as a request's prefill node."""
    report = view.report(node)
    steps = NodeSteps(view.topology, node, report)
    return PrefillOutlook(node, request, view, report, steps, view.prefix_hit_tokens(request, node))


def packed(one: PrefillOutlook | DecodeOutlook) -> bytes:
    """The values of a node in an observation."""
    values = BytesWriter()
    if isinstance(one, PrefillOutlook):
        write_prefill(values, one)
    else:
        write_decode(values, one)
    return values.getvalue()


def pairs_of(choices: Choices) -> list[tuple[int, int]]:
    return [choices.placement(row)[:2] for row in range(len(choices))]


# ---- which rows there are -------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(view=any_views(), request=requests)
def test_pairs_are_all_ordered_pairs_of_live_nodes(view: HandMade, request: RequestView) -> None:
    nodes = [*view.topology.prefill_nodes, *view.topology.decode_nodes]
    choices = Choices.of(request, view, "pairs")
    assert pairs_of(choices) == [(prefill, decode) for prefill in nodes for decode in nodes]


@settings(max_examples=60)
@given(view=any_views(), request=requests)
def test_deflection_has_one_row_per_prefill_and_decode_node(view: HandMade, request: RequestView) -> None:
    topology, least = view.topology, view.least_loaded_decode_node()
    choices = Choices.of(request, view, "deflection")
    kept = [(node, least) for node in topology.prefill_nodes]
    assert pairs_of(choices) == kept + [(node, node) for node in topology.decode_nodes]


@settings(max_examples=60)
@given(view=any_views([*SHAPES, *LARGE]), request=requests)
def test_rows_of_deflection_are_rows_of_pairs(view: HandMade, request: RequestView) -> None:
    pairs, deflection = (Choices.of(request, view, one) for one in ("pairs", "deflection"))
    for row in range(len(deflection)):
        other = row_of(pairs, *deflection.placement(row)[:2])
        assert pairs.placement(other) == deflection.placement(row)
        assert pairs.ttft_s[other] == deflection.ttft_s[row]
        assert pairs.transfer_s[other] == deflection.transfer_s[row]
        assert pairs.keeps_roles(other) == deflection.keeps_roles(row)


@settings(max_examples=60)
@given(view=any_views(LARGE), request=requests)
def test_larger_roles_offer_their_best_four_nodes(view: HandMade, request: RequestView) -> None:
    counters, topology = view.counters, view.topology

    def to_prefill(node: int) -> tuple[int, int, int]:
        uncached = counters.queued_prompt_tokens[node] - view.prefix_hit_tokens(request, node)
        return uncached, counters.decode_requests[node], node

    def to_decode(node: int) -> tuple[int, int]:
        return counters.decode_requests[node], node

    roles = (topology.prefill_nodes, topology.decode_nodes)
    assume(max(map(len, roles)) > SHORTLIST)
    prefill = [node for role in roles for node in sorted(sorted(role, key=to_prefill)[:SHORTLIST])]
    decode = [node for role in roles for node in sorted(sorted(role, key=to_decode)[:SHORTLIST])]
    alone = [(node, node) for node in prefill if node not in decode]
    assert pairs_of(Choices.of(request, view, "pairs")) == [(one, other) for one in prefill for other in decode] + alone
    assert [one.node for one in Choices.of(request, view, "deflection").prefill] == prefill


@settings(max_examples=60)
@given(view=any_views([*SHAPES, *LARGE]), request=requests, choice_set=st.sampled_from(CHOICE_SETS))
def test_no_placement_is_listed_twice_or_on_a_lost_node(view: HandMade, request: RequestView, choice_set: str) -> None:
    choices = Choices.of(request, view, choice_set)  # type: ignore[arg-type]
    found = pairs_of(choices)
    assert len(set(found)) == len(found)
    assert not view.topology.lost & {node for pair in found for node in pair}
    shape = len(view.topology.prefill_nodes), len(view.topology.decode_nodes)
    assert len(choices) <= most_choices(choice_set, *shape)  # type: ignore[arg-type]
    if not view.topology.lost and max(shape) <= SHORTLIST:
        assert len(choices) == most_choices(choice_set, *shape)  # type: ignore[arg-type]


@pytest.mark.parametrize("choice_set", CHOICE_SETS)
def test_a_larger_cluster_has_no_more_rows_or_predictions(choice_set: str) -> None:
    counted = set()
    for nodes in (2 * SHORTLIST, 16, 40):
        view = HandMade(f"{nodes}P{nodes}D")
        view.counters.queued_prompt_tokens[:] = [100 * node for node in range(nodes)] * 2
        view.counters.decode_requests[:] = [nodes - node for node in range(nodes)] * 2
        choices = Choices.of(asks(500), view, choice_set)  # type: ignore[arg-type]
        counted.add((len(choices), len(choices.prefill), len(choices.decode)))
    assert len(counted) == 1
    assert len(choices.prefill) + len(choices.decode) <= 6 * SHORTLIST


def test_a_shortlisted_node_may_always_decode_what_it_prefills() -> None:
    view = HandMade("8P8D")
    view.counters.queued_prompt_tokens[:] = [100 * node for node in range(8)] * 2
    view.counters.decode_requests[:] = [20 - node for node in range(8)] * 2
    pairs = pairs_of(Choices.of(asks(500), view, "pairs"))
    assert len(pairs) == (2 * SHORTLIST) ** 2 + 2 * SHORTLIST == most_choices("pairs", 8, 8)
    for prefill in {prefill for prefill, _ in pairs}:
        assert (prefill, prefill) in pairs


def test_the_error_names_an_unknown_choice_set() -> None:
    with pytest.raises(InputError, match="choices 'all' is not one of pairs, deflection"):
        check_choice_set("all")


# ---- which rows may be chosen ---------------------------------------------------------------------------------------


@settings(max_examples=80)
@given(view=any_views([*SHAPES, "8P8D"]), request=requests, choice_set=st.sampled_from(CHOICE_SETS))
def test_a_row_is_feasible_if_it_keeps_the_tbt_limit(view: HandMade, request: RequestView, choice_set: str) -> None:
    choices = Choices.of(request, view, choice_set)  # type: ignore[arg-type]
    decodes = view.topology.decodes
    expected, keeping = [], []
    for prefill, decode in pairs_of(choices):
        expected.append(as_a_source(prefill, request, view).slack_s >= 0.0)
        keeping.append(not decodes[prefill] and decodes[decode])
    assert [choices.keeps_roles(row) for row in range(len(choices))] == keeping
    assert any(keeping)
    assert choices.feasible == (expected if any(expected) else keeping)
    assert choices.feasible[choices.soonest()]
    assert choices.ttft_s[choices.soonest()] == min(choices.ttft_s[row] for row in choices.feasible_rows())


def test_a_prefill_is_infeasible_only_if_requests_decode_there() -> None:
    newcomer = asks(1000, tbt_slo_s=0.01)  # every step is longer
    at_work = HandMade("1P2D", IDLE, decoding(4, 2000, tbt_slo_s=0.1), decoding(4, 2000, tbt_slo_s=0.01))
    choices = Choices.of(newcomer, at_work, "pairs")
    assert {
        prefill for (prefill, _), feasible in zip(pairs_of(choices), choices.feasible, strict=True) if feasible
    } == {
        0,
        1,
    }


# ---- what is predicted of a node ------------------------------------------------------------------------------------


@settings(max_examples=80)
@given(view=any_views(), request=requests)
def test_a_prefill_takes_its_queue_and_its_chunks(view: HandMade, request: RequestView) -> None:
    counters, topology, budget = view.counters, view.topology, view.topology.token_budget
    for one in Choices.of(request, view, "pairs").prefill:
        node, report = one.node, view.report(one.node)
        cached = view.prefix_hit_tokens(request, node)
        assert one.cached_tokens == cached
        local = local_prefill(
            *(topology, node, report, request.prompt_tokens, request.tbt_slo_s),
            smallest_if_none=True,
            done_tokens=cached,
        )
        assert local is not None
        planned = topology.decodes[node] or counters.decode_requests[node] > 0
        if topology.step_budget == "slo" or planned:
            queue_s = local_queue_s(view, node, report, request.prompt_tokens, local, cached)
            assert (one.execution_s, one.steps, one.chunk_plan) == (local.total_s, local.steps, local.chunks)
            assert one.slack_s == (local.slack_s if local.slack_s < inf else request.tbt_slo_s)
            assert bool(one.chunk_plan) == (topology.step_budget == "fixed")
        else:  # no request decodes there: steps are full of prompt tokens
            ends = range(cached, request.prompt_tokens, budget)
            chunks = [(min(budget, request.prompt_tokens - done), done) for done in ends]
            queued = max(1, counters.queued_prompts[node])
            context = 0.5 * counters.queued_prompt_tokens[node] / queued
            step_s = TOY_LAW.chunk_step_s(budget, context)
            queue_s = max(0, report.prefill_tokens_ahead) / budget * step_s
            assert one.execution_s == pytest.approx(sum(TOY_LAW.time_s([chunk], 0, 0) for chunk in chunks))
            assert (one.steps, one.slack_s, one.chunk_plan) == (len(chunks), request.tbt_slo_s, ())
        assert one.queue_s == pytest.approx(queue_s, abs=1e-12)


@settings(max_examples=80)
@given(view=any_views(), request=requests)
def test_a_decode_step_includes_the_request_and_prompts_ahead(view: HandMade, request: RequestView) -> None:
    counters, topology = view.counters, view.topology
    for one in Choices.of(request, view, "pairs").decode:
        node, report = one.node, view.report(one.node)
        batch, kv_tokens = report.decode_batch, report.decode_kv_tokens
        assert one.join_s == pytest.approx(0.5 * TOY_LAW.time_s([], batch, kv_tokens) if batch else 0.0)
        step_s = TOY_LAW.time_s([], batch + 1, kv_tokens + request.prompt_tokens)
        assert one.step_s == pytest.approx(step_s)
        queued = counters.queued_prompt_tokens[node]
        share = topology.slo_share if topology.step_budget == "slo" else PLAN_BETA
        unplanned = topology.step_budget == "fixed" and counters.unplanned_prompt_tokens[node] > 0
        assert one.unplanned == unplanned
        shared_s = step_s
        if queued:
            chunk = min(queued, topology.token_budget - batch - 1)
            full_s = TOY_LAW.time_s([(chunk, 0)], batch, kv_tokens)
            bound_s = inf if unplanned else share * min(request.tbt_slo_s, report.tbt_slo_s)
            shared_s = max(step_s, min(full_s, bound_s))
        assert one.shared_step_s == pytest.approx(shared_s)
        fewest = min(counters.decode_requests[other] for other in (*topology.prefill_nodes, *topology.decode_nodes))
        assert one.requests_behind_least == counters.decode_requests[node] - fewest


@settings(max_examples=60)
@given(
    view=any_views(["2P2D", "1P3D"]), request=requests, host=st.integers(0, 2), choice_set=st.sampled_from(CHOICE_SETS)
)
def test_ttft_is_the_sum_of_prefill_transfer_join_and_first_step(
    view: HandMade, request: RequestView, host: int, choice_set: str
) -> None:
    topology = view.topology
    topology.hosts = (0, 0, host, 2)
    choices = Choices.of(request, view, choice_set)  # type: ignore[arg-type]
    for row, (prefill, decode) in enumerate(pairs_of(choices)):
        source = as_a_source(prefill, request, view)
        ttft_s = source.queue_s + source.execution_s
        transfer_s = 0.0
        if prefill == decode:
            ttft_s += NodeSteps(topology, decode, view.report(decode)).join_s()
        else:
            sent = request.prompt_tokens - topology.whole_blocks(view.prefix_hit_tokens(request, decode))
            transfer_s = topology.transfer_s(prefill, decode, sent)
            ttft_s += transfer_s + first_token_s(view, decode, view.report(decode), request.prompt_tokens)
        assert choices.pairing.same_node[row] == (prefill == decode)
        assert choices.transfer_s[row] == pytest.approx(transfer_s)
        assert choices.ttft_s[row] == pytest.approx(ttft_s)


@given(view=any_views(), request=requests)
def test_without_shared_prefixes_no_token_is_cached(view: HandMade, request: RequestView) -> None:
    unaware = Choices.of(request, view, "pairs", prefix=False)
    view.hits = [0] * view.topology.nodes
    assert unaware.ttft_s == Choices.of(request, view, "pairs").ttft_s
    assert not any(one.cached_tokens for one in (*unaware.prefill, *unaware.decode))


def test_an_outlook_depends_only_on_its_node() -> None:
    view = HandMade("2P2D", IDLE, decoding(3, 900), decoding(8, 4000), IDLE)
    before = Choices.of(asks(900), view, "pairs")
    view.reports[1] = decoding(60, 90_000, 0.02)
    view.counters.queued_prompt_tokens[1] = 20_000
    after = Choices.of(asks(900), view, "pairs")
    same = [packed(before.prefill[i]) == packed(after.prefill[i]) for i in range(4)]
    assert same == [True, False, True, True]
    assert [packed(before.decode[i]) == packed(after.decode[i]) for i in range(4)] == same


class To:
    """Places every request by one row and records its predictions."""

    name = "to"

    def __init__(self, prefill_node: int, decode_node: int) -> None:
        self.pair = prefill_node, decode_node
        self.predicted_s = 0.0

    def place(self, request: RequestView, view: RouterView) -> Placement:
        choices = Choices.of(request, view, "pairs")
        row = row_of(choices, *self.pair)
        self.predicted_s = choices.ttft_s[row]
        return choices.placement(row)


@pytest.mark.parametrize("step_budget", BUDGETS)
@pytest.mark.parametrize("prefill", range(4))
@pytest.mark.parametrize("decode", range(4))
@settings(max_examples=8)
@given(prompt=st.integers(1, 20_000))
def test_on_an_idle_cluster_the_predicted_ttft_is_exact(
    step_budget: StepBudget, prefill: int, decode: int, prompt: int
) -> None:
    workload = Workload.of([1.0], [prompt], [3], label="one")
    config = ClusterConfig(toy_profile(), hosts=(0, 1, 1, 2), step_budget=step_budget)
    policy = To(prefill, decode)
    record = simulate(workload, policy, config).records[0]
    assert (record.prefill_node, record.decode_node) == (prefill, decode)
    assert policy.predicted_s == pytest.approx(record.first_token_s - 1.0)


# ---- room on the decode node ----------------------------------------------------------------------------------------


def full(requests: int, prompt_tokens: int = 100, finished: float = 50.0) -> HandMade:
    """A view whose decode node, node 1, has `requests` requests; 50 others with 40 output tokens have finished."""
    view = HandMade("1P1D", IDLE, decoding(min(requests, 256), 256 * prompt_tokens))
    view.counters.decode_requests[1] = requests
    view.counters.decode_prompt_tokens[1] = requests * prompt_tokens
    view.counters.finished_requests = finished
    view.counters.finished_output_tokens = 40.0 * finished
    return view


def test_a_node_with_a_slot_and_kv_left_causes_no_wait() -> None:
    wait_s, slots, left = room_s(full(255), 1, 100, 0.02, 0.0)
    assert (wait_s, slots) == (0.0, 0)
    assert left == pytest.approx(1.0 - 256 * 100 / 400_000)


@settings(max_examples=50)
@given(st.integers(256, 2000), st.integers(1, 500), st.integers(1, 3000), st.floats(0.005, 0.1))
def test_a_full_nodes_wait_grows_with_its_requests(requests: int, more: int, prompt_tokens: int, step_s: float) -> None:
    wait_s, slots, _ = room_s(full(requests, prompt_tokens), 1, prompt_tokens, step_s, 0.0)
    longer_s, fewer, _ = room_s(full(requests + more, prompt_tokens), 1, prompt_tokens, step_s, 0.0)
    assert slots == 255 - requests
    assert fewer == slots - more
    assert longer_s > wait_s > 0.0
    # Each request beyond the limit waits for another one to finish.
    running = min(256.0, 400_000 / prompt_tokens)
    assert wait_s == pytest.approx((requests + 1 - running) * 40 * step_s / running, rel=0.01)


def test_without_finished_requests_no_wait_is_predicted() -> None:
    assert room_s(full(300, finished=0.0), 1, 100, 0.02, 0.0)[0] == 0.0


def test_a_wait_for_room_overlaps_with_the_prefill() -> None:
    idle, crowded = full(10), full(300)
    before = Choices.of(asks(500), idle, "pairs")
    after = Choices.of(asks(500), crowded, "pairs")
    row = row_of(after, 0, 1)
    pairing = after.pairing
    source, target = after.prefill[pairing.prefill_index[row]], after.decode[pairing.decode_index[row]]
    assert target.room_s > 0.0
    expected_s = max(source.queue_s + source.execution_s, target.room_s) + after.transfer_s[row] + target.step_s
    assert after.ttft_s[row] == pytest.approx(expected_s + target.join_s)
    assert before.ttft_s[row] < after.ttft_s[row]
