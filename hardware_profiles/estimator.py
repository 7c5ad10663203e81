"""The one adapter to aiconfigurator-core, NVIDIA's estimator over measured kernels (extra `calibrate`).

Version 0.13 renames its namespace, so nothing else in the project imports it. Experiments show that version 0.12 counts
as follows:

- `predict_prefill_latency(prompts, isl, prefix)`: `prompts` prompts, each of `isl - prefix` new tokens over
  `prefix` tokens of context; `isl` includes the prefix.
- `predict_decode_latency(batch, isl, 2)`: one decode step of sequences whose attention reads isl + 1 tokens each,
  the one being computed included (osl counts the prefill's token, so 1 gives no step). In this project the context of
  a decoding sequence is the number of tokens that its attention reads: a decode node that has received a prompt's KV
  reads the prompt's tokens in its first step. A batch's mean context is rounded down, as in NVIDIA's simulator; this
  reproduces the simulator's recordings to the microsecond.
- `mixed_step_latency(ctx_tokens, gen_tokens, isl, osl, prefix)` is a sum of three passes, which
  `mixed_step_breakdown` returns: everything but attention over ctx_tokens + gen_tokens tokens; the attention of
  a whole prompt of `isl` tokens (of which `prefix` are context) divided by ceil(isl / ctx_tokens); and the
  attention of `gen_tokens` decodes that read `isl + osl // 2` tokens each. The chunk's share of attention is thus an
  average over the chunks of an unchunked prompt, exact only if isl == ctx_tokens and prefix == 0. A step with a chunk
  at one context and decodes at another is therefore put together from the separate passes.
"""

import difflib
import importlib.metadata
import logging
from typing import Any, NamedTuple

from hardware_profiles.connectors import Link
from hardware_profiles.errors import InputError
from hardware_profiles.step_law import CONTEXT_GRAIN_TOKENS
from hardware_profiles.step_sources import Step
from hardware_profiles.steps import MAX_STEP_TOKENS

LIBRARY = "aiconfigurator-core"
# vLLM's default --gpu-memory-utilization, and the step limits for which activations are counted.
_MEMORY_FRACTION = 0.9
_ACTIVATION_TOKENS = 2048
_ACTIVATION_SEQUENCES = 256


# Attention was measured at batches that are powers of two, each up to the longest context that fitted on the GPU. The
# library is linear between two such batches, with a jump just below the larger one at contexts that only the smaller
# one was measured at.
_BATCHES = sorted({max(1, 2**power - below) for power in range(10) for below in (0, 1)})
_MAX_CONTEXT_TOKENS = 131072


class KVSize(NamedTuple):
    """KV cache of one engine (all GPUs of its tensor-parallel group).

    Attributes:
        bytes_per_token: bytes per token of context, over all GPUs.
        capacity_tokens: tokens that fit.
        how: how the capacity was computed.
    """

    bytes_per_token: int
    capacity_tokens: int
    how: str


