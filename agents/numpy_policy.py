"""The trained actor in NumPy: the same scores as torch at a fraction of the time a decision.

torch and stable-baselines3 spend most of a single decision on dispatch; this is what a router would run, and
what evaluation times.
"""

from collections.abc import Mapping

import numpy as np

from agents.layout import MASKED_SCORE


class NumpyActor:
    """An Actor's forward pass for one observation, any number of nodes.

    Args:
        weights: parameters of an Actor by name, as a policy file holds them.
    """

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        def right_hand(name: str) -> np.ndarray:
            return np.ascontiguousarray(weights[f"{name}.weight"].T)

        self._encode_node = right_hand("encoder.node")
        self._encode_bias = weights["encoder.node.bias"]
        self._encode_context = right_hand("encoder.context")
        self._second = right_hand("encoder.second")
        self._second_bias = weights["encoder.second.bias"]
        self._node = right_hand("node")
        self._node_bias = weights["node.bias"]
        self._summary = right_hand("summary")
        self._score = weights["score.weight"][0]
        self._skip = weights["skip.weight"][0]

    def scores(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the score of every node, (N,), MASKED_SCORE where the mask is 0.

        Args:
            observation: "request" (R,), "global" (G,), "nodes" (N, F) and "action_mask" (N,).
        """
        nodes, allowed = observation["nodes"], observation["action_mask"] > 0
        context = np.concatenate((observation["request"], observation["global"]))
        embedding = np.tanh(nodes @ self._encode_node + (context @ self._encode_context + self._encode_bias))
        embedding = np.tanh(embedding @ self._second + self._second_bias)
        present = allowed | nodes.any(axis=1)
        existing = embedding if present.all() else embedding[present]
        pool = (existing.sum(axis=0) / np.float32(len(existing)), existing.max(axis=0), context)
        hidden = np.tanh(embedding @ self._node + (np.concatenate(pool) @ self._summary + self._node_bias))
        scores: np.ndarray = np.where(allowed, hidden @ self._score + nodes @ self._skip, np.float32(MASKED_SCORE))
        return scores

    def act(self, observation: Mapping[str, np.ndarray]) -> int:
        """Return the node with the highest score."""
        return int(self.scores(observation).argmax())
