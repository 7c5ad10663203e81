"""The trained actor in NumPy: the same scores as torch in a fraction of the time per decision.

torch and stable-baselines3 spend most of the time of a single decision on dispatch. A router would run this version,
and evaluation measures its time.
"""

from collections.abc import Mapping

import numpy as np

from agents.layout import MASKED_SCORE


class NumpyActor:
    """The forward pass of an Actor for one observation with any number of choices.

    Args:
        weights: parameters of an Actor by name, as in a policy file.
    """

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        # Converts the layers of 2 x - 1 to layers of x.
        self._choice = np.ascontiguousarray(2.0 * weights["choice.weight"].T)
        self._summary = np.ascontiguousarray(2.0 * weights["summary.weight"].T)
        self._bias = (
            weights["summary.bias"] - weights["choice.weight"].sum(axis=1) - weights["summary.weight"].sum(axis=1)
        )
        self._context = np.ascontiguousarray(2.0 * weights["context.weight"].T)
        self._context_bias = weights["context.bias"] - weights["context.weight"].sum(axis=1)
        self._gate = np.ascontiguousarray(weights["gate.weight"].T)
        self._second = np.ascontiguousarray(weights["second.weight"].T)
        self._second_bias = weights["second.bias"]
        self._score = weights["score.weight"][0]
        self._skip = weights["skip.weight"][0]

    def scores(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the score of every choice, (C,); it is MASKED_SCORE if the mask is 0.

        Args:
            observation: "request" (R,), "global" (G,), "choices" (C, F) and "action_mask" (C,).
        """
        choices, allowed = observation["choices"], observation["action_mask"] > 0
        present = np.count_nonzero(allowed | choices.any(axis=1))
        mean = choices.sum(axis=0) / np.float32(max(1, int(present)))
        summary = np.concatenate((observation["request"], observation["global"], mean, choices.max(axis=0)))
        context = summary @ self._context
        context += self._context_bias
        np.clip(context, -1.0, 1.0, out=context)
        embedding = choices @ self._choice
        embedding += summary @ self._summary + context @ self._gate + self._bias
        np.clip(embedding, -1.0, 1.0, out=embedding)
        hidden = embedding @ self._second
        hidden += self._second_bias
        np.clip(hidden, -1.0, 1.0, out=hidden)
        scores: np.ndarray = np.where(allowed, hidden @ self._score + choices @ self._skip, np.float32(MASKED_SCORE))
        return scores

    def act(self, observation: Mapping[str, np.ndarray]) -> int:
        """Return the row with the highest score."""
        return int(self.scores(observation).argmax())
