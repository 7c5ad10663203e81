"""The trained actor in NumPy: the same scores as torch at a fraction of the time a decision.

torch and stable-baselines3 spend most of a single decision on dispatch; this is what a router would run, and
what evaluation times.
"""

from collections.abc import Mapping

import numpy as np

from agents.layout import MASKED_SCORE


class NumpyActor:
    """An Actor's forward pass for one observation, any number of choices.

    Args:
        weights: parameters of an Actor by name, as a policy file holds them.
    """

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        def right_hand(name: str) -> np.ndarray:
            return np.ascontiguousarray(weights[f"{name}.weight"].T)

        self._encode_choice = right_hand("encoder.choice")
        self._encode_context = right_hand("encoder.context")
        self._encode_bias = weights["encoder.context.bias"]
        self._choice = right_hand("choice")
        self._summary = right_hand("summary")
        self._summary_bias = weights["summary.bias"]
        self._score = weights["score.weight"][0]
        self._skip = weights["skip.weight"][0]

    def scores(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the score of every choice, (C,), MASKED_SCORE where the mask is 0.

        Args:
            observation: "request" (R,), "global" (G,), "choices" (C, F) and "action_mask" (C,).
        """
        choices, allowed = observation["choices"], observation["action_mask"] > 0
        context = np.concatenate((observation["request"], observation["global"]))
        embedding = choices @ self._encode_choice
        embedding += context @ self._encode_context + self._encode_bias
        np.maximum(embedding, 0.0, out=embedding)
        present = allowed | choices.any(axis=1)
        existing = embedding if present.all() else embedding[present]
        pool = (existing.sum(axis=0) / np.float32(len(existing)), existing.max(axis=0), context)
        hidden = embedding @ self._choice
        hidden += np.concatenate(pool) @ self._summary + self._summary_bias
        np.maximum(hidden, 0.0, out=hidden)
        scores: np.ndarray = np.where(allowed, hidden @ self._score + choices @ self._skip, np.float32(MASKED_SCORE))
        return scores

    def act(self, observation: Mapping[str, np.ndarray]) -> int:
        """Return the row with the highest score."""
        return int(self.scores(observation).argmax())
