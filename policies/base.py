"""Helpers that the rules share."""

from envs.cluster import ClusterView


def shortest_prefill_queue(view: ClusterView) -> int:
    """The prefill node with the fewest prompt tokens dispatched and not yet computed; the first of equals."""
    tokens = view.counters.queued_prompt_tokens
    return min(view.topology.prefill_nodes, key=tokens.__getitem__)
