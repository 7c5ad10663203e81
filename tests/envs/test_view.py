"""The router's view: its age, its counts, and no knowledge of the future."""

from inspect import signature
from math import exp, inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import policies
from envs.choices import Choices
from envs.cluster import (
    Cluster,
    ClusterConfig,
    NodeReport,
    Placement,
    Request,
    RequestRecord,
    RequestView,
    RouterView,
    simulate,
)
from envs.cluster.router_counters import FIELDS
from envs.observation import encode
from envs.workload import Workload
from tests.toy import toy_profile

ROOMY, TIGHT = 400_000, 9_000


def workload(seed: int, requests: int = 40, gap_s: float = 0.04) -> Workload:
    rng = np.random.default_rng(seed)
    return Workload.of(
        np.cumsum(rng.exponential(gap_s, requests)),
        rng.integers(10, 4000, requests),
        rng.choice([1, 5, 60, 300], requests),
        tbt_slo_s=rng.choice([0.02, 0.05, 0.1], requests),
        label="random",
    )


def placements(seed: int, requests: int = 40) -> list[Placement]:
    """Random placements on 2P2D; a third are deflected."""
    rng = np.random.default_rng(seed + 1)
    found = []
    for _ in range(requests):
        target = 2 + int(rng.integers(2))
        deflected = rng.random() < 0.35
        found.append(Placement(target, target, (256,)) if deflected else Placement(int(rng.integers(2)), target))
    return found


class Placed:
    """A cluster that gets a workload with given placements, and whose time can be advanced."""

    def __init__(self, seed: int, report_age_s: float, capacity: int = ROOMY) -> None:
        self.records: list[RequestRecord] = []
        config = ClusterConfig(toy_profile(capacity), report_age_s=report_age_s, step_budget="fixed")
        self.cluster = Cluster(config, self.records.append)
        asked = workload(seed)
        columns = (asked.arrival_s, asked.prompt_tokens, asked.output_tokens, asked.ttft_slo_s, asked.tbt_slo_s)
        self._coming = [
            (Request(i, *row), placement)
            for i, (row, placement) in enumerate(
                zip(zip(*[column.tolist() for column in columns], strict=True), placements(seed), strict=True)
            )
        ]
        self.submitted: list[Request] = []

    def view(self, time_s: float) -> RouterView:
        """The router's view at `time_s`, before the arrivals at that time."""
        while self._coming and self._coming[0][0].arrival_s < time_s:
            seq, placement = self._coming.pop(0)
            self.cluster.clock.advance_to(seq.arrival_s)
            self.cluster.submit(seq, placement)
            self.submitted.append(seq)
        self.cluster.clock.advance_to(time_s)
        return self.cluster.view()

    def drain(self) -> list[RequestRecord]:
        self.view(inf)
        return sorted(self.records)


times_s = st.lists(st.floats(0.0, 6.0), min_size=1, max_size=12).map(sorted)
seeds = st.integers(0, 2**32)

# ---- reports --------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(seed=seeds, times_s=times_s, age_s=st.floats(0.001, 0.5), capacity=st.sampled_from([ROOMY, TIGHT]))
def test_an_old_report_equals_the_fresh_report_of_its_time(
    seed: int, times_s: list[float], age_s: float, capacity: int
) -> None:
    old, fresh = Placed(seed, age_s, capacity), Placed(seed, 0.0, capacity)
    for time_s in times_s:
        if time_s > age_s:
            then, now = fresh.view(time_s - age_s), old.view(time_s)
            for node in range(4):
                said, says = then.report(node), now.report(node)
                assert says.decode_batch == said.decode_batch
                assert says.decode_kv_tokens == said.decode_kv_tokens
                assert says.kv_used_tokens == said.kv_used_tokens
                assert says.tbt_slo_s == said.tbt_slo_s


def since_dispatched(seed: int, times_s: list[float], age_s: float, capacity: int) -> None:
    """Prompt tokens ahead are those of the fresh report then, plus the tokens that the router has sent since."""
    old, fresh = Placed(seed, age_s, capacity), Placed(seed, 0.0, capacity)
    for time_s in times_s:
        if time_s > age_s:
            then, now = fresh.view(time_s - age_s), old.view(time_s)
            for node in range(4):
                sent = [
                    seq.prompt_tokens
                    for seq in old.submitted
                    if seq.prefill_node == node and seq.arrival_s >= time_s - age_s
                ]
                expected = then.report(node).prefill_tokens_ahead + sum(sent)
                assert now.report(node).prefill_tokens_ahead == expected


@settings(max_examples=60)
@given(seed=seeds, times_s=times_s, age_s=st.floats(0.001, 0.5))
def test_prompt_tokens_ahead_are_old_ones_plus_dispatched_ones(seed: int, times_s: list[float], age_s: float) -> None:
    since_dispatched(seed, times_s, age_s, ROOMY)


