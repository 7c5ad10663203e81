"""The variants of `kairos`: one knob at a time, and deflection at random."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from envs.chunk_plan import CHUNK_CANDIDATES
from experiments.analysis.paper.paper_evidence import KAIROS, Evidence, Place, SeedRuns, Setting

AGES_MS = (0.0, 50.0, 100.0, 300.0, 1000.0)
SHARES = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7)


class Variant(NamedTuple):
    """A variant to run: a knob with a value, the argument of `PolicySpec.parse`, and the age of reports, if changed."""

    knob: str
    value: str
    policy: str = KAIROS
    age_ms: float | None = None

    @property
    def text(self) -> str:
        """The value in tables and figures, marked if it is the published or default one."""
        return f"{self.value} (default)" if self.policy == KAIROS and self.age_ms is None else self.value

    def at(self, place: Place) -> Place:
        """The place at which the variant is run instead of `place`."""
        if self.age_ms is None:
            return place
        return place._replace(setting=replace(place.setting, report_age_s=self.age_ms / 1e3))

    def runs(self, evidence: Evidence, place: Place) -> SeedRuns:
        """The runs of the variant."""
        return evidence.groups[self.at(place)][self.policy]


def _knob(name: str, values: Sequence[object], default: object, shown: str = "") -> list[Variant]:
    policies = {value: KAIROS if value == default else f"{KAIROS}:{name}={str(value).lower()}" for value in values}
    return [Variant(shown or name, str(value), policy) for value, policy in policies.items()]


def variants() -> list[Variant]:
    """All variants, knob by knob."""
    default_ms = Setting.report_age_s * 1e3
    return [
        *_knob("alpha", (1.0, 1.3, 2.0, 4.0), 1.3),
        *_knob("beta", (0.7, 0.8, 0.9, 1.0), 1.0),
        *_knob("cap", (1, 2, 4, 8), 1),
        *_knob("transfer", (True, False), True, "transfer counted"),
        *_knob("queue_chunk", ("prompt", "budget"), "prompt", "chunk of the queue wait"),
        *_knob("chunk", ("greedy", *sorted(CHUNK_CANDIDATES)), "greedy"),
        *(Variant("report age (ms)", f"{age:g}", KAIROS, None if age == default_ms else age) for age in AGES_MS),
        *(Variant("share deflected at random", f"{share:g}", f"static-share:share={share:g}") for share in SHARES),
    ]


def ablated(evidence: Evidence) -> list[Place]:
    """The places at which every variant was run."""
    groups, several = evidence.groups, variants()
    return [place for place in groups if all(one.policy in groups.get(one.at(place), {}) for one in several)]
