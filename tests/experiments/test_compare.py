import csv
import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from experiments import cells
from experiments.compare import compare, parse
from hardware_profiles import InputError
from hardware_profiles.cli import run_main

TRACE = "arrival_s,prompt_tokens,output_tokens\n" + "".join(f"{i * 0.05},{100 + i % 7 * 300},20\n" for i in range(120))
CELL_COLUMNS = """
    requests ttft_mean_s ttft_p50_s ttft_p90_s ttft_p95_s ttft_p99_s tbt_p99_s tbt_max_p95_s
    tpot_mean_s slo_attainment goodput_rps deflected_share kv_bytes_moved queue_share_p95
    exec_share_p95 transfer_share_p95 decode_wait_share_p95 decision_us_p50 decision_us_p99
"""
REQUEST_COLUMNS = """
    policy seed request arrival_s prompt_tokens output_tokens prefill_node decode_node deflected
    prefill_start_s prefill_end_s kv_ready_s first_token_s last_token_s tbt_max_s
"""


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trace") / "toy.csv"
    path.write_text(TRACE)
    return path


def command(trace: Path, out: Path) -> list[str]:
    given = f"--policies static kairos random --trace {trace} --trace-format native --rate-scale 3 --limit 100"
    return [*given.split(), "--loads", "0.5", "1", "--out", str(out)]


