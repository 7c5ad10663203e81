"""What each part of `kairos` is worth: one knob at a time, and deflection without a rule."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from envs.chunk_plan import CHUNK_CANDIDATES
from experiments.markdown import code, table
from experiments.printed import change_of, percent, share_of, signed, time_of, with_interval
from experiments.reproduce.evidence import Evidence, Place, cut, points
from experiments.reproduce.settings import Setting

AGES_MS = (0.0, 50.0, 100.0, 300.0, 1000.0)
SHARES = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7)


class Variant(NamedTuple):
    """A rule to be run.

    Attributes:
        knob: what is varied.
        value: its value, as printed; the published or default one is marked.
        policy: what `policies.make` takes.
        age_ms: of the reports, where it is not the default.
    """

    knob: str
    value: str
    policy: str
    age_ms: float | None = None

    def at(self, place: Place) -> Place:
        """Where it is run, in place of the default."""
        if self.age_ms is None:
            return place
        return place._replace(setting=replace(place.setting, report_age_s=self.age_ms / 1e3))


def _knob(name: str, values: Sequence[object], default: object, shown: str = "") -> list[Variant]:
    return [
        Variant(shown or name, f"{value} (default)", "kairos")
        if value == default
        else Variant(shown or name, str(value), f"kairos:{name}={str(value).lower()}")
        for value in values
    ]


def variants() -> list[Variant]:
    """All of them, knob by knob."""
    default_ms = Setting.report_age_s * 1e3
    return [
        *_knob("alpha", (1.0, 1.3, 2.0, 4.0), 1.3),
        *_knob("beta", (0.7, 0.8, 0.9, 1.0), 1.0),
        *_knob("cap", (1, 2, 4, 8), 1),
        *_knob("transfer", (True, False), True, "transfer counted"),
        *_knob("queue_chunk", ("prompt", "budget"), "prompt", "chunk of the queue wait"),
        Variant("chunk", "greedy (default)", "kairos"),
        *_knob("chunk", sorted(CHUNK_CANDIDATES), None),
        *(
            Variant("report age (ms)", f"{age_ms:g} (default)", "kairos")
            if age_ms == default_ms
            else Variant("report age (ms)", f"{age_ms:g}", "kairos", age_ms)
            for age_ms in AGES_MS
        ),
        *(Variant("share deflected at random", f"{share:g}", f"static-share:share={share:g}") for share in SHARES),
    ]


def ablation_table(evidence: Evidence, place: Place) -> str:
    """A row a variant, beside `static` on the same requests."""
    base = evidence.groups[place]
    rows = []
    for variant in variants():
        runs = evidence.groups[variant.at(place)][variant.policy]
        group = {**base, variant.policy: runs}
        rows.append(
            [
                variant.knob,
                variant.value,
                time_of(runs.estimate("ttft_p95_s")),
                change_of(cut(group, variant.policy)),
                share_of(runs.estimate("slo_attainment")),
                with_interval(points(group, variant.policy), signed(percent)),
                share_of(runs.estimate("tbt_attainment")),
                percent(runs.mean("deflected_share")),
            ]
        )
    header = ["knob", "value", "TTFT P95 (ms)", f"against {code('static')} (%)", "SLO attainment (%)"]
    return table([*header, f"against {code('static')} (points)", "TBT attainment (%)", "deflected (%)"], rows, left=2)
