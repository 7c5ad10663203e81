"""The features of an observation, each declared once: its name, its scale, what it means, and how it is computed.

A choice's row holds the features of the node that prefills, of the node that decodes, and of the two together. Times
are in seconds, lengths in tokens, sizes in bytes. `envs.observation` evaluates these; the tables in the environment's
docstring are made from them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from envs.choices import Choices
from envs.cluster.router_counters import RECENT_S
from envs.outlook import DecodeOutlook, PrefillOutlook

T = TypeVar("T")
FloatArray = NDArray[np.float64]
Kind = Literal["from 0", "signed", "flag"]


@dataclass(frozen=True)
class Feature(Generic[T]):
    """One number of an observation.

    Attributes:
        name: its name.
        reference: the value that squashes to 0.41; see `squash`.
        meaning: one line for the tables.
        value: computes it from its part of the choices; of a pair of nodes for all rows at once, shape (C,).
        kind: "from 0": 0 or more. "signed": of either sign; 0 becomes 0.5. "flag": 0 or 1, not squashed.
    """

    name: str
    reference: float
    meaning: str
    value: Callable[[T], float | FloatArray | NDArray[np.bool_]]
    kind: Kind = "from 0"


@dataclass(frozen=True)
class Fading:
    """What the fading sums of the router's counters have come down to by now."""

    choices: Choices
    fast: float
    slow: float
    nodes: int

    @classmethod
    def of(cls, choices: Choices) -> "Fading":
        """The sums at a request's arrival."""
        view = choices.view
        elapsed_s = view.now_s - view.counters.last_arrival_s
        nodes = len(view.topology.prefill_nodes) + len(view.topology.decode_nodes)
        return cls(choices, exp(-elapsed_s / RECENT_S[0]), exp(-elapsed_s / RECENT_S[1]), nodes)


REQUEST_FEATURES: tuple[Feature[Choices], ...] = (
    Feature("prompt_tokens", 512.0, "prompt tokens", lambda c: c.request.prompt_tokens),
    Feature("ttft_slo_s", 1.0, "TTFT SLO", lambda c: c.request.ttft_slo_s),
    Feature("tbt_slo_s", 0.05, "TBT SLO", lambda c: c.request.tbt_slo_s),
    Feature("best_ttft_s", 0.25, "smallest predicted TTFT over the feasible choices", lambda c: c.best_ttft_s),
)

GLOBAL_FEATURES: tuple[Feature[Fading], ...] = (
    Feature(
        "tbt_slo_over_decode_step",
        4.0,
        "TBT SLO over a typical decode step (32 requests with 1,024 tokens of context each)",
        lambda f: f.choices.request.tbt_slo_s / f.choices.view.topology.typical_decode_step_s,
    ),
    Feature(
        "recent_requests_per_node_1s",
        2.0,
        "requests placed lately per node, fading over 1 s",
        lambda f: f.choices.view.counters.requests_fast * f.fast / f.nodes,
    ),
    Feature(
        "recent_requests_per_node_10s",
        20.0,
        "the same over 10 s",
        lambda f: f.choices.view.counters.requests_slow * f.slow / f.nodes,
    ),
    Feature(
        "recent_prompt_tokens_per_node_1s",
        4096.0,
        "their prompt tokens per node, fading over 1 s",
        lambda f: f.choices.view.counters.tokens_fast * f.fast / f.nodes,
    ),
    Feature(
        "recent_prompt_tokens_per_node_10s",
        40960.0,
        "the same over 10 s",
        lambda f: f.choices.view.counters.tokens_slow * f.slow / f.nodes,
    ),
    Feature(
        "queued_prompt_tokens_per_node",
        1024.0,
        "prompt tokens dispatched and not yet prefilled, per node (router's count)",
        lambda f: sum(f.choices.view.counters.queued_prompt_tokens) / f.nodes,
    ),
    Feature(
        "unfinished_requests_per_node",
        16.0,
        "unfinished requests per node (router's count)",
        lambda f: sum(f.choices.view.counters.decode_requests) / f.nodes,
    ),
    Feature(
        "deflected_requests_per_node",
        0.25,
        "queued prompts per node that are to decode where they are prefilled (router's count)",
        lambda f: sum(f.choices.view.counters.deflected_requests) / f.nodes,
    ),
    Feature(
        "kv_share",
        0.1,
        "KV in use over KV capacity, mean over the nodes that are candidates (reports)",
        lambda f: sum([one.kv_share for one in f.choices.decode]) / len(f.choices.decode),
    ),
    Feature(
        "generated_tokens",
        128.0,
        "tokens given so far to a request that decodes, mean over the nodes that are candidates (router's count)",
        lambda f: sum([one.generated_tokens for one in f.choices.decode]) / len(f.choices.decode),
    ),
    Feature(
        "finished_output_tokens",
        128.0,
        "mean output length of finished requests, each counting 1 % less after each later one (router's count)",
        lambda f: f.choices.view.counters.finished_output_tokens / max(1.0, f.choices.view.counters.finished_requests),
    ),
    Feature(
        "prefill_share_of_nodes",
        0.5,
        "share of the nodes that are prefill nodes",
        lambda f: len(f.choices.view.topology.prefill_nodes) / f.nodes,
    ),
)

