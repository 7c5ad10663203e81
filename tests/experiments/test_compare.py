"""`experiments.compare` as a command: its files, what it runs again, and what it refuses."""

import csv
import gzip
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from agents.placement_network import PlacementNetwork
from agents.placement_policy import current_layout
from agents.policy_file import save_policy
from experiments.analysis.metrics import METRICS, MeasuredRequests
from experiments.analysis.request_table import RECORD, measured
from experiments.compare import CompareOptions, run
from experiments.options.parser import parse
from experiments.runs import trial
from hardware_profiles import InputError
from hardware_profiles.cli import run_main
from tests.experiments.short_knees import shorten_knees
from tests.refusal import refused

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
TIMES = {"decision_us_p50", "decision_us_p99"}
POLICIES = ("static", "kairos", "random")


def options(*given: str) -> CompareOptions:
    return parse(CompareOptions, "compare", "Compare.", given)


def compare(*given: str) -> None:
    run(options(*given))


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trace") / "toy.csv"
    path.write_text(TRACE)
    return path


def command(
    trace: Path, out: Path, policies: str = " ".join(POLICIES), loads: str = "0.5 1", more: str = ""
) -> list[str]:
    given = f"--policies {policies} --trace {trace} --trace-format native --rate-scale 3 --limit 100 --loads {loads}"
    return [*given.split(), "--out", str(out), *more.split()]


@pytest.fixture(scope="module", autouse=True)
def _same_code() -> Iterator[None]:
    """These tests are about commands and inputs; someone may edit the code while they run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.runs.fingerprint.code", lambda *_, **__: "code")
        patch.setattr("experiments.reports.document.commit", lambda: "abcdef0")
        yield


@pytest.fixture
def short_knees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short searches for the knee."""
    shorten_knees(monkeypatch, 100, seeds=(900_001, 900_002))


