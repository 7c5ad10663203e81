"""The router's view of live workers: the type that policies see in simulation, fed by what a real router knows.

The router relays every token, so the requests that decode on a node and the tokens that they have are up to date. How
far a node has computed the prompts that it was sent comes from its step reports (Dynamo's forward-pass metrics), which
are stale by at most the step that runs.
"""

from dataclasses import dataclass, field
from math import inf
from typing import Any

from envs.cluster import RouterView
from envs.cluster.request import Request
from envs.cluster.router_counters import RouterCounters
from envs.cluster.telemetry import NodeReport
from envs.cluster.timeline import Timeline
from envs.cluster.topology import Topology


@dataclass
class NodeState:
    """The knowledge of a router about one node.

    Attributes:
        decoding: the requests that decode there, with the tokens of their decode steps so far.
        decode_kv_tokens: their summed context as of the latest step report.
        begun_tokens: tokens computed of prompts that have not been computed whole.
        steps: step reports so far, and `busy_s` the time of these steps, seconds.
        mixed_steps: how many of them had prompt tokens and decodes.
    """

    decoding: dict[Request, int] = field(default_factory=dict)
    decode_kv_tokens: int = 0
    begun_tokens: int = 0
    steps: int = 0
    busy_s: float = 0.0
    mixed_steps: int = 0

    def stepped(self, report: Any) -> None:
        """Take a step report in: a decoded message of Dynamo's forward-pass metrics, version 1."""
        of_step = report["scheduled_requests"]
        self.steps += 1
        self.busy_s += report["wall_time"]
        self.begun_tokens += of_step["sum_prefill_tokens"]
        self.decode_kv_tokens = of_step["sum_decode_kv_tokens"] + of_step["num_decode_requests"]
        self.mixed_steps += bool(of_step["sum_prefill_tokens"] and of_step["num_decode_requests"])


class LiveView(RouterView):
    """A `RouterView` of live workers.

    Attributes:
        nodes: the state of each node.

    Args:
        topology: the cluster.
        counters: the router's counts.
    """

    def __init__(self, topology: Topology, counters: RouterCounters) -> None:
        self._time = Timeline(lambda: None)
        super().__init__(self._time, topology, counters, [], 0.0)
        self.nodes = [NodeState() for _ in range(topology.nodes)]

    def at(self, now_s: float) -> "LiveView":
        """The view at a time, seconds since the router started."""
        self._time.now_s = now_s
        return self

    def report(self, node: int) -> NodeReport:
        """The state of a node."""
        state = self.nodes[node]
        if not state.decoding:  # an idle engine sends no report
            batch, kv_tokens, tbt_slo_s = 0, 0, inf
        else:
            batch, kv_tokens = len(state.decoding), state.decode_kv_tokens
            tbt_slo_s = min([request.tbt_slo_s for request in state.decoding])
        queued = self.counters.queued_prompt_tokens[node]
        begun = min(max(state.begun_tokens, 0), queued)
        return NodeReport(batch, kv_tokens, queued - begun, kv_tokens + begun, tbt_slo_s)

    def measured_speed(self, node: int) -> float:  # noqa: ARG002 - see RouterView
        """Always 1: workers do not report how long their steps take."""
        return 1.0

    def mean_generated_tokens(self, node: int) -> float:
        """Tokens from the decode steps of a node so far, per request that decodes there."""
        decoding = self.nodes[node].decoding
        return sum(decoding.values()) / len(decoding) if decoding else 0.0
