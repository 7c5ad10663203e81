"""Cluster states set by hand or at random, for code that reads a view."""

from math import inf
from typing import Any

from hypothesis import strategies as st

from envs.choices import Choices
from envs.cluster import ClusterConfig, NodeReport, RequestView, RouterCounters, RouterView, Topology
from envs.cluster.config import StepBudget
from tests.toy import toy_profile

IDLE = NodeReport(0, 0, 0, 0, inf)


def decoding(batch: int, kv_tokens: int, tbt_slo_s: float = 0.1) -> NodeReport:
    """The report of a node with decodes."""
    return NodeReport(batch, kv_tokens, 0, kv_tokens, tbt_slo_s)


def behind(prompt_tokens: int) -> NodeReport:
    """The report of a node with prompt tokens to compute."""
    return NodeReport(0, 0, prompt_tokens, prompt_tokens, inf)


def changed(report: NodeReport, **changes: float) -> NodeReport:
    """A report with some values replaced."""
    names = ("decode_batch", "decode_kv_tokens", "prefill_tokens_ahead", "kv_used_tokens", "tbt_slo_s")
    values: dict[str, Any] = {name: getattr(report, name) for name in names}
    return NodeReport(**(values | changes))


def asks(
    prompt_tokens: int, ttft_slo_s: float = 2.0, tbt_slo_s: float = 0.1, number: int = 0, arrival_s: float = 0.0
) -> RequestView:
    """The router's view of a request."""
    return RequestView(number, arrival_s, prompt_tokens, ttft_slo_s, tbt_slo_s)


class HandMade(RouterView):
    """A view without a cluster, whose reports, counts and prefix hits a test sets."""

    def __init__(
        self,
        shape: str,
        *reports: NodeReport,
        hosts: tuple[int, ...] | None = None,
        at_s: float = 0.0,
        step_budget: StepBudget = "fixed",
    ) -> None:
        self.topology = Topology(ClusterConfig(toy_profile(), shape=shape, hosts=hosts, step_budget=step_budget))
        self.counters = RouterCounters(self.topology.nodes)
        self.reports = list(reports) or [IDLE] * self.topology.nodes
        self.has_prefix_caches = True
        self.hits = [0] * self.topology.nodes
        self.generated = [0.0] * self.topology.nodes
        self.speeds = [1.0] * self.topology.nodes
        self.at_s = at_s
        assert len(self.reports) == self.topology.nodes

    @property
    def now_s(self) -> float:
        return self.at_s

    def report(self, node: int) -> NodeReport:
        return self.reports[node]

    def prefix_hit_tokens(self, request: RequestView, node: int) -> int:
        return min(self.hits[node], request.prompt_tokens - 1)

    def mean_generated_tokens(self, node: int) -> float:
        return self.generated[node]

    def measured_speed(self, node: int) -> float:
        return self.speeds[node]

    @classmethod
    def of(cls, view: RouterView, request: RequestView) -> "HandMade":
        """A copy of the router's current view without any reference to the cluster."""
        seen = cls.__new__(cls)
        seen.topology = view.topology
        seen.counters = RouterCounters(view.topology.nodes)
        seen.counters.copy_state(view.counters)
        seen.has_prefix_caches = view.has_prefix_caches
        seen.reports = [view.report(node) for node in range(view.topology.nodes)]
        seen.hits = [view.prefix_hit_tokens(request, node) for node in range(view.topology.nodes)]
        seen.generated = [view.mean_generated_tokens(node) for node in range(view.topology.nodes)]
        seen.at_s = view.now_s
        return seen


def row_of(choices: Choices, prefill_node: int, decode_node: int) -> int:
    """The row of the choice with these prefill and decode nodes."""
    (row,) = [row for row in range(len(choices)) if choices.placement(row)[:2] == (prefill_node, decode_node)]
    return row


_COUNTS = st.integers(0, 40)


@st.composite
def views(draw: st.DrawFn, shape: str | None = None, step_budget: StepBudget = "fixed") -> HandMade:
    """A view with random values of everything that a router sees; no two decode nodes have equal loads."""
    shape = shape or draw(st.sampled_from(["1P1D", "2P2D", "1P3D", "3P1D"]))
    prefill, decode = int(shape[0]), int(shape[2])
    reports = []
    for _ in range(prefill + decode):
        batch = draw(st.integers(0, 64))
        reports.append(
            NodeReport(
                batch,
                batch * draw(st.integers(1, 2000)),
                draw(st.integers(0, 20_000)),
                draw(st.integers(0, 100_000)),
                draw(st.floats(0.012, 0.2)) if batch else float("inf"),
            )
        )
    view = HandMade(shape, *reports, at_s=draw(st.floats(5.0, 20.0)), step_budget=step_budget)
    counters = view.counters
    nodes = prefill + decode
    counters.queued_prompts[:] = draw(st.lists(_COUNTS, min_size=nodes, max_size=nodes))
    counters.queued_prompt_tokens[:] = [n * draw(st.integers(1, 3000)) for n in counters.queued_prompts]
    counters.deflected_requests[prefill:] = draw(st.lists(st.integers(0, 3), min_size=decode, max_size=decode))
    counters.decode_requests[prefill:] = draw(st.lists(_COUNTS, min_size=decode, max_size=decode, unique=True))
    counters.decode_prompt_tokens[:] = [n * draw(st.integers(1, 3000)) for n in counters.decode_requests]
    view.hits = [512 * draw(st.integers(0, 4)) for _ in range(nodes)]
    return view


@st.composite
def mixed_views(draw: st.DrawFn, shape: str | None = None, step_budget: StepBudget = "fixed") -> HandMade:
    """A random view of a cluster on which nodes do both jobs, KV is on its way, and requests have finished."""
    view = draw(views(shape, step_budget))
    counters, nodes = view.counters, view.topology.nodes
    drawn = st.lists(st.integers(0, 40), min_size=nodes, max_size=nodes)
    counters.decode_requests[:] = draw(drawn)
    counters.deflected_requests[:] = [min(n, m) for n, m in zip(draw(drawn), counters.queued_prompts, strict=True)]
    planned = draw(st.lists(st.booleans(), min_size=nodes, max_size=nodes))
    counters.unplanned_prompt_tokens[:] = [
        0 if all_planned else tokens for all_planned, tokens in zip(planned, counters.queued_prompt_tokens, strict=True)
    ]
    counters.kv_leaving_tokens[:] = [500 * n for n in draw(drawn)]
    counters.kv_coming_tokens[:] = [700 * n for n in draw(drawn)]
    counters.finished_requests = draw(st.sampled_from([0.0, 1.0, 1.99, 60.5]))
    counters.finished_output_tokens = counters.finished_requests * draw(st.floats(1.0, 2000.0))
    batches = [report.decode_batch for report in view.reports]
    view.generated = [float(n) if batch else 0.0 for n, batch in zip(draw(drawn), batches, strict=True)]
    return view


requests = st.builds(asks, st.integers(1, 20_000), st.floats(0.1, 5.0), st.floats(0.012, 0.2))
