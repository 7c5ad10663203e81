"""The trained actor in NumPy: the same scores as torch in a fraction of the time per decision.

torch and stable-baselines3 spend most of the time of a single decision on dispatch. A router would run this version,
and evaluation measures its time.
"""

from collections.abc import Mapping

import numpy as np

from agents.layout import MASKED_SCORE

LOW, HIGH = np.float32(-1.0), np.float32(1.0)


class NumpyActor:
    """The forward pass of an Actor for one observation with any number of choices.

    Args:
        weights: parameters of an Actor by name, as in a policy file.
    """

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        # Converts the layers of 2 x - 1 to layers of x. The two layers of the summary are one product.
        self._choice = np.ascontiguousarray(2.0 * weights["choice.weight"].T)
        both = [weights["summary.weight"], weights["context.weight"]]
        self._summary = np.ascontiguousarray(2.0 * np.concatenate(both).T)
        bias = weights["summary.bias"] - weights["choice.weight"].sum(axis=1) - both[0].sum(axis=1)
        self._bias = np.concatenate((bias, weights["context.bias"] - both[1].sum(axis=1)))
        self._hidden = len(bias)
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
        of_summary = summary @ self._summary
        of_summary += self._bias
        context = of_summary[self._hidden :]
        _clip(context)
        embedding = choices @ self._choice
        embedding += of_summary[: self._hidden] + context @ self._gate
        _clip(embedding)
        hidden = embedding @ self._second
        hidden += self._second_bias
        _clip(hidden)
        scores: np.ndarray = np.where(allowed, hidden @ self._score + choices @ self._skip, np.float32(MASKED_SCORE))
        return scores

    def act(self, observation: Mapping[str, np.ndarray]) -> int:
        """Return the row with the highest score."""
        return int(self.scores(observation).argmax())


def _clip(values: np.ndarray) -> None:
    """Clip to [-1, 1] in place; np.clip checks more than it does here."""
    np.minimum(values, HIGH, out=values)
    np.maximum(values, LOW, out=values)
