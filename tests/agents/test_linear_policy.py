"""Linear policies: the fit finds the weights that made the choices, and files are checked."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents import linear_scores
from agents.linear_policy import (
    COUNTS,
    KINDS,
    Choice,
    LinearPolicy,
    agreement,
    fit_linear,
    nodes_of,
    read_linear,
    write_linear,
)
from agents.linear_scores import Node, Weights, best_pair, kind, signals
from envs.cluster import Cluster, ClusterConfig, simulate
from envs.cluster.disturbance import Disturbance
from envs.generators import generate
from policies import PolicySpec
from tests.refusal import refused
from tests.toy import toy_profile

NAMES = list(signals(1.0, 1.0, 0, 0, [dict.fromkeys(COUNTS, 1.0)]))


def made_up(rng: np.random.Generator) -> list[Node]:
    counts = rng.integers(0, [1, 8, 8000, 40, 60_000], (4, 5))
    return [dict(zip(COUNTS, [float(node >= 2), *map(float, counts[node, 1:])], strict=True)) for node in range(4)]


def random_weights(rng: np.random.Generator, kinds: tuple[str, ...] = KINDS) -> Weights:
    return {one: dict(zip(NAMES, rng.normal(size=len(NAMES)).tolist(), strict=True)) for one in kinds}


def choices_by(weights: Weights, count: int, seed: int) -> list[Choice]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        nodes, prompt, slo_s = made_up(rng), int(rng.integers(16, 8000)), float(rng.uniform(0.025, 0.1))
        found.append(Choice(prompt, slo_s, nodes, best_pair(weights, prompt, slo_s, nodes)))
    return found


def test_the_fit_imitates_a_linear_policy_on_choices_that_it_has_not_seen() -> None:
    true = random_weights(np.random.default_rng(3), ("disaggregated", "deflected", "aggregated"))
    fitted = fit_linear(choices_by(true, 3000, seed=1))
    same_pair, same_kind = agreement(fitted, choices_by(true, 500, seed=2))
    assert same_pair > 0.9
    assert same_kind >= same_pair


def test_a_kind_that_was_never_chosen_is_never_taken() -> None:
    true = random_weights(np.random.default_rng(0), ("deflected",))
    seen = choices_by(true, 200, seed=4)
    fitted = fit_linear(seen)
    assert set(fitted) == {"deflected"}
    assert all(best_pair(fitted, one.prompt_tokens, one.tbt_slo_s, one.nodes) in ((2, 2), (3, 3)) for one in seen)


@given(st.integers(0, 2**32 - 1))
def test_the_best_pair_has_the_highest_sum_of_weight_times_signal(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights, nodes = random_weights(rng), made_up(rng)
    pairs = [(source, target) for source in range(4) for target in range(4)]
    scores = [
        sum(weights[kind(*pair, nodes)][name] * value for name, value in signals(700, 0.05, *pair, nodes).items())
        for pair in pairs
    ]
    assert best_pair(weights, 700, 0.05, nodes) == pairs[int(np.argmax(scores))]


def test_the_reference_evaluator_is_short_and_plain_python() -> None:
    tree = ast.parse(Path(linear_scores.__file__).read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert modules == {"collections.abc", "math"}
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert sum((node.end_lineno or 0) - node.lineno + 1 for node in functions) <= 55


def test_a_file_is_a_policy_that_respects_lost_nodes(tmp_path: Path) -> None:
    path = tmp_path / "linear.json"
    write_linear(path, random_weights(np.random.default_rng(1)), "a test")
    assert read_linear(path) == LinearPolicy(path).weights
    policy = PolicySpec.parse(f"mine={path}").make()
    workload = generate("burst", rate_rps=8.0, requests=60, seed=0)
    lost = (Disturbance(2.0, "loss", 1),)
    result = simulate(workload, policy, ClusterConfig(toy_profile(), disturbances=lost))
    late = [one for one in result.records if one.arrival_s > 2.0]
    assert len(result.records) == 60
    assert all(1 not in (one.prefill_node, one.decode_node) for one in late)
    view = Cluster(ClusterConfig(toy_profile()), lambda _: None).view()
    assert [node["role"] for node in nodes_of(view)] == [0.0, 0.0, 1.0, 1.0]


def test_a_wrong_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "linear.json"
    with refused(f"{path}: no such file"):
        LinearPolicy(path)
    good = {"format": "prefill-placement-linear/1", "weights": random_weights(np.random.default_rng(1))}
    for broken in (
        "nonsense",
        "[]",
        json.dumps({"format": "prefill-placement-linear/1"}),
        json.dumps(good | {"weights": {}}),
        json.dumps(good | {"weights": {"sideways": {}}}),
        json.dumps(good | {"weights": {"deflected": {"one": 1.0}}}),
    ):
        path.write_text(broken)
        with refused(str(path), "not a file that experiments.export wrote"):
            LinearPolicy(path)
    path.write_text(json.dumps(good | {"format": "prefill-placement-linear/9"}))
    with refused("has format prefill-placement-linear/9, this version reads prefill-placement-linear/1"):
        LinearPolicy(path)


@pytest.mark.parametrize("prompt_tokens", [16, 4000])
def test_kinds_follow_the_roles(prompt_tokens: int) -> None:
    nodes = made_up(np.random.default_rng(0))
    assert [kind(*pair, nodes) for pair in ((0, 2), (3, 3), (1, 1), (2, 0), (0, 1))] == [
        *("disaggregated", "deflected", "aggregated", "other", "other")
    ]
    assert signals(prompt_tokens, 0.05, 0, 2, nodes)["one_x_log_tbt_slo"] == 0.0
