"""summary.md: what came out, an overview, and each workload in detail, with intervals and figures."""

from collections.abc import Callable, Mapping, Sequence
from itertools import count, pairwise

from experiments.estimates import Runs
from experiments.groups import Group, Groups, base_of, named, of_workload, workloads
from experiments.illustrate import Picture
from experiments.leaders import ATTAINMENT, P95, came_out
from experiments.markdown import bullets, figure, plain, table
from experiments.overview import best, matrix, over_all
from experiments.printed import change_of, counted, ms, name, percent, share_of, signed, time_of, with_interval
from experiments.statistics import Interval
from experiments.tally import PROMPT_BUCKETS


def _verdict(difference: Interval, less_is_better: bool) -> str:
    if not difference.excludes_zero:
        return "undecided"
    return "better" if (difference.value < 0) == less_is_better else "worse"


def _table(
    groups: Groups, header: Sequence[str], row: Callable[[Runs, Group], list[str]], *, without: str | None = None
) -> str:
    """A row a (workload, load, policy), but for the policy `without`; one workload is not named in every row."""
    several = len(workloads(groups)) > 1
    key = ["workload", "load", "policy"] if several else ["load", "policy"]
    rows = [
        [*([plain(workload)] if several else []), f"{load:g}", name(policy), *row(runs, group)]
        for (workload, load), group in groups.items()
        for policy, runs in group.items()
        if policy != without
    ]
    return table([*key, *header], rows, left=len(key)) if rows else ""


def results(groups: Groups) -> str:
    """The table of results."""

    def row(runs: Runs, _: Group) -> list[str]:
        return [
            f"{sum(out.metrics.requests for out in runs.outcomes):,}",
            time_of(runs.estimate("ttft_mean_s")),
            time_of(runs.estimate("ttft_p95_s")),
            time_of(runs.estimate("tbt_p99_s")),
            time_of(runs.estimate("tbt_max_p95_s")),
            share_of(runs.estimate("slo_attainment")),
            f"{runs.mean('goodput_rps_per_gpu'):.2f}",
        ]

    header = [
        "requests",
        "TTFT mean (ms)",
        "TTFT P95 (ms)",
        "TBT P99 (ms)",
        "longest gap P95 (ms)",
        "SLO attainment (%)",
        "goodput (req/s/GPU)",
    ]
    return _table(groups, header, row)


def differences(groups: Groups, against: str) -> str:
    """The table of paired differences from one policy; "" where it was run alone."""

    def row(runs: Runs, group: Group) -> list[str]:
        base = group[against]
        tail, met = runs.difference("ttft_p95_s", base), runs.difference("slo_attainment", base)
        return [
            with_interval(runs.difference("ttft_mean_s", base), signed(ms)),
            with_interval(tail, signed(ms)),
            change_of(runs.ttft_p95_ratio(base)),
            _verdict(tail, less_is_better=True),
            with_interval(met, signed(percent), -1, 1),
            _verdict(met, less_is_better=False),
        ]

    header = [
        "TTFT mean (ms)",
        "TTFT P95 (ms)",
        "TTFT P95 (%)",
        "TTFT P95 is",
        "SLO attainment (points)",
        "attainment is",
    ]
    return _table(groups, header, row, without=against)


def breakdown(groups: Groups) -> str:
    """The table of the parts of TTFT around P95."""

    def row(runs: Runs, _: Group) -> list[str]:
        parts_s = runs.parts_s
        return [ms(parts_s.sum()), *(percent(share) for share in parts_s / parts_s.sum())]

    return _table(groups, ["TTFT (ms)", "queue (%)", "execution (%)", "transfer (%)", "decode wait (%)"], row)