def test_a_preemption_is_not_seen_before_its_report() -> None:
    for seed in range(20):
        since_dispatched(seed, [0.25 * i for i in range(1, 24)], 0.25, TIGHT)


@settings(max_examples=60)
@given(seed=seeds, times_s=times_s)
def test_a_fresh_report_equals_a_recount_of_tokens(seed: int, times_s: list[float]) -> None:
    whole = Placed(seed, 0.0).drain()
    placed = Placed(seed, 0.0)
    for time_s in times_s:
        view = placed.view(time_s)
        for node in range(4):
            report = view.report(node)
            # Requests join a batch one step before their first token; a deflected one with its first token.
            in_batch = [r for r in whole if r.decode_node == node and r.first_token_s <= time_s < r.last_token_s]
            joining = [
                r
                for r in whole
                if r.decode_node == node and not r.deflected and r.kv_ready_s <= time_s < r.first_token_s
            ]
            assert len(in_batch) <= report.decode_batch <= len(in_batch) + len(joining)
            slos_s = [float(workload(seed).tbt_slo_s[r.request]) for r in in_batch]
            assert report.tbt_slo_s <= min(slos_s, default=inf)
            assert (report.tbt_slo_s == inf) == (report.decode_batch == 0)
            # Every token of context is from the prompt or was generated since.
            least = sum(r.prompt_tokens for r in in_batch)
            most = sum(r.prompt_tokens + r.output_tokens for r in in_batch + joining)
            assert least <= report.decode_kv_tokens <= most
            # The tokens not computed yet are at least those of prompts not begun, and at most those of prompts not
            # finished.
            ahead = [r for r in whole if r.prefill_node == node and r.arrival_s < time_s <= r.prefill_end_s]
            begun = [r for r in ahead if r.prefill_start_s < time_s]
            assert report.prefill_tokens_ahead <= sum(r.prompt_tokens for r in ahead)
            assert report.prefill_tokens_ahead >= sum(r.prompt_tokens for r in set(ahead) - set(begun))


def test_a_fresh_report_has_the_kv_that_is_held() -> None:
    placed = Placed(1, 0.0)
    for time_s in np.linspace(0.1, 30.0, 60):
        view = placed.view(float(time_s))
        prefilling = [
            seq for seq in placed.submitted if seq.prefill_node != seq.decode_node and np.isnan(seq.kv_ready_s)
        ]
        for node in (0, 1):
            # On a prefill node KV is held from a prompt's first chunk until its transfer is complete.
            begun = [seq for seq in prefilling if seq.prefill_node == node and seq.prefill_start_s < time_s]
            assert view.report(node).kv_used_tokens >= sum(seq.prompt_tokens for seq in begun)
            if not begun:  # KV sent during a step is reported when the scheduler runs next
                assert view.report(node).kv_used_tokens <= sum(s.prompt_tokens for s in prefilling)


def test_an_empty_cluster_has_empty_reports() -> None:
    view = Cluster(ClusterConfig(toy_profile()), lambda _: None).view()
    for report in map(view.report, range(4)):
        assert (report.decode_batch, report.decode_kv_tokens, report.prefill_tokens_ahead) == (0, 0, 0)
        assert (report.kv_used_tokens, report.tbt_slo_s) == (0, inf)


# ---- counters -------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(seed=seeds, times_s=times_s, capacity=st.sampled_from([ROOMY, TIGHT]))
def test_counters_equal_recounts(seed: int, times_s: list[float], capacity: int) -> None:
    played = Placed(seed, 0.1, capacity)
    whole = played.drain()
    placed = Placed(seed, 0.1, capacity)
    plans = placements(seed)
    asked = workload(seed)
    for time_s in times_s:
        counters = placed.view(time_s).counters
        here = [r for r in whole if r.arrival_s < time_s]
        for node in range(4):
            # A stamp at this time is not seen yet.
            queued = [r for r in here if r.prefill_node == node and time_s <= r.prefill_end_s]
            decodes = [r for r in here if r.decode_node == node and time_s <= r.last_token_s]
            assert counters.queued_prompts[node] == len(queued)
            assert counters.queued_prompt_tokens[node] == sum(r.prompt_tokens for r in queued)
            assert counters.decode_requests[node] == len(decodes)
            assert counters.decode_prompt_tokens[node] == sum(r.prompt_tokens for r in decodes)
            assert counters.deflected_requests[node] == sum(r.deflected for r in queued)
            unplanned = [r for r in queued if not plans[r.request].chunk_plan]
            assert counters.unplanned_prompt_tokens[node] == sum(r.prompt_tokens for r in unplanned)
            moving = [r for r in here if not r.deflected and r.prefill_end_s < time_s <= r.kv_ready_s]
            leaving = [r.prompt_tokens for r in moving if r.prefill_node == node]
            coming = [r.prompt_tokens for r in moving if r.decode_node == node]
            assert counters.kv_leaving_tokens[node] == sum(leaving)
            assert counters.kv_coming_tokens[node] == sum(coming)
        ended = [r for r in reversed(played.records) if r.last_token_s < time_s]  # the latest first
        assert counters.finished_count == len(ended)
        missed = [
            r.first_token_s - r.arrival_s > asked.ttft_slo_s[r.request] or r.tbt_max_s > asked.tbt_slo_s[r.request]
            for r in ended
        ]
        assert counters.missed_count == sum(missed)
        weights = [0.99**later for later in range(len(ended))]
        assert counters.finished_requests == pytest.approx(sum(weights))
        lengths = [weight * r.output_tokens for weight, r in zip(weights, ended, strict=True)]
        assert counters.finished_output_tokens == pytest.approx(sum(lengths))
        if here:
            last_s = here[-1].arrival_s
            assert counters.last_arrival_s == last_s
            for part, fading_s in enumerate((1.0, 10.0)):
                weights = [exp((r.arrival_s - last_s) / fading_s) for r in here]
                assert counters.recent_requests[part] == pytest.approx(sum(weights))
                tokens = [weight * r.prompt_tokens for weight, r in zip(weights, here, strict=True)]
                assert counters.recent_prompt_tokens[part] == pytest.approx(sum(tokens))


