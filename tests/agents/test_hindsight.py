"""Hindsight: it repeats what happened, knows only what a router knows, and changes nothing."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import policies
from agents.hindsight import LEAST_REQUESTS, History, at_rate, simulated
from envs.cluster import Cluster, ClusterConfig, Disturbance, Policy, RouterView, request_of, view_of
from envs.generators import generate
from envs.workload import Row, Workload
from hardware_profiles import load_profile

CONFIG = ClusterConfig(load_profile("a100-qwen3-8b"))
RULES = ("static", "lmetric", "arrow:low=1.0,cooldown_s=1.0")
WHOLE = generate("burst", rate_rps=8.0, requests=LEAST_REQUESTS, seed=3)
SHORT = generate("HPLD", rate_rps=8.0, requests=60, seed=4)


def placed(
    workload: Workload, rule: Policy, config: ClusterConfig = CONFIG, drain_s: float = 0.0
) -> tuple[Cluster, History]:
    """A cluster `drain_s` after the last arrival of a workload, and the history of its router."""
    cluster, history = Cluster(config, lambda _: None), History()
    for number, row in enumerate(workload.rows()):
        cluster.clock.advance_to(row[0])
        history.add(view_of(number, row))
        placement = rule.place(view_of(number, row), cluster.view())
        assert placement is not None
        cluster.submit(request_of(number, row), placement)
    cluster.clock.advance_to(cluster.clock.now + drain_s)
    return cluster, history


def rows_of(workload: Workload, view: RouterView) -> list[Row]:
    history = History()
    for number, row in enumerate(workload.rows()):
        history.add(view_of(number, row))
    return history.rows(view)


def test_finished_requests_repeat_their_run_under_every_rule() -> None:
    cluster, history = placed(WHOLE, policies.make("static"), drain_s=600.0)
    assert not cluster.lifecycle.in_flight
    rows = history.rows(cluster.view())
    first_s = float(WHOLE.arrival_s[0])
    assert [row[1:3] for row in rows] == [row[1:3] for row in WHOLE.rows()]
    found = simulated(rows, cluster.topology, [policies.make(rule) for rule in RULES])
    shifted = replace(WHOLE, arrival_s=WHOLE.arrival_s - first_s)
    for index, rule in enumerate(RULES):
        run, _ = placed(shifted, policies.make(rule), drain_s=600.0)
        assert run.misses() == found.missed[index].sum()
    assert (found.ttft_s > 0.0).all()


def test_an_unfinished_request_does_not_show_its_output_length() -> None:
    cluster, _ = placed(SHORT, policies.make("static"))
    unfinished = list(cluster.lifecycle.in_flight)
    assert 3 < len(unfinished) < len(SHORT)
    output_tokens = SHORT.output_tokens.copy()
    output_tokens[unfinished] += 500
    other = replace(SHORT, output_tokens=output_tokens)
    longer, _ = placed(other, policies.make("static"))
    assert set(longer.lifecycle.in_flight) == set(unfinished)
    assert rows_of(other, longer.view()) == rows_of(SHORT, cluster.view())


@given(st.floats(1.0, 1.2))
def test_few_requests_are_repeated_at_the_given_rate(faster: float) -> None:
    workload = replace(SHORT, block_hashes=tuple((number,) for number in range(len(SHORT))))
    cluster, _ = placed(workload, policies.make("static"))
    rows = at_rate(rows_of(workload, cluster.view()), faster)
    assert len(rows) == LEAST_REQUESTS
    arrivals_s = np.array([row[0] for row in rows])
    assert (np.diff(arrivals_s) >= 0.0).all()
    rate_rps = (len(SHORT) - 1) / float(np.ptp(SHORT.arrival_s))
    assert (len(rows) - 1) / arrivals_s[-1] == pytest.approx(faster * rate_rps, rel=0.04)
    assert [row[1:5] for row in rows[:60]] == [row[1:5] for row in rows[60:120]]
    assert len({row[5] for row in rows}) == len(rows)  # a repeated prompt is not in a prefix cache


def test_estimates_make_up_for_short_outputs_that_finish_first() -> None:
    workload = generate("LPHD", rate_rps=15.0, requests=600, seed=5)
    cluster, _ = placed(workload, policies.make("static"))
    unfinished = list(cluster.lifecycle.in_flight)
    assert 0.15 < len(unfinished) / len(workload) < 0.5
    finished_mean = np.delete(workload.output_tokens, unfinished).mean()
    estimated = np.mean([row[2] for row in rows_of(workload, cluster.view())[: len(workload)]])
    assert abs(estimated - workload.output_tokens.mean()) < 0.3 * abs(finished_mean - workload.output_tokens.mean())


def test_hindsight_does_not_know_disturbances_and_changes_nothing() -> None:
    config = replace(CONFIG, disturbances=(Disturbance(at_s=0.0, kind="speed", node=0, factor=0.3),))
    slow, history = placed(SHORT, policies.make("static"), config)
    before = slow.view().counters.queued_prompts.copy(), slow.clock.now, len(slow.lifecycle.in_flight)
    rows = history.rows(slow.view())
    found = simulated(rows, slow.topology, [policies.make("static")])
    expected = simulated(rows, Cluster(CONFIG, lambda _: None).topology, [policies.make("static")])
    assert (found.ttft_s == expected.ttft_s).all()
    assert (slow.view().counters.queued_prompts, slow.clock.now, len(slow.lifecycle.in_flight)) == before


def test_lost_nodes_stay_lost() -> None:
    config = replace(CONFIG, disturbances=(Disturbance(at_s=1.0, kind="loss", node=1),))
    cluster, history = placed(SHORT, policies.make("static"), config)
    rows = history.rows(cluster.view())
    whole = simulated(rows, Cluster(CONFIG, lambda _: None).topology, [policies.make("static")])
    assert simulated(rows, cluster.topology, [policies.make("static")]).ttft_s.mean() > whole.ttft_s.mean()
