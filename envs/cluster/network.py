"""KV transfers between nodes: NVLink inside a host, NICs between hosts, every end shared by its transfers.

Each NIC has a sending and a receiving end (nodes may share one), and so has each node's NVLink. A
transfer runs at the smaller of its two ends' equal shares; shares are planned anew whenever a transfer that uses the
end starts or finishes. A transfer's set-up latency occupies its ends like the bytes they could carry in that time, so
that a lone transfer takes exactly latency + bytes / bandwidth.
"""

from collections.abc import Callable, Mapping
from math import inf

from envs.cluster.clock import Call, Clock
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
        nics: the NIC of each node.
        inter_node: a NIC.
        intra_node: one node's NVLink.
        on_done: called with a sequence whose transfer is complete.
    """

    __slots__ = (
        "_clock",
        "_factors",
        "_hosts",
        "_inter_node",
        "_intra_node",
        "_nics",
        "_nvlinks",
        "_on_done",
        "_sharing",
        "_wake_call",
        "_wake_s",
        "active",
    )

    def __init__(
        self,
        clock: Clock,
        hosts: tuple[int, ...],
        nics: tuple[int, ...],
        inter_node: Link,
        intra_node: Link,
        on_done: Callable[[Sequence], None],
    ) -> None:
        self._clock = clock
        self._hosts = hosts
        self._nics = nics
        self._inter_node = inter_node
        self._intra_node = intra_node
        self._on_done = on_done
        self.active: list[Transfer] = []
        # Ends: send and receive of each NIC, then send and receive of each node's NVLink.
        self._nvlinks = 2 * (max(nics) + 1)
        ends = self._nvlinks + 2 * len(hosts)
        self._sharing = [0] * ends
        self._factors = [1.0] * ends  # of the undisturbed bandwidth
        self._wake_s = inf
        self._wake_call = Call(self._wake)

    def copy_transfers(self, other: "Network", twins: Mapping[Sequence, Sequence]) -> None:
        """Take over another network's transfers, of the sequences that `twins` gives for its own."""
        self._sharing = other._sharing.copy()
        self._factors = other._factors.copy()
        self._wake_s = other._wake_s
        self.active = []
        for transfer in other.active:
            twin = Transfer.__new__(Transfer)
            for name in Transfer.__slots__:
                setattr(twin, name, getattr(transfer, name))
            twin.seq = twins[transfer.seq]
            self.active.append(twin)

    def start(self, seq: Sequence, source: int, target: int, kv_bytes: float) -> None:
        """Start to send `kv_bytes` of a sequence's KV from one node to another."""
        now = self._clock._now
        if self._hosts[source] == self._hosts[target]:
            link = self._intra_node
            sender = self._nvlinks + 2 * source
            receiver = self._nvlinks + 2 * target + 1
        else:
            link = self._inter_node
            sender = 2 * self._nics[source]
            receiver = 2 * self._nics[target] + 1
        bandwidth = link.bandwidth_bytes_per_s
        transfer = Transfer(seq, sender, receiver, kv_bytes + link.latency_s * bandwidth, bandwidth, now)
        self.active.append(transfer)
        sharing = self._sharing
        sharing[sender] += 1
        sharing[receiver] += 1
        if sharing[sender] == 1 and sharing[receiver] == 1:  # nobody to share with, which is the rule
            transfer.rate = rate = bandwidth * min(self._factors[sender], self._factors[receiver])
            transfer.done_s = done_s = now + transfer.remaining_bytes / rate
            if done_s < self._wake_s:
                self._wake_s = done_s
                self._clock.call_at(done_s, self._wake_call)
            return
        self._share(sender, receiver, now)
        self._arm()

    def degrade(self, node: int, factor: float) -> None:
        """Let a node's ends carry `factor` times their undisturbed bandwidth from now on; a shared NIC for all."""
        now = self._clock._now
        for sender in (2 * self._nics[node], self._nvlinks + 2 * node):
            self._factors[sender] = self._factors[sender + 1] = factor
            self._share(sender, sender + 1, now)
        self._arm()

    def sends(self, seq: Sequence) -> bool:
        """Whether a transfer of a sequence is under way."""
        return any(transfer.seq is seq for transfer in self.active)

    def cancel(self, seq: Sequence) -> bool:
        """Stop a sequence's transfer; False where there is none."""
        for transfer in self.active:
            if transfer.seq is seq:
                self.active.remove(transfer)
                self._sharing[transfer.sender] -= 1
                self._sharing[transfer.receiver] -= 1
                self._share(transfer.sender, transfer.receiver, self._clock._now)
                self._arm()
                return True
        return False

    def _share(self, sender: int, receiver: int, now: float) -> None:
        """Plan anew every transfer that uses one of two ends."""
        sharing = self._sharing
        factors = self._factors
        for transfer in self.active:
            if transfer.sender == sender or transfer.receiver == receiver:
                if transfer.updated_s != now:
                    transfer.remaining_bytes -= transfer.rate * (now - transfer.updated_s)
                    transfer.updated_s = now
                a = transfer.sender
                b = transfer.receiver
                share = min(factors[a] / sharing[a], factors[b] / sharing[b])
                transfer.rate = rate = transfer.bandwidth * share
                transfer.done_s = now + max(0.0, transfer.remaining_bytes) / rate

    def _arm(self) -> None:
        soonest = min([transfer.done_s for transfer in self.active], default=inf)
        if soonest < self._wake_s:
            self._wake_s = soonest
            self._clock.call_at(soonest, self._wake_call)

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
