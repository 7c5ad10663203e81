"""Options of the cluster on the command line."""

from pathlib import Path

import pytest

from envs.cluster import ClusterConfig
from experiments.cluster_options import OPTIONS, cluster_options
from experiments.compare import compare, parse
from hardware_profiles import InputError
from tests.toy import toy_profile


def test_values_become_what_the_cluster_takes() -> None:
    found = cluster_options(["kv_streaming=true", "max_prompts=1", "host_overhead_s=0.002"])
    assert found == {"kv_streaming": True, "max_prompts": 1, "host_overhead_s": 0.002}
    ClusterConfig(toy_profile(), **found)


def test_every_option_is_a_field_with_its_default() -> None:
    assert {"token_budget", "kv_watermark", "prefix_cache", "kv_streaming"} <= OPTIONS.keys()
    assert not {"profile", "shape", "hosts", "report_age_s"} & OPTIONS.keys()


@pytest.mark.parametrize(
    ("item", "says"),
    [
        ("speed=2", "no cluster option 'speed'"),
        ("kv_streaming=maybe", "kv_streaming: must be true or false, not 'maybe'"),
        ("max_seqs=1.5", "max_seqs: must be a number"),
        ("max_seqs", "max_seqs: must be a number"),
    ],
)
def test_a_mistake_is_named(item: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        cluster_options([item])


def test_a_slow_connector_shows_in_the_transfer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("arrival_s,prompt_tokens,output_tokens\n" + "".join(f"{i * 0.5},2000,20\n" for i in range(40)))

    def transfer_share(*more: str) -> float:
        out = tmp_path / "-".join(["out", *more])
        compare(parse(f"--policies static --trace {trace} --trace-format native --out {out}".split() + list(more)))
        capsys.readouterr()
        header, row = (out / "cells.csv").read_text().splitlines()
        return float(row.split(",")[header.split(",").index("transfer_share_p95")])

    fast, slow = transfer_share(), transfer_share("--connector", "nixl-default-ucx")
    assert fast < 0.2 < 0.6 < slow
    with pytest.raises(InputError, match="no connector named 'pigeon'"):
        transfer_share("--connector", "pigeon")
