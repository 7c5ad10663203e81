"""From a router's view to the observation of a learned policy: the one place where features are made and squashed.

Squashing is analytic (no running statistics), so a saved policy needs nothing beside its weights: x >= 0 becomes
log(1 + x / ref) / (1 + log(1 + x / ref)), which never reaches 1. A queue ten times longer than any seen still looks
longer; a ceiling would make the policy herd.
"""

from math import exp, inf

import numpy as np
from numpy.typing import NDArray

from envs.candidates import Candidate, candidates
from envs.cluster import RequestView, RouterView
from envs.cluster.router_counters import RECENT_S

LAYOUT_VERSION = 1
"""Rises whenever a feature changes its meaning; exported policies name the one they were trained on."""

# Each feature with its reference: the value that squashes to 0.41. Times in seconds, lengths in tokens.
REQUEST_FEATURES = {
    "prompt_tokens": 512.0,
    "ttft_slo_s": 1.0,
    "tbt_slo_s": 0.05,
    "best_ttft_s": 0.25,
}
GLOBAL_FEATURES = {
    "recent_requests_per_prefill_node_1s": 4.0,
    "recent_requests_per_prefill_node_10s": 40.0,
    "recent_prompt_tokens_per_prefill_node_1s": 8192.0,
    "recent_prompt_tokens_per_prefill_node_10s": 81920.0,
    "queued_prompt_tokens_per_prefill_node": 2048.0,
    "decode_requests_per_decode_node": 32.0,
    "deflected_requests_per_decode_node": 0.5,
    "prefill_share_of_nodes": 0.5,
}
NODE_FEATURES = {
    "is_decode_node": 0.0,  # already 0 or 1
    "ttft_s": 0.25,
    "ttft_over_slo": 0.25,
    "ttft_behind_best_s": 0.05,
    "execution_s": 0.1,
    "tbt_slack_s": 0.02,  # signed: 0.5 is none left
    "queued_prompt_tokens": 2048.0,
    "queued_prompts": 1.0,
    "prefill_tokens_ahead": 2048.0,
    "decode_requests": 32.0,
    "decode_requests_behind_least": 2.0,
    "decode_batch": 32.0,
    "decode_kv_share": 0.1,
    "deflected_requests": 1.0,
    "chunks": 2.0,
}
_SIGNED = list(NODE_FEATURES).index("tbt_slack_s")
PREDICTED_TTFT_COLUMN = list(NODE_FEATURES).index("ttft_s")

_REQUEST_REFS = np.array(list(REQUEST_FEATURES.values()))
_GLOBAL_REFS = np.array(list(GLOBAL_FEATURES.values()))
_NODE_REFS = np.array(list(NODE_FEATURES.values()))
_NODE_REFS[0] = 1.0
_NO_ROW = (0.0,) * len(NODE_FEATURES)

Observation = dict[str, NDArray[np.float32] | NDArray[np.int8]]


def squash(values: NDArray[np.float64], refs: NDArray[np.float64]) -> NDArray[np.float32]:
    """Values of 0 and more to [0, 1), monotone; `refs` broadcast against the last axis."""
    logs = np.log1p(values / refs)
    squashed: NDArray[np.float32] = (logs / (1.0 + logs)).astype(np.float32)
    return squashed


def encode(request: RequestView, view: RouterView) -> Observation:
    """The observation of one decision; see `envs.placement_env.PrefillPlacementEnv` for its tables.

    Returns:
        "request" (4,), "global" (8,), "nodes" (N, 15) float32 in [0, 1], "action_mask" (N,) int8; all fresh arrays.
        The row of a lost node is all zeros.
    """
    return encode_candidates(request, view, candidates(request, view))


def encode_candidates(request: RequestView, view: RouterView, found: list[Candidate]) -> Observation:
    """`encode` for candidates at hand."""
    topology = view.topology
    counters = view.counters
    prefill_nodes = len(topology.prefill_nodes)
    decode_nodes = len(topology.decode_nodes)
    first_decode_node = topology.first_decode_node
    best_s = min([c.ttft_s for c in found if c.feasible])
    least = min([counters.decode_requests[node] for node in topology.decode_nodes])

    rows = []
    for node, (_, _, ttft_s, execution_s, slack_s, chunks, report) in enumerate(found):
        if ttft_s == inf:
            rows.append(_NO_ROW)
            continue
        is_decode = node >= first_decode_node
        decode_requests = counters.decode_requests[node]
        rows.append(
            (
                1.0 if is_decode else 0.0,
                ttft_s,
                ttft_s / request.ttft_slo_s,
                max(0.0, ttft_s - best_s),
                execution_s,
                abs(slack_s),
                counters.queued_prompt_tokens[node],
                counters.queued_prompts[node],
                max(0, report.prefill_tokens_ahead),
                decode_requests,
                decode_requests - least if is_decode else 0,
                report.decode_batch,
                report.decode_kv_tokens / topology.kv_capacity_tokens[node],
                counters.deflected_requests[node],
                chunks,
            )
        )
    nodes = squash(np.array(rows, dtype=np.float64), _NODE_REFS)
    nodes[:, 0] = [row[0] for row in rows]
    signs = np.array([1.0 if c.slack_s >= 0.0 else -1.0 for c in found], dtype=np.float32)
    nodes[:, _SIGNED] = 0.5 + 0.5 * signs * nodes[:, _SIGNED]
    if prefill_nodes + decode_nodes < len(found):
        nodes[[c.ttft_s == inf for c in found]] = 0.0

    elapsed_s = view.now_s - counters.last_arrival_s
    fast = exp(-elapsed_s / RECENT_S[0])
    slow = exp(-elapsed_s / RECENT_S[1])
    global_values = (
        counters.recent_requests[0] * fast / prefill_nodes,
        counters.recent_requests[1] * slow / prefill_nodes,
        counters.recent_prompt_tokens[0] * fast / prefill_nodes,
        counters.recent_prompt_tokens[1] * slow / prefill_nodes,
        sum(counters.queued_prompt_tokens[:first_decode_node]) / prefill_nodes,
        sum(counters.decode_requests) / decode_nodes,
        sum(counters.deflected_requests) / decode_nodes,
        prefill_nodes / (prefill_nodes + decode_nodes),
    )
    request_values = (request.prompt_tokens, request.ttft_slo_s, request.tbt_slo_s, best_s)
    return {
        "request": squash(np.array(request_values, dtype=np.float64), _REQUEST_REFS),
        "global": squash(np.array(global_values, dtype=np.float64), _GLOBAL_REFS),
        "nodes": nodes,
        "action_mask": np.array([c.feasible for c in found], dtype=np.int8),
    }
