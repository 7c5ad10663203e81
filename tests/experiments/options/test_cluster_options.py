"""Options of the cluster on the command line."""

from dataclasses import Field, fields
from math import inf, nan
from pathlib import Path

import pytest

import policies
from envs.cluster import ClusterConfig, Disturbance, Topology, simulate
from envs.workload import Workload
from experiments.compare import CompareOptions
from experiments.compare import run as compare
from experiments.options.cluster_options import NAMES, ClusterOptions, cluster_fields
from experiments.options.parser import parse
from hardware_profiles import InputError, load_profile
from tests.toy import toy_profile


def test_values_become_what_the_cluster_takes() -> None:
    found = cluster_fields(["kv_streaming=true", "max_prompts=1", "host_overhead_s=0.002"], "2P2D")
    assert found == {"kv_streaming": True, "max_prompts": 1, "host_overhead_s": 0.002}
    ClusterConfig(toy_profile(), **found)


def test_a_value_for_each_node() -> None:
    items = [
        "node_speeds=1,1,1,0.6",
        "hosts=0,0,1,1",
        "nics=0,0,1,2",
        "node_profiles=" + ",".join(["a100-qwen3-8b"] * 4),
    ]
    found = cluster_fields(items, "2P2D")
    assert found["node_speeds"] == (1.0, 1.0, 1.0, 0.6)
    assert (found["hosts"], found["nics"]) == ((0, 0, 1, 1), (0, 0, 1, 2))
    assert [profile.name for profile in found["node_profiles"]] == ["a100-qwen3-8b"] * 4
    ClusterConfig(load_profile("a100-qwen3-8b"), "2P2D", **found)


def test_disturbances_of_a_node_or_of_a_group() -> None:
    found = cluster_fields(["disturbances=0:speed:prefill:0.8,3.5:link:3:0.5,9:loss:1,9:link:all:2"], "2P3D")
    assert found["disturbances"] == (
        *(Disturbance(0.0, "speed", node, 0.8) for node in (0, 1)),
        Disturbance(3.5, "link", 3, 0.5),
        Disturbance(9.0, "loss", 1),
        *(Disturbance(9.0, "link", node, 2.0) for node in range(5)),
    )


def test_a_disturbance_at_the_start_is_an_error_in_what_policies_believe() -> None:
    """A lone request is prefilled and sent a fifth slower, and what the router predicts stays as it was."""

    def alone(*items: str) -> tuple[float, float, Topology]:
        config = ClusterConfig(toy_profile(), **cluster_fields(items, "2P2D"))
        workload = Workload.of([0.0], [2000], [2], label="alone")
        (record,) = simulate(workload, policies.make("static"), config).records
        execution_s = record.prefill_end_s - record.prefill_start_s
        return execution_s, record.kv_ready_s - record.prefill_end_s, Topology(config)

    execution_s, transfer_s, topology = alone()
    slower_s, same_s, believed = alone("disturbances=0:speed:prefill:0.8")
    assert slower_s == pytest.approx(execution_s / 0.8)
    assert same_s == pytest.approx(transfer_s)
    assert believed.laws == topology.laws
    same_s, longer_s, believed = alone("disturbances=0:link:all:0.8")
    assert same_s == pytest.approx(execution_s)
    assert longer_s == pytest.approx(transfer_s / 0.8)
    assert believed.transfer_s(0, 2, 2000) == topology.transfer_s(0, 2, 2000)


PLAIN = [field for field in fields(ClusterConfig) if field.name in NAMES and isinstance(field.default, int | float)]


@pytest.mark.parametrize("field", PLAIN, ids=lambda field: field.name)
def test_the_default_of_a_field_may_be_typed(field: Field[object]) -> None:
    text = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
    found = cluster_fields([f"{field.name}={text}"], "2P2D")
    assert found == {field.name: field.default}
    assert type(found[field.name]) is type(field.default)


def test_no_field_is_reached_in_two_ways() -> None:
    assert {"token_budget", "kv_watermark", "prefix_cache", "kv_streaming", "node_speeds", "disturbances"} <= set(NAMES)
    assert not {"profile", "shape", "report_age_s", "step_budget"} & set(NAMES)


def test_the_cluster_is_made_of_all_options() -> None:
    options = ClusterOptions(
        "a100-qwen3-8b", None, step_budget="fixed", report_age_ms=20.0, cluster_option=("max_prompts=1", "nics=0,0,1,1")
    )
    config = options.config("1P3D")
    assert (config.shape, config.step_budget, config.report_age_s) == ("1P3D", "fixed", 0.02)
    assert (config.max_prompts, config.nics) == (1, (0, 0, 1, 1))


@pytest.mark.parametrize("age_ms", [-1.0, nan, inf])
def test_an_age_of_reports_is_finite_and_not_negative(age_ms: float) -> None:
    with pytest.raises(InputError, match=r"--report-age-ms .*: must be finite milliseconds, 0 or more"):
        ClusterOptions("a100-qwen3-8b", None, report_age_ms=age_ms)


@pytest.mark.parametrize(
    ("item", "says"),
    [
        ("speed=2", "unknown cluster option 'speed'; did you mean 'node_speeds'"),
        ("prefixcache=true", "unknown cluster option 'prefixcache'; did you mean 'prefix_cache'"),
        ("kv_streaming=maybe", "kv_streaming: must be true or false, not 'maybe'"),
        ("max_seqs=1.5", "max_seqs: must be a number"),
        ("max_seqs", "max_seqs: must be a number"),
        ("node_speeds=1,fast,1,1", "node_speeds: must be a number for each node"),
        ("node_speeds", "node_speeds: must be a number for each node"),
        ("node_profiles=a100-qwen3-8b,pigeon", "node_profiles: no profile named 'pigeon'"),
        ("disturbances=0:speed:prefill:0", "disturbances: disturbance factor 0.0: must be"),
        ("disturbances=0:heat:prefill:2", "disturbances: disturbance kind 'heat' is not one of"),
        ("disturbances=0:speed:somewhere:0.8", "disturbances: must be AT_S:KIND:NODES"),
        ("disturbances=soon", "disturbances: must be AT_S:KIND:NODES"),
    ],
)
def test_a_mistake_is_named(item: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        cluster_fields([item], "2P2D")


@pytest.mark.slow
def test_a_slow_connector_shows_in_the_transfer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("arrival_s,prompt_tokens,output_tokens\n" + "".join(f"{i * 0.5},2000,20\n" for i in range(40)))

    def transfer_share(*more: str) -> float:
        out = tmp_path / "-".join(["out", *more])
        compare(
            parse(
                CompareOptions,
                "compare",
                "",
                f"--policies static --trace {trace} --trace-format native --out {out}".split() + list(more),
            )
        )
        capsys.readouterr()
        header, row = (out / "cells.csv").read_text().splitlines()
        return float(row.split(",")[header.split(",").index("transfer_share_p95")])

    fast, slow = transfer_share(), transfer_share("--connector", "nixl-default-ucx")
    assert fast < 0.2 < 0.6 < slow
    with pytest.raises(InputError, match="no connector named 'pigeon'"):
        transfer_share("--connector", "pigeon")
