"""What a cluster is made of: its shape, its nodes' laws, its links and its engines' limits."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from envs.cluster.disturbance import Disturbance
from hardware_profiles import InputError, Link, Profile, StepLaw

_SHAPE = re.compile(r"([1-9]\d{0,2})P([1-9]\d{0,2})D")


def parse_shape(shape: str) -> tuple[int, int]:
    """Numbers of prefill and decode nodes of a shape such as "2P2D".

    Raises:
        InputError: not of the form NPMD with N and M from 1 to 999.
    """
    match = _SHAPE.fullmatch(shape)
    if match is None:
        raise InputError(f"cluster shape {shape!r} is not of the form NPMD, such as 2P2D or 1P3D")
    return int(match[1]), int(match[2])


@dataclass(frozen=True)
class ClusterConfig:
    """A cluster and what its router sees.

    Attributes:
        profile: the machines and the model on them.
        shape: "NPMD": N prefill nodes (indices 0 to N-1), then M decode nodes.
        hosts: host of each node; nodes of one host are joined by NVLink. None: every node on a host of its own, as in
            the cluster of arXiv 2607.02043, whose KV moves between hosts.
        report_age_s: age of the node reports that a router sees, seconds.
        token_budget: tokens of an engine's step (vLLM's max_num_batched_tokens).
        max_seqs: sequences of an engine's step (vLLM's max_num_seqs).
        max_prompts: prompts that may share a step; 1 prefills one prompt at a time.
        kv_block_tokens: KV is transferred in whole blocks of this many tokens (vLLM's default block is 16).
        kv_watermark: share of the KV capacity that new prompts and transfers leave free for sequences that decode.
        host_overhead_s: host time a step adds to the kernels', seconds (0 to 4 ms have been measured).
        host_overhead_per_seq_s: the same for each decoding sequence.
        node_profiles: profile of each node, of one model; None: `profile` everywhere. Routers know it.
        node_speeds: speed of each node relative to its profile; None: 1 everywhere. Routers know it.
        nics: NIC of each node; nodes that name the same one share it. None: a NIC a node.
        prefix_cache: nodes keep the KV of prompts they have had: what a prompt shares with an earlier one (block hashes
            of the workload say what) is not computed again, and not sent to a decode node that has it.
        prefix_cache_share: share of each node's KV capacity that its prefix cache has to itself.
        prefix_cache_host_tokens: KV that each node's prefix cache holds in host memory besides; loading it is free.
        kv_streaming: the KV of each chunk is sent when its step ends, while later chunks are computed; the decode node
            reserves room for the whole prompt at the first. False: all of it once the prompt is computed.
        disturbances: what goes wrong while the cluster runs.

    Raises:
        InputError: a value out of range.
    """

    profile: Profile
    shape: str = "2P2D"
    hosts: tuple[int, ...] | None = None
    report_age_s: float = 0.1
    token_budget: int = 2048
    max_seqs: int = 256
    max_prompts: int = 256
    kv_block_tokens: int = 16
    kv_watermark: float = 0.0
    host_overhead_s: float = 0.0
    host_overhead_per_seq_s: float = 0.0
    node_profiles: tuple[Profile, ...] | None = None
    node_speeds: tuple[float, ...] | None = None
    nics: tuple[int, ...] | None = None
    prefix_cache: bool = False
    prefix_cache_share: float = 0.3
    prefix_cache_host_tokens: int = 0
    kv_streaming: bool = False
    disturbances: tuple[Disturbance, ...] = ()

    def __post_init__(self) -> None:
        nodes = sum(parse_shape(self.shape))
        for name in ("hosts", "node_profiles", "node_speeds", "nics"):
            given = getattr(self, name)
            if given is not None and len(given) != nodes:
                raise InputError(f"{name} names {len(given)} nodes, the shape {self.shape} has {nodes}")
        if not all(0.0 < speed < inf for speed in self.node_speeds or ()):
            raise InputError(f"node_speeds must be finite numbers above 0, not {self.node_speeds}")
        for other in self.node_profiles or ():
            if other.kv_bytes_per_token != self.profile.kv_bytes_per_token:
                raise InputError(f"node_profiles: {other.name} and {self.profile.name} have KV of different sizes")
        for disturbance in self.disturbances:
            if not 0 <= disturbance.node < nodes:
                raise InputError(
                    f"disturbance names node {disturbance.node}, the shape {self.shape} has 0 to {nodes - 1}"
                )
        if not 0.0 <= self.kv_watermark < 1.0:
            raise InputError(f"kv_watermark must be from 0 to below 1, not {self.kv_watermark}")
        if not 0.0 <= self.prefix_cache_share < 1.0:
            raise InputError(f"prefix_cache_share must be from 0 to below 1, not {self.prefix_cache_share}")
        if self.prefix_cache_host_tokens < 0:
            raise InputError(f"prefix_cache_host_tokens must be 0 or more, not {self.prefix_cache_host_tokens}")
        if min(self.host_overhead_s, self.host_overhead_per_seq_s) < 0.0:
            raise InputError("host_overhead_s and host_overhead_per_seq_s must be 0 or more")
        if not 0.0 <= self.report_age_s < inf:
            raise InputError(f"report age {self.report_age_s} is not a number of seconds from 0 on")
        if min(self.max_seqs, self.max_prompts, self.kv_block_tokens) < 1:
            raise InputError("max_seqs, max_prompts and kv_block_tokens must be at least 1")
        if not self.max_seqs < self.token_budget:
            raise InputError(f"token budget {self.token_budget} must be larger than max_seqs, {self.max_seqs}")
        for profile in (self.profile, *(self.node_profiles or ())):
            if self.max_seqs > profile.law.max_decode_batch:
                raise InputError(
                    f"max_seqs {self.max_seqs} is beyond the {profile.law.max_decode_batch} sequences a step of profile"
                    f" {profile.name} covers"
                )
            largest = profile.law.max_step_tokens
            if self.token_budget > largest:
                raise InputError(
                    f"token budget {self.token_budget} is beyond the {largest} tokens a step of profile"
                    f" {profile.name} covers"
                )


class Topology:
    """What a router knows of the cluster beforehand; every view carries it. Only the loss of a node changes it.

    Attributes:
        prefill_nodes: indices of the prefill nodes that are there.
        decode_nodes: indices of the decode nodes that are there.
        first_decode_node: lower indices are prefill nodes.
        hosts: host of each node.
        nics: NIC of each node.
        laws: step law of each node.
        kv_capacity_tokens: KV that sequences may hold, per node.
        prefix_cache_tokens: KV that the prefix cache may hold, per node.
        kv_bytes_per_token: bytes of KV a token.
        token_budget: tokens of an engine's step.
        max_seqs: sequences of an engine's step.
    """

    def __init__(self, config: ClusterConfig) -> None:
        prefill, decode = parse_shape(config.shape)
        nodes = prefill + decode
        profiles = config.node_profiles or (config.profile,) * nodes
        speeds = config.node_speeds or (1.0,) * nodes
        self.prefill_nodes = tuple(range(prefill))
        self.decode_nodes = tuple(range(prefill, nodes))
        self.first_decode_node = prefill
        self.hosts: Sequence[int] = config.hosts if config.hosts is not None else tuple(range(nodes))
        self.nics: Sequence[int] = config.nics if config.nics is not None else tuple(range(nodes))
        made: dict[tuple[str, float], StepLaw] = {}  # nodes that are alike share their tables
        for profile, speed in zip(profiles, speeds, strict=True):
            if (profile.name, speed) not in made:
                law = profile.law if speed == 1.0 else profile.law.scaled(1.0 / speed)
                if config.host_overhead_s or config.host_overhead_per_seq_s:
                    law = law.with_overhead(step_s=config.host_overhead_s, seq_s=config.host_overhead_per_seq_s)
                made[profile.name, speed] = law
        self.laws: Sequence[StepLaw] = tuple(
            [made[profile.name, speed] for profile, speed in zip(profiles, speeds, strict=True)]
        )
        share = config.prefix_cache_share if config.prefix_cache else 0.0
        set_aside = [int(share * profile.kv_capacity_tokens) for profile in profiles]
        self.prefix_cache_tokens = tuple([tokens + config.prefix_cache_host_tokens for tokens in set_aside])
        self.kv_capacity_tokens: Sequence[int] = tuple(
            [profile.kv_capacity_tokens - tokens for profile, tokens in zip(profiles, set_aside, strict=True)]
        )
        self.kv_bytes_per_token = config.profile.kv_bytes_per_token
        self.token_budget = config.token_budget
        self.max_seqs = config.max_seqs
        self._inter_node = config.profile.inter_node
        self._intra_node = config.profile.intra_node
        self._block_tokens = config.kv_block_tokens

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return len(self.hosts)

    def lose(self, node: int) -> None:
        """Take a node out of the lists of nodes that are there."""
        self.prefill_nodes = tuple([other for other in self.prefill_nodes if other != node])
        self.decode_nodes = tuple([other for other in self.decode_nodes if other != node])

    def link(self, source: int, target: int) -> Link:
        """The link between two nodes."""
        return self._intra_node if self.hosts[source] == self.hosts[target] else self._inter_node

    def kv_bytes(self, tokens: int) -> int:
        """Bytes that move when the KV of `tokens` tokens is transferred, in whole blocks."""
        block = self._block_tokens
        return -(-tokens // block) * block * self.kv_bytes_per_token

    def whole_blocks(self, tokens: int) -> int:
        """How many of `tokens` first tokens fill whole blocks."""
        return tokens - tokens % self._block_tokens

    def transfer_s(self, source: int, target: int, tokens: int) -> float:
        """Seconds that the transfer of `tokens` tokens of KV takes alone on its link."""
        link = self.link(source, target)
        return link.latency_s + self.kv_bytes(tokens) / link.bandwidth_bytes_per_s
