"""The features of an observation: the name, scale and meaning of each, and the code that computes it.

A choice's row has the features of the prefilling node, of the decoding node, and of the pair. Times are in seconds,
lengths in tokens, sizes in bytes. `envs.observation` scales these values; the tables in the environment's docstring are
made from the tables here. The function below each table writes its values in order; mypyc's BytesWriter takes floats
without creating an object for each.
"""

from collections.abc import Sequence
from math import exp, inf
from typing import Literal, NamedTuple

from librt.strings import BytesWriter
from librt.strings import write_f64_le as write

from envs.choices import Choices
from envs.cluster import RequestView, RouterView
from envs.cluster.router_counters import RECENT_S
from envs.outlook import DecodeOutlook, PrefillOutlook
from envs.rule_choices import RuleChoices
from envs.steady_load import SteadyLoad

Kind = Literal["from 0", "signed", "flag"]

SET = inf
"""The value of a flag that is set; it is squashed to 1."""


class Feature(NamedTuple):
    """One number of an observation.

    Attributes:
        name: its name.
        reference: the value that is squashed to 0.41; see `envs.observation.squash`.
        meaning: one line for the tables.
        kind: "from 0": 0 or more. "signed": either sign, and 0 becomes 0.5. "flag": 0 or SET, which become 0 and 1.
    """

    name: str
    reference: float
    meaning: str
    kind: Kind = "from 0"


_TTFT_SLO = Feature("ttft_slo_s", 1.0, "TTFT SLO")
_TBT_SLO = Feature("tbt_slo_s", 0.05, "TBT SLO")
_TBT_SLO_OVER_STEP = Feature(
    "tbt_slo_over_decode_step",
    4.0,
    "TBT SLO over a typical decode step (32 requests with 1,024 tokens of context each)",
)

REQUEST_FEATURES: tuple[Feature, ...] = (
    Feature("prompt_tokens", 512.0, "prompt tokens"),
    _TTFT_SLO,
    _TBT_SLO,
    Feature("best_ttft_s", 0.25, "smallest predicted TTFT over the feasible choices"),
)


def write_request(values: BytesWriter, choices: Choices) -> None:
    """Write the values of REQUEST_FEATURES."""
    request = choices.request
    write(values, float(request.prompt_tokens))
    write(values, request.ttft_slo_s)
    write(values, request.tbt_slo_s)
    write(values, choices.best_ttft_s)


STEADY_FEATURES: tuple[Feature, ...] = (
    Feature(
        "finished_output_tokens",
        128.0,
        "mean output length of finished requests, weighted by 0.99 per later finish (router's count)",
    ),
    Feature("prefill_share_of_nodes", 0.5, "share of the nodes that are prefill nodes"),
    Feature("steady_requests_per_node", 1.0, "requests per second and node, mean over the last minute or so"),
    Feature("steady_prompt_tokens", 512.0, "their mean prompt"),
    Feature("prefill_load", 0.5, "utilisation of the prefill nodes by their prompts (`envs.steady_load`)"),
    Feature("decode_load", 0.5, "utilisation of the decode nodes by their decodes, of the recent mean output length"),
    Feature("steady_decode_step_over_tbt_slo", 0.5, "their decode step in that steady state, over the TBT SLO"),
    Feature("steady_shared_step_over_tbt_slo", 0.5, "the same if all nodes decode"),
    Feature("shared_prefill_load", 0.5, "utilisation by prompts if all nodes do both jobs within the TBT SLO"),
    Feature("deflected_prefill_load", 0.5, "the same if the decode nodes do both jobs"),
)
"""The global features that depend little on where earlier requests were placed, the first one aside."""


def write_steady(values: BytesWriter, request: RequestView, view: RouterView) -> None:
    """Write the values of STEADY_FEATURES."""
    counters = view.counters
    topology = view.topology
    nodes = float(len(topology.prefill_nodes) + len(topology.decode_nodes))
    write(values, counters.mean_output_tokens)
    write(values, len(topology.prefill_nodes) / nodes)
    steady = SteadyLoad(view, request.tbt_slo_s)
    write(values, steady.rate_rps / nodes)
    write(values, steady.prompt_tokens)
    write(values, steady.prefill_load)
    write(values, steady.decode_load)
    write(values, steady.decode_step_s / request.tbt_slo_s)
    write(values, steady.shared_decode_step_s / request.tbt_slo_s)
    write(values, steady.shared_prefill_load)
    write(values, steady.deflected_prefill_load)


