"""Nodes that have enough to decode: what a router can do about requests that are on their way but in no report yet.

An engine makes progress with every prompt. Where the decodes of a node nearly fill the TBT SLO, a step with a small
chunk of a prompt is longer than the SLO, for all streams of the node. A node's report shows neither the requests that
were sent there since, nor those whose prompts other nodes still compute, nor how much more KV they will all have.
Feasibility (`envs.choices`) goes by reports, so a policy that fills nodes up to the SLO goes beyond it when these
requests join and grow. The rules of this file are not from a paper.
"""

from envs.choices import Choices
from envs.cluster import RequestView, RouterView
from envs.prediction import decode_step_s

_LATER = 0.5
"""The step is predicted for the time when all requests have generated this share of a mean output more."""


def is_crowded(node: int, request: RequestView, view: RouterView, *, joins: bool, chunk: bool) -> bool:
    """Whether all requests sent to a node are too many to decode there at once, half a mean output later.

    They are if a step is longer than the strictest TBT SLO, or their KV does not fit, so that the engine would preempt
    some. The mean output is that of recently finished requests.

    Args:
        node: the node.
        request: the request to place.
        view: the cluster.
        joins: whether this request will decode there, too.
        chunk: whether the step has the smallest chunk of a prompt as long as this one in it.
    """
    topology = view.topology
    counters = view.counters
    law = topology.laws[node]
    requests = counters.decode_requests[node]
    prompt_tokens = counters.decode_prompt_tokens[node]
    if joins:
        requests += 1
        prompt_tokens += request.prompt_tokens
    if not requests:
        return False
    generated_tokens = view.mean_generated_tokens(node) + _LATER * counters.mean_output_tokens
    kv_tokens = prompt_tokens + requests * generated_tokens
    if kv_tokens > topology.kv_capacity_tokens[node]:
        return True
    batch = requests if requests < topology.max_seqs else topology.max_seqs
    kv_of_batch = int(kv_tokens * batch / requests)
    if chunk:
        decode_s = law.decode_s(batch, kv_of_batch)
        step_s = law.chunk_step_s(topology.chunk_grain_tokens, 0.5 * request.prompt_tokens, batch, decode_s)
    else:
        step_s = decode_step_s(law, batch, kv_of_batch)
    return step_s > min(request.tbt_slo_s, view.report(node).tbt_slo_s)


def uncrowded_rows(choices: Choices) -> list[bool]:
    """For each row whether it may be used by a policy that leaves room for the requests on their way.

    These are the feasible rows that crowd no node. On the node that prefills, a step has a chunk in it; on the node
    that decodes, it has this request in it, and a chunk if prompts are queued there.

    In overload it does not help to avoid nodes. So if every decode node would be crowded, or no row that crowds no node
    is predicted to meet the TTFT SLO, all feasible rows may be used.
    """
    request, view = choices.request, choices.view
    targets: list[bool] = []
    overloaded = True
    for target in choices.decode:
        crowded = is_crowded(target.node, request, view, joins=True, chunk=target.queued_tokens > 0)
        targets.append(crowded)
        if target.is_decode_node and not crowded:
            overloaded = False
    if overloaded:
        return choices.feasible
    sources = [is_crowded(source.node, request, view, joins=False, chunk=True) for source in choices.prefill]
    pairing = choices.pairing
    ttft_s = choices.ttft_s
    rows: list[bool] = []
    late = True
    for row, feasible in enumerate(choices.feasible):
        usable = feasible and not sources[pairing.prefill_index[row]] and not targets[pairing.decode_index[row]]
        rows.append(usable)
        if usable and ttft_s[row] <= request.ttft_slo_s:
            late = False
    return choices.feasible if late else rows