def deflection(groups: Groups) -> str:
    """The table of the prompts that were deflected, by length, and of the KV that moved."""

    def row(runs: Runs, _: Group) -> list[str]:
        return [
            percent(runs.mean("deflected_share")),
            # A nan is not itself: no prompt of this length.
            *("none" if share != share else percent(share) for share in runs.deflected_by_prompt()),
            f"{runs.mean('kv_bytes_moved') / 1e9:,.1f}",
        ]

    edges = [0, *PROMPT_BUCKETS]
    buckets = [f"{low + 1}-{high} (%)" for low, high in pairwise(edges)]
    last = [f"over {edges[-1]} (%)", "KV moved (GB)"]
    return _table(groups, ["deflected (%)", *buckets, *last], row)


CHUNK_STEPS = (
    "A chunk step carries prompt tokens and at least one decode. It is over if it lasts longer than the strictest TBT "
    "SLO among its decodes: because the decodes alone would, because of the minimum that a prompt progresses by (step "
    "budget slo), or because of more prompt tokens than that."
)


def chunk_steps(groups: Groups) -> str:
    """The table of steps that exceed the TBT SLO of their decodes, and why."""

    def row(runs: Runs, _: Group) -> list[str]:
        metrics = [out.metrics for out in runs.outcomes]
        steps = sum(one.chunk_steps for one in metrics)
        over = sum(round(one.chunk_steps * one.chunk_steps_over_slo_share) for one in metrics)
        alone = sum(one.over_slo_decode_alone for one in metrics)
        minimum = sum(one.over_slo_minimum for one in metrics)
        counts = (over, alone, minimum, over - alone - minimum)
        return [f"{steps:,}", *(f"{100 * count / steps:.3f}" if steps else "none" for count in counts)]

    header = ["chunk steps", "over (%)", "decodes alone (%)", "minimum (%)", "more prompt tokens (%)"]
    return _table(groups, header, row)


def upkeep(groups: Groups) -> str:
    """The table of what says whether a run is in order, and what its decisions cost."""

    def row(runs: Runs, _: Group) -> list[str]:
        return [
            f"{sum(out.metrics.censored for out in runs.outcomes):,}",
            f"{sum(out.metrics.rejected for out in runs.outcomes):,}",
            percent(1 - runs.mean("finished_share")),
            f"{runs.mean('preemptions'):,.1f}",
            f"{sum(out.metrics.kv_expired for out in runs.outcomes):,}",
            percent(runs.mean("prefill_busy_share")),
            percent(runs.mean("decode_busy_share")),
            f"{runs.mean('decision_us_p50'):.1f}",
            f"{runs.mean('decision_us_p99'):.1f}",
        ]

    header = [
        "without first token",
        "of them rejected",
        "unfinished (%)",
        "preemptions",
        "KV dropped after the hold",
        "prefill nodes busy (%)",
        "decode nodes busy (%)",
        "decision P50 (us)",
        "decision P99 (us)",
    ]
    return _table(groups, header, row)


def _how(groups: Groups) -> list[str]:
    """What has to be known to read the numbers."""
    one_set = any(runs.same_requests for group in groups.values() for runs in group.values())
    drawn = (
        "the requests of the run, drawn again in twenty blocks of consecutive arrivals, in pairs between policies; "
        "they say nothing about other days of a trace"
        if one_set
        else "seeds, in pairs between policies; a number is the mean over seeds"
    )
    return [
        f"[95 % intervals] are bootstraps over {drawn}. Each is of one comparison; they are not widened for how many "
        "there are. The best of several is picked on the requests that it is measured on, which flatters it a little.",
        "Better, worse and *not told apart* go by the paired difference on the same requests: its interval leaves 0 "
        "out, or it does not.",
        "Attainment counts requests that arrived in the measured window, met their TTFT SLO, finished, and had no gap "
        "above their TBT SLO.",
        "A clairvoyant policy knows what no router can, such as output lengths: a bound, never called best. A learned "
        "one was trained.",
    ]


