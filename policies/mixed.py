"""Predicted times on a node that prefills beside the sequences it decodes; several rules read them.

A step that carries a chunk of c tokens after k tokens of context beside B decoding sequences takes, by the step law,

    T(c, k) = F[c + B] + cP + c_ctx * c * k + c_self * c^2 / 2 + D(B, KV)

and the last term is missing where nothing decodes, so a prefill node is the case B = 0. Sums over the chunks of a
prompt are closed: chunk i of size c has i * c tokens before it.
"""

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from envs.candidates import first_token_s
from envs.cluster import NodeReport, RequestView, RouterView
from envs.predict import CHUNK_CANDIDATES
from hardware_profiles import StepLaw


class Mixed(NamedTuple):
    """What the steps of a node take, as far as its report tells.

    Attributes:
        law: the node's step law.
        batch: sequences decoding there.
        decode_s: D(B, KV), seconds; 0 where nothing decodes.
        growth_s: what D grows by with each step, seconds.
    """

    law: StepLaw
    batch: int
    decode_s: float
    growth_s: float

    @classmethod
    def of(cls, law: StepLaw, report: NodeReport) -> "Mixed":
        """A node by its law and its report."""
        batch = report.decode_batch
        if not batch:
            return cls(law, 0, 0.0, 0.0)
        base_s, kv_s, _ = law.decode_line(batch, report.decode_kv_tokens)
        return cls(law, batch, base_s + kv_s * report.decode_kv_tokens, kv_s * batch)

    @property
    def join_s(self) -> float:
        """Expected wait for the node's next step boundary, seconds: half a step where one decodes."""
        return 0.5 * (self.law.token_time_s[self.batch] + self.decode_s) if self.batch else 0.0

    def step_s(self, chunk_tokens: int, context_tokens: float) -> float:
        """T(c, k), seconds."""
        law = self.law
        return (
            law.token_time_s[chunk_tokens + self.batch]
            + law.chunk_const_s
            + context_tokens * (law.chunk_context_s * chunk_tokens + law.chunk_reread_s)
            + law.chunk_self_s * 0.5 * chunk_tokens * chunk_tokens
            + self.decode_s
        )

    def prefill_s(self, tokens: int, chunk_tokens: int, done_tokens: int = 0) -> float:
        """Seconds to prefill `tokens` tokens, `chunk_tokens` a step, after the first `done_tokens` of their prompt."""
        law, batch, decode_s, _ = self
        context_s = law.chunk_context_s
        reread_s = law.chunk_reread_s
        half_self_s = 0.5 * law.chunk_self_s
        every_s = law.chunk_const_s + decode_s
        full, rest = divmod(tokens, chunk_tokens)
        total_s = 0.0
        if full:
            mean_context = done_tokens + chunk_tokens * (full - 1) * 0.5
            step_s = law.token_time_s[chunk_tokens + batch] + every_s
            step_s += mean_context * (context_s * chunk_tokens + reread_s)
            total_s = full * (step_s + half_self_s * chunk_tokens * chunk_tokens)
        if rest:
            step_s = law.token_time_s[rest + batch] + every_s
            step_s += (done_tokens + full * chunk_tokens) * (context_s * rest + reread_s)
            total_s += step_s + half_self_s * rest * rest
        return total_s

    def safe_chunk(
        self, prompt_tokens: int, step_s: float, token_budget: int, sizes: Sequence[int] = CHUNK_CANDIDATES
    ) -> int:
        """The largest chunk with which no step of a prompt lasts longer than `step_s` seconds; 0 where none does.

        Full steps only grow longer, as the context and the residents' KV do: the last of them and the rest decide.
        """
        for size in sizes:
            chunk = size if size < prompt_tokens else prompt_tokens
            if chunk + self.batch > token_budget:
                continue
            full, rest = divmod(prompt_tokens, chunk)
            if self.step_s(chunk, chunk * (full - 1)) + self.growth_s * (full - 1) > step_s:
                continue
            if not rest or self.step_s(rest, chunk * full) + self.growth_s * full <= step_s:
                return chunk
        return 0


def shared_queue_s(view: RouterView, node: int, mixed: Mixed, tokens_ahead: int) -> float:
    """Seconds until the prompt tokens ahead on a node are computed where prompts fill steps together.

    L / c * T(c, k) with the engine's token budget as the chunk c, and half the mean length of the prompts queued there
    as the context k, as `envs.candidates` has it.
    """
    if tokens_ahead <= 0:
        return 0.0
    chunk = view.topology.token_budget - mixed.batch
    return tokens_ahead / chunk * mixed.step_s(chunk, 0.5 * mean_queued_tokens(view, node))


def planned_queue_s(view: RouterView, node: int, mixed: Mixed, tokens_ahead: int, chunk_tokens: int) -> float:
    """Seconds until the prompt tokens ahead on a node are computed where each prompt has a plan, `chunk_tokens` a step.

    Prompts with a plan do not share steps: as many prompts of their mean length, one after the other.
    """
    if tokens_ahead <= 0:
        return 0.0
    mean_tokens = mean_queued_tokens(view, node) or tokens_ahead
    return tokens_ahead / mean_tokens * mixed.prefill_s(mean_tokens, chunk_tokens)


def mean_queued_tokens(view: RouterView, node: int) -> int:
    """Mean length of the prompts queued on a node, tokens; 0 where there are none."""
    counters = view.counters
    queued = counters.queued_prompts[node]
    return counters.queued_prompt_tokens[node] // queued if queued else 0


class Remote(NamedTuple):
    """A prefill node as the place for a whole prompt that decodes elsewhere.

    Attributes:
        node: the prefill node.
        mixed: its steps.
        queue_s: predicted wait for its queue, seconds.
        ttft_s: predicted TTFT: queue, execution, KV transfer, and the first decode step.
    """

    node: int
    mixed: Mixed
    queue_s: float
    ttft_s: float


def best_remote(request: RequestView, view: RouterView, decode_node: int) -> Remote:
    """The prefill node with the least predicted TTFT for a request that decodes on `decode_node`."""
    topology = view.topology
    prompt_tokens = request.prompt_tokens
    decode_s = first_token_s(view, decode_node, view.report(decode_node), prompt_tokens)
    best: Remote | None = None
    best_s = inf
    for node in topology.prefill_nodes:
        report = view.report(node)
        mixed = Mixed.of(topology.laws[node], report)
        queue_s = shared_queue_s(view, node, mixed, report.prefill_tokens_ahead)
        ttft_s = queue_s + mixed.prefill_s(prompt_tokens, topology.token_budget - mixed.batch)
        ttft_s += topology.transfer_s(node, decode_node, prompt_tokens) + decode_s
        if ttft_s < best_s:
            best = Remote(node, mixed, queue_s, ttft_s)
            best_s = ttft_s
    assert best is not None  # a cluster has a prefill node
    return best
