"""Algorithm selection (Rice 1976): which of several policies places requests, by its expected regret.

The members of a portfolio are a trained network and rules. A small model predicts the regret of each member from a
context (`agents.context`); simulations of the recent requests correct the predictions (`agents.hindsight`,
`agents.evidence`). The member with the least regret places the requests. `agents.selection_fit` fits the model.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf, sqrt

import numpy as np

from agents.context import CONTEXT, Context
from agents.decision import Decision
from agents.evidence import Evidence
from agents.hindsight import History, LookBack, at_rate
from agents.simulations import Simulations
from envs.cluster import RequestView, RouterView

NETWORK = "network"
"""The name of the trained network among the members; the others are rules."""

_HYSTERESIS = 0.05  # regret; a change of members costs TTFT, because the requests of the last one are still there
_FIRST, _FIRST_S, _MORE, _MOST_MORE = 100, 5.0, 0.7, 1500
"""Requests and seconds before the first simulation; requests until the next: a share of those so far, and the most."""
_UNFINISHED = 0.35
"""Largest share of unfinished requests: output lengths are not known well enough with more."""
_LIKELY = 3
"""Members in a simulation after the first: those with the least regrets in hindsight, by predictions, and by both; and
the rule with the least by both, whose attainment is the yardstick."""
_FASTER = 1.0


@dataclass(frozen=True, eq=False)
class RegretModel:
    """Networks with two hidden layers that predict the square root of each member's regret; their mean counts.

    Attributes:
        members: NETWORK and names of rules.
        weights: "low" and "high" (K,), the range of contexts in training, to which contexts are clipped; of N networks
            with H hidden units "first.weight" (N, H, K), "first.bias" (N, H), "second.weight" (N, H, H), "second.bias"
            (N, H), "regret.weight" (N, M, H), "regret.bias" (N, M).
    """

    members: tuple[str, ...]
    weights: Mapping[str, np.ndarray]

    @staticmethod
    def shapes(networks: int, hidden: int, members: int) -> dict[str, tuple[int, ...]]:
        """Shape of every weight, by name."""
        size = len(CONTEXT)
        return {
            "low": (size,),
            "high": (size,),
            "first.weight": (networks, hidden, size),
            "first.bias": (networks, hidden),
            "second.weight": (networks, hidden, hidden),
            "second.bias": (networks, hidden),
            "regret.weight": (networks, members, hidden),
            "regret.bias": (networks, members),
        }

    def scaled(self, contexts: np.ndarray) -> np.ndarray:
        """Contexts (..., K), clipped to the range in training and mapped to [-1, 1]."""
        low, high = self.weights["low"], self.weights["high"]
        found: np.ndarray = 2.0 * (np.clip(contexts, low, high) - low) / np.maximum(high - low, 1e-6) - 1.0
        return found

    def predict(self, context: np.ndarray) -> np.ndarray:
        """The predicted regrets (M,) in a context (K,); below 0 where the predicted root is."""
        low, high, first, first_bias, second, second_bias, last, last_bias = self._folded
        hidden = np.tanh(first @ np.minimum(np.maximum(context, low), high) + first_bias)
        networks, size = second_bias.shape
        hidden = np.tanh((second @ hidden.reshape(networks, size, 1))[:, :, 0] + second_bias)
        root = last @ hidden.reshape(-1) + last_bias
        found: np.ndarray = root * np.abs(root)
        return found

    @cached_property
    def _folded(self) -> tuple[np.ndarray, ...]:
        """The same model with fewer operations: without the scaling of contexts and the mean over the networks."""
        w = {name: array.astype(np.float64) for name, array in self.weights.items()}
        first = w["first.weight"].reshape(-1, w["first.weight"].shape[2])
        scale = 2.0 / np.maximum(w["high"] - w["low"], 1e-6)
        offset = -1.0 - scale * w["low"]
        return (
            w["low"],
            w["high"],
            first * scale,
            w["first.bias"].reshape(-1) + first @ offset,
            w["second.weight"],
            w["second.bias"],
            np.concatenate(list(w["regret.weight"]), axis=1) / len(w["regret.weight"]),
            w["regret.bias"].mean(axis=0),
        )


class Selection:
    """The member that places the requests now.

    Every PERIOD_S the model predicts the regrets of the members. With hindsight, the members are also simulated on the
    recent requests, and the results correct the predictions: all members at first, later the most likely ones. A result
    counts only after the time that its simulation takes (`agents.simulations`). Near saturation a slightly higher rate
    may mean an overload, so requests are simulated at the rate of their arrivals and at the upper end of its 68 %
    interval.

    Attributes:
        current: index of the member.
        simulated: requests that have been simulated, summed over the members.

    Args:
        model: predicts the regrets.
        allowed: the members that may be selected; all others are ignored.
        rules: the members that are published rules.
        simulations: runs the simulations; None: no hindsight.
    """

    def __init__(
        self,
        model: RegretModel,
        allowed: Sequence[int],
        rules: Collection[int] = (),
        simulations: Simulations | None = None,
    ) -> None:
        self._model = model
        self._allowed = np.array(allowed)
        self._is_rule = np.array([member in rules for member in allowed])
        self.simulations = simulations
        self.current = int(allowed[0])
        self.simulated = 0
        self._start()

    def _start(self) -> None:
        """Begin a run."""
        self._last_s = -inf
        self._context = Context()
        self._predicted = np.zeros(len(self._allowed))
        self._history = History()
        self._evidence: Evidence | None = None
        self._seen = 0
        self._next = _FIRST
        self._pending: tuple[Sequence[int], int, float] | None = None

    @property
    def began(self) -> bool:
        """Whether a member has been selected."""
        return self._context.seen > 0

    def select(self, decision: Decision) -> int:
        """Select the member that places a request; the result is its index.

        A clock that runs backwards is that of a new run.
        """
        request, view = decision.request, decision.view
        now_s = view.now_s
        if now_s < self._last_s:
            self._start()
        self._last_s = now_s
        due = self._context.is_due(now_s)
        if due:
            self._context.add(view, decision.observation)
            self._predicted = self._model.predict(self._context.mean)[self._allowed]
        if self.simulations is not None:
            due |= self._look_back(request, view, self.simulations)
        if due:
            regret = self._regret()
            best = int(regret.argmin())
            now = self._allowed == self.current
            if self._context.seen == 1 or regret[now] > regret[best] + _HYSTERESIS:
                self.current = int(self._allowed[best])
        return self.current

    def _regret(self) -> np.ndarray:
        """The expected regret of each allowed member."""
        return self._predicted if self._evidence is None else self._evidence.corrected(self._predicted)

    def _look_back(self, request: RequestView, view: RouterView, simulations: Simulations) -> bool:
        """Simulate the recent requests if it is time; returns whether new results count from now on."""
        news = False
        if self._pending is not None and (found := simulations.take(view.now_s)) is not None:
            if self._evidence is None:
                self._evidence = Evidence(self._is_rule)
            members, seen, unfinished = self._pending
            self._evidence.add(members, found, seen, unfinished)
            self._pending = None
            news = True
        due = self._seen >= self._next and self._history.span_s(view.now_s) >= _FIRST_S
        if due and self._pending is None and (unfinished := self._history.unfinished_share(view)) < _UNFINISHED:
            self._next = self._seen + min(_MOST_MORE, int(_MORE * self._seen))
            members = list(range(len(self._allowed)))
            if self._evidence is not None:
                orders = self._regret(), self._evidence.regret, self._predicted
                likely = {int(one) for order in orders for one in order.argsort(kind="stable")[:_LIKELY]}
                rules = np.flatnonzero(self._is_rule)
                members = sorted(likely | {int(one) for one in rules[orders[0][rules].argsort(kind="stable")[:1]]})
            seen = len(self._history)
            rows = self._history.rows(view)
            at_rates = rows, at_rate(rows, 1.0 + _FASTER / sqrt(seen))
            numbers = [int(self._allowed[member]) for member in members]
            wanted = LookBack(at_rates, numbers, view.topology.config, view.topology.lost)
            simulations.start(wanted, view.now_s)
            self.simulated += wanted.requests
            self._pending = members, seen, unfinished
        self._seen += 1
        self._history.add(request)
        return news
