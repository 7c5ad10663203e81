"""Groups of runs, and paired estimates between policies, over seeds or over blocks of one run."""

from math import isnan
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.analysis.bootstrap import BLOCKS
from experiments.analysis.comparison import Groups, Runs, shown_load
from experiments.analysis.metrics import METRIC, METRICS
from experiments.runs.cache import Cache
from experiments.runs.trial import run_trials
from tests.experiments.made_up import MadeUpRequests, outcome, results, trial


def test_an_overview_shows_each_workload_once_or_one_at_all_its_loads() -> None:
    one = results({"static": 1.0}, loads=(1.2, 0.5, 0.9))
    assert list(one.shown) == [("w", 0.5), ("w", 0.9), ("w", 1.2)]
    several = results({"static": 1.0}, loads=(1.2, 0.5, 0.9), workloads=("b", "a"))
    assert list(several.shown) == [("b", 0.9), ("a", 0.9)]
    above = results({"static": 1.0}, loads=(1.2, 1.1), workloads=("a", "b"))
    assert list(above.shown) == [("a", 1.1), ("b", 1.1)]


@given(st.lists(st.floats(0.1, 3), min_size=1))
def test_the_shown_load_is_the_highest_up_to_one_else_the_lowest(loads: list[float]) -> None:
    shown = shown_load(loads)
    assert shown in loads
    assert shown == (max(load for load in loads if load <= 1) if min(loads) <= 1 else min(loads))


def test_groups_keep_the_order_of_policies_and_sort_loads_and_seeds() -> None:
    found = Groups.of(
        [
            outcome(policy, workload, load, seed)
            for seed in (1, 0)
            for workload in ("b", "a")
            for load in (2.0, 1.0)
            for policy in ("random", "static")
        ]
    )
    assert list(found) == [("b", 1.0), ("b", 2.0), ("a", 1.0), ("a", 2.0)]
    assert (found.workloads, found.policies, found.base, found.seeds) == (["b", "a"], ["random", "static"], "static", 2)
    assert all([one.seed for one in runs.outcomes] == [0, 1] for group in found.values() for runs in group.values())
    assert results({"random": 1.0, "kairos": 2.0}).base == "random"


def test_a_crowd_is_cut_to_the_base_and_the_best() -> None:
    names = ["kairos", "random", "round-robin", "always-local", "shortest-ttft", "a:B", "c:D", "e:F", "static"]
    groups = results({name: 9.0 - rank for rank, name in enumerate(names[:-1])} | {"static": 20.0})
    assert groups.base == "static"
    assert groups.highlighted() == names[2:]
    marked = results({"mine=a/policy.npz": 99.0, "lookahead": 98.0, **{name: 1.0 + i for i, name in enumerate(names)}})
    assert {"mine", "lookahead (clairvoyant)", "static"} < set(marked.highlighted())
    assert len(marked.highlighted()) == 7


# ---- one set of requests ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def on_one_trace(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Runs]:
    """Two policies on one set of requests, three seeds."""
    recipe = MadeUpRequests(5, 0.1, 300)
    trials = [
        trial(policy, seed=seed, requests=recipe) for seed in range(3) for policy in ("static", "kairos", "random")
    ]
    (group,) = Groups.of(run_trials(trials, Cache(tmp_path_factory.mktemp("cache")))).values()
    return group


def test_the_estimate_over_blocks_is_the_metric_itself(on_one_trace: dict[str, Runs]) -> None:
    for runs in on_one_trace.values():
        assert runs.same_requests
        first = Runs(runs.outcomes[:1])
        for metric in METRICS:
            assert first.estimate(metric.name).value == pytest.approx(first.mean(metric.name), nan_ok=True)


def test_metrics_that_are_not_of_requests_have_no_interval_on_a_trace(on_one_trace: dict[str, Runs]) -> None:
    for name in ("goodput_rps", "prefill_busy_share", "chunk_steps"):
        assert METRIC[name].sample is None
        value, low, high = on_one_trace["static"].interval(name)
        assert value == on_one_trace["static"].mean(name)
        assert isnan(low)
        assert isnan(high)


def test_repeating_seeds_on_one_trace_adds_no_certainty(on_one_trace: dict[str, Runs]) -> None:
    runs = on_one_trace["static"]
    alone = Runs(runs.outcomes[:1])
    for metric in ("ttft_p95_s", "slo_attainment", "ttft_mean_s"):
        assert runs.estimate(metric).units == BLOCKS
        assert tuple(runs.interval(metric)) == pytest.approx(tuple(alone.interval(metric)), rel=0.02)
    change = runs.change("ttft_p95_s", on_one_trace["kairos"])
    assert 0 < change.low <= change.value <= change.high


def test_a_policy_compared_with_itself_does_not_change(on_one_trace: dict[str, Runs]) -> None:
    for runs in on_one_trace.values():
        assert runs.ratio("ttft_p95_s", runs) == (1.0, 1.0, 1.0)
        assert runs.difference("slo_attainment", runs) == (0.0, 0.0, 0.0)


def test_shares_of_deflected_prompts_count_all_seeds(on_one_trace: dict[str, Runs]) -> None:
    runs = on_one_trace["kairos"]
    records = np.concatenate([requests.records for requests in runs.requests])
    short = records["prompt_tokens"] <= 512
    shares = runs.deflected_by_prompt()
    assert shares[0] == pytest.approx(records["deflected"][short].mean())
    assert isnan(shares[-1])  # no prompt is that long


def test_runs_over_seeds_are_plain_means(tmp_path: Path) -> None:
    trials = [trial("static", seed=seed) for seed in range(3)]
    (group,) = Groups.of(run_trials(trials, Cache(tmp_path))).values()
    runs = group["static"]
    assert not runs.same_requests
    for metric in METRICS:
        assert runs.estimate(metric.name).value == pytest.approx(np.mean(runs.column(metric.name)), nan_ok=True)
    assert runs.total("requests") == sum(one.metrics["requests"] for one in runs.outcomes)
