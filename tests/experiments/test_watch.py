import csv
import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.analysis.alarms import ALARMS
from experiments.analysis.early_warning import WINDOW_S
from experiments.options.parser import parse
from experiments.reports.figures.watch_figures import thinned
from experiments.watch import WatchOptions, run
from tests.refusal import refused

COMMAND = "--policies static kairos --workload spike --rates 14 --requests 800 --seeds 2 --validation-seeds 2"
TRACE = "arrival_s,prompt_tokens,output_tokens\n" + "".join(f"{i * 0.05},{100 + i % 7 * 300},20\n" for i in range(120))


def watch(given: str, out: Path) -> None:
    run(parse(WatchOptions, "watch", "", [*given.split(), "--out", str(out)]))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("watch") / "out"
    watch(COMMAND, out)
    return out


def rows_of(path: Path) -> list[dict[str, str]]:
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    return list(csv.DictReader(text.splitlines()))


def column(rows: list[dict[str, str]], name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in rows])


@pytest.mark.slow
def test_the_queue_has_one_row_per_sample_and_node(done: Path) -> None:
    rows = rows_of(done / "queue.csv.gz")
    assert {(row["policy"], row["workload"], row["load"], row["seed"]) for row in rows} == {
        (policy, "spike", "14.0", "0") for policy in ("static", "kairos")
    }
    own = [row for row in rows if row["policy"] == "kairos"]
    assert [row["node"] for row in own[:5]] == ["0", "1", "2", "3", "0"]
    time_s = column(own, "time_s")[::4]
    assert time_s[:-1].tolist() == [0.25 * i for i in range(len(time_s) - 1)]
    busy = column(own, "busy_share")
    assert 0 <= busy.min() < busy.max() <= 1 + 1e-9
    assert column(own, "kv_share").max() < 1
    assert column(own, "queued_prompt_tokens").max() > 0
    assert column(own, "sending_bytes").sum() == pytest.approx(column(own, "receiving_bytes").sum())


@pytest.mark.slow
def test_every_break_has_a_lead_of_every_alarm(done: Path) -> None:
    rows = rows_of(done / "leads.csv")
    assert rows, "14 requests per second overload static"
    of_alarm = [[row for row in rows if row["alarm"] == alarm] for alarm in ALARMS]
    breaks = [[(row["policy"], row["seed"], row["break_start_s"]) for row in own] for own in of_alarm]
    assert breaks == [breaks[0]] * len(ALARMS)
    assert len(set(breaks[0])) == len(breaks[0])
    assert (column(rows, "break_end_s") - column(rows, "break_start_s") >= WINDOW_S).all()


