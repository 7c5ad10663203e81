"""The observation: its values, their places and their scales."""

import re
from dataclasses import dataclass
from math import exp, inf, log1p

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from envs.choices import CHOICE_SETS, Choices
from envs.cluster import Request, RequestView
from envs.cluster.router_counters import FIELDS
from envs.features import (
    CHOICE_FEATURES,
    DECODE_FEATURES,
    GLOBAL_FEATURES,
    PAIR_FEATURES,
    PREFILL_FEATURES,
    REQUEST_FEATURES,
    SET,
    Feature,
    Kind,
)
from envs.observation import PREDICTED_TTFT_COLUMN, Scale, encode, observation_space, squash
from envs.placement_env import PrefillPlacementEnv
from tests.envs.test_choices import any_views
from tests.policies.states import HandMade, asks, changed, mixed_views, requests

Features = tuple[Feature, ...]

# ---- the scale ------------------------------------------------------------------------------------------------------


def squashed(values: list[float], reference: float, kind: Kind = "from 0") -> list[float]:
    """Values of one feature with a reference."""
    scale = Scale([Feature("a feature", reference, "made up", kind)] * len(values))
    found: list[float] = squash(np.array(values), scale).tolist()
    return found


@given(x=st.floats(0, 1e12), y=st.floats(0, 1e12), ref=st.floats(1e-3, 1e6))
def test_squash_keeps_order_and_stays_below_one(x: float, y: float, ref: float) -> None:
    low, high = squashed(sorted((x, y)), ref)
    assert 0.0 <= low <= high < 1.0


@given(x=st.floats(-1e12, 1e12), y=st.floats(-1e12, 1e12), ref=st.floats(1e-3, 1e6))
def test_a_signed_value_keeps_order_around_one_half(x: float, y: float, ref: float) -> None:
    low, high = squashed(sorted((x, y)), ref, "signed")
    assert 0.0 < low <= high < 1.0
    assert squashed([-x], ref, "signed")[0] == pytest.approx(1.0 - squashed([x], ref, "signed")[0])
    assert squashed([0.0], ref, "signed") == [0.5]


@given(ref=st.floats(1e-3, 1e6))
def test_zero_is_squashed_to_zero_and_the_reference_to_its_share(ref: float) -> None:
    zero, at_ref = squashed([0.0, ref], ref)
    assert zero == 0.0
    assert at_ref == pytest.approx(log1p(1.0) / (1.0 + log1p(1.0)), rel=1e-6)
    assert round(at_ref, 2) == 0.41


def test_a_flag_is_0_or_1() -> None:
    assert squashed([0.0, SET], 0.0, "flag") == [0.0, 1.0]


def test_squash_distinguishes_a_queue_from_one_ten_times_longer() -> None:
    queues = squashed([1e4, 1e5, 1e6], 2048.0)
    assert np.diff(queues).min() > 0.02


# ---- the docstring is the specification -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Documented:
    """A table of features in the environment's docstring, and the shape stated before it."""

    shape: tuple[int, ...]
    rows: list[tuple[int, str, str, str]]


def documented(after: str) -> Documented:
    """The first table after a phrase of the docstring, and the last shape stated before it."""
    text = PrefillPlacementEnv.__doc__
    assert text is not None
    at = text.index(after)
    shape = re.findall(r"shape \((.*?)\)", text[: text.index("|", at)])[-1]
    table = re.search(r"\| index \| feature \| reference \| meaning \|\n.*?\n\n", text[at:], re.DOTALL)
    assert table is not None
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in table[0].strip().splitlines()[2:]]
    sizes = tuple(int(size) for size in shape.split(",") if size.strip().isdigit())
    return Documented(sizes, [(int(index), name.strip("`"), scale, meaning) for index, name, scale, meaning in rows])


