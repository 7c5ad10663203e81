"""The step law of Dynamo's mock engines, fitted to a hardware profile.

A mock engine adds two lookups: the time of the step's new prompt tokens, and the time of its decodes. So the work that
every step does once, such as reading the weights, is paid twice when prompt tokens and decodes share a step, and a
chunk's attention to earlier chunks costs nothing.

`mocked` is the closest profile with such a law: within 13 % for dense models, and within 40 % for mixtures of experts,
whose decodes grow less than linearly with the batch. The live run and the simulated one next to it both use it, so that
their difference is not one of step times.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hardware_profiles import Profile, StepLaw

_CHUNKS = np.unique(np.geomspace(64, 2048, 24).astype(int))
_BATCHES = np.array([1, 2, 4, 8, 16, 32, 48, 64, 96, 128])
_CONTEXTS = np.array([128, 256, 512, 1024, 2048, 4096])
"""Steps that the law is fitted to: new prompt tokens alone, and decodes alone with these mean contexts."""
BLOCK_TOKENS = 4
"""Tokens of a block of the engines' prefix caches; a node that is handed a prompt over computes at most one block."""
HAND_OVER_TOKENS = 4 * BLOCK_TOKENS
"""So few prompt tokens are those of requests that were handed over (`serving.live_router`), not of a prompt."""
_GRID = 96
"""Points of each axis of the decode table. Between points the engines interpolate."""


class MockLaw(NamedTuple):
    """The law of a mock engine, seconds: a step takes the sum of both parts that it has.

    Attributes:
        prompt_s: of any new prompt tokens, and `token_s` for each of them.
        decode_s: of any decodes, `seq_s` for each sequence, and `kv_s` for each token of their contexts.
    """

    prompt_s: float
    token_s: float
    decode_s: float
    seq_s: float
    kv_s: float

    @classmethod
    def of(cls, law: StepLaw) -> "MockLaw":
        """Fit the parts to a step law, each with the least relative squares."""
        most = law.max_step_tokens
        chunks = _CHUNKS[most >= _CHUNKS]
        prompt_s, token_s = _fit([np.ones(len(chunks)), chunks], [law.time_s([(n, 0)], 0, 0) for n in chunks.tolist()])
        batch, context = (axis.ravel() for axis in np.meshgrid(_BATCHES, _CONTEXTS))
        kv = batch * context
        times_s = [law.time_s((), *step) for step in zip(batch.tolist(), kv.tolist(), strict=True)]
        return cls(prompt_s, token_s, *_fit([np.ones(len(batch)), batch, kv], times_s))

    def step_law(self, like: StepLaw) -> StepLaw:
        """The same as a `StepLaw`, with tables as long as those of another."""
        tokens = like.max_step_tokens + 1
        return StepLaw(
            token_time_s=tuple([self.token_s * n for n in range(tokens)]),
            chunk_const_s=self.prompt_s,
            chunk_context_s=0.0,
            chunk_self_s=0.0,
            decode_const_s=self.decode_s,
            decode_seq_s=self.seq_s - self.token_s,  # the table above has counted a token for each sequence
            decode_kv_s=(self.kv_s,) * tokens,
        )

    def tables(
        self, longest_step: int, kv_capacity_tokens: int, longest_context: int
    ) -> dict[str, NDArray[np.float64]]:
        """The arrays of a mock engine's timing file, milliseconds; its decode axes are KV tokens and mean context.

        Up to HAND_OVER_TOKENS prompt tokens cost nothing but themselves.
        """
        prompts = np.array([1.0, HAND_OVER_TOKENS, HAND_OVER_TOKENS + 1.0, longest_step])
        kv = np.linspace(0.0, kv_capacity_tokens, _GRID)
        contexts = np.geomspace(16.0, longest_context, _GRID)
        decode_s = self.decode_s + self.seq_s * kv[:, None] / contexts[None, :] + self.kv_s * kv[:, None]
        return {
            "prefill_isl": prompts,
            "prefill_ttft_ms": 1e3 * (self.prompt_s * (prompts > HAND_OVER_TOKENS) + self.token_s * prompts),
            "decode_active_kv_tokens": kv,
            "decode_context_length": contexts,
            "decode_itl": 1e3 * decode_s,
        }


def _fit(columns: list[NDArray[np.float64]], times_s: list[float]) -> list[float]:
    """Coefficients of the columns, 0 or more, with the least sum of squared relative errors."""
    from scipy.optimize import nnls

    wanted = np.array(times_s)
    found, _ = nnls(np.stack(columns, axis=1) / wanted[:, None], np.ones(len(wanted)))
    return [float(one) for one in found]


def mocked(profile: Profile) -> Profile:
    """The profile with the law of a mock engine; its name ends in "-mocked"."""
    law = MockLaw.of(profile.law).step_law(profile.law)
    return replace(profile, name=f"{profile.name}-mocked", law=law, kernel_law=law)