class Estimator:
    """Kernel time of single engine steps for one model on one system, in seconds."""

    def __init__(self, model: str, system: str, backend: str, tp: int) -> None:
        """Compile the library's engine for the model.

        Args:
            model: model id whose configuration the library ships, e.g. "Qwen/Qwen3-8B".
            system: system of the library, e.g. "a100_sxm".
            backend: "vllm", "sglang" or "trtllm".
            tp: GPUs in the tensor-parallel group.

        Raises:
            InputError: the library is not installed, or does not know the model, system or backend.
        """
        try:
            from aiconfigurator_core.sdk import common, memory, perf_database
            from aiconfigurator_core.sdk.engine import EngineHandle
        except ImportError:
            raise InputError(f"{LIBRARY} is not installed: pip install -e .[calibrate]") from None
        # The library warns of kernel lanes and fallback rows on stderr; it raises for models that it cannot serve.
        logging.getLogger("aiconfigurator_core").setLevel(logging.CRITICAL)
        if model not in common.DefaultHFModels:
            close = difflib.get_close_matches(model, common.DefaultHFModels, n=1, cutoff=0.0)[0]
            # For any other id the library would download the model's configuration.
            raise InputError(f"{LIBRARY} ships no configuration of model {model!r}; did you mean {close!r}?")
        slots = perf_database.get_version_slots(system, backend)
        if slots is None:
            raise InputError(f"{LIBRARY} has no measurements of system {system!r} with backend {backend!r}")
        self.library_version = importlib.metadata.version(LIBRARY)
        self.backend_version: str = slots["current"]
        self._system_spec: Any = perf_database.load_system_spec(system)
        self._memory = memory
        self._target = (model, system, backend, self.backend_version)
        self._tp = tp
        try:
            self._handle: Any = EngineHandle.compile(
                model, system, backend, backend_version=self.backend_version, tp_size=tp, moe_tp_size=tp
            )
        except Exception as error:  # the library raises bare Exceptions and AssertionErrors
            raise InputError(_one_line(f"{LIBRARY} cannot serve {model} on {system} with tp {tp}", error)) from error

    @property
    def max_tokens(self) -> int:
        """Tokens of a full chunk plus the largest decode batch."""
        return MAX_STEP_TOKENS

    @property
    def decode_knots(self) -> tuple[list[int], list[int]]:
        """The measured batches, and contexts 10 % apart: the measured contexts are too many for a table."""
        contexts = list(range(0, 128, CONTEXT_GRAIN_TOKENS))
        while contexts[-1] < _MAX_CONTEXT_TOKENS:
            further = max(contexts[-1] + CONTEXT_GRAIN_TOKENS, round(contexts[-1] * 1.1))
            contexts.append(min(further // CONTEXT_GRAIN_TOKENS * CONTEXT_GRAIN_TOKENS, _MAX_CONTEXT_TOKENS))
        return _BATCHES, contexts

    def step_s(self, step: Step) -> float:
        """Time of a step of any kind."""
        if step.averaged:
            return self.averaged_mixed_s(step.new_tokens, step.batch, step.decode_context_tokens)
        if not step.prompts:
            return self.decode_s(step.batch, step.kv_tokens)
        if not step.batch:
            return self.prefill_s(*step[:3])
        return self.mixed_s(*step[:3], step.batch, step.kv_tokens)

    def tokens_s(self, tokens: int) -> float:
        """Time of everything but attention for `tokens` tokens, with logits for the last token of one prompt."""
        return float(self._handle.mixed_step_breakdown(tokens, 0, tokens, 2, 0)[1]) / 1e3

    def prefill_s(self, prompts: int, new_tokens: int, context_tokens: int) -> float:
        """Time of a step of `prompts` chunks, each of `new_tokens` tokens with `context_tokens` of context."""
        isl = new_tokens + context_tokens
        return float(self._handle.predict_prefill_latency(prompts, isl, context_tokens)) / 1e3

    def decode_s(self, batch: int, kv_tokens: int) -> float:
        """Time of a step of `batch` decoding sequences with `kv_tokens` tokens of context in total."""
        return float(self._handle.predict_decode_latency(batch, _isl(batch, kv_tokens), 2)) / 1e3

    def decode_attention_s(self, batch: int, kv_tokens: int) -> float:
        """The part of `decode_s` that is attention."""
        return float(self._handle.mixed_step_breakdown(0, batch, _isl(batch, kv_tokens), 2, 0)[3]) / 1e3

    def mixed_s(self, prompts: int, new_tokens: int, context_tokens: int, batch: int, kv_tokens: int) -> float:
        """Time of a step of `prompts` chunks (as in `prefill_s`) and `batch` decodes (as in `decode_s`)."""
        tokens = prompts * new_tokens
        return (
            self.prefill_s(prompts, new_tokens, context_tokens)
            + (self.tokens_s(tokens + batch) - self.tokens_s(tokens))
            + self.decode_attention_s(batch, kv_tokens)
        )

    def averaged_mixed_s(self, chunk_tokens: int, batch: int, prompt_tokens: int) -> float:
        """Time of the library's own mixed step: an average chunk of a prompt, and decodes at the prompt's length."""
        return float(self._handle.mixed_step_latency(chunk_tokens, batch, prompt_tokens, 2, 0)) / 1e3

    def data_sheet_links(self) -> dict[str, Link]:
        """Links of one GPU of the system by its data sheet."""
        spec = self._system_spec["node"]
        source = f"{LIBRARY} {self.library_version} system file (data sheet, not measured)"
        return {
            end: Link(float(spec["p2p_latency"]), float(spec[f"{end}_bw"]), source)
            for end in ("inter_node", "intra_node")
        }

    def kv_size(self) -> KVSize:
        """KV bytes per token and KV capacity from the library's memory model."""
        limits = {"max_num_tokens": _ACTIVATION_TOKENS, "max_batch_size": _ACTIVATION_SEQUENCES}
        try:
            whole = self._memory.KVCacheEstimator.from_request(*self._target, **limits, tp_size=1, moe_tp_size=1)
            budget = self._memory.estimate_kv_cache(
                *self._target,
                **limits,
                memory_fraction_kind="of_total",
                memory_fraction_value=_MEMORY_FRACTION,
                tp_size=self._tp,
                moe_tp_size=self._tp,
            )
        except ValueError as error:
            raise InputError(_one_line("no KV capacity", error)) from error
        parts = ", ".join(f"{key} {value:,}" for key, value in budget["memory_breakdown"].items())
        how = (
            f"{_MEMORY_FRACTION} of {budget['total_gpu_capacity_bytes']:,} bytes per GPU minus {parts}, over "
            f"{budget['kv_size_per_token_bytes']:,} KV bytes per token and GPU ({LIBRARY}'s memory model)"
        )
        return KVSize(int(whole.breakdown["kv_size_per_token_bytes"]), int(budget["total_kv_size_tokens"]), how)


def _isl(batch: int, kv_tokens: int) -> int:
    return max(1, kv_tokens // batch - 1)


def _one_line(what: str, error: Exception) -> str:
    reason = str(error).splitlines() or [type(error).__name__]
    return f"{what}: {reason[0]}"
