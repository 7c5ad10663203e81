"""The step law: a formula for the time of one step of a continuous-batching engine.

    T = F[n_tok] + (n > 0) * (cP + sum((c_ctx * n_i + c_up) * ctx_i) + c_self * sum(n_i^2) / 2)
                 + (B > 0) * D(B, KV)

n_tok counts every token of the step: n = sum(n_i) chunk tokens, and one for each of the B decoding sequences. n_i and
ctx_i are the new and the context tokens of chunk i; KV is the summed context of the decoding sequences. F is the time
of the work on every token (matrix products, norms); the other terms are attention.

D is piecewise linear in KV, like the measured kernels: a context token of Qwen3-8B on an A100 costs 80 to 140 ns,
depending on batch and context, and one straight line per batch is up to 7 % off. A piece covers about a tenth of its
mean context KV / B. In a run of decode steps B is constant and the mean context grows by one token per step, so the
run's time has a closed form on each piece, and most runs stay on one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from math import inf
from typing import NamedTuple

CONTEXT_GRAIN_TOKENS = 16
"""Pieces of D begin and end at multiples of this mean context, so that a division finds the piece."""


Line = tuple[float, float, float]
"""A piece of D: (base_s, kv_s, end). Up to a summed context of `end` tokens, D = base_s + kv_s * KV seconds."""


class DecodePieces(NamedTuple):
    """D of the step law.

    Attributes:
        piece_at: at index i, the index of the line for mean contexts in [i, i + 1) * `CONTEXT_GRAIN_TOKENS`; longer
            contexts use the last line.
        lines: the lines of each batch at index B, in order of context (none at index 0); the last line's end is inf.
    """

    piece_at: tuple[int, ...]
    lines: tuple[tuple[Line, ...], ...]


@dataclass(frozen=True, slots=True)
class StepLaw:
    """Coefficients of the step law, in plain floats because a simulation evaluates it millions of times.

    Attributes:
        token_time_s: F: seconds for a step of n tokens at index n, 0 <= n <= `max_step_tokens`.
        chunk_const_s: cP, seconds that a step takes more if it has any prompt chunk.
        chunk_context_s: c_ctx, seconds per (new token x context token) of a chunk.
        chunk_reread_s: c_up, seconds per context token of a chunk, however few its new tokens, because latent
            attention projects the whole context up again for each chunk. 0 for other models.
        chunk_self_s: c_self, seconds per pair of new tokens of a chunk; a chunk of n has n^2 / 2 of them.
        decode_const_s: see `decode_kv_s`.
        decode_seq_s: see `decode_kv_s`.
        decode_kv_s: one value per batch, as many as in `token_time_s`. The straight line decode_const_s + decode_seq_s
            * B + decode_kv_s[B] * KV is D if there are no pieces; otherwise it approximates D at ordinary contexts.
        pieces: D; None: D is that straight line.
    """

    # The tables are not hashed, which would take longer than making a cluster; equality compares them.
    token_time_s: tuple[float, ...] = field(repr=False, hash=False)
    chunk_const_s: float
    chunk_context_s: float
    chunk_self_s: float
    decode_const_s: float
    decode_seq_s: float
    decode_kv_s: tuple[float, ...] = field(repr=False, hash=False)
    pieces: DecodePieces | None = field(default=None, repr=False, hash=False)
    chunk_reread_s: float = 0.0

    def __reduce__(self) -> tuple[type["StepLaw"], tuple[object, ...]]:
        # Pickling and deep copying call the constructor: a compiled frozen object cannot be filled later.
        return StepLaw, tuple([getattr(self, each.name) for each in fields(self)])

    @property
    def max_step_tokens(self) -> int:
        """The most tokens one step may hold."""
        return len(self.token_time_s) - 1

    @property
    def max_decode_batch(self) -> int:
        """The most sequences that may decode in one step."""
        return self.max_step_tokens if self.pieces is None else len(self.pieces.lines) - 1

    def decode_line(self, decode_batch: int, decode_kv_tokens: int) -> Line:
        """The piece of D that holds for a batch.

        Args:
            decode_batch: decoding sequences, 1 to `max_decode_batch`.
            decode_kv_tokens: their summed context.
        """
        if self.pieces is None:
            return self.decode_const_s + self.decode_seq_s * decode_batch, self.decode_kv_s[decode_batch], inf
        piece_at, lines = self.pieces
        try:
            return lines[decode_batch][piece_at[decode_kv_tokens // (decode_batch * CONTEXT_GRAIN_TOKENS)]]
        except IndexError:  # beyond the last piece's start
            return lines[decode_batch][-1]

    def attention_s(self, new_tokens: float, context_tokens: float) -> float:
        """Seconds that a chunk's attention adds to its step: the terms with c_ctx, c_up and c_self."""
        context_s = context_tokens * (self.chunk_context_s * new_tokens + self.chunk_reread_s)
        return context_s + self.chunk_self_s * 0.5 * new_tokens * new_tokens

    def attention_growth_s(self, new_tokens: int) -> float:
        """Seconds by which `attention_s` grows from one chunk of a prompt to the next equal one."""
        return new_tokens * (self.chunk_context_s * new_tokens + self.chunk_reread_s)

    def decode_s(self, decode_batch: int, decode_kv_tokens: float) -> float:
        """D(B, KV): seconds that `decode_batch` >= 1 decoding sequences add to their step beyond F of their tokens."""
        base_s, kv_s, _ = self.decode_line(decode_batch, int(decode_kv_tokens))
        return base_s + kv_s * decode_kv_tokens

    def chunk_step_s(
        self, new_tokens: int, context_tokens: float, decode_batch: int = 0, decode_s: float = 0.0
    ) -> float:
        """Seconds for a step with one chunk.

        Args:
            new_tokens: tokens of the chunk, >= 1.
            context_tokens: tokens of its prompt that are already computed.
            decode_batch: sequences that decode in the step.
            decode_s: D(B, KV) of these sequences, seconds; 0 without any.
        """
        step_s = self.token_time_s[new_tokens + decode_batch] + self.chunk_const_s + decode_s
        # attention_s inlined: a router's decision makes dozens of these calls.
        step_s += context_tokens * (self.chunk_context_s * new_tokens + self.chunk_reread_s)
        return step_s + self.chunk_self_s * 0.5 * new_tokens * new_tokens

    def largest_chunk(
        self, limit_s: float, step_tokens: int, context_tokens: int, most_tokens: int, grain_tokens: int
    ) -> int:
        """The largest chunk that keeps a step within a time: `most_tokens`, or else a multiple of `grain_tokens`.

        Args:
            limit_s: seconds allowed for the parts of the step that depend on the chunk: F of all the step's tokens and
                the chunk's attention.
            step_tokens: tokens of the step without the chunk.
            context_tokens: tokens of the chunk's prompt that are already computed.
            most_tokens: the largest chunk allowed; >= 1.
            grain_tokens: >= 1.

        Returns:
            0 if not even `grain_tokens` tokens fit. Step times must not fall with the number of tokens.
        """
        table = self.token_time_s
        per_token_s = self.chunk_context_s * context_tokens
        half_self_s = 0.5 * self.chunk_self_s
        limit_s -= self.chunk_reread_s * context_tokens
        if table[step_tokens + most_tokens] + most_tokens * (per_token_s + half_self_s * most_tokens) <= limit_s:
            return most_tokens
        low = 0
        high = (most_tokens - 1) // grain_tokens  # multiples of the grain below most_tokens
        while low < high:
            middle = (low + high + 1) // 2
            n = middle * grain_tokens
            if table[step_tokens + n] + n * (per_token_s + half_self_s * n) <= limit_s:
                low = middle
            else:
                high = middle - 1
        return low * grain_tokens

    def time_s(self, chunks: Sequence[tuple[int, int]], decode_batch: int, decode_kv_tokens: float) -> float:
        """Seconds for one step.

        Args:
            chunks: (new_tokens, context_tokens) of each prompt chunk in the step; may be empty.
            decode_batch: sequences that decode one token each in the step.
            decode_kv_tokens: their summed context in tokens at the start of the step.

        Raises:
            ValueError: the step has more tokens or sequences than the tables, or a count is negative.
        """
        new_tokens = 0
        context_work = 0
        context_tokens = 0
        self_work = 0
        for new, context in chunks:
            new_tokens += new
            context_work += new * context
            context_tokens += context
            self_work += new * new
        tokens = new_tokens + decode_batch
        if decode_batch < 0 or not 0 <= tokens < len(self.token_time_s):
            raise ValueError(f"a step of {tokens} tokens is outside the table, 0 to {self.max_step_tokens}")
        if decode_batch > self.max_decode_batch:
            raise ValueError(f"a decode batch of {decode_batch} is outside the table, 0 to {self.max_decode_batch}")
        seconds = self.token_time_s[tokens]
        if new_tokens:
            seconds += self.chunk_const_s
            seconds += self.chunk_context_s * context_work + self.chunk_reread_s * context_tokens
            seconds += self.chunk_self_s * self_work / 2
        if decode_batch:
            base_s, kv_s, _ = self.decode_line(decode_batch, int(decode_kv_tokens))
            seconds += base_s + kv_s * decode_kv_tokens
        return seconds

    def decode_run_s(self, steps: int, decode_batch: int, decode_kv_tokens: float) -> float:
        """Seconds for `steps` consecutive decode steps at a constant batch, in closed form on each piece of D.

        Each step adds one token to every sequence, so on one piece step i takes kv_s * B * i longer than the first.

        Args:
            steps: number of decode steps, >= 0.
            decode_batch: sequences in each of them, >= 1.
            decode_kv_tokens: their summed context in tokens at the start of the first.

        Raises:
            ValueError: see `time_s`.
        """
        seconds = 0.0
        while steps > 0:
            first_s = self.time_s((), decode_batch, decode_kv_tokens)
            _, kv_s, end = self.decode_line(decode_batch, int(decode_kv_tokens))
            on_piece = steps if end == inf else min(steps, int((end - decode_kv_tokens) // decode_batch) + 1)
            seconds += on_piece * first_s + kv_s * decode_batch * (on_piece * (on_piece - 1) / 2)
            decode_kv_tokens += on_piece * decode_batch
            steps -= on_piece
        return seconds

    def with_overhead(self, step_s: float = 0.0, decode_s: float = 0.0, seq_s: float = 0.0) -> "StepLaw":
        """The same law with steps `step_s` longer; steps with B decodes are another `decode_s + seq_s * B` longer."""
        pieces = self.pieces
        if pieces is not None:
            lines = enumerate(pieces.lines)
            pieces = pieces._replace(
                lines=tuple(
                    tuple([(base + decode_s + seq_s * batch, slope, end) for base, slope, end in of_batch])
                    for batch, of_batch in lines
                )
            )
        return replace(
            self,
            token_time_s=(0.0, *[seconds + step_s for seconds in self.token_time_s[1:]]),
            decode_const_s=self.decode_const_s + decode_s,
            decode_seq_s=self.decode_seq_s + seq_s,
            pieces=pieces,
        )

    def scaled(self, factor: float) -> "StepLaw":
        """The same law with every step `factor` times as long."""
        pieces = self.pieces
        if pieces is not None:
            pieces = pieces._replace(
                lines=tuple(
                    tuple([(base * factor, slope * factor, end) for base, slope, end in of_batch])
                    for of_batch in pieces.lines
                )
            )
        return StepLaw(
            token_time_s=tuple([seconds * factor for seconds in self.token_time_s]),
            chunk_const_s=self.chunk_const_s * factor,
            chunk_context_s=self.chunk_context_s * factor,
            chunk_self_s=self.chunk_self_s * factor,
            chunk_reread_s=self.chunk_reread_s * factor,
            decode_const_s=self.decode_const_s * factor,
            decode_seq_s=self.decode_seq_s * factor,
            decode_kv_s=tuple([seconds * factor for seconds in self.decode_kv_s]),
            pieces=pieces,
        )
