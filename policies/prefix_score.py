"""The score of a node by its cached share of a prompt and its load, as in llm-d's scorers."""

from collections.abc import Sequence

from envs.cluster import RequestView, RouterView


def best_by_score(
    nodes: Sequence[int],
    loads: Sequence[float],
    request: RequestView,
    view: RouterView,
    *,
    prefix_weight: float,
    prefix: bool = True,
) -> tuple[int, int]:
    """The first node with the highest score, and the tokens of the prompt that it has cached.

    A score is `prefix_weight` times the cached share of the prompt, plus a load score: 1 for the least load, 0 for the
    greatest, linear in between, and 1 for all nodes if all loads are equal.

    Args:
        nodes: the nodes to choose from.
        loads: loads of all nodes of the cluster, by index.
        request: the request.
        view: the cluster.
        prefix_weight: weight of the cached share.
        prefix: take cached tokens into account; if not, no token counts as cached.
    """
    found = [loads[node] for node in nodes]
    greatest = max(found)
    spread = greatest - min(found)
    prefix = prefix and view.has_prefix_caches
    best_node, best_cached, best_score = -1, 0, -1.0
    for node in nodes:
        cached = view.prefix_hit_tokens(request, node) if prefix else 0
        score = prefix_weight * cached / request.prompt_tokens
        score += (greatest - loads[node]) / spread if spread else 1.0
        if score > best_score:
            best_node, best_cached, best_score = node, cached, score
    return best_node, best_cached
