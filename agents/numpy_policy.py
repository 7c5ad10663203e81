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
        # The layers over 2 x - 1 as layers over x.
        self._choice = np.ascontiguousarray(2.0 * weights["choice.weight"].T)
        self._summary = np.ascontiguousarray(2.0 * weights["summary.weight"].T)
        self._bias = (
            weights["summary.bias"] - weights["choice.weight"].sum(axis=1) - weights["summary.weight"].sum(axis=1)
        )
        self._second = np.ascontiguousarray(weights["second.weight"].T)
        self._second_bias = weights["second.bias"]
        self._score = weights["score.weight"][0]
        self._skip = weights["skip.weight"][0]

    def scores(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the score of every choice, (C,), MASKED_SCORE where the mask is 0.

        Args:
            observation: "request" (R,), "global" (G,), "choices" (C, F) and "action_mask" (C,).
        """
        choices, allowed = observation["choices"], observation["action_mask"] > 0
        present = np.count_nonzero(allowed | choices.any(axis=1))
        mean = choices.sum(axis=0) / np.float32(max(1, int(present)))
        summary = np.concatenate((observation["request"], observation["global"], mean, choices.max(axis=0)))
        embedding = choices @ self._choice
        embedding += summary @ self._summary + self._bias
        np.clip(embedding, -1.0, 1.0, out=embedding)
        hidden = embedding @ self._second
        hidden += self._second_bias
        np.clip(hidden, -1.0, 1.0, out=hidden)
        scores: np.ndarray = np.where(allowed, hidden @ self._score + choices @ self._skip, np.float32(MASKED_SCORE))
        return scores

    def act(self, observation: Mapping[str, np.ndarray]) -> int:
        """Return the row with the highest score."""
        return int(self.scores(observation).argmax())