@pytest.mark.parametrize(
    ("after", "features", "first", "width"),
    [
        ("`request`, shape", REQUEST_FEATURES, 0, len(REQUEST_FEATURES)),
        ("`global`, shape", GLOBAL_FEATURES, 0, len(GLOBAL_FEATURES)),
        ("features of the prefilling node:", PREFILL_FEATURES, 0, len(CHOICE_FEATURES)),
        ("features of the decoding node:", DECODE_FEATURES, len(PREFILL_FEATURES), len(CHOICE_FEATURES)),
        ("features of the pair:", PAIR_FEATURES, len(PREFILL_FEATURES) + len(DECODE_FEATURES), len(CHOICE_FEATURES)),
    ],
)
def test_the_docstrings_tables_are_the_declared_features(
    after: str, features: Features, first: int, width: int
) -> None:
    found = documented(after)
    assert found.shape == (width,)
    assert [index for index, *_ in found.rows] == list(range(first, first + len(features)))
    for feature, (_, name, scale, meaning) in zip(features, found.rows, strict=True):
        assert (name, meaning) == (feature.name, feature.meaning)
        assert scale == (feature.kind if feature.kind == "flag" else scale)
        if feature.kind != "flag":
            reference, _, kind = scale.partition(", ")
            assert float(reference) == feature.reference > 0.0
            assert kind == ("signed" if feature.kind == "signed" else "")


def test_the_stated_shapes_equal_those_of_the_space() -> None:
    space = observation_space(16)
    assert space["request"].shape == documented("`request`, shape").shape
    assert space["global"].shape == documented("`global`, shape").shape
    assert space["choices"].shape == (16, *documented("`choices`, shape").shape)
    assert space["action_mask"].shape == (16,)


@pytest.mark.parametrize("features", [REQUEST_FEATURES, GLOBAL_FEATURES, CHOICE_FEATURES])
def test_no_two_features_share_a_name(features: Features) -> None:
    names = [feature.name for feature in features]
    assert len(set(names)) == len(names)


# ---- every feature is what its name says ----------------------------------------------------------------------------


def scaled(values: dict[str, float], features: Features) -> list[float]:
    """Values by name in the declared order, squashed as in the docstring."""
    assert list(values) == [feature.name for feature in features]
    row = []
    for feature in features:
        value = float(values[feature.name])
        if feature.kind != "flag":
            log = log1p(abs(value) / feature.reference)
            size = log / (1.0 + log)
            value = size if feature.kind == "from 0" else 0.5 + (0.5 if value >= 0.0 else -0.5) * size
        row.append(value)
    return row


