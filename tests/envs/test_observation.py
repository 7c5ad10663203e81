"""The observation: what it says, where, and on which scale."""

import re
from math import exp, log1p

import numpy as np
import pytest
from envs.actions import placement_for
from envs.candidates import candidates
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.cluster import ClusterConfig, Placement, Request, RequestView, RouterView, simulate
from envs.observation import (
    GLOBAL_FEATURES,
    NODE_FEATURES,
    PREDICTED_TTFT_COLUMN,
    REQUEST_FEATURES,
    encode,
    squash,
)
from envs.placement_env import PrefillPlacementEnv
from envs.workload import Workload
from tests.policies.states import IDLE, HandMade, asks, decoding, requests, views
from tests.toy import toy_profile

# ---- the scale ------------------------------------------------------------------------------------------------------


@given(x=st.floats(0, 1e12), y=st.floats(0, 1e12), ref=st.floats(1e-3, 1e6))
def test_squash_keeps_order_and_stays_below_one(x: float, y: float, ref: float) -> None:
    low, high = squash(np.array(sorted((x, y))), np.array([ref, ref]))
    assert 0.0 <= low <= high < 1.0


@given(ref=st.floats(1e-3, 1e6))
def test_squash_of_nothing_is_nothing_and_of_the_reference_log_two(ref: float) -> None:
    zero, at_ref = squash(np.array([0.0, ref]), np.array([ref, ref]))
    assert zero == 0.0
    assert at_ref == pytest.approx(log1p(1.0) / (1.0 + log1p(1.0)), rel=1e-6)


def test_squash_tells_a_long_queue_from_one_ten_times_longer() -> None:
    queues = squash(np.array([1e4, 1e5, 1e6]), np.array([2048.0]))
    assert np.diff(queues).min() > 0.02


# ---- the docstring is the specification -----------------------------------------------------------------------------


def documented(part: str) -> tuple[tuple[int, ...], list[tuple[int, float | None]]]:
    """The shape and the (index, reference) rows of a feature table in the environment's docstring."""
    text = PrefillPlacementEnv.__doc__
    assert text is not None
    match = re.search(rf"`{part}`, shape \((.*?)\):\n\n(.*?)\n\n", text, re.DOTALL)
    assert match is not None
    shape = tuple(int(number) for number in re.findall(r"\d+", match[1]))
    rows: list[tuple[int, float | None]] = []
    for line in match[2].splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        indices = [int(cell) for cell in cells[0].split(",")]
        refs = [float(cell) for cell in cells[2].split(",")] if cells[2] else [None] * len(indices)
        rows += zip(indices, refs, strict=True)
    return shape, rows


@pytest.mark.parametrize(
    ("part", "features"), [("request", REQUEST_FEATURES), ("global", GLOBAL_FEATURES), ("nodes", NODE_FEATURES)]
)
def test_the_docstrings_tables_are_what_is_encoded(part: str, features: dict[str, float]) -> None:
    shape, rows = documented(part)
    assert shape[-1] == len(features) == encode(asks(500), HandMade("2P2D"))[part].shape[-1]
    assert [index for index, _ in rows] == list(range(len(features)))
    assert [ref or 0.0 for _, ref in rows] == list(features.values())


# ---- every feature is what its name says ----------------------------------------------------------------------------


def scaled(values: dict[str, float], refs: dict[str, float]) -> list[float]:
    """Values by name in the order of `refs`, squashed as the docstring says."""
    assert list(values) == list(refs)
    row = []
    for name, ref in refs.items():
        log = log1p(abs(values[name]) / ref) if ref else values[name]
        size = log / (1.0 + log) if ref else log
        row.append(0.5 + (0.5 if values[name] >= 0 else -0.5) * size if name == "tbt_slack_s" else size)
    return row