@pytest.fixture(scope="module", autouse=True)
def _same_code() -> Iterator[None]:
    """These tests are about commands and inputs; someone may edit the code while they run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.compare.simulation_digest", lambda: "code")
        patch.setattr("experiments.provenance.commit", lambda: "abcdef0")
        yield


@pytest.fixture(scope="module")
def finished(trace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "out"
    compare(parse(command(trace, out)))
    return out


def rows_of(path: Path) -> list[dict[str, str]]:
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    return list(csv.DictReader(text.splitlines()))


@pytest.mark.slow
def test_cells_have_the_contracted_columns(finished: Path) -> None:
    rows = rows_of(finished / "cells.csv")
    assert [(row["policy"], row["load"], row["seed"]) for row in rows] == [
        (policy, load, "0") for load in ("0.5", "1.0") for policy in ("static", "kairos", "random")
    ]
    assert set(CELL_COLUMNS.split()) < set(rows[0])
    assert all(np.isfinite(float(row[name])) for row in rows for name in CELL_COLUMNS.split())


@pytest.mark.slow
@pytest.mark.parametrize("step_budget", ["slo", "fixed"])
def test_steps_over_the_slo_are_told_with_why_under_either_step_budget(
    step_budget: str, trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Decode steps take some 10 ms: with long prompts beside them a TBT SLO of 15 ms is exceeded, unless bounded.
    given = f"--policies static always-local --trace {trace} --trace-format native --rate-scale 3 --tbt-slo 0.015"
    out = tmp_path / "out"
    compare(parse([*given.split(), "--step-budget", step_budget, "--out", str(out)]))
    rows = rows_of(out / "cells.csv")
    assert {"chunk_steps", "over_slo_decode_alone", "over_slo_minimum", "kv_expired"} <= set(rows[0])
    (local,) = [row for row in rows if row["policy"] == "always-local"]
    steps, alone, least = (int(local[name]) for name in ("chunk_steps", "over_slo_decode_alone", "over_slo_minimum"))
    over = round(steps * float(local["chunk_steps_over_slo_share"]))
    assert steps > 0
    if step_budget == "slo":
        assert over == alone + least
    else:
        assert least == 0
        assert over > alone
    assert all(row["kv_expired"] == "0" for row in rows)  # there is plenty of KV
    assert all(float(row["prefix_hit_share"]) == 0.0 for row in rows)  # and no cache
    printed, written = capsys.readouterr().out, (out / "summary.md").read_text()
    assert f"step budget {step_budget}\n" in written
    for text in (printed, written):
        (table,) = [block for block in tables_of(text) if "more prompt tokens (%)" in block[0]]
        (told,) = [line for line in table if any("always-local" in value for value in line)]
        assert told[-5:] == [
            f"{steps:,}",
            *(f"{100 * count / steps:.3f}" for count in (over, alone, least, over - alone - least)),
        ]


@pytest.mark.slow
def test_requests_have_the_contracted_columns_first(finished: Path) -> None:
    rows = rows_of(finished / "requests.csv.gz")
    assert list(rows[0])[:15] == REQUEST_COLUMNS.split()
    assert len(rows) == 2 * 3 * 100


@pytest.mark.slow
def test_cells_follow_from_requests(finished: Path) -> None:
    requests = rows_of(finished / "requests.csv.gz")
    for cell in rows_of(finished / "cells.csv"):
        own = [row for row in requests if (row["policy"], row["load"]) == (cell["policy"], cell["load"])]
        arrival_s, first_s, met = (
            np.array([float(row[c]) for row in own]) for c in ("arrival_s", "first_token_s", "slo_met")
        )
        window = arrival_s >= arrival_s[0] + 0.1 * (arrival_s[-1] - arrival_s[0])
        ttft_s = (first_s - arrival_s)[window]
        assert float(cell["ttft_p95_s"]) == np.quantile(ttft_s, 0.95)
        assert float(cell["slo_attainment"]) == met[window].mean()
        assert int(cell["requests"]) == len(ttft_s)


@pytest.mark.slow
def test_the_summary_says_what_was_run_and_never_a_p95_alone(finished: Path) -> None:
    text = (finished / "summary.md").read_text()
    for part in ("compressed in time x1.5", "native trace toy.csv", "a100-qwen3-8b", "100 ms old", "--rate-scale 3"):
        assert part in text
    assert "Prefill execution is" in text
    p95 = [
        row[column]
        for header, *rows in tables_of(text)
        for column, title in enumerate(header)
        for row in rows
        if "P95 (" in title
    ]
    assert len(p95) >= 2 * 6
    assert all("[" in value for value in p95)


def tables_of(text: str) -> list[list[list[str]]]:
    """The tables of a Markdown text, cell by cell, without the lines below their headers."""
    blocks = [[line for line in block.splitlines() if line.startswith("| ")] for block in text.split("\n\n")]
    return [[line.strip("| ").split(" | ") for line in block if "| ---" not in line] for block in blocks if block]


@pytest.mark.slow
def test_the_answer_comes_first_and_the_foot_says_how_to_make_it_again(finished: Path) -> None:
    text = (finished / "summary.md").read_text()
    sections = [line for line in text.splitlines() if line.startswith("## ")]
    assert sections[0] == "## What came out"
    assert sections[-1] == "## How this was made"
    foot = text.partition(sections[-1])[2]
    for part in ("python -m experiments.compare --policies static", "commit", "digest", "seeds 0 to 0", "SimPy"):
        assert part in foot
    page = (finished / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(list((finished / "figures").iterdir()))


@pytest.mark.slow
def test_figures_are_there(finished: Path) -> None:
    kinds = {"ttft_cdf", "ttft_breakdown", "queue_depth", "node_timeline", "slo_attainment"}
    names = {"overview.png", *(f"{kind}-toy.png" for kind in kinds)}
    assert {path.name for path in (finished / "figures").iterdir()} == names


@pytest.mark.slow
def test_the_same_command_again_writes_the_same_and_runs_nothing(
    trace: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    monkeypatch.setattr(cells, "simulate", None)
    compare(parse(command(trace, out)))
    for name in ("cells.csv", "requests.csv.gz"):
        assert (out / name).read_bytes() == (finished / name).read_bytes()


@pytest.mark.slow
def test_the_report_is_the_same_bytes_again(trace: Path, finished: Path) -> None:
    names = ("summary.md", "report.html", "figures/overview.png")
    before = [(finished / name).read_bytes() for name in names]
    compare(parse(command(trace, finished)))
    assert [(finished / name).read_bytes() for name in names] == before


@pytest.mark.slow
def test_a_lost_cell_alone_is_run_again(trace: Path, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    kept = {path.name: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    for path in (out / "cells").glob("kairos-toy-load1-*"):
        path.unlink()
    compare(parse(command(trace, out)))
    now = {path.name: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    assert set(now) == set(kept)
    assert {name.partition("-toy")[0] for name in now if now[name] != kept[name]} == {"kairos"}
    assert (out / "requests.csv.gz").read_bytes() == (finished / "requests.csv.gz").read_bytes()
    for before, after in zip(rows_of(finished / "cells.csv"), rows_of(out / "cells.csv"), strict=True):
        assert {name for name in before if before[name] != after[name]} <= {"decision_us_p50", "decision_us_p99"}


@pytest.mark.slow
def test_another_command_does_not_get_the_folder(trace: Path, finished: Path) -> None:
    before = (finished / "cells.csv").read_bytes()
    with pytest.raises(InputError, match="cells of another command"):
        compare(parse([*command(trace, finished), "--ttft-slo", "1"]))
    assert (finished / "cells.csv").read_bytes() == before


@pytest.mark.slow
def test_a_changed_input_is_not_taken_for_the_old_one(finished: Path, tmp_path: Path) -> None:
    other = tmp_path / "toy.csv"
    other.write_text(TRACE)
    out = tmp_path / "out"
    compare(parse(command(other, out)))
    other.write_text(TRACE.replace("0.0,100,20", "0.0,1000,20"))
    compare(parse(command(other, out)))
    assert (out / "requests.csv.gz").read_bytes() != (finished / "requests.csv.gz").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--policies nonsense --workload burst", "no policy 'nonsense'"),
        ("--policies static --workload nonsense", "unknown workload 'nonsense'"),
        ("--policies static --workload burst --profile nonsense", "no profile named 'nonsense'"),
        ("--policies static --workload burst --cluster 2D2P", "2D2P"),
        ("--policies static --workload burst --loads 0", "--loads 0"),
        ("--policies static --workload burst --seeds 0", "--seeds 0"),
        ("--policies static --workload burst --requests -1", "--requests -1"),
        ("--policies static --workload burst --ttft-slo nan", "--ttft-slo nan"),
        ("--policies static --workload burst --report-age-ms -1", "--report-age-ms -1"),
        ("--policies static --workload burst --cluster-option slo_share=2", "slo_share must be above 0"),
        ("--policies static --workload burst --cluster-option kv_hold_s=0", "kv_hold_s must be"),
        ("--policies static --workload burst --rate-scale 2", "--rate-scale goes with --trace"),
        ("--policies static --trace TRACE --trace-format native --requests 9", "--requests goes with --workload"),
        ("--policies static --trace TRACE", "--trace needs --trace-format"),
        ("--policies static --trace TRACE --trace-format azure", "TIMESTAMP"),
        ("--policies static --trace TRACE --trace-format native --rate-scale 0", "rate scale 0"),
        ("--policies static --trace TRACE --trace-format native --limit 0", "limit 0"),
    ],
)
def test_a_mistake_is_said_and_nothing_is_written(arguments: str, says: str, trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = [str(trace) if word == "TRACE" else word for word in arguments.split()]
    with pytest.raises(InputError) as error:
        compare(parse([*given, "--out", str(out)]))
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert not out.exists()


def run_command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "experiments.compare", *arguments]
    root = Path(__file__).parents[2]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={"PYTHONPATH": str(root)})


@pytest.mark.slow
def test_families_from_the_command_line(tmp_path: Path) -> None:
    given = "--policies static kairos --workload burst --requests 150 --seeds 2 --loads 0.5 1 --jobs 2"
    done = run_command(*given.split(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (out,) = (tmp_path / "runs").iterdir()
    rows = rows_of(out / "cells.csv")
    assert len(rows) == 2 * 2 * 2
    text = (out / "summary.md").read_text()
    assert "knee of static" in text
    assert "## Over all workloads and loads" in text
    assert json.loads((out / "command.json").read_text())["requests"] == 150
    # The same requests for every policy of a (workload, load, seed).
    same = {}
    for row in rows_of(out / "requests.csv.gz"):
        key = (row["workload"], row["load"], row["seed"], row["policy"])
        same.setdefault(key, []).append((row["arrival_s"], row["prompt_tokens"], row["output_tokens"]))
    for key, requests in same.items():
        assert requests == same[(*key[:3], "static")]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--policies", "nonsense", "--workload", "burst"],
        ["--policies", "static", "--trace", "nowhere.csv", "--trace-format", "azure"],
        ["--policies", "static", "--trace", "nowhere.csv", "--trace-format", "nonsense"],
        ["--policies", "static", "--workload", "burst", "--seeds", "many"],
        ["--policies", "static", "--workload", "burst", "--step-budget", "loose"],
        ["--policies", "static"],
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        run_main(lambda: compare(parse(arguments)))
    assert left.value.code == 2
    stderr = capsys.readouterr().err
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
