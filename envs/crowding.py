"""Nodes that have enough to decode: what a router can do about requests that are on their way but in no report yet.

An engine makes progress with every prompt. Where the decodes of a node nearly fill the TBT SLO, a step with a small
chunk of a prompt is longer than the SLO, for all streams of the node. A node's report shows neither the requests that
were sent there since, nor those whose prompts other nodes still compute. Feasibility (`envs.choices`) goes by reports,
so a policy that fills nodes up to the SLO goes beyond it when these requests join.
"""

from envs.choices import Choices
from envs.cluster import RequestView, RouterView


def is_crowded(node: int, request: RequestView, view: RouterView) -> bool:
    """Whether streams on a node are predicted to miss their TBT SLO once all requests sent there have joined.

    They miss it if a step with all of these decodes, that of `request` included, and the smallest chunk of a prompt is
    longer than the strictest TBT SLO there. The router counts the requests and their tokens itself.

    Args:
        node: the node.
        request: the request to place.
        view: the cluster.
    """
    topology = view.topology
    counters = view.counters
    law = topology.laws[node]
    requests = counters.decode_requests[node] + 1
    batch = requests if requests < topology.max_seqs else topology.max_seqs
    prompt_tokens = counters.decode_prompt_tokens[node] + request.prompt_tokens
    kv_tokens = int(prompt_tokens * batch / requests + view.mean_generated_tokens(node) * batch)
    tbt_slo_s = min(request.tbt_slo_s, view.report(node).tbt_slo_s)
    chunk_tokens = topology.chunk_grain_tokens
    step_s = law.chunk_step_s(chunk_tokens, 0.5 * request.prompt_tokens, batch, law.decode_s(batch, kv_tokens))
    return step_s > tbt_slo_s


def uncrowded_rows(choices: Choices) -> list[bool]:
    """For each row whether it is feasible and neither of its nodes is crowded.

    If all decode nodes are crowded, or no row is left, these are the feasible rows: in overload it does not help to
    avoid nodes, and prefill nodes with decodes would compute prompts more slowly.
    """
    request, view = choices.request, choices.view
    targets = [is_crowded(target.node, request, view) for target in choices.decode]
    if all(full for target, full in zip(choices.decode, targets, strict=True) if target.is_decode_node):
        return choices.feasible
    sources = [is_crowded(source.node, request, view) for source in choices.prefill]
    pairing = choices.pairing
    rows = [
        feasible and not sources[source] and not targets[target]
        for feasible, source, target in zip(choices.feasible, pairing.prefill_index, pairing.decode_index, strict=True)
    ]
    return rows if any(rows) else choices.feasible
