"""The settings of a mixture of workload families."""

from pathlib import Path

import pytest

from envs.cluster import ClusterConfig, parse_shape
from experiments.learning.family_settings import family_settings
from experiments.options.slo_options import SloOptions
from experiments.runs.cache import Cache
from experiments.runs.executors import Execution
from experiments.runs.known_knees import read_knees
from experiments.runs.requests import Family
from hardware_profiles import InputError, load_profile

CONFIG = ClusterConfig(load_profile("a100-qwen3-8b"), step_budget="slo")
SLOS = [SloOptions(tbt_slo=tbt_slo_s).slos() for tbt_slo_s in (0.03, 0.05)]


def test_known_knees_are_not_searched_for(tmp_path: Path) -> None:
    shapes = ("2P2D", "2P4D")
    configs = [ClusterConfig(CONFIG.profile, shape=shape, step_budget="slo") for shape in shapes]
    found = family_settings(("burst", "LPLD"), configs, SLOS, Cache(tmp_path, Execution(jobs=1)), Path("shipped"))
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
    assert [one.name for one in found] == [
        f"{family} {shape} {tbt} ms" for tbt in (30, 50) for shape in shapes for family in ("burst", "LPLD")
    ]
    per_node = {}
    for one, knee in found.items():
        assert isinstance(one.source, Family)
        assert one.source.unit_rps == knee.value
        assert one.source.tbt_range_s is not None
        assert one.source.tbt_range_s[0] <= one.tbt_slo_s <= one.source.tbt_range_s[1]
        rate_rps = knee.value / sum(parse_shape(one.config.shape))
        assert per_node.setdefault((one.source.name, one.tbt_slo_s), rate_rps) == pytest.approx(rate_rps)
    assert read_knees(Path("shipped"), ["burst"], CONFIG, SLOS[0])["burst"].value == pytest.approx(
        4 * per_node["burst", 0.03]
    )


def test_another_profile_has_no_shipped_knees(tmp_path: Path) -> None:
    config = ClusterConfig(load_profile("h100-llama31-8b"), step_budget="slo")
    with pytest.raises(InputError, match="h100-llama31-8b"):
        family_settings(("burst",), [config], SLOS, Cache(tmp_path, Execution(jobs=1)), Path("shipped"))
