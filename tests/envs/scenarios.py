"""Random clusters, workloads and placements with random values of all options, and a policy that follows a scenario.

Times and lengths are irregular so that no two events are at the same instant, where their order would be arbitrary.
"""

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, replace
from math import inf
from typing import Any

import numpy as np
from hypothesis import strategies as st

from envs.cluster import ClusterConfig, Disturbance, Placement, RequestView, RouterView, Topology
from envs.workload import HASH_BLOCK_TOKENS, Workload
from hardware_profiles.step_law import DecodePieces
from tests.toy import TOY_LAW, toy_profile

LONGEST_PROMPT = 4_000
LONGEST_OUTPUT = 300
LEAST_KV_TOKENS = LONGEST_PROMPT + LONGEST_OUTPUT + 64

# D is flat up to a mean context of 1,024 tokens and rises above.
_LINES = [
    ((base_s, 2e-8, 1024.0 * batch), (base_s - 1024 * batch * 7e-8, 9e-8, inf))
    for batch in range(1, 513)
    for base_s in [0.0005 + 0.00005 * batch]
]
_PIECES = DecodePieces(piece_at=(*[0] * 64, 1), lines=((), *_LINES))
LAWS = (TOY_LAW, replace(TOY_LAW, chunk_reread_s=6e-7), replace(TOY_LAW, pieces=_PIECES))

PLANS = ((), (), (256,), (512, 512, 128), (2048,), (100,))


@dataclass(frozen=True, repr=False)
class Scenario:
    """A workload, a cluster, and where each request is placed.

    Attributes:
        workload: the requests.
        config: the cluster.
        placements: placement of each request at its arrival, if its nodes are not lost.
        seed: seed of later placements.
    """

    workload: Workload
    config: ClusterConfig
    placements: tuple[Placement, ...]
    seed: int

    def __repr__(self) -> str:
        options = [
            f"{option.name}={getattr(self.config, option.name)}"
            for option in fields(self.config)
            if option.default is not MISSING and getattr(self.config, option.name) != option.default
            if option.name != "node_profiles"
        ]
        kv_tokens = list(Topology(self.config).kv_capacity_tokens)
        return f"<Scenario {self.seed}: {len(self.workload)} requests, KV {kv_tokens}, {', '.join(options)}>"

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        printer.text(repr(self))  # hypothesis would print every field of a dataclass, including step laws

    def place_again(self, number: int, lost: set[int]) -> Placement:
        """Placement of a request when nodes are lost; it depends only on the request and these nodes."""
        rng = np.random.default_rng([self.seed, number, *sorted(lost)])
        live = [node for node in range(_nodes(self.config.shape)) if node not in lost]
        prompt = int(self.workload.prompt_tokens[number])
        return _placement(rng, live, prompt, 0.3, 0.3, plans=self.config.step_budget == "fixed")


class Scripted:
    """A policy that uses the placements of a scenario."""

    name = "scripted"

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.placed: set[int] = set()

    def place(self, request: RequestView, view: RouterView) -> Placement:
        """Place a request, or place a displaced one again."""
        placement = self.scenario.placements[request.number]
        lost = {node for node in range(view.topology.nodes) if view.topology.is_lost(node)}
        if request.number in self.placed or lost & set(placement[:2]):
            placement = self.scenario.place_again(request.number, lost)
        self.placed.add(request.number)
        return placement


def _nodes(shape: str) -> int:
    return int(shape[0]) + int(shape[2])


def _placement(
    rng: np.random.Generator,
    nodes: Sequence[int],
    prompt: int,
    deflected_share: float,
    split_share: float,
    *,
    plans: bool,
) -> Placement:
    """A random pair of nodes, whatever their roles."""
    plan = PLANS[rng.integers(len(PLANS))] if plans else ()
    prefill = int(rng.choice(nodes))
    others = [node for node in nodes if node != prefill]
    if not others or rng.random() < deflected_share:
        return Placement(prefill, prefill, plan)
    decode = int(rng.choice(others))
    if prompt > 1 and rng.random() < split_share:
        return Placement(prefill, decode, plan, int(rng.integers(1, prompt)))
    return Placement(prefill, decode, plan)


