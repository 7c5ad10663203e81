"""A dense decoder-only transformer of any shape, with random weights, whose steps can be timed (`measure`)."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.bias import causal_lower_right

from hardware_profiles.step_sources import Step


@dataclass(frozen=True, slots=True)
class Shape:
    """The dimensions of a dense transformer.

    Attributes:
        layers: decoder layers.
        hidden: width of the residual stream.
        heads: query heads.
        kv_heads: key and value heads, a divisor of `heads`.
        head_dim: width of a head.
        ffn: inner width of the gated feed-forward block.
        vocab: entries of the vocabulary.

    Raises:
        ValueError: a count is below 1, or `heads` is not a multiple of `kv_heads`.
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int

    def __post_init__(self) -> None:
        for each in fields(self):
            if getattr(self, each.name) < 1:
                raise ValueError(f"{each.name} must be at least 1")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")

    @property
    def layer_weights(self) -> int:
        """Weights of one layer's matrices: QKV, output, gate and up, down."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return attention + 3 * self.hidden * self.ffn

    @property
    def weights(self) -> int:
        """All weights: layers, embedding and output matrix."""
        return self.layers * self.layer_weights + 2 * self.vocab * self.hidden

    def kv_bytes_per_token(self, element_bytes: int) -> int:
        """Bytes of KV cache per token."""
        return 2 * self.layers * self.kv_heads * self.head_dim * element_bytes

    def flops(self, step: Step) -> int:
        """Floating-point operations of a step's matrix products; a multiplication and its addition count as two."""
        tokens = step.prompts * step.new_tokens + step.batch
        # A new token attends to its context, to the new tokens before it and to itself; scores and values take one
        # product each.
        new_pairs = step.new_tokens * step.context_tokens + step.new_tokens * (step.new_tokens + 1) // 2
        pairs = step.prompts * new_pairs + step.batch * step.decode_context_tokens
        attention = 4 * self.layers * self.heads * self.head_dim * pairs
        logits = 2 * (step.prompts + step.batch) * self.vocab * self.hidden
        return 2 * tokens * self.layers * self.layer_weights + attention + logits

    def bytes_read(self, step: Step, element_bytes: int) -> int:
        """Bytes of weights and KV that a step reads at least once."""
        tokens = step.prompts * (step.new_tokens + step.context_tokens) + step.batch * step.decode_context_tokens
        weights = self.layers * self.layer_weights + self.vocab * self.hidden
        return weights * element_bytes + tokens * self.kv_bytes_per_token(element_bytes)


class Transformer:
    """A transformer with random weights and a pool of KV cache.

    Args:
        shape: the model.
        device: device of weights and cache, e.g. "cuda" or "cpu".
        dtype: type of weights, activations and KV.
        pool_tokens: tokens of KV cache per layer. If the sequences need more, they share parts of it, which does not
            change the number of bytes read.
    """

    def __init__(self, shape: Shape, device: str, dtype: torch.dtype, pool_tokens: int) -> None:
        self.shape = shape
        self._pool_tokens = pool_tokens

        def normal(*size: int) -> Tensor:
            return torch.randn(size, device=device, dtype=dtype)

        def matrix(rows: int, columns: int) -> Tensor:
            return normal(rows, columns).mul_(columns**-0.5)

        query, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self._embedding = matrix(shape.vocab, shape.hidden)
        self._output = matrix(shape.vocab, shape.hidden)
        self._layers = [
            (
                matrix(query + 2 * kv, shape.hidden),
                matrix(shape.hidden, query),
                matrix(2 * shape.ffn, shape.hidden),
                matrix(shape.hidden, shape.ffn),
                normal(2, pool_tokens, shape.kv_heads, shape.head_dim),
            )
            for _ in range(shape.layers)
        ]

    @torch.inference_mode()
    def step(self, step: Step) -> Tensor:
        """Run one step on made-up tokens; returns logits, shape (prompts + batch, vocab)."""
        chunk_tokens = step.prompts * step.new_tokens
        ids = torch.arange(chunk_tokens + step.batch, device=self._embedding.device) % self.shape.vocab
        x = functional.embedding(ids, self._embedding)
        width = (self.shape.hidden,)
        for qkv_weight, out_weight, up_weight, down_weight, pool in self._layers:
            attended = self._attention(functional.linear(functional.rms_norm(x, width), qkv_weight), step, pool)
            x = x + functional.linear(attended, out_weight)
            gate, up = functional.linear(functional.rms_norm(x, width), up_weight).chunk(2, dim=-1)
            x = x + functional.linear(functional.silu(gate) * up, down_weight)
        # Logits of each prompt's last token and of every decode.
        lasts = x[:chunk_tokens].view(step.prompts, -1, self.shape.hidden)[:, -1] if step.prompts else x[:0]
        return functional.linear(functional.rms_norm(torch.cat([lasts, x[chunk_tokens:]]), width), self._output)

    def _attention(self, qkv: Tensor, step: Step, pool: Tensor) -> Tensor:
        """Attention of chunks and of decodes, with one kernel for each; shape (tokens, heads * head_dim)."""
        shape = self.shape
        chunk_tokens = step.prompts * step.new_tokens
        query, key, value = torch.split(
            qkv,
            [shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim, shape.kv_heads * shape.head_dim],
            dim=-1,
        )
        parts = []
        if step.prompts:
            keys, values = self._cached(pool, step.prompts, step.context_tokens)
            new = (step.prompts, step.new_tokens, shape.kv_heads, shape.head_dim)
            keys = torch.cat([keys, key[:chunk_tokens].view(new)], dim=1)
            values = torch.cat([values, value[:chunk_tokens].view(new)], dim=1)
            mask = causal_lower_right(step.new_tokens, step.context_tokens + step.new_tokens)
            parts.append(self._attend(query[:chunk_tokens], step.prompts, keys, values, mask))
        if step.batch:
            keys, values = self._cached(pool, step.batch, step.decode_context_tokens)
            parts.append(self._attend(query[chunk_tokens:], step.batch, keys, values, None))
        return torch.cat(parts)

    def _cached(self, pool: Tensor, sequences: int, context_tokens: int) -> tuple[Tensor, Tensor]:
        """Keys and values of sequences in the pool, shape (sequences, context, kv_heads, head_dim) each."""
        spacing = context_tokens
        if sequences * context_tokens > self._pool_tokens:
            spacing = (self._pool_tokens - context_tokens) // max(1, sequences - 1)
        token = self.shape.kv_heads * self.shape.head_dim
        size = (sequences, context_tokens, self.shape.kv_heads, self.shape.head_dim)
        stride = (spacing * token, token, self.shape.head_dim, 1)
        keys, values = pool
        return keys.as_strided(size, stride), values.as_strided(size, stride, values.storage_offset())

    def _attend(self, query: Tensor, sequences: int, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        shape = self.shape
        queries = query.reshape(sequences, -1, shape.heads, shape.head_dim).transpose(1, 2)
        # Heads share keys and values by views, because the time of copying them would be measured, too.
        attended = functional.scaled_dot_product_attention(
            queries,
            keys.transpose(1, 2),
            values.transpose(1, 2),
            attn_mask=mask,
            enable_gqa=shape.heads != shape.kv_heads,
        )
        return attended.transpose(1, 2).reshape(-1, shape.heads * shape.head_dim)
