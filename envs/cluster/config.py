"""The configuration of a cluster: its shape, nodes and links, and the limits and options of its engines."""

import re
from dataclasses import dataclass
from math import inf
from typing import Literal, get_args

from envs.cluster.disturbance import Disturbance
from hardware_profiles import InputError, Profile

StepBudget = Literal["slo", "fixed"]

_SHAPE = re.compile(r"([1-9]\d{0,2})P([1-9]\d{0,2})D")


def parse_shape(shape: str) -> tuple[int, int]:
    """Numbers of prefill and decode nodes of a shape such as "2P2D".

    Raises:
        InputError: the shape is not of the form NPMD with N and M from 1 to 999.
    """
    match = _SHAPE.fullmatch(shape)
    if match is None:
        raise InputError(f"cluster shape {shape!r} is not of the form NPMD, such as 2P2D or 1P3D")
    return int(match[1]), int(match[2])


def evenly_divided(prefill: int, decode: int) -> tuple[int, int]:
    """Numbers of prefill and decode nodes after the fewest changes of roles that leave them equal or one apart."""
    half = (prefill + decode) // 2
    found = min(max(prefill, half), prefill + decode - half)
    return found, prefill + decode - found


@dataclass(frozen=True)
class ClusterConfig:
    """A cluster and its router.

    Attributes:
        profile: the machine of every node, and its model.
        shape: "NPMD": N prefill nodes (indices 0 to N-1), then M decode nodes. Only policies use these roles: every
            engine can do both jobs.
        hosts: host of each node; nodes of one host are connected by NVLink. None: one host per node, as in the
            cluster of arXiv 2607.02043, where KV moves between hosts.
        report_age_s: age of the node reports that a router sees, seconds.
        token_budget: tokens per step of an engine (vLLM's max_num_batched_tokens).
        step_budget: "slo": an engine also limits each step's prompt tokens so that the step lasts at most `slo_share`
            of the strictest TBT SLO among its decodes; placements have no chunk plan. "fixed": only `token_budget`
            limits a step, and a deflected prompt follows the router's chunk plan (arXiv 2607.02043).
        slo_share: see `step_budget`; above 0, at most 1. Not from a paper: on a real engine a step may take longer than
            planned.
        chunk_grain_tokens: under "slo", a chunk that is cut short is a multiple of this many tokens. The first prompt
            of a step gets at least this many, so that prompts always progress.
        max_seqs: largest number of requests that run on an engine (vLLM's max_num_seqs).
        max_prompts: prompts that may share a step; 1 prefills one prompt at a time.
        kv_block_tokens: KV is transferred in whole blocks of this many tokens (vLLM's default block is 16).
        kv_watermark: share of the KV capacity that new prompts and transfers leave free for requests that decode.
        kv_hold_s: seconds that a prefill node holds a computed prompt's KV while its decode node has no room; then the
            KV is dropped and the decode node computes the prompt itself (vLLM's NIXL connector: 480 s).
        host_overhead_s: host time per step in addition to the kernels, seconds (0 to 4 ms have been measured).
        host_overhead_per_seq_s: the same for each decoding request.
        node_profiles: profile of each node, of one model; None: `profile` everywhere. Routers know it.
        node_speeds: speed of each node relative to its profile; None: 1 everywhere. Routers know it.
        nics: NIC of each node; nodes with the same number share a NIC. None: one NIC per node.
        prefix_cache: nodes keep the KV of earlier prompts. A prefix that a prompt shares with an earlier one (by the
            workload's block hashes) is not computed again, and is not sent to a decode node that has it.
        prefix_cache_share: share of each node's KV capacity that is reserved for its prefix cache.
        prefix_cache_host_tokens: additional tokens of each node's prefix cache in host memory; loading them is free.
        kv_streaming: the KV of each chunk is sent when its step ends, while later chunks are computed; the decode node
            reserves room for the whole prompt at the first chunk. False: all KV is sent once the prompt is computed.
        disturbances: events of a stress test.

    Raises:
        InputError: a value is out of range.
    """

    profile: Profile
    shape: str = "2P2D"
    hosts: tuple[int, ...] | None = None
    report_age_s: float = 0.1
    token_budget: int = 2048
    step_budget: StepBudget = "slo"
    slo_share: float = 0.95
    chunk_grain_tokens: int = 32
    max_seqs: int = 256
    max_prompts: int = 256
    kv_block_tokens: int = 16
    kv_watermark: float = 0.0
    kv_hold_s: float = 480.0
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
        if self.step_budget not in get_args(StepBudget):
            raise InputError(f"step_budget {self.step_budget!r} is not one of {', '.join(get_args(StepBudget))}")
        if not 0.0 < self.slo_share <= 1.0:
            raise InputError(f"slo_share must be above 0 and at most 1, not {self.slo_share}")
        if not 0.0 < self.kv_hold_s <= inf:
            raise InputError(f"kv_hold_s must be a number of seconds above 0, not {self.kv_hold_s}")
        if min(self.max_seqs, self.max_prompts, self.kv_block_tokens, self.chunk_grain_tokens) < 1:
            raise InputError("max_seqs, max_prompts, kv_block_tokens and chunk_grain_tokens must be at least 1")
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
