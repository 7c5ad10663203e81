"""KV transfers between nodes: NVLink within a host, NICs between hosts; transfers share the ends of these links.

Each NIC (which nodes may share) and each node's NVLink has a sending and a receiving end. The transfers at an end get
equal shares of its bandwidth, and a transfer runs at the smaller share of its two ends. Shares are recomputed whenever
a transfer at the end starts or finishes. The set-up latency of a transfer counts as the bytes that its link could carry
in that time, so that a lone transfer takes exactly latency + bytes / bandwidth.
"""

from collections.abc import Callable, Mapping
from math import inf

from mypy_extensions import mypyc_attr

from envs.cluster.call import Call
from envs.cluster.request import Request
from envs.cluster.timeline import Timeline
from hardware_profiles import Link

Route = tuple[int, int, float, float]
"""A route between two nodes: sending end, receiving end, bandwidth, and set-up latency in bytes."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Transfer:
    """A KV transfer that is in progress, or will begin at `updated_s`."""

    __slots__ = ("bandwidth", "done_s", "rate", "receiver", "remaining_bytes", "request", "sender", "updated_s")

    def __init__(
        self, request: Request, sender: int, receiver: int, load_bytes: float, bandwidth: float, start_s: float
    ) -> None:
        self.request = request
        self.sender = sender
        self.receiver = receiver
        self.remaining_bytes = load_bytes
        self.bandwidth = bandwidth
        self.rate = 0.0
        self.updated_s = start_s
        self.done_s = inf


@mypyc_attr(allow_interpreted_subclasses=True)
class Network:
    """The links of a cluster.

    Args:
        timeline: simulated time.
        hosts: the host of each node; nodes of one host are joined by NVLink.
        nics: the NIC of each node.
        inter_node: link of a NIC.
        intra_node: link of a node's NVLink.
        on_done: called with a request whose transfer is complete.
    """

    __slots__ = (
        "_factors",
        "_hosts",
        "_inter_node",
        "_intra_node",
        "_later",
        "_nics",
        "_nvlinks",
        "_on_done",
        "_routes",
        "_sharing",
        "_timeline",
        "_wake_call",
        "_wake_s",
        "active",
    )

    def __init__(
        self,
        timeline: Timeline,
        hosts: tuple[int, ...],
        nics: tuple[int, ...],
        inter_node: Link,
        intra_node: Link,
        on_done: Callable[[Request], None],
    ) -> None:
        self._timeline = timeline
        self._hosts = hosts
        self._nics = nics
        self._inter_node = inter_node
        self._intra_node = intra_node
        self._on_done = on_done
        # Transfers that use their ends, and transfers that start later and will share their ends then.
        self.active: list[Transfer] = []
        self._later: list[Transfer] = []
        # Ends: send and receive of each NIC, then send and receive of each node's NVLink.
        self._nvlinks = 2 * (max(nics) + 1)
        ends = self._nvlinks + 2 * len(hosts)
        self._sharing = [0] * ends
        self._factors = [1.0] * ends  # relative to the undisturbed bandwidth
        self._routes: dict[tuple[int, int], Route] = {}  # routes used so far, by source and target
        self._wake_s = inf
        self._wake_call = Call(self._wake)

    def copy_transfers(self, other: "Network", twins: Mapping[Request, Request]) -> None:
        """Copy another network's transfers; `twins` maps its requests to their copies."""
        self._sharing = other._sharing.copy()
        self._factors = other._factors.copy()
        self._wake_s = other._wake_s
        for mine, theirs in ((self.active, other.active), (self._later, other._later)):
            for transfer in theirs:
                twin = Transfer(
                    twins[transfer.request],
                    transfer.sender,
                    transfer.receiver,
                    transfer.remaining_bytes,
                    transfer.bandwidth,
                    transfer.updated_s,
                )
                twin.rate = transfer.rate
                twin.done_s = transfer.done_s
                mine.append(twin)

    def start(self, request: Request, source: int, target: int, kv_bytes: float, at_s: float) -> None:
        """Send `kv_bytes` of a request's KV from one node to another, starting at `at_s` (now or later)."""
        route = self._routes.get((source, target))
        if route is None:
            route = self._routes[source, target] = self._route(source, target)
        sender, receiver, bandwidth, latency_bytes = route
        transfer = Transfer(request, sender, receiver, kv_bytes + latency_bytes, bandwidth, at_s)
        sharing = self._sharing
        if not (
            sharing[sender] or sharing[receiver] or self._later
        ):  # no transfer to share with, which is the usual case
            self.active.append(transfer)
            sharing[sender] = sharing[receiver] = 1
            factors = self._factors
            a = factors[sender]
            b = factors[receiver]
            transfer.rate = rate = bandwidth * (a if a < b else b)
            transfer.done_s = done_s = at_s + transfer.remaining_bytes / rate
            if done_s < self._wake_s:
                self._wake_s = done_s
                self._timeline.call_at(done_s, self._wake_call)
            return
        now = self._timeline.now_s
        self._give_way(sender, receiver, now)
        if at_s > now:
            self._later.append(transfer)
        else:
            self._begin(transfer, now)
        self._arm()

    def _route(self, source: int, target: int) -> Route:
        if self._hosts[source] == self._hosts[target]:
            link = self._intra_node
            sender = self._nvlinks + 2 * source
            receiver = self._nvlinks + 2 * target + 1
        else:
            link = self._inter_node
            sender = 2 * self._nics[source]
            receiver = 2 * self._nics[target] + 1
        bandwidth = link.bandwidth_bytes_per_s
        return sender, receiver, bandwidth, link.latency_s * bandwidth

    def _give_way(self, sender: int, receiver: int, now: float) -> None:
        """Re-plan scheduled transfers that were to be the only user of an end: they share it when they start."""
        for transfer in self.active[:]:
            if transfer.updated_s > now and (transfer.sender == sender or transfer.receiver == receiver):
                self._drop(transfer)
                self._later.append(transfer)

    def _begin(self, transfer: Transfer, now: float) -> None:
        self.active.append(transfer)
        self._sharing[transfer.sender] += 1
        self._sharing[transfer.receiver] += 1
        self._share(transfer.sender, transfer.receiver, now)

    def _drop(self, transfer: Transfer) -> None:
        self.active.remove(transfer)
        self._sharing[transfer.sender] -= 1
        self._sharing[transfer.receiver] -= 1

    def degrade(self, node: int, factor: float) -> None:
        """Set a node's ends to `factor` times their undisturbed bandwidth; a shared NIC changes for all its nodes."""
        now = self._timeline.now_s
        for sender in (2 * self._nics[node], self._nvlinks + 2 * node):
            self._give_way(sender, sender + 1, now)
            self._factors[sender] = self._factors[sender + 1] = factor
            self._share(sender, sender + 1, now)
        self._arm()

    def sends(self, request: Request) -> bool:
        """Whether a transfer of a request is in progress or scheduled."""
        return any(transfer.request is request for transfer in (*self.active, *self._later))

    def cancel(self, request: Request) -> bool:
        """Stop a request's transfer, if it has one; returns whether the transfer had not started yet."""
        now = self._timeline.now_s
        for transfer in self._later:
            if transfer.request is request:
                self._later.remove(transfer)
                return True
        for transfer in self.active:
            if transfer.request is request:
                self._drop(transfer)
                self._share(transfer.sender, transfer.receiver, now)
                self._arm()
                return transfer.updated_s > now
        return False

    def _share(self, sender: int, receiver: int, now: float) -> None:
        """Recompute the rate of every transfer that uses one of two ends."""
        sharing = self._sharing
        factors = self._factors
        for transfer in self.active:
            its_sender = transfer.sender
            its_receiver = transfer.receiver
            if its_sender == sender or its_receiver == receiver:
                left = transfer.remaining_bytes
                if transfer.updated_s != now:
                    transfer.remaining_bytes = left = left - transfer.rate * (now - transfer.updated_s)
                    transfer.updated_s = now
                a = factors[its_sender] / sharing[its_sender]
                b = factors[its_receiver] / sharing[its_receiver]
                transfer.rate = rate = transfer.bandwidth * (a if a < b else b)
                transfer.done_s = now + left / rate if left > 0.0 else now

    def _arm(self) -> None:
        wake_s = soonest = self._wake_s
        for transfer in self.active:
            if transfer.done_s < soonest:
                soonest = transfer.done_s
        for transfer in self._later:
            if transfer.updated_s < soonest:
                soonest = transfer.updated_s
        if soonest < wake_s:
            self._wake_s = soonest
            self._timeline.call_at(soonest, self._wake_call)

    def _wake(self, _event: object) -> None:
        now = self._timeline.now_s
        if now != self._wake_s:
            return  # superseded by an earlier wake
        self._wake_s = inf
        active = self.active
        if len(active) == 1 and not self._later and active[0].done_s <= now:  # the usual case
            transfer = active.pop()
            self._sharing[transfer.sender] = self._sharing[transfer.receiver] = 0
            self._on_done(transfer.request)
            return
        sharing = self._sharing
        done = []
        for transfer in active[:]:
            if transfer.done_s <= now:
                self._drop(transfer)
                done.append(transfer)
        for transfer in done:
            if sharing[transfer.sender] or sharing[transfer.receiver]:
                self._share(transfer.sender, transfer.receiver, now)
        for transfer in self._later[:]:
            if transfer.updated_s <= now:
                self._later.remove(transfer)
                self._begin(transfer, now)
        self._arm()
        for transfer in done:
            self._on_done(transfer.request)

    def backlog_bytes(self) -> tuple[list[float], list[float]]:
        """Bytes that running transfers still have to move through each node's sending and receiving ends.

        NIC and NVLink are added up; a shared NIC counts for each of its nodes. Set-up latency counts as the bytes that
        the link could carry in that time.
        """
        now = self._timeline.now_s
        ends = [0.0] * len(self._sharing)
        for transfer in self.active:
            if transfer.updated_s <= now:  # otherwise it has not started
                left = max(0.0, transfer.remaining_bytes - transfer.rate * (now - transfer.updated_s))
                ends[transfer.sender] += left
                ends[transfer.receiver] += left
        both = [(2 * nic, self._nvlinks + 2 * node) for node, nic in enumerate(self._nics)]
        sending = [ends[nic] + ends[nvlink] for nic, nvlink in both]
        return sending, [ends[nic + 1] + ends[nvlink + 1] for nic, nvlink in both]
