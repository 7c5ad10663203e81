"""Side by side with AISimulate: the arithmetic, bad interpreters, and a real run if AISimulate is there.

AISIMULATE_PYTHON names an interpreter of an environment that has AISimulate; without it the real run is skipped.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from envs.workload import Workload
from experiments.against_aisimulate import AgainstAISimulateOptions, run, side_by_side, spread
from experiments.crosscheck import aisimulate_worker
from experiments.crosscheck.aisimulate import job, recording_of, requests_per_cpu_s, run_worker
from experiments.crosscheck.recording import COLUMNS
from experiments.options.parser import parse
from experiments.speed.measurements import conversation
from hardware_profiles import InputError, Profile, load_profile
from tests.toy import toy_profile

ROOT = Path(__file__).parents[2]
THREE = Workload.of([0.0, 0.005, 0.2], [100, 1000, 50], [3, 1, 20], label="by hand")


def record(arrival_ms: float, first_ms: float | None, **others: float) -> dict[str, Any]:
    return {
        "arrival_time_ms": arrival_ms,
        "input_length": 100,
        "output_length": 3,
        "prefill_worker_idx": 0,
        "decode_worker_idx": 1,
        "prefill_admit_ms": arrival_ms,
        "first_token_ms": first_ms,
        "last_token_ms": None if first_ms is None else first_ms + 20.0,
        "uuid": "of no interest",
    } | others


# ---- the worker's input and output ----------------------------------------------------------------------------------


def test_a_job_has_the_profiles_machine_and_the_requests() -> None:
    told = job(THREE, load_profile("a100x4-llama31-70b"), "1P3D", 20.8)
    assert (told["system"], told["backend"], told["tp"]) == ("a100_sxm", "vllm", 4)
    assert (told["prefill_nodes"], told["decode_nodes"]) == (1, 3)
    assert told["requests"] == [(0.0, 100, 3), (5.0, 1000, 1), (200.0, 50, 20)]
    json.dumps(told)


def test_a_profile_of_no_known_system_is_refused() -> None:
    with pytest.raises(InputError, match="its provenance names no system"):
        job(THREE, toy_profile(), "2P2D", 20.8)


def test_no_two_prompts_share_a_block_and_each_has_enough() -> None:
    rows = [json.loads(line) for line in aisimulate_worker.trace_lines([[0.0, 1, 5], [1.5, 512, 5], [2.0, 1025, 5]])]
    assert [len(row["hash_ids"]) for row in rows] == [1, 1, 3]
    assert len({block for row in rows for block in row["hash_ids"]}) == 5
    assert [row["timestamp"] for row in rows] == [0.0, 1.5, 2.0]
    assert [row["input_length"] for row in rows] == [1, 512, 1025]


def test_the_configuration_is_the_job(tmp_path: Path) -> None:
    told = job(THREE, load_profile("a100-qwen3-8b"), "2P1D", 12.5)
    engine = aisimulate_worker.configuration(told, tmp_path / "trace")["engine"]
    assert (engine["model"], engine["hardware"]) == ("Qwen/Qwen3-8B", "a100_sxm")
    assert engine["kv_transfer"] == {"bandwidth_gb_per_second": 12.5}
    assert [engine["workers"][role]["parallelism"]["replicas"] for role in ("prefill", "decode")] == [2, 1]
    assert engine["workers"]["prefill"]["scheduler"] == {"max_batched_tokens": 2048, "max_sequences": 1}


def test_records_become_the_columns_of_a_recording_in_order() -> None:
    same = [record(5.0, 90.0, prefill_admit_ms=50.0, input_length=7), record(5.0, 60.0), record(0.0, 30.0)]
    columns = recording_of(same)
    assert set(columns) == set(COLUMNS)
    assert columns["arrival_ms"].tolist() == [0.0, 5.0, 5.0]
    assert columns["prompt_tokens"].tolist() == [100, 100, 7]
    assert columns["first_token_ms"].tolist() == [30.0, 60.0, 90.0]


def test_unfinished_requests_are_counted() -> None:
    with pytest.raises(InputError, match="left 1 of 2 requests unfinished"):
        recording_of([record(0.0, 30.0), record(1.0, None)])


# ---- the arithmetic -------------------------------------------------------------------------------------------------


def test_a_process_with_half_a_processor_took_half_its_clock() -> None:
    assert requests_per_cpu_s(600, {"own_s": 2.0, "wall_s": 5.0, "cpu_s": 5.0}) == 300
    assert requests_per_cpu_s(600, {"own_s": 2.0, "wall_s": 5.0, "cpu_s": 2.5}) == 600


def test_threads_count() -> None:
    assert requests_per_cpu_s(600, {"own_s": 2.0, "wall_s": 5.0, "cpu_s": 10.0}) == 150


def test_spread() -> None:
    assert spread([3.0, 1.0, 2.5]) == {"best": 3.0, "median": 2.5, "least": 1.0}


# ---- interpreters ---------------------------------------------------------------------------------------------------

# Stands in for an interpreter with AISimulate: answers every job with the same records, 2P2D, one record per request.
RECORDS = [record(0.0, 60.0), record(5.0, 70.0, prefill_worker_idx=1), record(200.0, 250.0)]
ANSWER = {
    "version": "made up",
    "runs": [{"own_s": 0.03, "wall_s": 0.5, "cpu_s": 0.5}, {"own_s": 0.015, "wall_s": 0.5, "cpu_s": 0.5}],
    "records": RECORDS,
}


def interpreter(tmp_path: Path, script: str) -> Path:
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\ncat > /dev/null\n{script}\n")
    path.chmod(0o755)
    return path


def answering(tmp_path: Path) -> Path:
    (tmp_path / "answer").write_text(json.dumps(ANSWER))
    return interpreter(tmp_path, f"echo chatter >&2; cat {tmp_path / 'answer'}")


def known_profile() -> Profile:
    return replace(toy_profile(), provenance={"system": "toy", "backend": "toy", "tp": 1})


def test_side_by_side_has_rates_and_latencies_of_the_same_requests(tmp_path: Path) -> None:
    found = side_by_side(answering(tmp_path), THREE, known_profile(), "2P2D", 20.8, rounds=2)
    assert (found["aisimulate_version"], found["requests"], found["rounds"]) == ("made up", 3, 2)
    assert found["aisimulate"] == {"best": 100.0, "median": 100.0, "least": 100.0}
    assert found["aisimulate_no_records"]["median"] == 200.0
    for which in ("best", "median", "least"):
        assert found["ratio"][which] == pytest.approx(found["cluster"][which] / 100.0)
        assert found["ratio_no_records"][which] == pytest.approx(found["cluster"][which] / 200.0)
    assert found["cluster_static"]["least"] > 0
    assert found["reference"]["ttft_mean_s"] == pytest.approx((0.060 + 0.065 + 0.050) / 3)
    assert found["reference"]["itl_mean_s"] == pytest.approx(0.010)
    assert found["simulated"]["ttft_mean_s"] > 0


def test_a_missing_interpreter_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: No such file or directory; give an interpreter"):
        run_worker(tmp_path / "nowhere", {})


def test_a_file_that_cannot_be_run_is_named(tmp_path: Path) -> None:
    path = tmp_path / "python"
    path.write_text("not a program")
    with pytest.raises(InputError, match="Permission denied"):
        run_worker(path, {})


@pytest.mark.skipif(find_spec("aisimulate") is not None, reason="this environment has aisimulate")
def test_an_interpreter_without_aisimulate_is_named() -> None:
    told = job(THREE, load_profile("a100-qwen3-8b"), "2P2D", 20.8)
    with pytest.raises(InputError, match=r"aisimulate is not installed there; docs/peers\.md says how"):
        run_worker(Path(sys.executable), told)


def test_a_refusal_by_aisimulate_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exit code 1: no such model") as caught:
        run_worker(interpreter(tmp_path, "echo Traceback >&2; echo no such model >&2; exit 1"), {})
    assert "\n" not in str(caught.value)


# ---- the command ----------------------------------------------------------------------------------------------------


def main(*arguments: str) -> None:
    run(parse(AgainstAISimulateOptions, "against_aisimulate", "", arguments))


def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n0,100,3\n0.015,1000,1\n0.6,50,20\n")
    return path


def test_invalid_input_leaves_one_line_and_exit_code_2(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    arguments = ["--python", nowhere, "--trace", str(trace(tmp_path)), "--trace-format", "native"]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.against_aisimulate", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"error: --python {nowhere}: No such file or directory; give an interpreter that has aisimulate\n"
    )


@pytest.mark.parametrize("wrong", [["--rounds", "0"], ["--link-gb-per-s", "0"], ["--link-gb-per-s", "nan"]])
def test_numbers_out_of_range_are_named(tmp_path: Path, wrong: list[str]) -> None:
    with pytest.raises(InputError, match=f"{wrong[0]} {wrong[1]}: must be"):
        main("--python", "python", "--trace", str(trace(tmp_path)), *wrong)


def test_the_tables_name_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--python", str(answering(tmp_path)), "--trace", str(trace(tmp_path)), "--trace-format", "native"]
    main(*arguments, "--rounds", "1")
    out = capsys.readouterr().out
    assert out.startswith("AISimulate made up, 3 requests: ")
    assert "AISimulate, one record per request               100       100       100" in out
    assert "ttft_p99" in out
    main(*arguments, "--rounds", "1", "--json")
    assert json.loads(capsys.readouterr().out)["aisimulate"]["best"] == 100.0


@pytest.mark.slow
@pytest.mark.skipif("AISIMULATE_PYTHON" not in os.environ, reason="AISIMULATE_PYTHON names no interpreter")
def test_aisimulate_and_the_cluster_agree_on_a_generated_workload() -> None:
    workload = conversation(1_000)
    profile = load_profile("a100-qwen3-8b")
    found = side_by_side(Path(os.environ["AISIMULATE_PYTHON"]), workload, profile, "2P2D", 20.8, rounds=1)
    for figure, recorded in found["reference"].items():
        assert found["simulated"][figure] == pytest.approx(recorded, rel=0.03), figure
    assert found["ttft_error_median"] <= 0.03
    assert found["ttft_correlation"] >= 0.998
    assert found["ratio"]["best"] > 1.0