GLOBAL_FEATURES: tuple[Feature, ...] = (
    _TBT_SLO_OVER_STEP,
    Feature("recent_requests_per_node_1s", 2.0, "requests placed recently per node, decaying over 1 s"),
    Feature("recent_requests_per_node_10s", 20.0, "the same over 10 s"),
    Feature("recent_prompt_tokens_per_node_1s", 4096.0, "prompt tokens of these requests per node, decaying over 1 s"),
    Feature("recent_prompt_tokens_per_node_10s", 40960.0, "the same over 10 s"),
    Feature(
        "queued_prompt_tokens_per_node",
        1024.0,
        "prompt tokens dispatched and not yet prefilled, per node (router's count)",
    ),
    Feature("unfinished_requests_per_node", 16.0, "unfinished requests per node (router's count)"),
    Feature(
        "deflected_requests_per_node",
        0.25,
        "queued prompts per node that decode on the node that prefills them (router's count)",
    ),
    Feature("kv_share", 0.1, "KV in use over KV capacity, mean over the candidate nodes (reports)"),
    Feature(
        "generated_tokens",
        128.0,
        "tokens generated so far per decoding request, mean over the candidate nodes (router's count)",
    ),
    *STEADY_FEATURES,
)


def _write_tbt_slo_over_step(values: BytesWriter, request: RequestView, view: RouterView) -> None:
    write(values, request.tbt_slo_s / view.topology.typical_decode_step_s)


def write_global(values: BytesWriter, choices: Choices) -> None:
    """Write the values of GLOBAL_FEATURES."""
    view = choices.view
    counters = view.counters
    topology = view.topology
    decode = choices.decode
    nodes = float(len(topology.prefill_nodes) + len(topology.decode_nodes))
    ago_s = counters.last_arrival_s - view.now_s
    fast = exp(ago_s / RECENT_S[0]) / nodes  # decays the sums to now, and divides them by the nodes
    slow = exp(ago_s / RECENT_S[1]) / nodes
    kv_share = generated_tokens = 0.0
    for one in decode:
        kv_share += one.kv_share
        generated_tokens += one.generated_tokens
    _write_tbt_slo_over_step(values, choices.request, view)
    write(values, counters.requests_fast * fast)
    write(values, counters.requests_slow * slow)
    write(values, counters.tokens_fast * fast)
    write(values, counters.tokens_slow * slow)
    write(values, sum(counters.queued_prompt_tokens) / nodes)
    write(values, sum(counters.decode_requests) / nodes)
    write(values, sum(counters.deflected_requests) / nodes)
    write(values, kv_share / len(decode))
    write(values, generated_tokens / len(decode))
    write_steady(values, choices.request, view)


TRAFFIC_FEATURES: tuple[Feature, ...] = (_TTFT_SLO, _TBT_SLO, _TBT_SLO_OVER_STEP, *STEADY_FEATURES)
"""The features that describe the traffic and the cluster, and depend little on where earlier requests were placed."""


def packed_traffic(request: RequestView, view: RouterView) -> bytes:
    """The values of TRAFFIC_FEATURES as little-endian float64; much quicker than all values."""
    values = BytesWriter()
    write(values, request.ttft_slo_s)
    write(values, request.tbt_slo_s)
    _write_tbt_slo_over_step(values, request, view)
    write_steady(values, request, view)
    return values.getvalue()