@settings(max_examples=80)
@given(view=views(), request=requests, arrivals=st.lists(st.tuples(st.floats(0, 5), st.integers(1, 5000)), max_size=9))
def test_every_feature_is_what_its_name_says(
    view: HandMade, request: RequestView, arrivals: list[tuple[float, int]]
) -> None:
    counters, topology = view.counters, view.topology
    for arrival_s, prompt_tokens in sorted(arrivals):
        counters.arrived(Request(0, arrival_s, prompt_tokens, 1, 1.0, 0.1))
    observation = encode(request, view)
    found = candidates(request, view)
    prefill, decode = len(topology.prefill_nodes), len(topology.decode_nodes)
    best_s = min(c.ttft_s for c in found if c.feasible)
    for node, (row, candidate, report) in enumerate(zip(observation["nodes"], found, view.reports, strict=True)):
        is_decode = node >= prefill
        behind_least = counters.decode_requests[node] - min(counters.decode_requests[prefill:])
        expected = {
            "is_decode_node": float(is_decode),
            "ttft_s": candidate.ttft_s,
            "ttft_over_slo": candidate.ttft_s / request.ttft_slo_s,
            "ttft_behind_best_s": max(0.0, candidate.ttft_s - best_s),
            "execution_s": candidate.execution_s,
            "tbt_slack_s": candidate.slack_s,
            "queued_prompt_tokens": counters.queued_prompt_tokens[node],
            "queued_prompts": counters.queued_prompts[node],
            "prefill_tokens_ahead": report.prefill_tokens_ahead,
            "decode_requests": counters.decode_requests[node],
            "decode_requests_behind_least": behind_least if is_decode else 0,
            "decode_batch": report.decode_batch,
            "decode_kv_share": report.decode_kv_tokens / 400_000,
            "deflected_requests": counters.deflected_requests[node],
            "chunks": candidate.chunks,
        }
        assert row == pytest.approx(scaled(expected, NODE_FEATURES), abs=2e-7)
        assert row[PREDICTED_TTFT_COLUMN] == pytest.approx(scaled(expected, NODE_FEATURES)[1], abs=2e-7)

    def recent(weights: list[float], fading_s: float) -> float:
        ages_s = [view.at_s - arrival_s for arrival_s, _ in sorted(arrivals)]
        return sum(weight * exp(-age_s / fading_s) for weight, age_s in zip(weights, ages_s, strict=True)) / prefill

    ones = [1.0] * len(arrivals)
    tokens = [float(prompt_tokens) for _, prompt_tokens in sorted(arrivals)]
    expected = {
        "recent_requests_per_prefill_node_1s": recent(ones, 1.0),
        "recent_requests_per_prefill_node_10s": recent(ones, 10.0),
        "recent_prompt_tokens_per_prefill_node_1s": recent(tokens, 1.0),
        "recent_prompt_tokens_per_prefill_node_10s": recent(tokens, 10.0),
        "queued_prompt_tokens_per_prefill_node": sum(counters.queued_prompt_tokens[:prefill]) / prefill,
        "decode_requests_per_decode_node": sum(counters.decode_requests) / decode,
        "deflected_requests_per_decode_node": sum(counters.deflected_requests) / decode,
        "prefill_share_of_nodes": prefill / (prefill + decode),
    }
    assert observation["global"] == pytest.approx(scaled(expected, GLOBAL_FEATURES), abs=2e-7)
    expected = {
        "prompt_tokens": request.prompt_tokens,
        "ttft_slo_s": request.ttft_slo_s,
        "tbt_slo_s": request.tbt_slo_s,
        "best_ttft_s": best_s,
    }
    assert observation["request"] == pytest.approx(scaled(expected, REQUEST_FEATURES), abs=2e-7)
    assert observation["action_mask"].tolist() == [int(c.feasible) for c in found]


@settings(max_examples=60)
@given(view=views("3P3D"), request=requests, data=st.data())
def test_renumbering_nodes_within_a_role_renumbers_rows(
    view: HandMade, request: RequestView, data: st.DataObject
) -> None:
    order = data.draw(st.permutations([0, 1, 2])) + data.draw(st.permutations([3, 4, 5]))
    renumbered = HandMade("3P3D", *[view.reports[i] for i in order], at_s=view.at_s)
    for name in ("queued_prompts", "queued_prompt_tokens", "deflected_requests", "decode_requests"):
        getattr(renumbered.counters, name)[:] = [getattr(view.counters, name)[i] for i in order]
    renumbered.hits = [view.hits[i] for i in order]
    before, after = encode(request, view), encode(request, renumbered)
    assert np.array_equal(before["nodes"][order], after["nodes"])
    assert np.array_equal(before["action_mask"][order], after["action_mask"])
    assert np.array_equal(before["request"], after["request"])
    assert np.array_equal(before["global"], after["global"])


@given(request=requests)
def test_equal_nodes_have_equal_rows(request: RequestView) -> None:
    nodes = encode(request, HandMade("2P3D"))["nodes"]
    assert np.array_equal(nodes[0], nodes[1])
    assert np.array_equal(nodes[2], nodes[3])
    assert np.array_equal(nodes[3], nodes[4])


# ---- candidates -----------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(view=views(), request=requests)
def test_an_action_means_the_candidate_that_the_observation_shows(view: HandMade, request: RequestView) -> None:
    prefill = len(view.topology.prefill_nodes)
    for node, candidate in enumerate(candidates(request, view)):
        placed = placement_for(node, request, view)
        assert placed == candidate.placement
        if node < prefill:
            assert placed == Placement(node, view.least_loaded_decode_node())
            assert candidate.feasible
        else:
            assert placed[:2] == (node, node)
            assert sum(placed.chunk_plan) == request.prompt_tokens
            assert candidate.feasible == (candidate.slack_s >= 0.0)


def test_deflection_is_infeasible_only_for_the_residents_sake() -> None:
    newcomer = asks(1000, tbt_slo_s=0.01)  # no step is as short
    at_work = HandMade("1P2D", IDLE, decoding(4, 2000, tbt_slo_s=0.1), decoding(4, 2000, tbt_slo_s=0.01))
    assert encode(newcomer, at_work)["action_mask"].tolist() == [1, 1, 0]


class To:
    name = "to"

    def __init__(self, node: int) -> None:
        self.node = node
        self.predicted_s = 0.0

    def place(self, request: RequestView, view: RouterView) -> Placement:
        candidate = candidates(request, view)[self.node]
        self.predicted_s = candidate.ttft_s
        return candidate.placement


@settings(max_examples=40)
@given(prompt=st.integers(1, 20_000))
def test_at_zero_load_the_predicted_ttft_comes_true(prompt: int) -> None:
    workload = Workload.of([1.0], [prompt], [3], label="one")
    config = ClusterConfig(toy_profile(), shape="1P1D")
    here, there = To(1), To(0)
    deflected = simulate(workload, here, config).records[0]
    assert here.predicted_s == pytest.approx(deflected.first_token_s - 1.0)
    sent = simulate(workload, there, config).records[0]
    assert there.predicted_s == pytest.approx(sent.first_token_s - 1.0)
