"""A cluster simulated event by event under a policy, with invariants checked after each event."""

from copy import deepcopy
from math import inf
from typing import Any

from envs.cluster import Cluster, Phase, Placement, Policy, Request, RequestRecord, RequestView
from envs.cluster.request import TRANSITIONS
from hardware_profiles.compiled import is_compiled
from tests.envs.scenarios import Scenario

BEFORE_COMPUTED = (Phase.QUEUED, Phase.PREFILLING)
MOVING = (Phase.WAITING_FOR_KV, Phase.TRANSFERRING)


if is_compiled():  # compiled code reads attributes directly, so phases can be watched in plain Python only
    WatchedRequest = Request
else:

    class WatchedRequest(Request):
        """A request that asserts that every change of phase is allowed."""

        @property
        def phase(self) -> Phase:
            """The phase of the request."""
            return self.watched_phase

        @phase.setter
        def phase(self, phase: Phase) -> None:
            before = getattr(self, "watched_phase", None)
            assert before is None or phase in TRANSITIONS[before], f"{before!r} to {phase!r}"
            self.watched_phase = phase


class Played:
    """A scenario's workload on its cluster.

    Attributes:
        cluster: the cluster.
        records: records of the requests finished so far, in order of completion.
        placements: the latest placement of each request.
    """

    def __init__(self, scenario: Scenario, policy: Policy, *, places_again: bool = True) -> None:
        self.policy = policy
        self.rows = scenario.workload.rows()
        self.records: list[RequestRecord] = []
        self.placements: dict[int, Placement] = {}
        self.submitted = 0
        self.preemptions_when_placed: dict[int, int] = {}
        self.busy_when_lost: dict[int, float] = {}
        self.cluster = Cluster(scenario.config, self.records.append, self.place_again if places_again else None)

    def copy(self) -> "Played":
        """An independent copy that continues from here with empty records."""
        twin = object.__new__(Played)
        twin.__dict__ |= {name: value for name, value in self.__dict__.items() if name != "cluster"}
        twin.policy = deepcopy(self.policy)
        twin.records = []
        twin.placements = self.placements.copy()
        twin.preemptions_when_placed = self.preemptions_when_placed.copy()
        twin.busy_when_lost = self.busy_when_lost.copy()
        twin.cluster = self.cluster.copy(twin.records.append)
        return twin

    def play(self, until_s: float = inf) -> "Played":
        """Process all events and arrivals before `until_s`."""
        clock = self.cluster.clock
        while self.submitted < len(self.rows) and self.rows[self.submitted][0] < until_s:
            arrival_s = self.rows[self.submitted][0]
            self._step_before(arrival_s)
            clock.advance_to(arrival_s)
            request = WatchedRequest(self.submitted, *self.rows[self.submitted])
            self.submitted += 1
            self.cluster.submit(request, self._place(request))
            self.check()
        self._step_before(until_s)
        return self

    def place_again(self, request: Request) -> Placement:
        """Place a request whose node was lost."""
        return self._place(request)

    def _place(self, request: Request) -> Placement:
        asked = RequestView(
            request.index,
            request.arrival_s,
            request.target_tokens,
            request.ttft_slo_s,
            request.tbt_slo_s,
            request.block_hashes,
        )
        placement = self.policy.place(asked, self.cluster.view())
        self.placements[request.index] = placement
        return placement

    def _step_before(self, time_s: float) -> None:
        clock = self.cluster.clock
        while clock.peek() < time_s:
            before_s, displaced = clock.now, self.cluster.lifecycle.displaced
            clock.step()
            assert clock.now >= before_s
            if self.cluster.lifecycle.displaced > displaced:
                self.note_placed_again()
            self.check()

    def note_placed_again(self) -> None:
        """Requests that are placed again count as sent by the router, whatever their history."""
        for request in self.cluster.lifecycle.in_flight.values():
            if request.counted_as_queued:
                self.preemptions_when_placed[request.index] = request.preemptions

    # ---- laws of an instant -----------------------------------------------------------------------------------------

    def check(self) -> None:
        """Check that KV is within bounds, counters equal a recount, and no request is on a lost node."""
        cluster = self.cluster
        topology = cluster.topology
        for node, engine in enumerate(cluster.engines):
            used = engine.scheduler.kv.used_tokens
            assert 0 <= used <= topology.kv_capacity_tokens[node], f"node {node} holds {used} tokens of KV"
            if topology.is_lost(node):
                assert engine.busy_s == self.busy_when_lost.setdefault(node, engine.busy_s)
        for request in cluster.lifecycle.in_flight.values():
            assert 0 <= request.computed_tokens <= request.target_tokens
            assert request.generated_tokens <= request.output_tokens
            assert not topology.is_lost(request.at_node)
            assert not topology.is_lost(request.decode_node)
        counters = cluster.view().counters
        for name, counted in self.recount().items():
            assert getattr(counters, name) == counted, name

    def recount(self) -> dict[str, list[int]]:
        """Recount the router's counters from the phases of the requests in flight."""
        names = (
            *("queued_prompts", "queued_prompt_tokens", "deflected_requests"),
            *("decode_requests", "decode_prompt_tokens"),
            *("unplanned_prompt_tokens", "kv_leaving_tokens", "kv_coming_tokens"),
        )
        counts: dict[str, list[int]] = {name: [0] * self.cluster.topology.nodes for name in names}

        def count(node: int, tokens: int, *, deflected: bool) -> None:
            counts["queued_prompts"][node] += 1
            counts["queued_prompt_tokens"][node] += tokens
            counts["deflected_requests"][node] += deflected

        for request in self.cluster.lifecycle.in_flight.values():
            node, decode_node = request.prefill_node, request.decode_node
            counts["decode_requests"][decode_node] += 1
            counts["decode_prompt_tokens"][decode_node] += request.prompt_tokens
            # A router has not sent prompts that an engine computes again.
            again = request.preemptions > self.preemptions_when_placed.get(request.index, 0)
            if request.phase in BEFORE_COMPUTED and request.at_node == node and not again:
                tokens = request.target_tokens - request.known_hit_tokens
                count(node, tokens, deflected=node == decode_node)
                counts["unplanned_prompt_tokens"][node] += 0 if request.chunk_plan else tokens
            if request.phase in MOVING:
                counts["kv_leaving_tokens"][node] += request.target_tokens
                counts["kv_coming_tokens"][decode_node] += request.target_tokens
            if request.rest_tokens:
                count(decode_node, request.rest_tokens, deflected=True)
        return counts

    # ---- laws of the end --------------------------------------------------------------------------------------------

    def assert_drained(self) -> None:
        """Check that all requests have left and that no KV or count remains."""
        cluster = self.cluster
        assert not cluster.lifecycle.in_flight
        assert sorted(record.request for record in self.records) == list(range(len(self.rows)))
        for engine in cluster.engines:
            assert engine.scheduler.kv.used_tokens == 0
        for name, counted in self.recount().items():
            assert not any(counted), name
            assert not any(getattr(cluster.view().counters, name)), name

    def end(self) -> dict[str, Any]:
        """The totals of a run, for comparisons."""
        lifecycle, engines = self.cluster.lifecycle, self.cluster.engines
        return {
            "displaced": lifecycle.displaced,
            "kv_expired": lifecycle.kv_expired,
            "preemptions": sum(engine.scheduler.preemptions for engine in engines),
            "kv_bytes_moved": self.cluster.transfers.bytes_moved,
            "busy_s": [engine.busy_s for engine in engines],
            "now_s": self.cluster.clock.now,
        }