PREFILL_FEATURES: tuple[Feature, ...] = (
    Feature("prefill_on_decode_node", 0.0, "its role is decode", "flag"),
    Feature("prefill_queue_s", 0.1, "predicted wait for the prompts ahead"),
    Feature("prefill_execution_s", 0.1, "predicted execution of the prompt"),
    Feature(
        "prefill_tbt_slack_s",
        0.02,
        "TBT slack of the requests decoding there: limit on a step minus the longest step of this prefill",
        "signed",
    ),
    Feature("prefill_steps", 2.0, "steps of the prefill"),
    Feature("prefill_cached_tokens", 512.0, "prompt tokens in its prefix cache"),
    Feature("prefill_tokens_ahead", 2048.0, "prompt tokens ahead (report, and tokens dispatched since)"),
    Feature("prefill_queued_tokens", 2048.0, "queued prompt tokens (router's count)"),
    Feature("prefill_queued_prompts", 1.0, "queued prompts (router's count)"),
    Feature("prefill_deflected_requests", 1.0, "queued prompts that decode there too (router's count)"),
    Feature("prefill_decode_batch", 32.0, "decode batch (report)"),
    Feature("prefill_decode_requests", 32.0, "unfinished requests that decode there (router's count)"),
    Feature("prefill_kv_share", 0.1, "KV in use over KV capacity (report)"),
    Feature(
        "prefill_kv_leaving_bytes", 3e8, "KV prefilled there that has not reached its decode node (router's count)"
    ),
)


def write_prefill(values: BytesWriter, one: PrefillOutlook) -> None:
    """Write the values of PREFILL_FEATURES for a candidate."""
    write(values, SET if one.is_decode_node else 0.0)
    write(values, one.queue_s)
    write(values, one.execution_s)
    write(values, one.slack_s)
    write(values, float(one.steps))
    write(values, float(one.cached_tokens))
    write(values, float(one.tokens_ahead))
    write(values, float(one.queued_tokens))
    write(values, float(one.queued_prompts))
    write(values, float(one.deflected_requests))
    write(values, float(one.decode_batch))
    write(values, float(one.decode_requests))
    write(values, one.kv_share)
    write(values, float(one.kv_leaving_bytes))


DECODE_FEATURES: tuple[Feature, ...] = (
    Feature("decode_on_decode_node", 0.0, "its role is decode", "flag"),
    Feature("decode_room_s", 0.5, "predicted wait for room for the request's KV and decode"),
    Feature("decode_slots_left", 16.0, "free decode slots there", "signed"),
    Feature(
        "decode_kv_left",
        0.1,
        "share of the KV capacity left by all requests that decode or will decode there",
        "signed",
    ),
    Feature("decode_join_s", 0.02, "predicted wait for its next step boundary"),
    Feature("decode_step_s", 0.02, "predicted decode step once the request has joined"),
    Feature("decode_shared_step_s", 0.02, "the same with prompt tokens in the step, if prompts are ahead there"),
    Feature("decode_unplanned", 0.0, 'prompts without a chunk plan are queued there (`step_budget="fixed"`)', "flag"),
    Feature("decode_cached_tokens", 512.0, "prompt tokens in its prefix cache"),
    Feature("decode_queued_tokens", 2048.0, "queued prompt tokens (router's count)"),
    Feature("decode_batch", 32.0, "decode batch (report)"),
    Feature("decode_requests", 32.0, "unfinished requests that decode there (router's count)"),
    Feature("decode_requests_behind_least", 2.0, "the same minus those of the least loaded node"),
    Feature("decode_generated_tokens", 128.0, "tokens generated so far, per request decoding there (router's count)"),
    Feature("decode_kv_share", 0.1, "KV in use over KV capacity (report)"),
    Feature("decode_kv_coming_bytes", 3e8, "KV on its way there, or waiting to be sent (router's count)"),
)


def write_decode(values: BytesWriter, one: DecodeOutlook) -> None:
    """Write the values of DECODE_FEATURES for a candidate."""
    write(values, SET if one.is_decode_node else 0.0)
    write(values, one.room_s)
    write(values, float(one.slots_left))
    write(values, one.kv_left)
    write(values, one.join_s)
    write(values, one.step_s)
    write(values, one.shared_step_s)
    write(values, SET if one.unplanned else 0.0)
    write(values, float(one.cached_tokens))
    write(values, float(one.queued_tokens))
    write(values, float(one.decode_batch))
    write(values, float(one.decode_requests))
    write(values, float(one.requests_behind_least))
    write(values, one.generated_tokens)
    write(values, one.kv_share)
    write(values, float(one.kv_coming_bytes))


