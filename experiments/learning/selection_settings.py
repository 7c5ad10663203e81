"""The settings of the episodes that the members of a portfolio play, so that its selection knows more than one cluster.

Half of the episodes have the SLOs of the evaluation, the others SLOs from the ranges around them. A share of both is on
other clusters: shapes at the same rates per node, one slower node, or another hardware profile.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from envs.cluster import evenly_divided, parse_shape
from experiments.learning.mixture import Setting
from experiments.runs.requests import Family

_OTHER_SHAPES = ("1P1D", "1P2D", "2P1D", "2P3D", "3P2D", "3P3D")
"""Evenly divided nodes, because policies see others like that (`agents.even_roles`); none is in docs/protocol.md."""
_SLOW = (0.5, 0.7, 0.85)
"""Speeds of a slower node; the one of docs/protocol.md has another."""


def with_even_roles(setting: Setting) -> Setting:
    """A setting on the same nodes, evenly divided into prefill and decode nodes."""
    prefill, decode = evenly_divided(*parse_shape(setting.config.shape))
    return replace(setting, config=replace(setting.config, shape=f"{prefill}P{decode}D"))


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
        elsewhere: for each of some hardware profiles, the same settings with it. Other shapes, slower nodes and each of
            these profiles are equally likely.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0x5E1,)))
    drawn = []
    for number in range(episodes):
        around, index = divmod(number, len(settings))
        setting = settings[index]
        due = (around // 2 + 1) * other_clusters % 1.0 < other_clusters
        usual = not setting.cluster_fields and setting.config.hosts is None
        if due and usual and isinstance(setting.source, Family):
            kind = int(rng.integers(2 + len(elsewhere)))
            if kind == 0:
                setting = reshaped(setting, str(rng.choice(_OTHER_SHAPES)))
            elif kind == 1:
                last = sum(parse_shape(setting.config.shape)) - 1
                setting = slowed(setting, int(rng.choice((0, last))), float(rng.choice(_SLOW)))
            else:
                setting = elsewhere[kind - 2][index]
        drawn.append(with_own_slos(setting) if around % 2 else setting)
    return drawn
