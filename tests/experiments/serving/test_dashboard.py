"""The Grafana dashboard shows metrics that the service has."""

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("prometheus_client")

from prometheus_client import generate_latest

from envs.cluster import Topology
from envs.cluster.router_counters import RouterCounters
from experiments.serving.live_view import LiveView
from experiments.serving.service_metrics import ServiceMetrics
from tests.experiments.serving.made_up_workers import CONFIG

DASHBOARD = Path(__file__).parents[3] / "docs" / "grafana.json"


def test_every_query_names_metrics_of_the_service() -> None:
    topology = Topology(CONFIG)
    metrics = ServiceMetrics(topology, alarm_s=2.0)
    metrics.watch(LiveView(topology, RouterCounters(4)))
    known = set(re.findall(r"^# TYPE (\w+)", generate_latest(metrics.registry).decode(), re.MULTILINE))
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    named = {name for query in queries for name in re.findall(r"placement_\w+", query)}
    shown = {re.sub("_(bucket|sum|count)$", "", name) for name in named}
    assert shown <= known | {"placement"}
    assert {name for name in known if not name.endswith("_created")} - shown <= {
        "placement_queued_prompts",
        "placement_kv_leaving_tokens",
    }