@settings(max_examples=100)
@given(
    view=any_views(),
    request=requests,
    arrivals=st.lists(st.tuples(st.floats(0, 5), st.integers(1, 5000)), max_size=9),
    choice_set=st.sampled_from(CHOICE_SETS),
    spare=st.sampled_from([0, 1, 5]),
)
def test_every_feature_has_the_value_of_its_name(
    view: HandMade, request: RequestView, arrivals: list[tuple[float, int]], choice_set: str, spare: int
) -> None:
    counters, topology = view.counters, view.topology
    for arrival_s, prompt_tokens in sorted(arrivals):
        counters.arrived(Request(0, arrival_s, prompt_tokens, 1, 1.0, 0.1))
    choices = Choices.of(request, view, choice_set)  # type: ignore[arg-type]
    observation = encode(choices, len(choices) + spare)
    assert observation_space(len(choices) + spare).contains(observation)
    nodes = [*topology.prefill_nodes, *topology.decode_nodes]
    fewest = min(counters.decode_requests[node] for node in nodes)
    best_s = min(ttft_s for ttft_s, feasible in zip(choices.ttft_s, choices.feasible, strict=True) if feasible)

    def load_of(node: int) -> tuple[int, int]:
        uncached = request.prompt_tokens - view.prefix_hit_tokens(request, node)
        return counters.queued_prompt_tokens[node] + uncached, counters.decode_requests[node]

    def product_of(node: int) -> tuple[int, int]:
        tokens, unfinished = load_of(node)
        return tokens * (unfinished + 1), tokens

    sources = {one.node for one in choices.prefill}
    places = {row: choices.placement(row)[:2] for row in range(len(choices))}
    fewest_decoding = min(counters.decode_requests[node] for node in topology.decode_nodes)
    shortest_queue = min(counters.queued_prompt_tokens[node] for node in topology.prefill_nodes)
    to_least = [row for row, (p, d) in places.items() if not topology.decodes[p] and topology.decodes[d]]
    to_least = [row for row in to_least if counters.decode_requests[places[row][1]] == fewest_decoding]
    of_static = {row for row in to_least if counters.queued_prompt_tokens[places[row][0]] == shortest_queue}
    of_deflection = {*to_least, *(row for row, (p, d) in places.items() if p == d and topology.decodes[d])}
    feasible = [row for row in places if choices.feasible[row]]
    best_deflection_s = min((choices.ttft_s[row] for row in feasible if row in of_deflection), default=inf)
    best_keeping_s = min((choices.ttft_s[row] for row in feasible if choices.keeps_roles(row)), default=inf)

    for row in range(len(choices)):
        source = choices.prefill[choices.pairing.prefill_index[row]]
        target = choices.decode[choices.pairing.decode_index[row]]
        p, d = places[row]
        report, decode_report = view.report(p), view.report(d)
        expected: dict[str, float] = {
            "prefill_on_decode_node": topology.decodes[p],
            "prefill_queue_s": source.queue_s,
            "prefill_execution_s": source.execution_s,
            "prefill_tbt_slack_s": source.slack_s,
            "prefill_steps": source.steps,
            "prefill_cached_tokens": view.prefix_hit_tokens(request, p),
            "prefill_tokens_ahead": report.prefill_tokens_ahead,
            "prefill_queued_tokens": counters.queued_prompt_tokens[p],
            "prefill_queued_prompts": counters.queued_prompts[p],
            "prefill_deflected_requests": counters.deflected_requests[p],
            "prefill_decode_batch": report.decode_batch,
            "prefill_decode_requests": counters.decode_requests[p],
            "prefill_kv_share": report.kv_used_tokens / 400_000,
            "prefill_kv_leaving_bytes": counters.kv_leaving_tokens[p] * 100_000,
            "decode_on_decode_node": topology.decodes[d],
            "decode_room_s": target.room_s,
            "decode_slots_left": topology.max_seqs - counters.decode_requests[d] - 1,
            "decode_kv_left": target.kv_left,
            "decode_join_s": target.join_s,
            "decode_step_s": target.step_s,
            "decode_shared_step_s": target.shared_step_s,
            "decode_unplanned": topology.step_budget == "fixed" and counters.unplanned_prompt_tokens[d] > 0,
            "decode_cached_tokens": view.prefix_hit_tokens(request, d),
            "decode_queued_tokens": counters.queued_prompt_tokens[d],
            "decode_batch": decode_report.decode_batch,
            "decode_requests": counters.decode_requests[d],
            "decode_requests_behind_least": counters.decode_requests[d] - fewest,
            "decode_generated_tokens": view.mean_generated_tokens(d),
            "decode_kv_share": decode_report.kv_used_tokens / 400_000,
            "decode_kv_coming_bytes": counters.kv_coming_tokens[d] * 100_000,
            "same_node": p == d,
            "ttft_s": choices.ttft_s[row],
            "ttft_over_slo": choices.ttft_s[row] / request.ttft_slo_s,
            "ttft_behind_best_s": max(0.0, choices.ttft_s[row] - best_s),
            "transfer_s": choices.transfer_s[row],
            "decode_step_over_tbt_slo": target.shared_step_s / request.tbt_slo_s,
            "static_choice": row in of_static,
            "colocated_choice": p == d and load_of(p) == min(map(load_of, sources)),
            "lmetric_choice": p == d and product_of(p) == min(map(product_of, sources)),
            "deflection_choice": row in of_deflection,
            "ttft_behind_deflection_s": max(0.0, choices.ttft_s[row] - best_deflection_s),
            "ttft_over_keeping": choices.ttft_s[row] / best_keeping_s,
        }
        assert observation["choices"][row] == pytest.approx(scaled(expected, CHOICE_FEATURES), abs=2e-7)
        assert list(expected)[PREDICTED_TTFT_COLUMN] == "ttft_s"

    def recent(weights: list[float], fading_s: float) -> float:
        ages_s = [view.at_s - arrival_s for arrival_s, _ in sorted(arrivals)]
        return sum(w * exp(-age_s / fading_s) for w, age_s in zip(weights, ages_s, strict=True)) / len(nodes)

    ones = [1.0] * len(arrivals)
    tokens = [float(prompt_tokens) for _, prompt_tokens in sorted(arrivals)]
    candidates = [one.node for one in choices.decode]
    law, budget = topology.laws[0], topology.token_budget
    prefills, decodes = len(topology.prefill_nodes), len(topology.decode_nodes)
    output_tokens = counters.finished_output_tokens / max(1.0, counters.finished_requests)
    last_s = max((arrival_s for arrival_s, _ in arrivals), default=0.0)
    weights = [exp((arrival_s - last_s) / 60.0) for arrival_s, _ in sorted(arrivals)]
    # Time since 0 counts with the same weights; a span below a second counts as one.
    rate_rps = sum(weights) / max(1.0, 60.0 * (1.0 - exp(-last_s / 60.0)))
    mean_tokens = float(np.dot(weights, tokens)) / max(1.0, sum(weights)) if arrivals else 0.0
    context = mean_tokens + 0.5 * output_tokens
    one_s, many_s = law.time_s([], 1, int(context)), law.time_s([], 64, int(64 * context))
    slope_s = (many_s - one_s) / 63
    base_s = one_s - slope_s
    work_s = rate_rps * output_tokens * slope_s
    limit_s = topology.slo_share * request.tbt_slo_s

    def prefill_load(count: int) -> float:
        batch = min(int(rate_rps * output_tokens * limit_s / count), law.max_decode_batch, budget - 1)
        sizes = range(1, budget - batch + 1)
        fits = [n for n in sizes if law.time_s([(n, 0)], batch, int(batch * context)) <= limit_s + 1e-12]
        return rate_rps * mean_tokens * limit_s / count / max(fits, default=1)

    expected = {
        "tbt_slo_over_decode_step": request.tbt_slo_s / topology.laws[0].time_s([], 32, 32 * 1024),
        "recent_requests_per_node_1s": recent(ones, 1.0),
        "recent_requests_per_node_10s": recent(ones, 10.0),
        "recent_prompt_tokens_per_node_1s": recent(tokens, 1.0),
        "recent_prompt_tokens_per_node_10s": recent(tokens, 10.0),
        "queued_prompt_tokens_per_node": sum(counters.queued_prompt_tokens) / len(nodes),
        "unfinished_requests_per_node": sum(counters.decode_requests) / len(nodes),
        "deflected_requests_per_node": sum(counters.deflected_requests) / len(nodes),
        "kv_share": float(np.mean([view.report(node).kv_used_tokens / 400_000 for node in candidates])),
        "generated_tokens": float(np.mean([view.generated[node] for node in candidates])),
        "finished_output_tokens": counters.finished_output_tokens / max(1.0, counters.finished_requests),
        "prefill_share_of_nodes": len(topology.prefill_nodes) / len(nodes),
        "steady_requests_per_node": rate_rps / len(nodes),
        "steady_prompt_tokens": mean_tokens,
        "prefill_load": rate_rps * mean_tokens * law.time_s([(budget, 0)], 0, 0) / budget / prefills,
        "decode_load": work_s / decodes,
        "steady_decode_step_over_tbt_slo": base_s / max(0.05, 1.0 - work_s / decodes) / request.tbt_slo_s,
        "steady_shared_step_over_tbt_slo": base_s / max(0.05, 1.0 - work_s / len(nodes)) / request.tbt_slo_s,
        "shared_prefill_load": prefill_load(len(nodes)),
        "deflected_prefill_load": prefill_load(decodes),
    }
    assert observation["global"] == pytest.approx(scaled(expected, GLOBAL_FEATURES), abs=2e-7)
    expected = {
        "prompt_tokens": request.prompt_tokens,
        "ttft_slo_s": request.ttft_slo_s,
        "tbt_slo_s": request.tbt_slo_s,
        "best_ttft_s": best_s,
    }
    assert observation["request"] == pytest.approx(scaled(expected, REQUEST_FEATURES), abs=2e-7)
    assert observation["action_mask"].tolist() == [*map(int, choices.feasible), *[0] * spare]
    assert not observation["choices"][len(choices) :].any()


