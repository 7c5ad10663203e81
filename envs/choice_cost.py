"""A parametric cost of a choice: the exponential of a weighted sum of TERMS, so mostly a product of powers.

It contains two kinds of published rules as special cases. With weights of 1 for `ttft` alone it is `shortest-ttft`, and
with a weight for `prefill_on_decode_node` the `alpha` of that rule; with weights of 1 for `queue` and `decodes`, among
the choices of one node for both jobs, it is `lmetric` (arXiv 2603.15202). Weights between and beyond these are found by
search (`agents.evolution`).
"""

from math import inf, log

from envs.choices import Choices

TERMS = (
    "ttft",
    "queue",
    "decodes",
    "decodes_at_prefill",
    "same_node",
    "prefill_on_decode_node",
    "decode_on_decode_node",
    "transfer_share",
    "queued_prompts",
    "queue_at_decode",
    "execution",
    "decode_step_over_tbt_slo",
    "shared_step_over_tbt_slo",
    "step_beyond_tbt_slo",
    "long_x_ttft",
    "long_x_queue",
    "long_x_decodes",
    "long_x_same_node",
    "long_x_prefill_on_decode_node",
    "long_x_decode_on_decode_node",
    "backlog_x_same_node",
    "backlog_x_prefill_on_decode_node",
    "decode_step_beyond_tbt_slo",
    "pressure_x_same_node",
    "pressure_x_prefill_on_decode_node",
    "pressure_x_decode_on_decode_node",
)
"""The terms. Those of times, tokens and requests are logarithms; `long` is that of the prompt over the recent mean.
`pressure` is how far the mean decode step of the decode nodes is beyond the TBT SLO, in fifths of it: with these terms
one cost can disaggregate while the decode nodes keep up and share all nodes when they do not."""

_PRIOR_TOKENS = 512.0  # the mean prompt before the first request
_NEAR_SLO = 0.8
_FULL = 0.9  # of the TBT SLO, for a decode step without prompts
_PER_PRESSURE, _PER_BEYOND = 5.0, 10.0  # scales with which a weight of 1 matters


def least_cost_row(choices: Choices, weights: list[float], rows: list[bool]) -> int:
    """The first row with the least cost among some rows; -1 if there is none.

    Args:
        choices: the choices for a request.
        weights: one per term.
        rows: whether each row may be used, such as `Choices.feasible`.
    """
    counters = choices.view.counters
    topology = choices.view.topology
    prompt = float(choices.request.prompt_tokens)
    tbt_slo_s = choices.request.tbt_slo_s
    mean_prompt = (counters.tokens_slow + _PRIOR_TOKENS) / (counters.requests_slow + 1.0)
    long = log(prompt / mean_prompt)
    backlog = log(1.0 + sum(counters.queued_prompt_tokens) / (topology.nodes * mean_prompt))
    steps_s = 0.0
    decode_nodes = 0
    for target in choices.decode:
        if target.is_decode_node:
            steps_s += target.step_s
            decode_nodes += 1
    pressure = _PER_PRESSURE * (steps_s / (decode_nodes * tbt_slo_s) - 1.0) if decode_nodes else 0.0
    w_ttft = weights[0] + weights[14] * long
    w_queue = weights[1] + weights[15] * long
    w_decodes = weights[2] + weights[16] * long
    w_same = weights[4] + weights[17] * long + weights[20] * backlog + weights[23] * pressure
    w_prefill_role = weights[5] + weights[18] * long + weights[21] * backlog + weights[24] * pressure
    w_decode_role = weights[6] + weights[19] * long + weights[25] * pressure
    w_transfer = weights[7]
    of_prefill: list[float] = []
    for source in choices.prefill:
        cost = (
            w_queue * log(max(1.0, source.queued_tokens + prompt - source.cached_tokens))
            + weights[3] * log(1.0 + source.decode_requests)
            + weights[8] * log(1.0 + source.queued_prompts)
            + weights[10] * log(source.execution_s)
        )
        of_prefill.append(cost + w_prefill_role if source.is_decode_node else cost)
    of_decode: list[float] = []
    for target in choices.decode:
        step = target.step_s / tbt_slo_s
        shared = target.shared_step_s / tbt_slo_s
        cost = (
            w_decodes * log(1.0 + target.decode_requests)
            + weights[9] * log(target.queued_tokens + prompt)
            + weights[11] * step
            + weights[12] * shared
        )
        if shared > _NEAR_SLO:
            cost += weights[13] * (shared - _NEAR_SLO)
        if step > _FULL:
            cost += weights[22] * _PER_BEYOND * (step - _FULL)
        of_decode.append(cost + w_decode_role if target.is_decode_node else cost)
    pairing = choices.pairing
    prefill_index = pairing.prefill_index
    decode_index = pairing.decode_index
    same_node = pairing.same_node
    ttft_s = choices.ttft_s
    transfer_s = choices.transfer_s
    best = -1
    least = inf
    for row, usable in enumerate(rows):
        if not usable:
            continue
        of_row = ttft_s[row]
        cost = of_prefill[prefill_index[row]] + of_decode[decode_index[row]] + w_ttft * log(of_row)
        if same_node[row]:
            cost += w_same
        else:
            cost += w_transfer * transfer_s[row] / of_row
        if best < 0 or cost < least:
            best = row
            least = cost
    return best
