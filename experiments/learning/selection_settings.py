"""The settings of the episodes that the members of a portfolio play, so that its selection knows more than one cluster.

Half of the episodes have the SLOs of the evaluation, the others SLOs from the ranges around them. A share of both is on
other clusters: shapes at the same rates per node, one slower node, nodes or links that are slower than routers are
told, or another hardware profile, with tighter TBT SLOs or not; or has higher rates or other requests than the
settings.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from envs.cluster import Disturbance, Topology, parse_shape
from envs.prediction import decode_step_s
from envs.slos import MOONCAKE_TTFT_PER_1K_TOKENS_S
from envs.variation import Variation
from experiments.learning.mixture import Setting
from experiments.runs.requests import Family

_OTHER_SHAPES = ("1P1D", "1P2D", "2P1D", "2P3D", "3P2D", "3P3D", "3P4D", "4P5D", "6P6D")
"""Evenly divided nodes, because policies see others like that (`agents.own_view`); none is in docs/protocol.md."""
_SLOW = (0.5, 0.7, 0.85)
"""Speeds of a slower node; the one of docs/protocol.md has another."""
_MISJUDGED = (0.7, 0.9)
"""Speeds that routers are not told; those of docs/protocol.md are others."""
_BUSIER = (1.4, 3.0)
"""Range of a factor on rates. Load 1 is the knee of `static` on 2P2D; others carry up to three times as much per node
on larger clusters (docs/results.md, "Capacity by shape")."""
_TIGHTER, _WITH_TIGHTER = (0.5, 0.95), 0.5
"""Range of a factor on the TBT SLOs of other hardware profiles, and the share that has it: a typical decode step may be
longer than the SLO."""
_KV, _WITH_LESS_KV = (0.1, 1.0), 0.5
"""Range of a factor on the KV capacity of other hardware profiles, and the share that has it."""

_PROMPT_FACTORS, _OUTPUT_FACTORS, _WORK_FACTORS = (0.25, 8.0), (0.2, 10.0), (0.7, 1.6)
_BUSY_S, _PAUSE_S, _WITH_PAUSES = (1.0, 40.0), (4.0, 120.0), 0.5
"""Ranges of what varies, see `envs.variation`, and the share with pauses. Mean outputs are from ten tokens, as those of
code completion, to thousands, as those of reasoning models; mean prompts up to 10,000 or more, as those of long
conversations. None of these is from a paper."""
_WITH_GROWING_TTFT = 0.3
"""Share with a TTFT SLO that grows with the prompt, because long prompts cannot meet 2 s."""
_WORK_REQUESTS, _WORK_BATCH = 512, 32


def reshaped(setting: Setting, shape: str) -> Setting:
    """A setting on another cluster shape, at the same rates per node."""
    assert isinstance(setting.source, Family)
    per_node = sum(parse_shape(shape)) / sum(parse_shape(setting.config.shape))
    source = replace(setting.source, unit_rps=setting.source.unit_rps * per_node)
    return replace(setting, name=f"{setting.name} {shape}", source=source, config=replace(setting.config, shape=shape))


def slowed(setting: Setting, node: int, speed: float) -> Setting:
    """A setting on a cluster with one node of another speed, at the same rates."""
    nodes = range(sum(parse_shape(setting.config.shape)))
    speeds = tuple([speed if one == node else 1.0 for one in nodes])
    return replace(
        setting,
        name=f"{setting.name}, node {node} at {speed:g}",
        config=replace(setting.config, node_speeds=speeds),
    )


def misjudged(setting: Setting, part: str, factor: float) -> Setting:
    """A setting whose "prefill" or "decode" nodes, or the "links" of all nodes, are slower than routers are told."""
    prefill, decode = parse_shape(setting.config.shape)
    nodes = range(prefill if part == "decode" else 0, prefill if part == "prefill" else prefill + decode)
    events = tuple([Disturbance(0.0, "link" if part == "links" else "speed", node, factor) for node in nodes])
    return replace(
        setting,
        name=f"{setting.name}, {part} at {factor:g}",
        config=replace(setting.config, disturbances=events),
    )


def busier(setting: Setting, factor: float) -> Setting:
    """A setting at higher rates."""
    assert isinstance(setting.source, Family)
    source = replace(setting.source, unit_rps=factor * setting.source.unit_rps)
    return replace(setting, name=f"{setting.name}, rates {factor:g}x", source=source)


def tightened(setting: Setting, factor: float) -> Setting:
    """A setting with other TBT SLOs, at the same rates."""
    assert isinstance(setting.source, Family)
    slos, range_s = setting.source.slos, setting.source.tbt_range_s
    source = replace(
        setting.source,
        slos=slos.changed(lambda one: replace(one, tbt_s=factor * one.tbt_s)),
        tbt_range_s=None if range_s is None else (factor * range_s[0], factor * range_s[1]),
    )
    return replace(setting, name=f"{setting.name}, TBT SLOs {factor:g}x", source=source)


def with_less_kv(setting: Setting, factor: float) -> Setting:
    """A setting on a cluster whose nodes hold less KV."""
    profile = setting.config.profile
    profile = replace(profile, kv_capacity_tokens=round(factor * profile.kv_capacity_tokens))
    return replace(setting, name=f"{setting.name}, KV {factor:g}x", config=replace(setting.config, profile=profile))


def varied(setting: Setting, rng: np.random.Generator) -> Setting:
    """A setting with other lengths and about as much work; in some draws with pauses or growing TTFT SLOs."""
    assert isinstance(setting.source, Family)
    ranges = (_PROMPT_FACTORS, _OUTPUT_FACTORS, _WORK_FACTORS, _BUSY_S, _PAUSE_S)
    prompt, output, work, busy_s, pause_s = (float(np.exp(rng.uniform(*np.log(limits)))) for limits in ranges)
    variation = Variation(prompt, output, busy_s, pause_s if rng.random() < _WITH_PAUSES else 0.0)
    source = replace(setting.source, variation=variation)
    if rng.random() < _WITH_GROWING_TTFT:
        slos = source.slos.changed(lambda one: replace(one, ttft_per_1k_tokens_s=MOONCAKE_TTFT_PER_1K_TOKENS_S))
        source = replace(source, slos=slos)
    other = replace(setting, name=f"{setting.name}, varied", source=source)
    rate_rps = setting.source.unit_rps * work * work_s(setting) / work_s(other)
    return replace(other, source=replace(source, unit_rps=rate_rps))


def work_s(setting: Setting) -> float:
    """Mean time that a request takes of a node: that of its prompt in full steps, and its share of decode steps."""
    requests = setting.source.draw(_WORK_REQUESTS, 1.0, 0)
    topology = Topology(setting.config)
    law = topology.laws[0]
    prompt_tokens, output_tokens = float(requests.prompt_tokens.mean()), float(requests.output_tokens.mean())
    context = prompt_tokens + 0.5 * output_tokens
    batch = min(_WORK_BATCH, law.max_decode_batch)
    prefill_s = prompt_tokens / topology.token_budget * law.chunk_step_s(topology.token_budget, 0.0)
    return prefill_s + output_tokens / batch * decode_step_s(law, batch, int(batch * context))


def _on_another_shape(setting: Setting, rng: np.random.Generator) -> Setting:
    return reshaped(setting, str(rng.choice(_OTHER_SHAPES)))


def _with_a_slow_node(setting: Setting, rng: np.random.Generator) -> Setting:
    last = sum(parse_shape(setting.config.shape)) - 1
    return slowed(setting, int(rng.choice((0, last))), float(rng.choice(_SLOW)))


def _with_a_misjudged_part(setting: Setting, rng: np.random.Generator) -> Setting:
    part = str(rng.choice(("prefill", "decode", "links")))
    return misjudged(setting, part, float(rng.choice(_MISJUDGED)))


def _with_higher_rates(setting: Setting, rng: np.random.Generator) -> Setting:
    shape = str(rng.choice((setting.config.shape, *_OTHER_SHAPES)))
    return busier(reshaped(setting, shape), round(float(rng.uniform(*_BUSIER)), 2))


_KINDS = (
    _on_another_shape,
    _with_a_slow_node,
    _with_a_misjudged_part,
    _with_higher_rates,
    _with_higher_rates,
    varied,
    varied,
)
"""Equally likely; two are listed twice, because a selection had the largest regrets there."""


def with_own_slos(setting: Setting) -> Setting:
    """A setting without a range of SLOs: all its episodes have the SLOs of the evaluation."""
    if not isinstance(setting.source, Family):
        return setting
    return replace(setting, source=replace(setting.source, tbt_range_s=None))


def drawn_settings(
    settings: Sequence[Setting],
    episodes: int,
    seed: int,
    other_clusters: float,
    elsewhere: Sequence[Sequence[Setting]] = (),
) -> list[Setting]:
    """The settings in turn, with their ranges of SLOs and with own ones, and a share of both on other clusters.

    Args:
        settings: of the mixture.
        episodes: how many to draw.
        seed: of the draws.
        other_clusters: the share.
        elsewhere: for each of some hardware profiles, the same settings with it, half of which get tighter TBT SLOs,
            and half of which less KV. Each of these profiles is as likely as each of _KINDS.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0x5E1,)))
    drawn = []
    for number in range(episodes):
        around, index = divmod(number, len(settings))
        setting = settings[index]
        due = (around // 2 + 1) * other_clusters % 1.0 < other_clusters
        usual = not setting.cluster_fields and setting.config.hosts is None
        if due and usual and isinstance(setting.source, Family):
            kind = int(rng.integers(len(_KINDS) + len(elsewhere)))
            if kind < len(_KINDS):
                setting = _KINDS[kind](setting, rng)
            else:
                setting = elsewhere[kind - len(_KINDS)][index]
                if rng.random() < _WITH_TIGHTER:
                    setting = tightened(setting, round(float(rng.uniform(*_TIGHTER)), 2))
                if rng.random() < _WITH_LESS_KV:
                    setting = with_less_kv(setting, round(float(np.exp(rng.uniform(*np.log(_KV)))), 2))
        drawn.append(with_own_slos(setting) if around % 2 else setting)
    return drawn