PAIR_FEATURES: tuple[Feature, ...] = (
    Feature("same_node", 0.0, "one node prefills and decodes", "flag"),
    Feature("ttft_s", 0.25, "predicted TTFT"),
    Feature("ttft_over_slo", 0.25, "the same over the TTFT SLO"),
    Feature("ttft_behind_best_s", 0.05, "predicted TTFT minus the smallest over the feasible choices, at least 0"),
    Feature("transfer_s", 0.05, "predicted KV transfer; 0 if one node does both"),
    Feature(
        "decode_step_over_tbt_slo",
        0.5,
        "predicted decode step (with prompt tokens, if prompts are ahead there) over the TBT SLO",
    ),
    Feature("static_choice", 0.0, "shortest prefill queue and least loaded decode node, as `static` chooses", "flag"),
    Feature("colocated_choice", 0.0, "one node does both, and has the shortest prefill queue, as `colocated`", "flag"),
    Feature("lmetric_choice", 0.0, "one node does both, and has the least tokens times requests, as `lmetric`", "flag"),
    Feature("deflection_choice", 0.0, "a choice of the set `deflection`", "flag"),
    Feature("ttft_behind_deflection_s", 0.05, "predicted TTFT minus the smallest in that set, at least 0"),
    Feature("ttft_over_keeping", 1.0, "predicted TTFT over the smallest of the choices that keep the roles"),
)


def write_pairs(values: BytesWriter, choices: Choices) -> None:
    """Write the values of PAIR_FEATURES, row by row."""
    pairing = choices.pairing
    same_node = pairing.same_node
    transfer_s = choices.transfer_s
    best_ttft_s = choices.best_ttft_s
    ttft_slo_s = choices.request.ttft_slo_s
    tbt_slo_s = choices.request.tbt_slo_s
    over_slo = [one.shared_step_s / tbt_slo_s for one in choices.decode]
    decode_index = pairing.decode_index
    rules = RuleChoices(choices)
    best_deflection_s = rules.best_deflection_s
    best_keeping_s = rules.best_keeping_s
    for row, ttft_s in enumerate(choices.ttft_s):
        write(values, SET if same_node[row] else 0.0)
        write(values, ttft_s)
        write(values, ttft_s / ttft_slo_s)
        write(values, ttft_s - best_ttft_s if ttft_s > best_ttft_s else 0.0)
        write(values, transfer_s[row])
        write(values, over_slo[decode_index[row]])
        write(values, SET if rules.static[row] else 0.0)
        write(values, SET if rules.colocated[row] else 0.0)
        write(values, SET if rules.lmetric[row] else 0.0)
        write(values, SET if rules.deflection[row] else 0.0)
        write(values, ttft_s - best_deflection_s if ttft_s > best_deflection_s else 0.0)
        write(values, ttft_s / best_keeping_s)


CHOICE_FEATURES: tuple[Feature, ...] = (*PREFILL_FEATURES, *DECODE_FEATURES, *PAIR_FEATURES)
"""The features of a choice's row, in order."""


def packed_values(choices: Choices) -> bytes:
    """All values of one observation as little-endian float64.

    The order is: request, global, each prefill candidate, each decode candidate, each row, and a 0 for padding.
    """
    values = BytesWriter()
    write_request(values, choices)
    write_global(values, choices)
    for source in choices.prefill:
        write_prefill(values, source)
    for target in choices.decode:
        write_decode(values, target)
    write_pairs(values, choices)
    write(values, 0.0)
    return values.getvalue()


def packed_mask(choices: Choices, rows: int) -> bytes:
    """The action mask of one observation, one byte per row."""
    mask = BytesWriter()
    for feasible in choices.feasible:
        mask.append(1 if feasible else 0)
    for _ in range(rows - len(choices)):
        mask.append(0)
    return mask.getvalue()


def table(features: Sequence[Feature], first: int = 0) -> str:
    """A Markdown table of the features with their index, scale and meaning."""
    rows = ["| index | feature | reference | meaning |", "|---|---|---|---|"]
    for index, one in enumerate(features, start=first):
        scale = {"from 0": f"{one.reference:g}", "signed": f"{one.reference:g}, signed", "flag": "flag"}[one.kind]
        rows.append(f"| {index} | `{one.name}` | {scale} | {one.meaning} |")
    return "\n".join(rows)
