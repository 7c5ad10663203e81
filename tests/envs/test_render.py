"""Renderings of the cluster."""

import re

import numpy as np
import pytest

from envs.cluster import Cluster, ClusterConfig, Placement, Request
from envs.placement_env import PrefillPlacementEnv
from envs.render import draw_nodes, node_table
from tests.toy import toy_profile


@pytest.fixture
def busy() -> Cluster:
    """1P2D: one prompt in prefill, one deflected, one decoding."""
    cluster = Cluster(ClusterConfig(toy_profile(), shape="1P2D", report_age_s=0.0, step_budget="fixed"), lambda _: None)
    cluster.submit(Request(0, 0.0, 100, 500, 2.0, 0.1), Placement(0, 1))
    cluster.clock.advance_to(1.0)
    cluster.submit(Request(1, 1.0, 5000, 10, 2.0, 0.1), Placement(0, 2))
    cluster.submit(Request(2, 1.0, 3000, 10, 2.0, 0.1), Placement(2, 2, (128,)))
    cluster.clock.advance_to(1.001)
    return cluster


def test_the_table_has_one_line_per_node_with_the_routers_counts(busy: Cluster) -> None:
    time, header, *lines = node_table(busy.view()).splitlines()
    assert time == "t = 1.001 s"
    assert header.split() == ["node", "role", "prompts", "tokens", "deflected", "decodes", "batch", "KV"]
    rows = [line.split() for line in lines]
    assert [row[:7] for row in rows] == [
        ["0", "prefill", "1", "5000", "0", "0", "0"],
        ["1", "decode", "0", "0", "0", "1", "1"],
        ["2", "decode", "1", "3000", "1", "2", "0"],
    ]
    assert all(re.fullmatch(r"\d+\.\d%", row[7]) for row in rows)
    assert len({len(line) for line in [header, *lines]}) == 1, "columns line up"


def test_the_image_is_a_new_array(busy: Cluster) -> None:
    first, second = draw_nodes(busy.view()), draw_nodes(busy.view())
    assert first.dtype == np.uint8
    assert first.shape == (320, 640, 3)
    assert np.array_equal(first, second)
    assert not np.shares_memory(first, second)
    assert first.flags.owndata


def test_the_image_shows_load(busy: Cluster) -> None:
    idle = Cluster(ClusterConfig(toy_profile(), shape="1P2D"), lambda _: None)
    idle.clock.advance_to(1.001)
    blue, orange = (0x00, 0x72, 0xB2), (0xE6, 0x9F, 0x00)

    def area(pixels: np.ndarray, colour: tuple[int, int, int]) -> int:
        return int((pixels == colour).all(axis=2).sum())

    empty, loaded = draw_nodes(idle.view()), draw_nodes(busy.view())
    for colour in (blue, orange):
        assert area(loaded, colour) > area(empty, colour) + 500


@pytest.mark.parametrize(("mode", "kind"), [("ansi", str), ("rgb_array", np.ndarray), (None, type(None))])
def test_the_environment_renders_in_its_mode(mode: str | None, kind: type) -> None:
    env = PrefillPlacementEnv(
        profile=toy_profile(), cluster="4P4D", horizon_requests=30, rate_rps=40.0, render_mode=mode
    )
    assert set(env.metadata["render_modes"]) == {"ansi", "rgb_array"}
    env.reset(seed=0)
    before = env.render()
    assert isinstance(before, kind)
    for _ in range(20):
        env.step(0)
    after = env.render()
    assert mode is None or not np.array_equal(np.asarray(before), np.asarray(after))
    if isinstance(after, str):
        assert len(after.splitlines()) == 2 + 8
    if isinstance(after, np.ndarray):
        assert after.dtype == np.uint8
        assert after.shape == (320, 640, 3)