@settings(max_examples=60)
@given(seed=seeds, times_s=times_s, age_s=st.sampled_from([0.0, 0.3]))
def test_generated_tokens_are_the_context_beyond_the_prompts(seed: int, times_s: list[float], age_s: float) -> None:
    """The count is up to date, whatever the age of reports."""
    whole = Placed(seed, 0.0).drain()
    fresh, placed = Placed(seed, 0.0), Placed(seed, age_s)
    for time_s in times_s:
        now, view = fresh.view(time_s), placed.view(time_s)
        for node in range(4):
            report = now.report(node)
            in_batch = [r for r in whole if r.decode_node == node and r.first_token_s <= time_s < r.last_token_s]
            if not report.decode_batch:
                assert view.mean_generated_tokens(node) == 0.0
            elif len(in_batch) == report.decode_batch:
                generated = report.decode_kv_tokens - sum(r.prompt_tokens for r in in_batch)
                assert view.mean_generated_tokens(node) == pytest.approx(generated / report.decode_batch)
                assert view.mean_generated_tokens(node) >= 0.0


@given(requests=st.lists(st.integers(0, 5), min_size=3, max_size=3))
def test_the_least_loaded_decode_node_is_the_first_with_the_fewest(requests: list[int]) -> None:
    cluster = Cluster(ClusterConfig(toy_profile(), shape="1P3D"), lambda _: None)
    cluster.lifecycle.counters.decode_requests[1:] = requests
    assert cluster.view().least_loaded_decode_node() == 1 + int(np.argmin(requests))


# ---- no oracle ------------------------------------------------------------------------------------------------------


class Watched:
    """A policy that records its placements and the observations."""

    def __init__(self, rule: str) -> None:
        self.name = rule
        self.policy = policies.make(rule, seed=3)
        self.placements: list[Placement] = []
        self.seen: list[bytes] = []

    def place(self, request: RequestView, view: RouterView) -> Placement:
        placement = self.policy.place(request, view)
        self.placements.append(placement)
        seen = encode(Choices.of(request, view, "pairs"))
        self.seen.append(b"".join(array.tobytes() for array in seen.values()))
        return placement


@pytest.mark.slow
@settings(max_examples=25)
@given(seed=seeds, report_age_s=st.sampled_from([0.0, 0.1]))
@pytest.mark.parametrize("rule", policies.names())
def test_output_lengths_are_unknown_until_a_request_ends(rule: str, seed: int, report_age_s: float) -> None:
    """Two runs whose requests differ only in output length look the same until such a request may have ended."""
    rng = np.random.default_rng(seed)
    arrivals, prompts = np.cumsum(rng.exponential(0.02, 60)), rng.integers(10, 3000, 60)
    outputs = rng.integers(30, 300, (2, 60))
    watched, ends_s = [], []
    for world in (0, 1):
        watched.append(Watched(rule))
        asked = Workload.of(arrivals, prompts, outputs[world], label="random")
        records = simulate(asked, watched[-1], ClusterConfig(toy_profile(), report_age_s=report_age_s)).records
        ends_s += [r.last_token_s for r in records if outputs[0][r.request] != outputs[1][r.request]]
    alike = int(np.searchsorted(arrivals, min(ends_s)))
    assert alike > 5
    assert watched[0].placements[:alike] == watched[1].placements[:alike]
    assert watched[0].seen[:alike] == watched[1].seen[:alike]


def test_requests_and_reports_have_no_field_for_unknown_values() -> None:
    fields = {*RequestView._fields, *signature(NodeReport).parameters, *FIELDS} - {"finished_output_tokens"}
    assert not [name for name in fields if "output" in name or "remaining" in name or "future" in name]
