"""A reference evaluator of linear policies for routers that are not in Python: plain arithmetic, no imports but `log`.

A linear policy scores every pair of a prefill and a decode node, and takes the pair with the highest score. The score
is the sum of weight times signal over the signals of the pair's kind. The signals are counts that routers keep
themselves. Weights are {kind: {signal: weight}}, as in the JSON file that `experiments.export` writes.
"""

from collections.abc import Mapping, Sequence
from math import log

Weights = Mapping[str, Mapping[str, float]]
Node = Mapping[str, float]
"""Counts of a node: "role" (0: prefill, 1: decode), "queued_prompts", "queued_prompt_tokens" (sent there and not yet
computed), "decode_requests" (unfinished requests that decode there) and "decode_prompt_tokens" (their prompts)."""


def kind(source: int, target: int, nodes: Sequence[Node]) -> str:
    """The kind of a pair: prefill on `source`, decode on `target`."""
    if source == target:
        return "deflected" if nodes[source]["role"] else "aggregated"
    return "disaggregated" if nodes[source]["role"] < nodes[target]["role"] else "other"


def signals(
    prompt_tokens: float, tbt_slo_s: float, source: int, target: int, nodes: Sequence[Node]
) -> dict[str, float]:
    """The signals of a pair for a request."""
    mean = {name: sum(node[name] for node in nodes) / len(nodes) for name in nodes[0]}
    p, d = nodes[source], nodes[target]
    plain = {
        "one": 1.0,
        "log_prompt": log(prompt_tokens / 1000),
        "log_mean_prompt": log((mean["decode_prompt_tokens"] + 200) / (mean["decode_requests"] + 1) / 1000),
        "mean_decodes": mean["decode_requests"] / 10,
        "mean_context": mean["decode_prompt_tokens"] / 10_000,
        "queue": p["queued_prompt_tokens"] / 1000,
        "decodes": d["decode_requests"] / 10,
    }
    slo = log(tbt_slo_s / 0.05)
    return {
        **plain,
        **{f"{name}_x_log_tbt_slo": value * slo for name, value in plain.items()},
        "log_tbt_slo_squared": slo * slo,
        "mean_queue": mean["queued_prompt_tokens"] / 1000,
        "queued_prompts": p["queued_prompts"],
        "decodes_at_prefill": p["decode_requests"] / 10,
        "context": d["decode_prompt_tokens"] / 10_000,
        "queue_at_decode": d["queued_prompt_tokens"] / 1000,
    }


def best_pair(weights: Weights, prompt_tokens: float, tbt_slo_s: float, nodes: Sequence[Node]) -> tuple[int, int]:
    """The pair (prefill node, decode node) with the highest score; the first of equals."""

    def score(source: int, target: int) -> float:
        own = weights.get(kind(source, target, nodes))
        if own is None:
            return float("-inf")
        return sum(
            own[name] * value for name, value in signals(prompt_tokens, tbt_slo_s, source, target, nodes).items()
        )

    pairs = [(source, target) for source in range(len(nodes)) for target in range(len(nodes))]
    return max(pairs, key=lambda pair: score(*pair))
