"""The links of the reference simulator; every rate is recomputed whenever it is needed."""

from dataclasses import dataclass
from math import inf

from envs.cluster import ClusterConfig, Topology

End = tuple[str, int, str]
"""One end of a link: "nic" or "nvlink", its number, "send" or "receive"."""

DONE_BYTES = 1e-3


@dataclass(eq=False)
class Transfer:
    """A transfer in progress; `what` is the caller's object."""

    what: object
    ends: tuple[End, End]
    bandwidth: float
    left_bytes: float


class Links:
    """All NICs and NVLinks of a cluster; transfers at an end share it equally."""

    def __init__(self, config: ClusterConfig, topology: Topology) -> None:
        self.hosts = topology.hosts
        self.nics = topology.nics
        self.inter_node = config.profile.inter_node
        self.intra_node = config.profile.intra_node
        self.transfers: list[Transfer] = []
        self.factors: dict[End, float] = {}

    def start(self, what: object, source: int, target: int, size_bytes: float) -> None:
        """Send bytes from one node to another; the latency counts as the bytes that fit into that time."""
        if self.hosts[source] == self.hosts[target]:
            link, kind, numbers = self.intra_node, "nvlink", (source, target)
        else:
            link, kind, numbers = self.inter_node, "nic", (self.nics[source], self.nics[target])
        ends = ((kind, numbers[0], "send"), (kind, numbers[1], "receive"))
        bandwidth = link.bandwidth_bytes_per_s
        self.transfers.append(Transfer(what, ends, bandwidth, size_bytes + link.latency_s * bandwidth))

    def sends(self, what: object) -> bool:
        """Whether a transfer of `what` is on its way."""
        return any(transfer.what is what for transfer in self.transfers)

    def stop(self, what: object) -> None:
        """Drop the transfer of `what`, if there is one."""
        self.transfers = [transfer for transfer in self.transfers if transfer.what is not what]

    def degrade(self, node: int, factor: float) -> None:
        """Set both ends of a node's NIC and NVLink to `factor` times their bandwidth."""
        for way in ("send", "receive"):
            self.factors["nic", self.nics[node], way] = factor
            self.factors["nvlink", node, way] = factor

    def rate(self, transfer: Transfer) -> float:
        """Current bytes per second of a transfer."""
        shares = []
        for end in transfer.ends:
            sharing = sum(end in other.ends for other in self.transfers)
            shares.append(self.factors.get(end, 1.0) / sharing)
        return transfer.bandwidth * min(shares)

    def next_end_s(self, now_s: float) -> float:
        """Time at which the next transfer ends if none starts or stops before; inf without transfers."""
        return min((now_s + max(t.left_bytes, 0.0) / self.rate(t) for t in self.transfers), default=inf)

    def advance(self, now_s: float, until_s: float) -> list[object]:
        """Advance all transfers to `until_s`; returns the arrived ones in order of start."""
        rates = [self.rate(transfer) for transfer in self.transfers]
        arrived = []
        for transfer, rate in zip(self.transfers, rates, strict=True):
            end_s = now_s + max(transfer.left_bytes, 0.0) / rate
            transfer.left_bytes -= rate * (until_s - now_s)
            if end_s <= until_s or transfer.left_bytes <= DONE_BYTES:
                arrived.append(transfer)
        self.transfers = [transfer for transfer in self.transfers if transfer not in arrived]
        return [transfer.what for transfer in arrived]
