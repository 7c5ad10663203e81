"""KV transfers between nodes: NVLink inside a host, NICs between hosts, every end shared by its transfers.

Each node has a sending and a receiving end on the NIC side and on the NVLink side (a NIC may be shared by nodes). A
transfer runs at the smaller of its two ends' equal shares; shares are planned anew whenever a transfer that uses the
end starts or finishes. A transfer's set-up latency occupies its ends like the bytes they could carry in that time, so
that a lone transfer takes exactly latency + bytes / bandwidth.
"""

from collections.abc import Callable, Mapping
from math import inf

from envs.cluster.clock import Clock
from envs.cluster.request import Sequence
from hardware_profiles import Link


class Transfer:
    """One KV transfer in flight."""

    __slots__ = ("bandwidth", "done_s", "rate", "receiver", "remaining_bytes", "sender", "seq", "updated_s")

    def __init__(
        self, seq: Sequence, sender: int, receiver: int, load_bytes: float, bandwidth: float, now_s: float
    ) -> None:
        self.seq = seq
        self.sender = sender
        self.receiver = receiver
        self.remaining_bytes = load_bytes
        self.bandwidth = bandwidth
        self.rate = 0.0
        self.updated_s = now_s
        self.done_s = inf


class Network:
    """The links of a cluster.

    Args:
        clock: simulated time.
        hosts: the host of each node; nodes of one host are joined by NVLink.
        inter_node: a NIC.
        intra_node: one node's NVLink.
        on_done: called with a sequence whose transfer is complete.
    """

    __slots__ = (
        "_clock",
        "_hosts",
        "_inter_node",
        "_intra_node",
        "_on_done",
        "_sharing",
        "_wake_s",
        "active",
    )

    def __init__(
        self,
        clock: Clock,
        hosts: tuple[int, ...],
        inter_node: Link,
        intra_node: Link,
        on_done: Callable[[Sequence], None],
    ) -> None:
        self._clock = clock
        self._hosts = hosts
        self._inter_node = inter_node
        self._intra_node = intra_node
        self._on_done = on_done
        self.active: list[Transfer] = []
        # Ends: NIC send, NIC receive, NVLink send, NVLink receive of each node.
        self._sharing = [0] * (4 * len(hosts))
        self._wake_s = inf

    def copy_transfers(self, other: "Network", twins: Mapping[Sequence, Sequence]) -> None:
        """Take over another network's transfers, of the sequences that `twins` gives for its own."""
        self._sharing = other._sharing.copy()
        self._wake_s = other._wake_s
        self.active = []
        for transfer in other.active:
            twin = Transfer.__new__(Transfer)
            for name in Transfer.__slots__:
                setattr(twin, name, getattr(transfer, name))
            twin.seq = twins[transfer.seq]
            self.active.append(twin)

    def link(self, source: int, target: int) -> Link:
        """The kind of link that joins two nodes."""
        return self._intra_node if self._hosts[source] == self._hosts[target] else self._inter_node

    def start(self, seq: Sequence, source: int, target: int, kv_bytes: float) -> None:
        """Start to send `kv_bytes` of a sequence's KV from one node to another."""
        now = self._clock._now
        link = self.link(source, target)
        side = 2 if self._hosts[source] == self._hosts[target] else 0
        sender = 4 * source + side
        receiver = 4 * target + side + 1
        bandwidth = link.bandwidth_bytes_per_s
        transfer = Transfer(seq, sender, receiver, kv_bytes + link.latency_s * bandwidth, bandwidth, now)
        self.active.append(transfer)
        sharing = self._sharing
        sharing[sender] += 1
        sharing[receiver] += 1
        if sharing[sender] == 1 and sharing[receiver] == 1:
            transfer.rate = bandwidth
            transfer.done_s = done_s = now + transfer.remaining_bytes / bandwidth
            if done_s < self._wake_s:
                self._wake_s = done_s
                self._clock.call_at(done_s, self._wake)
        else:
            self._share(sender, receiver, now)
            self._arm()

    def _share(self, sender: int, receiver: int, now: float) -> None:
        """Plan anew every transfer that uses one of two ends."""
        sharing = self._sharing
        for transfer in self.active:
            if transfer.sender == sender or transfer.receiver == receiver:
                transfer.remaining_bytes -= transfer.rate * (now - transfer.updated_s)
                transfer.updated_s = now
                transfer.rate = transfer.bandwidth / max(sharing[transfer.sender], sharing[transfer.receiver])
                transfer.done_s = now + max(0.0, transfer.remaining_bytes) / transfer.rate

    def _arm(self) -> None:
        soonest = min([transfer.done_s for transfer in self.active])
        if soonest < self._wake_s:
            self._wake_s = soonest
            self._clock.call_at(soonest, self._wake)

    def _wake(self, _event: object) -> None:
        now = self._clock._now
        if now != self._wake_s:
            return  # superseded by an earlier wake
        self._wake_s = inf
        sharing = self._sharing
        done = [transfer for transfer in self.active if transfer.done_s <= now]
        for transfer in done:
            self.active.remove(transfer)
            sharing[transfer.sender] -= 1
            sharing[transfer.receiver] -= 1
        if self.active:
            for transfer in done:
                self._share(transfer.sender, transfer.receiver, now)
            self._arm()
        for transfer in done:
            self._on_done(transfer.seq)