@pytest.fixture(scope="module")
def finished(trace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "out"
    compare(*command(trace, out))
    return out


@pytest.fixture
def copied(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A copy of the finished folder; nothing is printed yet."""
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    capsys.readouterr()
    return out


def rows_of(path: Path) -> list[dict[str, str]]:
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    return list(csv.DictReader(text.splitlines()))


def entries(out: Path) -> list[str]:
    """The finished tasks of a folder."""
    return [json.loads(line)["task"] for line in (out / "runs" / "results.jsonl").read_text().splitlines()]


def ran(stderr: str) -> list[str]:
    """The tasks that progress on stderr names as run."""
    return re.findall(r"^\[\d+/\d+\] (.*), about \d+ s left$", stderr, re.MULTILINE)


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_cells_have_the_contracted_columns(finished: Path) -> None:
    rows = rows_of(finished / "cells.csv")
    assert [(row["policy"], row["load"], row["seed"]) for row in rows] == [
        (policy, load, "0") for load in ("0.5", "1.0") for policy in POLICIES
    ]
    assert set(CELL_COLUMNS.split()) < set(rows[0])
    assert all(np.isfinite(float(row[name])) for row in rows for name in CELL_COLUMNS.split())


@pytest.mark.slow
@pytest.mark.parametrize("step_budget", ["slo", "fixed"])
def test_steps_over_the_slo_are_reported_with_their_reason(
    step_budget: str, trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Decode steps take some 10 ms: next to long prompts a TBT SLO of 15 ms is exceeded, unless bounded.
    given = f"--policies static always-local --trace {trace} --trace-format native --rate-scale 3 --tbt-slo 0.015"
    out = tmp_path / "out"
    compare(*given.split(), "--step-budget", step_budget, "--out", str(out))
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
        (line,) = [line for line in table if any("always-local" in value for value in line)]
        assert line[-5:] == [
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
    sampled = [metric for metric in METRICS if metric.sample is not None]
    assert len(sampled) >= 15
    for cell in rows_of(finished / "cells.csv"):
        rows = [row for row in requests if (row["policy"], row["load"]) == (cell["policy"], cell["load"])]
        records = np.empty(len(rows), dtype=RECORD)
        for name in RECORD.names or ():
            records[name] = np.array([float(row[name]) for row in rows])
        met = np.array([row["slo_met"] == "1" for row in rows])
        window = measured(records)
        kept = MeasuredRequests(records[window], met[window], np.nan)  # every request has a first token
        for metric in sampled:
            assert metric.sample is not None
            values = metric.sample(kept).astype(np.float64)
            expected = values.mean() if metric.q is None else np.quantile(values, metric.q)
            assert float(cell[metric.name]) == expected, metric.name
        assert int(cell["requests"]) == window.sum()


@pytest.mark.slow
def test_the_summary_says_what_was_run_and_never_a_p95_alone(finished: Path) -> None:
    text = (finished / "summary.md").read_text()
    for part in ("compressed in time x1.5", "native trace toy.csv", "a100-qwen3-8b", "100 ms old", "--rate-scale 3"):
        assert part in text
    assert "Prefill execution is" in text
    # But for the table of percentiles, which says that it is means only.
    p95 = [
        row[column]
        for header, *rows in tables_of(text)
        for column, title in enumerate(header)
        for row in rows
        if title == "TTFT P95 (ms)" and "TTFT P50 (ms)" not in header
    ]
    assert len(p95) >= 6
    assert all("[" in value for value in p95)


def tables_of(text: str) -> list[list[list[str]]]:
    """The tables of a Markdown text, cell by cell, without the lines below their headers."""
    blocks = [[line for line in block.splitlines() if line.startswith("| ")] for block in text.split("\n\n")]
    return [[line.strip("| ").split(" | ") for line in block if "| ---" not in line] for block in blocks if block]


@pytest.mark.slow
def test_the_result_comes_first_and_how_it_was_made_last(finished: Path) -> None:
    text = (finished / "summary.md").read_text()
    sections = [line for line in text.splitlines() if line.startswith("## ")]
    assert sections[0] == "## Result"
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


# ---- what is run again -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_same_command_again_runs_nothing_and_writes_the_same(
    trace: Path, finished: Path, copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trial, "simulate", None)
    compare(*command(trace, copied))
    assert capsys.readouterr().err == "6 of 6 runs are finished already\n"
    for name in ("cells.csv", "requests.csv.gz", "runs/results.jsonl"):
        assert (copied / name).read_bytes() == (finished / name).read_bytes()


@pytest.mark.slow
def test_the_report_is_the_same_bytes_again(trace: Path, finished: Path) -> None:
    names = ("summary.md", "report.html", "figures/overview.png")
    before = [(finished / name).read_bytes() for name in names]
    compare(*command(trace, finished))
    assert [(finished / name).read_bytes() for name in names] == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "new"),
    [
        ({"policies": "static kairos random lmetric"}, ["lmetric toy load 0.5 seed 0", "lmetric toy load 1 seed 0"]),
        ({"policies": "lmetric static"}, ["lmetric toy load 0.5 seed 0", "lmetric toy load 1 seed 0"]),
        ({"more": "--seeds 2"}, [f"{name} toy load {load} seed 1" for load in ("0.5", "1") for name in POLICIES]),
        ({"loads": "0.5 0.75 1"}, [f"{name} toy load 0.75 seed 0" for name in POLICIES]),
        ({"policies": "static other=kairos"}, ["other toy load 0.5 seed 0", "other toy load 1 seed 0"]),
        ({"loads": "1"}, []),
    ],
)
def test_another_policy_seed_or_load_runs_only_what_is_new(
    changed: dict[str, str], new: list[str], trace: Path, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = entries(copied)
    assert len(before) == 6
    compare(*command(trace, copied, **changed))
    assert ran(capsys.readouterr().err) == new
    assert entries(copied) == before + new


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    ["--ttft-slo 1", "--report-age-ms 50", "--cluster 1P3D", "--step-budget fixed", "--cluster-option max_prompts=1"],
)
def test_another_cluster_or_slo_runs_everything_anew_and_keeps_the_old(
    more: str, trace: Path, finished: Path, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compare(*command(trace, copied, "static", "1", more))
    assert ran(capsys.readouterr().err) == ["static toy load 1 seed 0"]
    compare(*command(trace, copied))
    assert ran(capsys.readouterr().err) == []
    assert (copied / "cells.csv").read_bytes() == (finished / "cells.csv").read_bytes()


@pytest.mark.slow
def test_a_lost_run_alone_is_run_again(
    trace: Path, finished: Path, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = copied / "runs" / "results.jsonl"
    lines = index.read_text().splitlines(keepends=True)
    index.write_text("".join(line for line in lines if "kairos toy load 1 " not in line))
    compare(*command(trace, copied))
    assert ran(capsys.readouterr().err) == ["kairos toy load 1 seed 0"]
    assert (copied / "requests.csv.gz").read_bytes() == (finished / "requests.csv.gz").read_bytes()
    for before, after in zip(rows_of(finished / "cells.csv"), rows_of(copied / "cells.csv"), strict=True):
        assert {name for name in before if before[name] != after[name]} <= TIMES


@pytest.mark.slow
def test_a_line_that_was_cut_off_costs_one_run(trace: Path, copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = copied / "runs" / "results.jsonl"
    whole = index.read_bytes()
    index.write_bytes(whole[:-100])
    compare(*command(trace, copied))
    assert ran(capsys.readouterr().err) == [json.loads(whole.splitlines()[-1])["task"]]
    assert len(entries(copied)) == 6


@pytest.mark.slow
def test_a_trained_policy_counts_with_the_content_of_its_file(
    trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout, path, out = current_layout("pairs"), tmp_path / "policy.npz", tmp_path / "out"
    given = command(trace, out, f"static mine={path}", "1")
    contents = []
    for hidden in (8, 9):
        save_policy(path, PlacementNetwork(layout.sizes, hidden), layout, {})
        contents.append(path.read_bytes())
    runs = []
    for content in (contents[0], contents[0], contents[1]):
        path.write_bytes(content)
        capsys.readouterr()
        compare(*given)
        runs.append(ran(capsys.readouterr().err))
    mine = "mine toy load 1 seed 0"
    assert runs == [["static toy load 1 seed 0", mine], [], [mine]]
    assert "`mine` (learned)" in (out / "summary.md").read_text()


@pytest.mark.slow
def test_a_changed_trace_is_not_answered_with_old_runs(finished: Path, tmp_path: Path) -> None:
    other = tmp_path / "toy.csv"
    other.write_text(TRACE)
    out = tmp_path / "out"
    compare(*command(other, out))
    assert (out / "requests.csv.gz").read_bytes() == (finished / "requests.csv.gz").read_bytes()
    other.write_text(TRACE.replace("0.0,100,20", "0.0,1000,20"))
    compare(*command(other, out))
    assert (out / "requests.csv.gz").read_bytes() != (finished / "requests.csv.gz").read_bytes()


@pytest.mark.slow
def test_the_folder_of_another_command_is_refused(trace: Path, copied: Path) -> None:
    before = (copied / "cells.csv").read_bytes()
    (copied / "command.json").write_text('{"command": "train"}')
    with pytest.raises(InputError, match=r"holds the results of experiments\.train; give another --out"):
        compare(*command(trace, copied, "static lmetric"))
    assert (copied / "cells.csv").read_bytes() == before
    assert len(entries(copied)) == 6


# ---- families --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("short_knees")
def test_families_share_requests_and_knees_do_not_depend_on_requests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    given = f"--policies static kairos --workload burst --seeds 2 --loads 0.5 1 --jobs 1 --out {out}".split()
    compare(*given, "--requests", "150")
    first = capsys.readouterr()
    assert len(ran(first.err)) == 1 + 2 * 2 * 2
    assert "knee of static" in first.out
    rows = rows_of(out / "cells.csv")
    assert len(rows) == 2 * 2 * 2
    text = (out / "summary.md").read_text()
    assert "multiple of the knee of static" in text
    assert "### Over all workloads and loads" in text
    assert json.loads((out / "command.json").read_text())["command"] == "compare"
    same: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for row in rows_of(out / "requests.csv.gz"):
        key = (row["workload"], row["load"], row["seed"], row["policy"])
        same.setdefault(key, []).append((row["arrival_s"], row["prompt_tokens"], row["output_tokens"]))
    for key, requests in same.items():
        assert requests == same[(*key[:3], "static")]
        assert len(requests) == 150

    knees = (out / "knees.json").read_bytes()
    compare(*given, "--requests", "100")
    again = capsys.readouterr().err
    assert again.startswith("1 of 1 searches for a knee are finished already\n")
    assert len(ran(again)) == 2 * 2 * 2
    assert (out / "knees.json").read_bytes() == knees


# ---- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--policies nonsense --workload burst", "unknown policy 'nonsense'"),
        ("--policies kairo --workload burst", "did you mean 'kairos'?"),
        ("--policies static a=kairos a=kairos:cap=2 --workload burst", "two policies are called a in tables"),
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
        ("--policies static --trace TRACE --trace-format native --rate-scale 0", "--rate-scale 0"),
        ("--policies static --trace TRACE --trace-format native --limit 0", "--limit 0"),
        (
            "--policies static --trace TRACE --trace-format native --tuned TRACE",
            "not a file that experiments.tune wrote",
        ),
    ],
)
def test_a_mistake_is_named_and_nothing_is_written(arguments: str, says: str, trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = [str(trace) if word == "TRACE" else word for word in arguments.split()]
    with refused(says, out=out):
        compare(*given, "--out", str(out))


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
        run_main(lambda: compare(*arguments))
    assert left.value.code == 2
    stderr = capsys.readouterr().err
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_command_runs_as_a_process_in_a_folder_of_its_name(trace: Path, tmp_path: Path) -> None:
    given = f"--policies static kairos --trace {trace} --trace-format native --jobs 2"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.compare", *given.split()],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(root)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (out,) = (tmp_path / "runs").iterdir()
    assert out.name.startswith("compare-")
    assert f"written to runs/{out.name}: report.html" in done.stdout
    assert sorted(ran(done.stderr)) == ["kairos toy load 1 seed 0", "static toy load 1 seed 0"]