def _workload(
    rng: np.random.Generator, requests: int, gap_s: float, slos: str, outputs: tuple[int, ...], hashes: bool
) -> Workload:
    # Every prompt has a different number of blocks for block sizes up to 64 tokens; short prompts are more frequent.
    blocks = np.arange(1, LONGEST_PROMPT // 64)
    weight = blocks**-1.2
    prompts = 64 * rng.choice(blocks, requests, replace=False, p=weight / weight.sum()) - rng.integers(0, 64, requests)
    # A decode step takes at least 0.009 s.
    classes = {"tight": (0.007, 0.0121), "mixed": (0.011, 0.017, 0.03, 0.06, 0.5), "loose": (0.1, 0.4)}[slos]
    speakers = rng.integers(0, 4, requests)
    hashes_of = [
        tuple(1000 * int(speaker) + block for block in range(-(-int(prompt) // HASH_BLOCK_TOKENS)))
        for speaker, prompt in zip(speakers, prompts, strict=True)
    ]
    return Workload.of(
        np.cumsum(rng.exponential(gap_s, requests)),
        prompts,
        rng.choice(outputs, requests),
        tbt_slo_s=rng.choice(classes, requests) * rng.uniform(1.0, 1.2, requests),
        label="random",
        block_hashes=tuple(hashes_of) if hashes else (),
    )


def _disturbances(rng: np.random.Generator, shape: str, span_s: float, kinds: Sequence[str]) -> tuple[Disturbance, ...]:
    prefill, nodes = int(shape[0]), _nodes(shape)
    # A loss leaves one node of each role.
    may_go = [int(rng.integers(0, prefill))] if prefill > 1 else []
    may_go += [int(rng.integers(prefill, nodes))] if nodes - prefill > 1 else []
    made = []
    for kind in kinds:
        node = int(rng.integers(nodes))
        if kind == "loss":
            if not may_go:
                continue
            node = may_go.pop(int(rng.integers(len(may_go))))
        made.append(Disturbance(float(rng.uniform(0.0, span_s)), kind, node, float(rng.uniform(0.3, 1.5))))
    return tuple(made)


@st.composite
def scenarios(draw: st.DrawFn, most_requests: int = 40, plenty_of_kv: bool = False) -> Scenario:
    """Draw a scenario.

    Args:
        draw: given by hypothesis.
        most_requests: upper bound on the requests.
        plenty_of_kv: KV never runs out.
    """
    rng = np.random.default_rng(seed := draw(st.integers(0, 2**32)))
    requests = draw(st.integers(1, most_requests))
    shape = draw(st.sampled_from(["1P1D", "2P2D", "1P3D", "3P1D"]))
    nodes = _nodes(shape)
    gap_s = draw(st.sampled_from([0.003, 0.03, 0.03, 0.3]))
    law = draw(st.sampled_from(LAWS))
    cache = draw(st.sampled_from([False, False, True]))
    share = draw(st.sampled_from([0.1, 0.3, 0.5])) if cache else 0.0
    tight = [LEAST_KV_TOKENS, 6_000, 12_000]
    kv_tokens = 400_000 if plenty_of_kv else draw(st.sampled_from([*tight, 400_000]))
    kinds = draw(st.lists(st.sampled_from(["speed", "link", "loss", "loss"]), max_size=3))
    max_seqs = draw(st.sampled_from([2, 4, 256, 256]))
    fixed = draw(st.booleans())
    profiles = [toy_profile(int((kv_tokens + extra) / (1.0 - share)) + 1, law) for extra in (0, 3_000)]
    profiles[1] = replace(profiles[1], name="toy, larger")
    differ = draw(st.booleans())
    slos = draw(st.sampled_from(["tight", "mixed", "mixed", "loose"]))
    outputs = draw(st.sampled_from([(1, 2, 3, 40, LONGEST_OUTPUT), (1, 100, LONGEST_OUTPUT), (LONGEST_OUTPUT,)]))
    workload = _workload(rng, requests, gap_s, slos, outputs, draw(st.booleans()) or cache)
    config = ClusterConfig(
        profiles[0],
        shape=shape,
        hosts=draw(st.sampled_from([None, (0,) * nodes, tuple(node % 2 for node in range(nodes))])),
        nics=draw(st.sampled_from([None, None, (0,) * nodes, tuple(node // 2 for node in range(nodes))])),
        node_profiles=tuple(profiles[i] for i in rng.integers(0, 2, nodes)) if differ else None,
        node_speeds=tuple(rng.uniform(0.5, 1.5, nodes).tolist()) if differ else None,
        host_overhead_s=draw(st.sampled_from([0.0, 0.0013])),
        host_overhead_per_seq_s=draw(st.sampled_from([0.0, 0.00007])),
        token_budget=draw(st.sampled_from([300, 2048, 2048, 8000])),
        max_seqs=max_seqs,
        max_prompts=draw(st.sampled_from([1, 2, 256])),
        kv_block_tokens=draw(st.sampled_from([1, 16, 64])),
        kv_watermark=draw(st.sampled_from([0.0, 0.0, 0.05])),
        kv_streaming=draw(st.booleans()),
        kv_hold_s=draw(st.sampled_from([0.0317, 0.517, 480.0])),
        prefix_cache=cache,
        prefix_cache_share=share if cache else 0.3,
        prefix_cache_host_tokens=draw(st.sampled_from([0, 20_000])) if cache else 0,
        step_budget="fixed" if fixed else "slo",
        slo_share=draw(st.sampled_from([0.95, 0.6])),
        chunk_grain_tokens=draw(st.sampled_from([32, 32, 100])),
        disturbances=_disturbances(rng, shape, 1.5 * gap_s * requests + 0.5, kinds),
    )
    deflected_share = draw(st.sampled_from([0.0, 0.3, 1.0]))
    split_share = draw(st.sampled_from([0.0, 0.4, 1.0]))
    placements = tuple(
        _placement(rng, range(nodes), int(prompt), deflected_share, split_share, plans=fixed)
        for prompt in workload.prompt_tokens
    )
    return Scenario(workload, config, placements, seed)
