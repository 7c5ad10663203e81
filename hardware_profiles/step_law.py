"""The step law: how long one step of a continuous-batching engine takes.

    T = F[n_tok] + (n > 0) * (cP + c_ctx * sum(n_i * ctx_i) + c_self * sum(n_i^2) / 2)
                 + (B > 0) * (cD + cB * B + cK[B] * KV)

n_tok counts every token of the step (chunk tokens n = sum(n_i) and one for each of the B decoding
sequences), n_i and ctx_i are the new and the context tokens of chunk i, KV is the summed context of the
decoding sequences. F holds what every token passes through (matrix products, norms); the rest is attention.
What a context token costs depends on how many sequences share the GPU's cores (Qwen3-8B on A100: 88 to 112 ps,
highest for one sequence and for 32 to 56), hence cK by batch; a single cK is 2 to 3 % off in decode steps. Within
a run of decode steps B is constant, so the closed form stays.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepLaw:
    """Coefficients of the step law; plain floats, because a simulation evaluates it millions of times.

    Attributes:
        token_time_s: F, dense: seconds for a step of n tokens at index n, 0 <= n <= `max_step_tokens`.
        chunk_const_s: cP, seconds for having any prompt chunk in the step.
        chunk_context_s: c_ctx, seconds per (new token x context token) of a chunk.
        chunk_self_s: c_self, seconds per pair of new tokens of a chunk; a chunk of n has n^2 / 2 of them.
        decode_const_s: cD, seconds for having any decode in the step.
        decode_seq_s: cB, seconds per decoding sequence.
        decode_kv_s: cK, dense: seconds per context token of the decoding sequences, at index B for a batch of
            B; as long as `token_time_s`.
    """

    token_time_s: tuple[float, ...]
    chunk_const_s: float
    chunk_context_s: float
    chunk_self_s: float
    decode_const_s: float
    decode_seq_s: float
    decode_kv_s: tuple[float, ...]

    @property
    def max_step_tokens(self) -> int:
        """The most tokens one step may hold."""
        return len(self.token_time_s) - 1

    def time_s(self, chunks: Sequence[tuple[int, int]], decode_batch: int, decode_kv_tokens: float) -> float:
        """Seconds for one step.

        Args:
            chunks: (new_tokens, context_tokens) of each prompt chunk in the step; may be empty.
            decode_batch: sequences that decode one token each in the step.
            decode_kv_tokens: their summed context in tokens at the start of the step.

        Raises:
            ValueError: the step holds more tokens than the table does, or a negative count.
        """
        new_tokens = 0
        context_work = 0
        self_work = 0
        for new, context in chunks:
            new_tokens += new
            context_work += new * context
            self_work += new * new
        tokens = new_tokens + decode_batch
        if decode_batch < 0 or not 0 <= tokens < len(self.token_time_s):
            raise ValueError(f"a step of {tokens} tokens is outside the table, 0 to {self.max_step_tokens}")
        seconds = self.token_time_s[tokens]
        if new_tokens:
            seconds += self.chunk_const_s
            seconds += self.chunk_context_s * context_work + self.chunk_self_s * self_work / 2
        if decode_batch:
            seconds += self.decode_const_s + self.decode_seq_s * decode_batch
            seconds += self.decode_kv_s[decode_batch] * decode_kv_tokens
        return seconds

    def decode_run_s(self, steps: int, decode_batch: int, decode_kv_tokens: float) -> float:
        """Seconds for `steps` decode steps in a row at a constant batch, in closed form.

        Each step adds one token to every sequence, so step i costs cK[B] * B * i more than the first.

        Args:
            steps: number of decode steps, >= 0.
            decode_batch: sequences in each of them, >= 1.
            decode_kv_tokens: their summed context in tokens at the start of the first.

        Raises:
            ValueError: as `time_s`.
        """
        first_s = self.time_s((), decode_batch, decode_kv_tokens)
        growth_s = self.decode_kv_s[decode_batch] * decode_batch
        return steps * first_s + growth_s * (steps * (steps - 1) / 2)
