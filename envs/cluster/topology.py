"""What a cluster is made of: its shape, its nodes' laws, its links and its engines' limits."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

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

    def __post_init__(self) -> None:
        prefill, decode = parse_shape(self.shape)
        if self.hosts is not None and len(self.hosts) != prefill + decode:
            raise InputError(f"hosts names {len(self.hosts)} nodes, the shape {self.shape} has {prefill + decode}")
        if not 0.0 <= self.report_age_s < float("inf"):
            raise InputError(f"report age {self.report_age_s} is not a number of seconds from 0 on")
        if min(self.max_seqs, self.max_prompts, self.kv_block_tokens) < 1:
            raise InputError("max_seqs, max_prompts and kv_block_tokens must be at least 1")
        if not self.max_seqs < self.token_budget:
            raise InputError(f"token budget {self.token_budget} must be larger than max_seqs, {self.max_seqs}")
        largest = self.profile.law.max_step_tokens
        if self.token_budget > largest:
            raise InputError(
                f"token budget {self.token_budget} is beyond the {largest} tokens a step of profile"
                f" {self.profile.name} covers"
            )


class Topology:
    """What never changes while a cluster runs; every view carries it.

    Attributes:
        prefill_nodes: indices of the prefill nodes.
        decode_nodes: indices of the decode nodes.
        hosts: host of each node.
        laws: step law of each node.
        kv_capacity_tokens: KV that fits, per node.
        kv_bytes_per_token: bytes of KV a token.
        token_budget: tokens of an engine's step.
        max_seqs: sequences of an engine's step.
    """

    def __init__(self, config: ClusterConfig) -> None:
        prefill, decode = parse_shape(config.shape)
        nodes = prefill + decode
        self.prefill_nodes = tuple(range(prefill))
        self.decode_nodes = tuple(range(prefill, nodes))
        self.hosts: Sequence[int] = config.hosts if config.hosts is not None else tuple(range(nodes))
        self.laws: Sequence[StepLaw] = (config.profile.law,) * nodes
        self.kv_capacity_tokens: Sequence[int] = (config.profile.kv_capacity_tokens,) * nodes
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

    def link(self, source: int, target: int) -> Link:
        """The link between two nodes."""
        return self._intra_node if self.hosts[source] == self.hosts[target] else self._inter_node

    def kv_bytes(self, tokens: int) -> int:
        """Bytes that move when the KV of `tokens` tokens is transferred, in whole blocks."""
        block = self._block_tokens
        return -(-tokens // block) * block * self.kv_bytes_per_token

    def transfer_s(self, source: int, target: int, tokens: int) -> float:
        """Seconds that the transfer of `tokens` tokens of KV takes alone on its link."""
        link = self.link(source, target)
        return link.latency_s + self.kv_bytes(tokens) / link.bandwidth_bytes_per_s
