"""A calibrated simulation of a disaggregated LLM serving cluster, based on SimPy."""

from hardware_profiles.compiled import activate

activate(__name__, __path__)

from envs.cluster.cluster import Cluster
from envs.cluster.config import ClusterConfig, evenly_divided, parse_shape
from envs.cluster.disturbance import Disturbance
from envs.cluster.gaps import GapLog
from envs.cluster.placement import Placement, prefill_then_decode
from envs.cluster.request import Phase, Request, RequestRecord, RequestView, request_of, view_of
from envs.cluster.router_counters import RouterCounters
from envs.cluster.router_view import OtherTopologyView, RouterView
from envs.cluster.sampler import Samples, Watch
from envs.cluster.simulate import ClairvoyantPolicy, Policy, RunCounters, RunResult, simulate
from envs.cluster.telemetry import NodeReport
from envs.cluster.topology import Topology

__all__ = [
    "ClairvoyantPolicy",
    "Cluster",
    "ClusterConfig",
    "Disturbance",
    "GapLog",
    "NodeReport",
    "OtherTopologyView",
    "Phase",
    "Placement",
    "Policy",
    "Request",
    "RequestRecord",
    "RequestView",
    "RouterCounters",
    "RouterView",
    "RunCounters",
    "RunResult",
    "Samples",
    "Topology",
    "Watch",
    "evenly_divided",
    "parse_shape",
    "prefill_then_decode",
    "request_of",
    "simulate",
    "view_of",
]
