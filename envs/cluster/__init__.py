"""A calibrated cluster of disaggregated LLM serving, simulated on SimPy."""

from envs.cluster.cluster import Cluster
from envs.cluster.gaps import GapLog
from envs.cluster.placement import Placement, prefill_then_decode
from envs.cluster.request import RequestRecord, RequestView, Sequence
from envs.cluster.simulate import ClairvoyantPolicy, Policy, RunCounters, RunResult, simulate
from envs.cluster.topology import ClusterConfig, Topology, parse_shape
from envs.cluster.view import ClusterView, Counters, NodeReport
from envs.cluster.watch import Samples, Watch

__all__ = [
    "ClairvoyantPolicy",
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
    "Samples",
    "Sequence",
    "Topology",
    "Watch",
    "parse_shape",
    "prefill_then_decode",
    "simulate",
]
