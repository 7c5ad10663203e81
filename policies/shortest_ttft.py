"""`shortest-ttft`: the simplest use of the environment's predictions; not from a paper."""

from typing import Any, ClassVar, cast

from envs.choices import Choices, ChoiceSet, check_choice_set
from envs.cluster import Placement, RequestView, RouterView
from hardware_profiles import InputError


class ShortestTTFT:
    """Use the choice with the least predicted TTFT among those that break no running request's TBT SLO.

    A learned policy that does not beat it has learned nothing beyond its features. Under `step_budget="slo"` the engine
    chooses the chunks of a deflection (Sarathi-Serve's stall-free batching, arXiv 2403.02310, with a budget per step),
    and a choice is ruled out if even the smallest chunk would break the SLO.

    Args:
        alpha: a choice that does not keep the roles (prefill on a prefill node, decode on a decode node) is used if its
            TTFT is at most alpha times that of the best choice that keeps them; > 0.
        choices: "deflection": keep the roles, or let a decode node prefill, too (arXiv 2607.02043). "pairs": any node
            may do either job.
        prefix: take cached tokens into account.
    """

    name = "shortest-ttft"
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {
        "alpha": (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0),
        "choices": ("deflection", "pairs"),
    }

    def __init__(self, alpha: float = 1.0, choices: str = "deflection", prefix: bool = True) -> None:
        if not 0.0 < alpha < float("inf"):
            raise InputError(f"shortest-ttft: alpha must be above 0, not {alpha}")
        check_choice_set(choices)
        self._alpha = alpha
        self._choice_set = cast(ChoiceSet, choices)
        self._prefix = prefix

    def place(self, request: RequestView, view: RouterView) -> Placement:
        """Place one request."""
        choices = Choices.of(request, view, self._choice_set, prefix=self._prefix)
        best = choices.soonest()
        if not choices.keeps_roles(best):
            keeping = choices.soonest(keeping_roles=True)
            if keeping >= 0 and choices.ttft_s[best] > self._alpha * choices.ttft_s[keeping]:
                best = keeping
        return choices.placement(best)
