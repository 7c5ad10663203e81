"""`python -m hardware_profiles.validate`: its output, its figures, and its comparison with other measurements."""

import gzip
import sys
from pathlib import Path

import numpy as np
import pytest

from hardware_profiles import load_connector, load_profile, profile_names
from hardware_profiles.checks import batch_s, fitted_link, host_overhead, link_table, splitwise_table, vllm_table
from hardware_profiles.cli import run_main
from hardware_profiles.held_out import sample
from hardware_profiles.profile import read_profile
from hardware_profiles.validate import all_table, main

MEASUREMENTS = Path(__file__).parents[3] / "shared" / "data" / "calibration"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["validate", *arguments])
    with pytest.raises(SystemExit) as left:
        run_main(main)
    assert isinstance(left.value.code, int)
    return left.value.code


def test_the_command_prints_errors_and_ranges_and_draws_a_figure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for module in ("aiconfigurator_core", "aiconfigurator_core.sdk"):
        monkeypatch.setitem(sys.modules, module, None)  # as if the extra were not installed
    assert run(monkeypatch, "a100-qwen3-8b", "--figures", str(tmp_path / "new")) == 0
    printed = capsys.readouterr().out
    for kind in ("prefill", "decode", "mixed", "averaged"):
        assert f"\n  {kind} " in printed
    assert "up to 8704 tokens per step, 512 of them decodes; larger steps are errors" in printed
    assert "0.951394 ms added" in printed
    assert "up to 40,960 tokens" in printed
    assert (tmp_path / "new" / "a100-qwen3-8b.png").read_bytes().startswith(b"\x89PNG")


def test_a_composite_profile_is_shown_as_no_measurement(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "a100-deepseek-v2-lite") == 0
    assert "NOT a measurement of this model" in capsys.readouterr().out


def test_the_table_of_all_profiles_has_one_row_per_profile(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--all") == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == profile_names()


@pytest.mark.skipif(not MEASUREMENTS.is_dir(), reason="shared/data/calibration is missing")
def test_the_tables_in_the_docs_match_the_commands() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "calibration.md").read_text(encoding="utf-8")
    for table in (all_table(), link_table(MEASUREMENTS), vllm_table(MEASUREMENTS), splitwise_table(MEASUREMENTS)):
        for line in table.splitlines():
            assert line in docs


@pytest.mark.parametrize("name", ["a100-qwen3-8b", "a100-llama31-8b", "a100x4-llama31-70b"])
def test_a_profiles_stored_sample_has_the_errors_that_it_states(name: str) -> None:
    file = read_profile(name)
    for kind, held_out in sample(file).items():
        stated = getattr(file.provenance.held_out, f"{kind}_mape_percent")
        assert np.mean(np.abs(held_out.error)) * 100 == pytest.approx(stated, rel=0.35, abs=0.05)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), "--against"),
        (("a100-qwen3-8b", "--against", "."), "--against"),
        (("a100-qwen3-8b", "--figures", __file__), __file__),
        (("--against", ".", "--figures", "."), "--figures"),
        (("a100-qwen3-9b",), "a100-qwen3-9b"),
        (("--against", "."), "p2p_inter_node.csv.gz"),
    ],
)
def test_invalid_input_prints_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], named: str
) -> None:
    assert run(monkeypatch, *arguments) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    assert named in line


def test_fitting_a_links_own_times_recovers_it() -> None:
    sent = np.geomspace(1024, 1e9, 40)
    assert fitted_link(sent, 5e-6 + sent / 10e9) == pytest.approx((5e-6, 10e9))


def test_the_link_table_of_exact_links_shows_no_error(tmp_path: Path) -> None:
    for connector, name in (("rdma", "inter"), ("nvlink", "intra")):
        link = load_connector(connector)
        rows = [
            f"{sent},{(link.latency_s + sent / link.bandwidth_bytes_per_s) * 1e3!r}"
            for sent in (2048, 100_000, 5_000_000, 10**9)
        ]
        rows.insert(0, "bytes_sent_per_rank,ms_median")
        (tmp_path / f"p2p_{name}_node.csv.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
    for line in link_table(tmp_path).splitlines()[2:]:
        assert line.endswith("| 0 | 0 | 0 | 0 |")


def test_a_batch_takes_the_sum_of_its_prefill_and_decode_steps() -> None:
    law = load_profile("a100-llama31-8b").kernel_law
    prefill_s = 2 * law.time_s([(4096, 0)] * 2, 0, 0) + law.time_s([(4096, 0)], 0, 0)
    decode_s = law.time_s((), 5, 5 * 4097) + law.time_s((), 5, 5 * 4098)
    assert batch_s(law, 4096, 3, 5) == pytest.approx(prefill_s + decode_s)


@pytest.mark.skipif(not MEASUREMENTS.is_dir(), reason="shared/data/calibration is missing")
def test_whole_systems_are_slower_than_the_sum_of_kernels() -> None:
    step_s, seq_s = host_overhead(MEASUREMENTS, 1)
    assert (step_s, seq_s) == pytest.approx((0.79e-3, 0.043e-3), rel=0.05)
    for table in (vllm_table(MEASUREMENTS), splitwise_table(MEASUREMENTS)):
        rows = [line for line in table.splitlines() if line.startswith("|")][2:]
        assert len(rows) >= 7
        assert not any("| -" in row for row in rows)  # nothing is faster than its kernels
