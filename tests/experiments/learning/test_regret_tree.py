"""The tree that selects a member of a portfolio: how it is grown, and its text."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.context import CONTEXT
from experiments.learning.regret_tree import Node, grow, held_out_regret, text

SIZE = len(CONTEXT)
MEMBERS = ("a", "b", "c")


def leaves(node: Node) -> list[Node]:
    return [leaf for child in node.children for leaf in leaves(child)] or [node]


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.integers(0, 4))
def test_deeper_trees_have_no_more_regret_on_their_episodes(seed: int, depth: int) -> None:
    rng = np.random.default_rng(seed)
    contexts, regret = rng.random((120, SIZE)), rng.random((120, 3))
    shallow, deep = (grow(contexts, regret, limit, 10) for limit in (depth, depth + 1))
    of_tree = [np.mean([regret[i, tree.select(contexts[i])] for i in range(120)]) for tree in (shallow, deep)]
    assert of_tree[1] <= of_tree[0] + 1e-9
    for tree, limit in ((shallow, depth), (deep, depth + 1)):
        assert len(leaves(tree)) <= 2**limit
        assert sum(leaf.episodes for leaf in leaves(tree)) == 120
        assert all(leaf.episodes >= 10 for leaf in leaves(tree))


def test_a_threshold_is_found_and_printed_in_units() -> None:
    rng = np.random.default_rng(1)
    contexts = rng.random((400, SIZE))
    column = CONTEXT.index("tbt_slo_s")
    above = contexts[:, column] >= 0.5
    regret = np.stack([above, ~above, np.ones(400)], axis=1).astype(float)
    tree = grow(contexts, regret, 1, 10)
    assert (tree.feature, tree.threshold) == (column, pytest.approx(0.5, abs=0.05))
    assert [leaf.member for leaf in leaves(tree)] == [0, 1]
    assert held_out_regret(contexts, regret, 1, 10) < 0.1
    lines = text(tree, MEMBERS).splitlines()
    value_s = 0.05 * (np.e - 1.0)  # squashed to 0.5
    assert float(lines[0].removeprefix("if tbt_slo_s < ").removesuffix(":")) == pytest.approx(value_s, rel=0.3)
    assert lines[1].startswith("    a  (mean regret 0.0")


def test_no_split_without_a_gain() -> None:
    contexts = np.random.default_rng(0).random((50, SIZE))
    assert grow(contexts, np.tile([0.1, 0.2, 0.3], (50, 1)), 4, 5).children == ()