@settings(max_examples=60)
@given(
    view=st.sampled_from(["slo", "fixed"]).flatmap(lambda budget: mixed_views("3P3D", budget)),
    request=requests,
    data=st.data(),
    choice_set=st.sampled_from(CHOICE_SETS),
)
def test_renumbering_nodes_within_a_role_renumbers_rows(
    view: HandMade, request: RequestView, data: st.DataObject, choice_set: str
) -> None:
    counters = view.counters
    fewest = sorted(counters.decode_requests[3:])
    assume(choice_set == "pairs" or fewest[0] < fewest[1])  # ties depend on the numbers of the nodes
    order = data.draw(st.permutations([0, 1, 2])) + data.draw(st.permutations([3, 4, 5]))
    renumbered = HandMade(
        "3P3D", *[view.reports[i] for i in order], at_s=view.at_s, step_budget=view.topology.step_budget
    )
    for name in FIELDS:
        value = getattr(counters, name)
        setattr(renumbered.counters, name, [value[i] for i in order] if isinstance(value, list) else value)
    renumbered.hits = [view.hits[i] for i in order]
    renumbered.generated = [view.generated[i] for i in order]
    before, after = (Choices.of(request, one, choice_set) for one in (view, renumbered))  # type: ignore[arg-type]
    seen, seen_after = encode(before), encode(after)
    old_row = {before.placement(row)[:2]: row for row in range(len(before))}
    rows = [old_row[order[p], order[d]] for p, d, *_ in (after.placement(row) for row in range(len(after)))]
    assert sorted(rows) == list(range(len(before)))
    assert np.array_equal(seen["choices"][rows], seen_after["choices"])
    assert np.array_equal(seen["action_mask"][rows], seen_after["action_mask"])
    assert np.array_equal(seen["request"], seen_after["request"])
    assert np.allclose(seen["global"], seen_after["global"], rtol=1e-6)  # sums in a different order