@pytest.mark.slow
def test_the_table_follows_from_the_leads(done: Path) -> None:
    rows = rows_of(done / "leads.csv")
    text = (done / "summary.md").read_text().partition("## Early warning")[2].partition("- TTFT is broken")[0]
    table_lines = [line for line in text.splitlines() if line.startswith("|")]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table_lines]
    header, _, *table = lines
    assert len(table) == 2 * len(ALARMS)
    for line in table:
        cells = dict(zip(header, line, strict=True))
        own = [row for row in rows if f"`{row['policy']}`" == cells["policy"] and row["alarm"] == cells["alarm"]]
        assert cells["breaks"] == str(len(own))
        if own:
            lead_s = np.sort(column(own, "lead_s"))[(len(own) - 1) // 2]
            shown = "missed" if lead_s == -np.inf else f"{lead_s:+.2f}" if lead_s > 0 else f"{lead_s:.2f}"
            assert cells["lead, median (s)"].split(" ")[0] == shown
            assert cells["missed (%)"] == f"{100 * np.mean(column(own, 'lead_s') == -np.inf):.1f}"


@pytest.mark.slow
def test_the_summary_shows_every_figure_and_the_command(done: Path) -> None:
    text = (done / "summary.md").read_text()
    figures = {path.name for path in (done / "figures").iterdir()}
    assert figures == {"early_warning-spike.png", "watch-static-spike-load14.png", "watch-kairos-spike-load14.png"}
    assert all(f"(<figures/{name}>)" in text for name in figures)
    for part in (f"python -m experiments.watch {COMMAND}", "a100-qwen3-8b", "seeds 0 to 1", "970000 to 970001"):
        assert part in text


@pytest.mark.slow
def test_the_same_command_gives_the_same_bytes(done: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    watch(f"{COMMAND} --jobs 2", out)
    for name in (
        "queue.csv.gz",
        "leads.csv",
        "figures/early_warning-spike.png",
        "figures/watch-static-spike-load14.png",
    ):
        assert (out / name).read_bytes() == (done / name).read_bytes()


@pytest.mark.slow
def test_a_killed_watch_resumes_and_a_new_seed_runs_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = "--policies static --workload spike --rates 14 --requests 100 --validation-seeds 1"
    watch(f"{command} --seeds 2", out)
    leads = (out / "leads.csv").read_bytes()
    index = out / "runs" / "results.jsonl"
    lines = index.read_text().splitlines(keepends=True)
    index.write_text("".join(lines[:2]) + lines[2][:20])
    capsys.readouterr()
    watch(f"{command} --seeds 2", out)
    assert (out / "leads.csv").read_bytes() == leads
    assert "[1/1] static spike load 14 seed 970000" in capsys.readouterr().err
    watch(f"{command} --seeds 3", out)
    assert "[1/1] static spike load 14 seed 2" in capsys.readouterr().err


@pytest.mark.slow
def test_a_trace_is_watched_without_alarms(tmp_path: Path) -> None:
    (tmp_path / "toy.csv").write_text(TRACE)
    out = tmp_path / "out"
    watch(f"--policies static --trace {tmp_path / 'toy.csv'} --trace-format native --interval 0.5", out)
    assert {row["workload"] for row in rows_of(out / "queue.csv.gz")} == {"toy"}
    assert not (out / "leads.csv").exists()
    assert "Early warning" not in (out / "summary.md").read_text()
    assert [path.name for path in (out / "figures").iterdir()] == ["watch-static-toy-load1.png"]


def test_the_default_folder_depends_on_neither_jobs_nor_spelling() -> None:
    def folder(given: str) -> Path:
        options = parse(WatchOptions, "watch", "", given.split())
        return options.execution.folder("watch", options)

    assert folder("--seeds 3") == folder("--jobs 4 --seeds=3")
    assert folder("--seeds 3") != folder("--seeds 4")


def test_thinning_keeps_means_and_holes() -> None:
    values = np.array([[1.0, np.nan], [3.0, np.nan], [5.0, 2.0], [9.0, np.nan], [4.0, 8.0]])
    time_s, means = thinned(np.arange(5.0), values, bins=3)
    assert time_s.tolist() == [0.5, 2.5, 4.0]
    assert np.array_equal(means, [[2.0, np.nan], [7.0, 2.0], [4.0, 8.0]], equal_nan=True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--policies nonsense", "unknown policy 'nonsense'"),
        ("--policies kairos kairos=kairos:cap=3", "two policies are called kairos"),
        ("--workload nonsense", "unknown workload 'nonsense'"),
        ("--cluster 2D2P", "2D2P"),
        ("--profile nonsense", "no profile named 'nonsense'"),
        ("--interval 0", "--interval 0"),
        ("--interval inf", "--interval inf"),
        ("--loads -1", "--loads -1"),
        ("--rates 0", "--rates 0"),
        ("--seeds 0", "--seeds 0"),
        ("--validation-seeds 0", "--validation-seeds 0"),
        ("--false-alarms 0", "--false-alarms 0"),
        ("--requests 0", "--requests 0"),
        ("--ttft-slo 0", "--ttft-slo 0"),
        ("--report-age-ms -1", "--report-age-ms -1"),
        ("--limit 5", "--limit goes with --trace"),
        ("--loads 1 --rates 2", "--loads and --rates"),
        ("--trace TRACE", "--trace needs --trace-format"),
        ("--trace TRACE --trace-format native --rates 5", "--rates goes with --workload"),
        ("--trace TRACE --trace-format azure", "TIMESTAMP"),
    ],
)
def test_invalid_input_is_named_and_nothing_is_written(arguments: str, says: str, tmp_path: Path) -> None:
    trace = tmp_path / "toy.csv"
    trace.write_text(TRACE)
    out = tmp_path / "out"
    with refused(says, out=out):
        watch(arguments.replace("TRACE", str(trace)), out)


@pytest.mark.parametrize("arguments", ["--loads 1 --rates 2", "--trace nowhere.csv --trace-format azure"])
@pytest.mark.slow
def test_invalid_input_is_one_line_and_exit_code_2(arguments: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "experiments.watch", *arguments.split()]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(root)})
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
