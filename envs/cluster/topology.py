"""The static knowledge of a router about a cluster: nodes, links, step laws and limits."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from envs.cluster.config import ClusterConfig, parse_shape
from hardware_profiles import Link, Profile, StepLaw

_TYPICAL_BATCH, _TYPICAL_CONTEXT_TOKENS = 32, 1024


class Topology:
    """The static knowledge of a router, part of every view. Only the loss of a node changes it.

    Roles are labels for routers: engines do not know them, and any node may prefill, decode or do both.

    Attributes:
        prefill_nodes: indices of the prefill nodes that are not lost.
        decode_nodes: indices of the decode nodes that are not lost.
        live_nodes: indices of all nodes that are not lost.
        lost: indices of the lost nodes.
        decodes: of each node, whether its role is decode, lost ones included.
        hosts: host of each node.
        nics: NIC of each node.
        laws: step law of each node.
        speeds: speed of each node relative to the first one, by the time of a full step of prompt tokens.
        kv_capacity_tokens: KV that requests may hold, per node.
        prefix_cache_tokens: KV that the prefix cache may hold, per node.
        kv_bytes_per_token: bytes of KV per token.
        token_budget: tokens per step of an engine.
        step_budget, slo_share, chunk_grain_tokens: see `ClusterConfig`.
        max_seqs: largest number of requests that run on an engine.
        typical_decode_steps_s: duration of a decode step of 32 requests with 1,024 tokens of context each, per node,
            seconds.
        typical_decode_step_s: their mean, a reference for TBT SLOs.
    """

    def __init__(self, config: ClusterConfig) -> None:
        self._config = config
        prefill, decode = parse_shape(config.shape)
        nodes = prefill + decode
        profiles = config.node_profiles or (config.profile,) * nodes
        self.prefill_nodes = tuple(range(prefill))
        self.decode_nodes = tuple(range(prefill, nodes))
        self.live_nodes = self.prefill_nodes + self.decode_nodes
        self.decodes = (False,) * prefill + (True,) * decode
        self.hosts: tuple[int, ...] = tuple(config.hosts if config.hosts is not None else range(nodes))
        self.nics: tuple[int, ...] = tuple(config.nics if config.nics is not None else range(nodes))
        self.laws = _laws(config, profiles)
        share = config.prefix_cache_share if config.prefix_cache else 0.0
        set_aside = [int(share * profile.kv_capacity_tokens) for profile in profiles]
        self.prefix_cache_tokens = tuple([tokens + config.prefix_cache_host_tokens for tokens in set_aside])
        self.kv_capacity_tokens: tuple[int, ...] = tuple(
            [profile.kv_capacity_tokens - tokens for profile, tokens in zip(profiles, set_aside, strict=True)]
        )
        self.kv_bytes_per_token = config.profile.kv_bytes_per_token
        self.token_budget = config.token_budget
        self.step_budget = config.step_budget
        self.slo_share = config.slo_share
        self.chunk_grain_tokens = config.chunk_grain_tokens
        self.max_seqs = config.max_seqs
        self._inter_node = config.profile.inter_node
        self._intra_node = config.profile.intra_node
        self._block_tokens = config.kv_block_tokens
        self.typical_decode_steps_s = tuple(
            [
                law.token_time_s[batch] + law.decode_s(batch, batch * _TYPICAL_CONTEXT_TOKENS)
                for law in self.laws
                for batch in (min(_TYPICAL_BATCH, law.max_decode_batch),)
            ]
        )
        self.typical_decode_step_s = sum(self.typical_decode_steps_s) / nodes
        full_s = [law.chunk_step_s(config.token_budget, 0.0) for law in self.laws]
        self.speeds = tuple([full_s[0] / one_s for one_s in full_s])
        self.lost: frozenset[int] = frozenset()

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return len(self.hosts)

    def lose(self, node: int) -> None:
        """Remove a node from the lists of nodes."""
        self.lost |= {node}
        self.prefill_nodes = tuple([other for other in self.prefill_nodes if other != node])
        self.decode_nodes = tuple([other for other in self.decode_nodes if other != node])
        self.live_nodes = self.prefill_nodes + self.decode_nodes

    def is_lost(self, node: int) -> bool:
        """Whether a node is lost."""
        return node in self.lost

    def copy(self) -> "Topology":
        """An independent copy."""
        return self._with_config(self._config)

    def with_roles(self, prefill_nodes: tuple[int, ...]) -> "Topology":
        """The same live nodes, of which these are prefill nodes and all others decode nodes; itself if they are now."""
        if prefill_nodes == self.prefill_nodes:
            return self
        twin = self.copy()
        twin.prefill_nodes = prefill_nodes
        twin.decode_nodes = tuple([node for node in self.live_nodes if node not in prefill_nodes])
        twin.decodes = tuple([node not in prefill_nodes for node in range(self.nodes)])
        return twin

    def with_speeds(self, speeds: Sequence[float]) -> "Topology":
        """The same nodes with these speeds, relative to their present ones; itself if all are 1."""
        if all(speed == 1.0 for speed in speeds):
            return self
        known = self._config.node_speeds or (1.0,) * self.nodes
        changed = tuple([speed * factor for speed, factor in zip(known, speeds, strict=True)])
        return self._with_config(replace(self._config, node_speeds=changed))

    def _with_config(self, config: ClusterConfig) -> "Topology":
        """The nodes of another configuration with the present roles and losses."""
        twin = Topology(config)
        twin.lost = self.lost
        twin.prefill_nodes = self.prefill_nodes
        twin.decode_nodes = self.decode_nodes
        twin.live_nodes = self.live_nodes
        twin.decodes = self.decodes
        return twin

    def link(self, source: int, target: int) -> Link:
        """The link between two nodes."""
        return self._intra_node if self.hosts[source] == self.hosts[target] else self._inter_node

    def kv_bytes(self, tokens: int) -> int:
        """Bytes in a transfer of the KV of `tokens` tokens, rounded up to whole blocks."""
        block = self._block_tokens
        return -(-tokens // block) * block * self.kv_bytes_per_token

    def whole_blocks(self, tokens: int) -> int:
        """`tokens` rounded down to whole blocks."""
        return tokens - tokens % self._block_tokens

    def transfer_s(self, source: int, target: int, tokens: int) -> float:
        """Seconds of a transfer of `tokens` tokens of KV between two nodes, alone on their link."""
        near = self.hosts[source] == self.hosts[target]
        return self.intra_node_transfer_s(tokens) if near else self.inter_node_transfer_s(tokens)

    def intra_node_transfer_s(self, tokens: int) -> float:
        """The same for two nodes of one host."""
        return self._intra_node.latency_s + self.kv_bytes(tokens) / self._intra_node.bandwidth_bytes_per_s

    def inter_node_transfer_s(self, tokens: int) -> float:
        """The same for nodes of two hosts."""
        return self._inter_node.latency_s + self.kv_bytes(tokens) / self._inter_node.bandwidth_bytes_per_s


def _laws(config: ClusterConfig, profiles: Sequence[Profile]) -> tuple[StepLaw, ...]:
    """The step law of each node; equal nodes share their tables."""
    step_s = config.host_overhead_s
    seq_s = config.host_overhead_per_seq_s
    speeds = config.node_speeds or (1.0,) * len(profiles)
    return tuple([_law(one.law, speed, step_s, seq_s) for one, speed in zip(profiles, speeds, strict=True)])


# Equal clusters share them, too: a law takes megabytes, and 32 environments should not evict it from the CPU's cache.
@lru_cache(16)
def _law(law: StepLaw, speed: float, step_s: float, seq_s: float) -> StepLaw:
    """A profile's law for a node with this speed and host overhead."""
    if speed != 1.0:
        law = law.scaled(1.0 / speed)
    return law.with_overhead(step_s=step_s, seq_s=seq_s) if step_s or seq_s else law