@settings(max_examples=60)
@given(request=requests, choice_set=st.sampled_from(CHOICE_SETS))
def test_idle_nodes_of_one_role_have_equal_rows(request: RequestView, choice_set: str) -> None:
    choices = Choices.of(request, HandMade("2P3D"), choice_set)  # type: ignore[arg-type]
    rows: dict[tuple[bool, bool, bool], set[bytes]] = {}
    for row, values in enumerate(encode(choices)["choices"]):
        prefill, decode = choices.placement(row)[:2]
        rows.setdefault((prefill < 2, decode < 2, prefill == decode), set()).add(values.tobytes())
    assert {len(found) for found in rows.values()} == {1}


@given(longer=st.integers(1, 10_000), more=st.integers(0, 10_000))
def test_a_longer_queue_never_looks_shorter(longer: int, more: int) -> None:
    seen = []
    for tokens in (longer, longer + more):
        view = HandMade("1P1D")
        view.reports[0] = changed(view.reports[0], prefill_tokens_ahead=tokens)
        view.counters.queued_prompts[0] = 1
        view.counters.queued_prompt_tokens[0] = tokens
        seen.append(encode(Choices.of(asks(500), view, "pairs"))["choices"][0])
    names = ["prefill_queue_s", "prefill_tokens_ahead", "prefill_queued_tokens", "ttft_s", "ttft_over_slo"]
    columns = [[feature.name for feature in CHOICE_FEATURES].index(name) for name in names]
    assert (seen[0][columns] <= seen[1][columns]).all()