def _overview(groups: Groups) -> str:
    columns = "at each load" if len(workloads(groups)) == 1 else "at the highest load not above 1 (else the lowest)"
    parts = [
        f"### {measure.title}\n\nBy policy, {columns}; **bold**: best, or not told apart from the best. Rows in order "
        f"of P95 TTFT.\n\n{matrix(groups, measure)}"
        for measure in (P95, ATTAINMENT)
    ]
    if table_of_best := best(groups):
        parts.append(f"### The best by workload and load\n\n{table_of_best}")
    if everything := over_all(groups):
        parts.append(
            "### Over all workloads and loads\n\nA pair is a workload at a load. Interquartile mean: of the middle "
            f"half of all pairs and seeds.\n\n{everything}"
        )
    return "\n\n".join(parts)


def _detail(groups: Groups, bases: Sequence[str]) -> str:
    """The sections of one workload."""
    ((workload, _), *_others) = groups
    base = base_of(groups)
    executed = [float(parts[1] / parts.sum()) for parts in (group[base].parts_s for group in groups.values())]
    span = percent(min(executed)) if len(executed) == 1 else f"{percent(min(executed))} to {percent(max(executed))}"
    labels = {load: next(iter(group.values())).outcomes[0].label for (_, load), group in groups.items()}
    titled = f"### {plain(workload)}:"
    sections = [
        (
            f"{titled} requests, of the first seed",
            bullets(f"load {load:g}: {plain(text)}" for load, text in labels.items()),
        ),
        (f"{titled} results", results(groups)),
        *(
            (f"{titled} against {name(against)}, paired on the same requests", differences(groups, against))
            for against in bases
        ),
        (
            f"{titled} TTFT around P95",
            f"Means over the requests between P94 and P96. Prefill execution is {span} % of {name(base)}'s.\n\n"
            + breakdown(groups),
        ),
        (
            f"{titled} deflection",
            "Shares by prompt tokens.\n\n" + deflection(groups),
        ),
        (f"{titled} steps over the TBT SLO", f"{CHUNK_STEPS}\n\n{chunk_steps(groups)}"),
        (f"{titled} upkeep", upkeep(groups)),
    ]
    return _joined(sections)


def _joined(sections: Sequence[tuple[str, str]]) -> str:
    # A section without a body has nothing to say.
    return "\n\n".join(f"{head}\n\n{body}" for head, body in sections if body)


def summary(
    title: str,
    about: Sequence[str],
    groups: Groups,
    bases: Sequence[str] = (),
    figures: Mapping[str, Sequence[Picture]] | None = None,
    made_by: Sequence[str] = (),
) -> str:
    """The text of summary.md.

    Args:
        title: its heading.
        about: what was run, a line of Markdown each.
        groups: results, see `grouped`.
        bases: policies that the others are compared with; none: `base_of`.
        figures: by workload, and "" for those of all of them; shown from the folder figures beside the summary.
        made_by: where the numbers come from, a line of Markdown each; see `provenance.made_by`.
    """
    against = bases or [base_of(groups)]
    numbers = count(1)

    def pictures(workload: str) -> str:
        shown_figures = (figures or {}).get(workload, ())
        return "\n\n".join(
            figure(f"figures/{one.path.name}", one.alt, f"Figure {next(numbers)}. {one.caption}")
            for one in shown_figures
        )

    seeds = max(len(runs.outcomes) for group in groups.values() for runs in group.values())
    size = ", ".join(
        [
            counted(len(named(groups)), "policy", "policies"),
            counted(len(workloads(groups)), "workload"),
            counted(len({load for _, load in groups}), "load"),
            counted(seeds, "seed"),
        ]
    )
    sections = [
        (f"# {plain(title)}", f"{size}."),
        ("## What came out", came_out(groups)),
        ("## Overview", "\n\n".join(filter(None, [pictures(""), _overview(groups)]))),
        ("## How to read it", bullets([*about, *_how(groups)])),
    ]
    for workload in workloads(groups):
        body = [pictures(workload), _detail(of_workload(groups, workload), against)]
        sections.append((f"## {plain(workload)}", "\n\n".join(filter(None, body))))
    if made_by:
        sections.append(("---\n\n## How this was made", bullets(made_by)))
    return _joined(sections) + "\n"
