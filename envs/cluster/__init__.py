"""A calibrated cluster of disaggregated LLM serving, simulated on SimPy."""

from envs.cluster.cluster import Cluster
from envs.cluster.gaps import GapLog
from envs.cluster.placement import Placement
from envs.cluster.request import RequestRecord, RequestView, Sequence
from envs.cluster.simulate import Policy, RunCounters, RunResult, simulate
from envs.cluster.topology import ClusterConfig, Topology, parse_shape
from envs.cluster.view import ClusterView, Counters, NodeReport

__all__ = [
    "Cluster",
    "ClusterConfig",
    "ClusterView",
    "Counters",
    "GapLog",
    "NodeReport",
    "Placement",
    "Policy",
    "RequestRecord",
    "RequestView",
    "RunCounters",
    "RunResult",
    "Sequence",
    "Topology",
    "parse_shape",
    "simulate",
]
