"""The live command: invalid input, and a short run on NVIDIA Dynamo next to the simulation."""

import csv
import gzip
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from experiments import live
from experiments.live import LiveOptions
from experiments.options.parser import parse
from tests.refusal import refused

needs_dynamo = pytest.mark.skipif(
    find_spec("dynamo") is None, reason="ai-dynamo-runtime is not installed: pip install -e '.[live]'"
)
SMALL = "--policies round-robin kairos --workload burst --rate 12 --requests 24 --seeds 1 --speedup 2"


def run(given: str, out: Path) -> None:
    live.run(parse(LiveOptions, "live", "", [*given.split(), "--out", str(out)]))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("--policies static --workload burst --rate 1 2", "--rate: 2 rates for 1 families"),
        ("--policies static --workload bursts --rate 1", "bursts"),
        ("--policies static --workload burst --rate 0", "--rate"),
        ("--policies static --workload burst --rate 1 --workers 2P", "2P"),
        ("--policies static --workload burst --rate 1 --token-budget 100", "token budget 100"),
        ("--policies static --workload burst --rate 1 --jobs 2", "--jobs and --executor"),
        ("--policies statics --workload burst --rate 1", "statics"),
        ("--policies static --workload burst --rate 1 --first-seed -1", "--first-seed -1"),
    ],
)
def test_invalid_input_is_named(given: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "find_spec", lambda _: True)
    with refused(says, out=tmp_path / "out"):
        run(given, tmp_path / "out")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "find_spec", lambda _: None)
    with refused("ai-dynamo-runtime is not installed; pip install -e '.[live]'", out=tmp_path / "out"):
        run(SMALL, tmp_path / "out")


def test_missing_tables_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "find_spec", lambda name: name == "dynamo" or None)
    with refused("--timing aisimulate: aisimulate is not installed", out=tmp_path / "out"):
        run(f"{SMALL} --timing aisimulate", tmp_path / "out")


@needs_dynamo
@pytest.mark.slow
def test_live_and_simulated_runs_stand_next_to_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    run(SMALL, out)
    printed = capsys.readouterr().out
    assert "round-robin" in printed
    rows = list(csv.DictReader((out / "cells.csv").read_text().splitlines()))
    named = {row["policy"]: row for row in rows}
    assert list(named) == ["round-robin", "kairos", "simulated-round-robin", "simulated-kairos"]
    # Round-robin knows nothing of the cluster, so its placements are those of the simulation.
    with gzip.open(out / "requests.csv.gz", "rt") as file:
        requests = list(csv.DictReader(file))
    nodes = {
        policy: [(row["prefill_node"], row["decode_node"]) for row in requests if row["policy"] == policy]
        for policy in ("round-robin", "simulated-round-robin")
    }
    assert len(nodes["round-robin"]) == 24
    assert nodes["round-robin"] == nodes["simulated-round-robin"]
    assert all(row["last_token_s"] not in ("", "nan") for row in requests)
    assert "## Live next to simulated" in (out / "summary.md").read_text()
    run(SMALL, out)
    assert "2 of 2 runs are finished already" in capsys.readouterr().err


@needs_dynamo
@pytest.mark.slow
def test_ctrl_c_leaves_no_process(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "experiments.live",
        *SMALL.split(),
        "--requests",
        "400",
        "--out",
        str(tmp_path / "x"),
    ]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    until_s = time.monotonic() + 60.0
    while not (workers := _children(process.pid)) and time.monotonic() < until_s:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=20) == 130
    until_s = time.monotonic() + 10.0
    while (left := [pid for pid in workers if Path(f"/proc/{pid}").exists()]) and time.monotonic() < until_s:
        time.sleep(0.1)
    assert workers
    assert not left


def _children(pid: int) -> list[int]:
    """The processes of Dynamo below a process."""
    found = subprocess.run(
        ["pgrep", "-g", str(os.getpgid(pid)), "-f", "dynamo_process"], capture_output=True, text=True
    )
    return [int(line) for line in found.stdout.split()]
