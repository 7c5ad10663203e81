"""A copy of a cluster plays on as the original would, and neither touches the other."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import policies
from envs.cluster import Cluster, ClusterConfig, RequestRecord, RequestView, Request
from envs.generators import generate
from tests.toy import toy_profile


class Player:
    """A cluster under a rule, playing a workload as far as asked."""

    def __init__(self, cluster: Cluster, records: list[RequestRecord], requests: list[tuple], rule: str) -> None:
        self.cluster = cluster
        self.records = records
        self.requests = requests
        self.policy = policies.make(rule)

    def play(self, first: int, last: int) -> None:
        for number in range(first, last):
            arrival_s, prompt_tokens, output_tokens = self.requests[number]
            self.cluster.clock.advance_to(arrival_s)
            placement = self.policy.place(RequestView(number, arrival_s, prompt_tokens, 2.0, 0.1), self.cluster.view())
            self.cluster.submit(Request(number, arrival_s, prompt_tokens, output_tokens, 2.0, 0.1), placement)

    def finish(self) -> tuple[list[RequestRecord], float, float]:
        self.cluster.clock.drain(float("inf"))
        return self.records, self.cluster.waiting_cost(), self.cluster.tbt_cost()


def player(rule: str, seed: int, capacity: int) -> Player:
    workload = generate("burst", rate_rps=18.0, requests=160, seed=seed, max_prompt_tokens=5_000)
    requests = list(
        zip(workload.arrival_s.tolist(), workload.prompt_tokens.tolist(), workload.output_tokens.tolist(), strict=True)
    )
    records: list[RequestRecord] = []
    return Player(Cluster(ClusterConfig(toy_profile(capacity)), records.append), records, requests, rule)


@settings(max_examples=25, deadline=None)
@given(
    rule=st.sampled_from(["static", "kairos", "always-local"]),
    seed=st.integers(0, 1000),
    cut=st.integers(0, 159),
    capacity=st.sampled_from([7_000, 400_000]),
)
def test_a_copy_plays_on_as_the_original_would(rule: str, seed: int, cut: int, capacity: int) -> None:
    alone = player(rule, seed, capacity)
    alone.play(0, 160)
    expected = alone.finish()

    original = player(rule, seed, capacity)
    original.play(0, cut)
    before = list(original.records)
    copied: list[RequestRecord] = []
    twin = Player(original.cluster.copy(copied.append), copied, original.requests, rule)
    twin.play(cut, 160)
    found = twin.finish()
    assert before + found[0] == expected[0]
    assert found[1:] == pytest.approx(expected[1:], rel=1e-12)

    # The original has not noticed.
    original.play(cut, 160)
    assert original.finish() == expected


def test_a_copy_costs_what_is_in_flight_not_what_has_been() -> None:
    early, late = player("static", 1, 400_000), player("static", 1, 400_000)
    early.play(0, 20)
    late.play(0, 160)
    for one in (early, late):
        one.cluster.clock.drain(float("inf"))
        twin = one.cluster.copy(lambda _: None)
        assert not twin.lifecycle.in_flight
        assert len(twin.gaps.columns()) == 0
        assert sum(len(engine.history) for engine in twin.engines) < 200
