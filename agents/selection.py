"""Algorithm selection (Rice 1976): which of several policies places requests, by its expected regret.

The members of a portfolio are a trained network, costs and rules. A small model predicts the regret of each member from
a context (`agents.context`), and the member with the least regret places the requests. `agents.selection_fit` fits the
model, and `agents.experience` corrects it while it is used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf

import numpy as np

from agents.context import CONTEXT, Context
from agents.experience import Experience
from agents.regret import MISSED
from envs.cluster import RequestView, RouterView

NETWORK = "network"
"""The name of the trained network among the members; the others are costs and rules."""

_LEAST_SIZE = 1e-6  # of the range of a part of the contexts that varied in training
_HYSTERESIS = 0.05  # regret; a change of members costs TTFT, because the requests of the last one are still there


@dataclass(frozen=True, eq=False)
class RegretModel:
    """Networks with two hidden layers that predict the square root of each member's regret; their mean counts.

    Attributes:
        members: NETWORK, and names of costs and rules.
        weights: "low" and "high" (K,), the range of contexts in training, to which contexts are clipped; of N networks
            with H hidden units "first.weight" (N, H, K), "first.bias" (N, H), "second.weight" (N, H, H), "second.bias"
            (N, H), "regret.weight" (N, M, H), "regret.bias" (N, M). Models that were fitted to misses, too, have
            "missed.weight" (N, M, H) and "missed.bias" (N, M), which predict the logarithm of MISSED plus the share of
            requests that miss an SLO, and "mean" (M,), the mean regrets in training.
    """

    members: tuple[str, ...]
    weights: Mapping[str, np.ndarray]

    @staticmethod
    def shapes(
        networks: int, hidden: int, members: int, size: int = len(CONTEXT), misses: bool = True
    ) -> dict[str, tuple[int, ...]]:
        """Shape of every weight, by name.

        `size` is that of a context; `misses`: whether the model predicts misses.
        """
        shapes: dict[str, tuple[int, ...]] = {
            "low": (size,),
            "high": (size,),
            "first.weight": (networks, hidden, size),
            "first.bias": (networks, hidden),
            "second.weight": (networks, hidden, hidden),
            "second.bias": (networks, hidden),
            "regret.weight": (networks, members, hidden),
            "regret.bias": (networks, members),
        }
        if misses:
            shapes |= {
                "missed.weight": (networks, members, hidden),
                "missed.bias": (networks, members),
                "mean": (members,),
            }
        return shapes

    @property
    def predicts_misses(self) -> bool:
        """Whether the model predicts shares of missed SLOs."""
        return "mean" in self.weights

    def scaled(self, contexts: np.ndarray) -> np.ndarray:
        """Contexts (..., K), clipped to the range in training and mapped to [-1, 1]."""
        scale, offset = self.scaling
        found: np.ndarray = scale * np.clip(contexts, self.weights["low"], self.weights["high"]) + offset
        return found

    @property
    def scaling(self) -> tuple[np.ndarray, np.ndarray]:
        """Scale and offset (K,) that map the range in training to [-1, 1], and a part that did not vary to -1."""
        low, high = (self.weights[name].astype(np.float64) for name in ("low", "high"))
        size = high - low
        scale = np.where(size > _LEAST_SIZE, 2.0 / np.maximum(size, _LEAST_SIZE), 0.0)
        return scale, -1.0 - scale * low

    def predict(self, context: np.ndarray) -> np.ndarray:
        """The predicted regrets (M,) in a context (K,); below 0 where the predicted root is."""
        root = self._outputs(context)[: len(self.members)]
        found: np.ndarray = root * np.abs(root)
        return found

    def predict_both(self, context: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The predicted regrets (M,), and the predicted shares (M,) of requests that miss an SLO."""
        root, missed = self._outputs(context).reshape(2, len(self.members))
        return root * np.abs(root), np.clip(np.exp(missed) - MISSED, 0.0, 1.0)

    def _outputs(self, context: np.ndarray) -> np.ndarray:
        """The roots (M,) of the regrets, followed by the logarithms (M,) of misses if the model predicts them."""
        low, high, first, first_bias, second, second_bias, last, last_bias = self._folded
        hidden = np.tanh(first @ np.minimum(np.maximum(context, low), high) + first_bias)
        networks, size = second_bias.shape
        hidden = np.tanh((second @ hidden.reshape(networks, size, 1))[:, :, 0] + second_bias)
        found: np.ndarray = last @ hidden.reshape(-1) + last_bias
        return found

    @cached_property
    def _folded(self) -> tuple[np.ndarray, ...]:
        """The same model with fewer operations: without the scaling of contexts and the mean over the networks."""
        w = {name: array.astype(np.float64) for name, array in self.weights.items()}
        first = w["first.weight"].reshape(-1, w["first.weight"].shape[2])
        scale, offset = self.scaling
        parts = ("regret", "missed") if self.predicts_misses else ("regret",)
        last = np.concatenate([w[f"{part}.weight"] for part in parts], axis=1)
        last_bias = np.concatenate([w[f"{part}.bias"] for part in parts], axis=1)
        return (
            w["low"],
            w["high"],
            first * scale,
            w["first.bias"].reshape(-1) + first @ offset,
            w["second.weight"],
            w["second.bias"],
            np.concatenate(list(last), axis=1) / len(last),
            last_bias.mean(axis=0),
        )


class Selection:
    """The member that places the requests now.

    Every PERIOD_S the model predicts the regrets of the members from the context. If it predicts misses, too, the
    regrets are corrected by what the run has shown (`agents.experience`).

    Attributes:
        current: index of the member.

    Args:
        model: predicts the regrets.
        allowed: the members that may be selected; all others are ignored.
        feedback: whether the regrets are corrected.
    """

    def __init__(self, model: RegretModel, allowed: Sequence[int], feedback: bool = True) -> None:
        self._model = model
        self._feedback = feedback and model.predicts_misses
        self._allowed = np.array(allowed)
        self.current = int(allowed[0])
        self._start()

    def _start(self) -> None:
        """Begin a run."""
        self._last_s = -inf
        self._context = Context()
        self._experience = Experience(self._model.weights["mean"]) if self._feedback else None

    @property
    def began(self) -> bool:
        """Whether a member has been selected."""
        return self._context.seen > 0

    def select(self, request: RequestView, view: RouterView) -> int:
        """Select the member that places a request; the result is its index.

        A clock that runs backwards is that of a new run.
        """
        if view.now_s < self._last_s:
            self._start()
        self._last_s = view.now_s
        if self._context.is_due(view.now_s):
            self._context.add(request, view)
            regret = self._regret(view)
            best = int(self._allowed[regret[self._allowed].argmin()])
            if self._context.seen == 1 or regret[self.current] > regret[best] + _HYSTERESIS:
                if self._experience is not None:
                    self._experience.take_over(view)
                self.current = best
        return self.current

    def _regret(self, view: RouterView) -> np.ndarray:
        """The regrets (M,) that are expected now."""
        if self._experience is None:
            return self._model.predict(self._context.mean)
        regret, missed = self._model.predict_both(self._context.mean)
        if self._context.seen > 1:
            self._experience.learn(self.current, float(missed[self.current]), view)
        return self._experience.corrected(regret)