PREFILL_FEATURES: tuple[Feature[PrefillOutlook], ...] = (
    Feature("prefill_on_decode_node", 0.0, "its role is decode", lambda n: n.is_decode_node, "flag"),
    Feature("prefill_queue_s", 0.1, "predicted wait for the prompts ahead", lambda n: n.queue_s),
    Feature("prefill_execution_s", 0.1, "predicted execution of the prompt", lambda n: n.execution_s),
    Feature(
        "prefill_tbt_slack_s",
        0.02,
        "TBT slack of the requests decoding there: time promised to a step minus the longest step made here",
        lambda n: n.slack_s,
        "signed",
    ),
    Feature("prefill_steps", 2.0, "steps of the prefill", lambda n: n.steps),
    Feature("prefill_cached_tokens", 512.0, "prompt tokens in its prefix cache", lambda n: n.cached_tokens),
    Feature(
        "prefill_tokens_ahead",
        2048.0,
        "prompt tokens ahead (report, and what was dispatched since)",
        lambda n: max(0, n.report.prefill_tokens_ahead),
    ),
    Feature("prefill_queued_tokens", 2048.0, "queued prompt tokens (router's count)", lambda n: n.queued_prompt_tokens),
    Feature("prefill_queued_prompts", 1.0, "queued prompts (router's count)", lambda n: n.queued_prompts),
    Feature(
        "prefill_deflected_requests",
        1.0,
        "queued prompts that are to decode there too (router's count)",
        lambda n: n.deflected_requests,
    ),
    Feature("prefill_decode_batch", 32.0, "decode batch (report)", lambda n: n.report.decode_batch),
    Feature(
        "prefill_decode_requests",
        32.0,
        "unfinished requests that decode there (router's count)",
        lambda n: n.decode_requests,
    ),
    Feature("prefill_kv_share", 0.1, "KV in use over KV capacity (report)", lambda n: n.kv_share),
    Feature(
        "prefill_kv_leaving_bytes",
        3e8,
        "KV prefilled there that has not reached its decode node (router's count)",
        lambda n: n.kv_leaving_bytes,
    ),
)

DECODE_FEATURES: tuple[Feature[DecodeOutlook], ...] = (
    Feature("decode_on_decode_node", 0.0, "its role is decode", lambda n: n.is_decode_node, "flag"),
    Feature("decode_room_s", 0.5, "predicted wait for room for its KV and decode", lambda n: n.room_s),
    Feature("decode_slots_left", 16.0, "requests that may still decode there", lambda n: n.slots_left, "signed"),
    Feature(
        "decode_kv_left",
        0.1,
        "share of the KV capacity left by all requests that decode or are to decode there",
        lambda n: n.kv_left,
        "signed",
    ),
    Feature("decode_join_s", 0.02, "predicted wait for its next step boundary", lambda n: n.join_s),
    Feature("decode_step_s", 0.02, "predicted decode step once the request has joined", lambda n: n.step_s),
    Feature(
        "decode_shared_step_s",
        0.02,
        "the same with prompt tokens in the step if prompts are ahead there",
        lambda n: n.shared_step_s,
    ),
    Feature(
        "decode_unplanned",
        0.0,
        'prompts without a chunk plan are queued there (`step_budget="fixed"`)',
        lambda n: n.unplanned,
        "flag",
    ),
    Feature("decode_cached_tokens", 512.0, "prompt tokens in its prefix cache", lambda n: n.cached_tokens),
    Feature("decode_queued_tokens", 2048.0, "queued prompt tokens (router's count)", lambda n: n.queued_prompt_tokens),
    Feature("decode_batch", 32.0, "decode batch (report)", lambda n: n.report.decode_batch),
    Feature(
        "decode_requests", 32.0, "unfinished requests that decode there (router's count)", lambda n: n.decode_requests
    ),
    Feature(
        "decode_requests_behind_least",
        2.0,
        "the same minus those of the least loaded node",
        lambda n: n.requests_behind_least,
    ),
    Feature(
        "decode_generated_tokens",
        128.0,
        "tokens given so far, per request decoding there (router's count)",
        lambda n: n.generated_tokens,
    ),
    Feature("decode_kv_share", 0.1, "KV in use over KV capacity (report)", lambda n: n.kv_share),
    Feature(
        "decode_kv_coming_bytes",
        3e8,
        "KV on its way there, or waiting to be sent (router's count)",
        lambda n: n.kv_coming_bytes,
    ),
)

PAIR_FEATURES: tuple[Feature[Choices], ...] = (
    Feature("same_node", 0.0, "one node prefills and decodes", lambda c: c.same_node, "flag"),
    Feature("ttft_s", 0.25, "predicted TTFT", lambda c: c.ttft_s),
    Feature("ttft_over_slo", 0.25, "the same over the TTFT SLO", lambda c: c.ttft_s / c.request.ttft_slo_s),
    Feature(
        "ttft_behind_best_s",
        0.05,
        "the same minus the smallest over the feasible choices, 0 if it is less",
        lambda c: np.maximum(0.0, c.ttft_s - c.best_ttft_s),
    ),
    Feature("transfer_s", 0.05, "predicted KV transfer; 0 on one node", lambda c: c.transfer_s),
    Feature(
        "decode_step_over_tbt_slo",
        0.5,
        "predicted decode step, with prompt tokens if prompts are ahead there, over the TBT SLO",
        lambda c: np.array([one.shared_step_s for one in c.decode])[c.decode_index] / c.request.tbt_slo_s,
    ),
)

CHOICE_FEATURES: tuple[Feature[Any], ...] = (*PREFILL_FEATURES, *DECODE_FEATURES, *PAIR_FEATURES)
"""The features of a choice's row, in order."""


def table(features: Sequence[Feature[Any]], first: int = 0) -> str:
    """The features as a Markdown table, with their index, scale and meaning."""
    rows = ["| index | feature | reference | meaning |", "|---|---|---|---|"]
    for index, one in enumerate(features, start=first):
        scale = {"from 0": f"{one.reference:g}", "signed": f"{one.reference:g}, signed", "flag": "flag"}[one.kind]
        rows.append(f"| {index} | `{one.name}` | {scale} | {one.meaning} |")
    return "\n".join(rows)
