"""The parametric cost of a choice: its special cases, and the compiled sum against one that is written term by term."""

from math import log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.choice_cost import TERMS, least_cost_row
from envs.choices import Choices
from envs.cluster import RequestView
from policies.lmetric import LMetric
from policies.shortest_ttft import ShortestTTFT
from tests.envs.test_choices import any_views
from tests.policies.states import HandMade, requests

weights = st.lists(st.floats(-3.0, 3.0), min_size=len(TERMS), max_size=len(TERMS))


def only(**terms: float) -> list[float]:
    return [terms.get(name, 0.0) for name in TERMS]


def terms_of(choices: Choices, row: int) -> dict[str, float]:
    """The value of every term for a row, as their names say."""
    view, request = choices.view, choices.request
    source = choices.prefill[choices.pairing.prefill_index[row]]
    target = choices.decode[choices.pairing.decode_index[row]]
    same = float(source.node == target.node)
    counters, nodes = view.counters, view.topology.nodes
    mean_prompt = (counters.tokens_slow + 512.0) / (counters.requests_slow + 1.0)
    long = log(request.prompt_tokens / mean_prompt)
    backlog = log(1.0 + sum(counters.queued_prompt_tokens) / (nodes * mean_prompt))
    step, shared = target.step_s / request.tbt_slo_s, target.shared_step_s / request.tbt_slo_s
    steps = [one.step_s / request.tbt_slo_s for one in choices.decode if one.is_decode_node]
    pressure = 5.0 * (sum(steps) / len(steps) - 1.0) if steps else 0.0
    plain = {
        "ttft": log(choices.ttft_s[row]),
        "queue": log(max(1, source.queued_tokens + request.prompt_tokens - source.cached_tokens)),
        "decodes": log(1 + target.decode_requests),
        "same_node": same,
        "prefill_on_decode_node": float(source.is_decode_node),
        "decode_on_decode_node": float(target.is_decode_node),
    }
    return {
        **plain,
        "decodes_at_prefill": log(1 + source.decode_requests),
        "transfer_share": choices.transfer_s[row] / choices.ttft_s[row],
        "queued_prompts": log(1 + source.queued_prompts),
        "queue_at_decode": log(target.queued_tokens + request.prompt_tokens),
        "execution": log(source.execution_s),
        "decode_step_over_tbt_slo": step,
        "shared_step_over_tbt_slo": shared,
        "step_beyond_tbt_slo": max(0.0, shared - 0.8),
        **{f"long_x_{name}": long * value for name, value in plain.items()},
        "backlog_x_same_node": backlog * same,
        "backlog_x_prefill_on_decode_node": backlog * plain["prefill_on_decode_node"],
        "decode_step_beyond_tbt_slo": 10.0 * max(0.0, step - 0.9),
        **{
            f"pressure_x_{name}": pressure * plain[name]
            for name in ("same_node", "prefill_on_decode_node", "decode_on_decode_node")
        },
    }


def cost_of(choices: Choices, row: int, weights: list[float]) -> float:
    terms = terms_of(choices, row)
    return sum(weight * terms[name] for name, weight in zip(TERMS, weights, strict=True))


@settings(max_examples=100)
@given(view=any_views(), request=requests, weights=weights)
def test_the_row_has_the_least_weighted_sum_of_the_terms(
    view: HandMade, request: RequestView, weights: list[float]
) -> None:
    choices = Choices.of(request, view, "pairs")
    costs = {}
    for row in choices.feasible_rows():
        assert terms_of(choices, row).keys() == set(TERMS)
        costs[row] = cost_of(choices, row, weights)
    found = least_cost_row(choices, weights, choices.feasible)
    assert found in costs
    assert costs[found] <= min(costs.values()) + 1e-9


@settings(max_examples=60)
@given(view=any_views(), request=requests)
def test_the_weight_of_the_ttft_alone_gives_the_shortest_ttft(view: HandMade, request: RequestView) -> None:
    choices = Choices.of(request, view, "pairs")
    rule = ShortestTTFT(choices="pairs").place(request, view)
    assert choices.placement(least_cost_row(choices, only(ttft=1.0), choices.feasible))[:2] == rule[:2]


@settings(max_examples=60)
@given(view=any_views(), request=requests)
def test_queue_and_decodes_on_one_node_give_lmetric(view: HandMade, request: RequestView) -> None:
    choices = Choices.of(request, view, "pairs")
    counters = view.counters
    found = choices.placement(least_cost_row(choices, only(queue=1.0, decodes=1.0, same_node=-1e6), choices.feasible))
    rule = LMetric().place(request, view)
    if all(choices.feasible):  # the rule has no feasible rows

        def product(node: int) -> float:
            tokens = counters.queued_prompt_tokens[node] + view.uncached_tokens(request, node)
            return tokens * (counters.decode_requests[node] + 1)

        assert found.prefill_node == found.decode_node
        assert product(found.prefill_node) <= product(rule.prefill_node) * (1 + 1e-9)


@settings(max_examples=60)
@given(view=any_views(), request=requests, weights=weights, factor=st.floats(0.01, 100.0))
def test_the_scale_of_the_weights_does_not_matter(
    view: HandMade, request: RequestView, weights: list[float], factor: float
) -> None:
    choices = Choices.of(request, view, "pairs")
    first, second = (
        least_cost_row(choices, [scale * one for one in weights], choices.feasible) for scale in (1.0, factor)
    )
    assert first == second or cost_of(choices, first, weights) == pytest.approx(
        cost_of(choices, second, weights), abs=1e-6
    )


@settings(max_examples=60)
@given(view=any_views(), request=requests, weights=weights)
def test_a_closed_role_is_never_taken(view: HandMade, request: RequestView, weights: list[float]) -> None:
    choices = Choices.of(request, view, "pairs")
    closed = only(prefill_on_decode_node=1e6, decode_on_decode_node=-1e6)
    row = least_cost_row(choices, [one + more for one, more in zip(weights, closed, strict=True)], choices.feasible)
    assert choices.keeps_roles(row) or not any(choices.keeps_roles(one) for one in choices.feasible_rows())
