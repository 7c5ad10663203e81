"""The service's metrics: they add up to what the router did, and the alarm follows the queue."""

import asyncio

import pytest

pytest.importorskip("prometheus_client")

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

import policies
from envs.cluster import Placement, Topology
from experiments.serving.live_clock import LiveClock
from experiments.serving.live_router import LiveRouter
from experiments.serving.service_metrics import ServiceMetrics
from tests.experiments.serving.made_up_workers import CONFIG, SHARED, MadeUpWorker, request


def values(metrics: ServiceMetrics) -> dict[tuple[str, ...], float]:
    text = generate_latest(metrics.registry).decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def router_with(metrics: ServiceMetrics) -> LiveRouter:
    workers = [MadeUpWorker(node) for node in range(4)]
    router = LiveRouter(CONFIG, policies.make("kairos"), workers, LiveClock(1000.0), SHARED, metrics)
    metrics.watch(router.view)
    return router


def test_the_counts_are_those_of_the_requests() -> None:
    metrics = ServiceMetrics(Topology(CONFIG), alarm_s=2.0)
    router = router_with(metrics)

    async def serve() -> None:
        await asyncio.gather(
            *[router.serve(request(n, 500 * (n + 1)), SHARED[: 500 * (n + 1)], repr) for n in range(8)]
        )

    asyncio.run(serve())
    found = values(metrics)
    kinds = ("deflected", "disaggregated", "aggregated", "rejected")
    by_kind = {kind: found.get(("placement_requests_total", kind), 0.0) for kind in kinds}
    assert sum(by_kind.values()) == found["placement_ttft_seconds_count",] == 8
    assert found["placement_decision_seconds_count",] == 8
    assert found["placement_tbt_seconds_count",] == 8 * 4
    parts_s = sum(
        found["placement_ttft_part_seconds_sum", part] for part in ("queue", "exec", "transfer", "decode_wait")
    )
    assert parts_s == pytest.approx(found["placement_ttft_seconds_sum",])
    assert (found["placement_kv_moved_bytes_total",] > 0) == (by_kind["disaggregated"] > 0)


def test_the_alarm_is_on_while_the_queue_is_long_or_grows_fast() -> None:
    metrics = ServiceMetrics(Topology(CONFIG), alarm_s=2.0)
    router = router_with(metrics)
    seen = []
    queued = [request(number, 4000) for number in range(40)]
    for one in queued:
        router.lifecycle.submitted(one, Placement(one.index % 2, 2))
        metrics.sample()
        seen.append(values(metrics)["placement_alarm",])
    waits_s = values(metrics)["placement_queue_wait_seconds",]
    assert values(metrics)["placement_queued_prompt_tokens", "0", "prefill"] == 80_000
    assert waits_s > 2.0
    assert seen == sorted(seen)
    assert seen[0] == 0.0
    assert seen[-1] == 1.0
    for one in queued:
        router.lifecycle.computed(one, 1.0)
    for _ in range(12):
        metrics.sample()
    assert values(metrics)["placement_alarm",] == 0.0
