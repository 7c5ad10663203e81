"""A small decision rule: a tree that selects a member of a portfolio by a few features.

The tree is grown greedily: each split is the one after which the best single member on either side has the least
regret. Its text is for people who design schedulers; features are in their units, not squashed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp

import numpy as np

from agents.context import CONTEXT
from envs.features import GLOBAL_FEATURES, REQUEST_FEATURES

_THRESHOLDS = 24  # quantiles tried per feature
_REFERENCES = {feature.name: feature.reference for feature in (*REQUEST_FEATURES, *GLOBAL_FEATURES)}


@dataclass(frozen=True)
class Node:
    """A node of a tree: the best single member of its episodes, and the split below it, if any.

    Attributes:
        member: index of the member with the least mean regret.
        regret: that mean.
        episodes: number of episodes.
        feature: index of the feature of the split; -1 for a leaf.
        threshold: contexts with less than this go to the first child.
        children: two nodes, or none.
    """

    member: int
    regret: float
    episodes: int
    feature: int = -1
    threshold: float = 0.0
    children: tuple["Node", ...] = ()

    def select(self, context: np.ndarray) -> int:
        """The member for a context (K,)."""
        if not self.children:
            return self.member
        return self.children[int(context[self.feature] >= self.threshold)].select(context)


def grow(contexts: np.ndarray, regret: np.ndarray, depth: int, fewest: int) -> Node:
    """Grow a tree.

    Args:
        contexts: one of each episode, (E, K).
        regret: of each member on each episode, (E, M).
        depth: splits from the root to a leaf, at most.
        fewest: episodes in a leaf, at least.
    """
    means = regret.mean(axis=0)
    leaf = Node(int(means.argmin()), float(means.min()), len(regret))
    if depth == 0:
        return leaf
    best, at = leaf.regret * len(regret), (-1, 0.0)
    for feature in range(contexts.shape[1]):
        values = contexts[:, feature]
        for threshold in np.unique(np.quantile(values, np.linspace(0.0, 1.0, _THRESHOLDS + 2)[1:-1])).tolist():
            above = values >= threshold
            if min(above.sum(), (~above).sum()) < fewest:
                continue
            total = sum(float(regret[side].sum(axis=0).min()) for side in (~above, above))
            if total < best - 1e-9:
                best, at = total, (feature, threshold)
    if at[0] < 0:
        return leaf
    above = contexts[:, at[0]] >= at[1]
    children = tuple(grow(contexts[side], regret[side], depth - 1, fewest) for side in (~above, above))
    return Node(leaf.member, leaf.regret, leaf.episodes, *at, children)


def text(node: Node, members: Sequence[str], indent: str = "") -> str:
    """The tree in lines, each split with its condition."""
    if not node.children:
        return f"{indent}{members[node.member]}  (mean regret {node.regret:.3f}, {node.episodes} episodes)\n"
    name, value = CONTEXT[node.feature], node.threshold
    if name in _REFERENCES:
        value = _REFERENCES[name] * (exp(value / (1.0 - value)) - 1.0)
    first, second = node.children
    return (
        f"{indent}if {name} < {value:.4g}:\n{text(first, members, indent + '    ')}"
        f"{indent}else:\n{text(second, members, indent + '    ')}"
    )


def held_out_regret(contexts: np.ndarray, regret: np.ndarray, depth: int, fewest: int, folds: int = 5) -> float:
    """Mean regret of the tree's choices on episodes that it was not grown on."""
    fold = np.random.default_rng(0).permutation(len(regret)) % folds  # in turn, a fold would be a workload
    found = []
    for number in range(folds):
        tree = grow(contexts[fold != number], regret[fold != number], depth, fewest)
        found += [regret[i, tree.select(contexts[i])] for i in np.flatnonzero(fold == number)]
    return float(np.mean(found))
