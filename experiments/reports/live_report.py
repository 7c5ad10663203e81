"""The part of a report that sets live runs next to simulations."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from experiments.analysis.live_agreement import Agreement, orders
from experiments.analysis.outcome import Outcome
from experiments.reports.columns import Column, bullets, code, plain, table
from experiments.reports.document import Picture, Section
from experiments.reports.figures.live_figures import ttft_scatter

_LEAST = 0.1


def _ms(pair: tuple[float, float]) -> str:
    return f"{1e3 * pair[0]:,.0f} / {1e3 * pair[1]:,.0f}"


COLUMNS: list[Column[Agreement]] = [
    Column("policy", lambda row: code(row.policy), left=True),
    Column("workload", lambda row: plain(row.workload), left=True),
    Column("mean TTFT, ms", lambda row: _ms(row.mean_s)),
    Column("difference (%)", lambda row: f"{100 * row.error:+.1f}"),
    Column("P50, ms", lambda row: _ms(row.p50_s)),
    Column("P95, ms", lambda row: _ms(row.p95_s)),
    Column("correlation", lambda row: f"{row.correlation:.3f}"),
    Column("same placements (%)", lambda row: f"{100 * row.same_placements:.0f}"),
    Column("deflected (%)", lambda row: f"{100 * row.deflected[0]:.0f} / {100 * row.deflected[1]:.0f}"),
    Column("longest KV ready to first token, ms", lambda row: _ms(row.ready_to_first_s)),
    Column("decision P99, us", lambda row: f"{row.decision_us:.0f}"),
]


def order_text(found: Sequence[Agreement]) -> str:
    """One line on whether policies rank alike, and one for each pair that does not."""
    pairs = orders(found, _LEAST)
    turned = [pair for pair in pairs if pair.live <= 0]
    line = (
        f"{len(pairs) - len(turned)} of {len(pairs)} pairs of policies whose simulated mean TTFT differs by more than "
        f"{_LEAST:.0%} have the same order live."
    )
    return bullets([
        line,
        *[
            f"{plain(pair.workload)}: {code(pair.slower.policy)} is {pair.simulated:.0%} slower than "
            f"{code(pair.faster.policy)} in simulation, and {-pair.live:.0%} faster live"
            for pair in turned
        ],
    ])  # fmt: skip


def agreement_sections(
    found: Sequence[Agreement], live: Sequence[Outcome], simulated: Sequence[Outcome]
) -> list[Section]:
    """The sections of the report; `live` and `simulated` are runs of the same requests, in the same order."""
    pictures = [
        Picture(
            f"live-{workload}",
            _figure(workload, live, simulated),
            f"TTFT of single requests, live and simulated, {workload}",
            f"TTFT of each request of {plain(workload)} in simulation (right) and live (up), seconds, logarithmic; all "
            "seeds. Requests of equal TTFT lie on the line.",
        )
        for workload in dict.fromkeys(run.workload for run in live)
    ]
    reading = "Live / simulated. Means over seeds, measured window; the longest wait is that of any request."
    return [("## Live next to simulated", [reading, table(COLUMNS, found), order_text(found), *pictures])]


def _figure(workload: str, live: Sequence[Outcome], simulated: Sequence[Outcome]) -> Figure:
    pairs = [pair for pair in zip(live, simulated, strict=True) if pair[0].workload == workload]
    return ttft_scatter(
        {
            label: [
                tuple(run.requests[0]["first_token_s"] - run.requests[0]["arrival_s"] for run in pair)
                for pair in pairs
                if pair[0].policy.label == label
            ]
            for label in dict.fromkeys(one.policy.label for one, _ in pairs)
        },
        workload,
    )
