"""Laws of the trace readers: formats, one-line errors for bad rows, and statistics of the real files."""

import csv
import gzip
import json
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from envs.slos import Slos
from envs.traces import formats, read_trace, write_native
from envs.workload import Workload
from hardware_profiles.errors import InputError

TRACES = Path(__file__).parents[3] / "shared" / "data" / "traces"
needs_traces = pytest.mark.skipif(not TRACES.is_dir(), reason=f"the recorded traces are not at {TRACES}")

# A small valid file of each format: the same three requests at 0, 0.5 and 2 s.
GOOD = {
    "azure": """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,10,1
2023-11-16 18:17:04.4799600,20,2
2023-11-16 18:17:05.9799600,30,3
""",
    "vidur": "arrived_at,num_prefill_tokens,num_decode_tokens\n0,10,1\n0.5,20,2\n2,30,3\n",
    "mooncake": "".join(
        json.dumps({"timestamp": t, "input_length": p, "output_length": o, "hash_ids": [1, 2]}) + "\n"
        for t, p, o in ((0, 10, 1), (500, 20, 2), (2000, 30, 3))
    ),
    "burstgpt": """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
0,ChatGPT,10,1,11,Conversation log
0.5,GPT-4,20,2,22,API log
2,ChatGPT,30,3,33,Conversation log
""",
    "native": "arrival_s,client,prompt_tokens,output_tokens\n0,a,10,1\n0.5,b,20,2\n2,a,30,3\n",
}


def written(folder: Path, text: str | bytes, name: str = "trace") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def error_of(path: Path, trace_format: str, **arguments: object) -> str:
    """The one-line error of reading a file."""
    with pytest.raises(InputError) as caught:
        read_trace(path, trace_format, **arguments)  # type: ignore[arg-type]
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_every_format_has_a_valid_file_here() -> None:
    assert set(GOOD) == set(formats())


@pytest.mark.parametrize("trace_format", GOOD)
@pytest.mark.parametrize("dress", ["plain", "gzip", "crlf", "bom", "blank lines"])
def test_every_format_and_compression_gives_the_same_requests(tmp_path: Path, trace_format: str, dress: str) -> None:
    raw = GOOD[trace_format].encode()
    raw = {
        "plain": raw,
        "gzip": gzip.compress(raw),
        "crlf": raw.replace(b"\n", b"\r\n"),
        "bom": b"\xef\xbb\xbf" + raw,
        "blank lines": raw.rstrip(b"\n").replace(b"\n", b"\n\n"),
    }[dress]
    workload = read_trace(written(tmp_path, raw, "x.gz" if dress == "plain" else "x.csv"), trace_format)
    assert workload.arrival_s.tolist() == [0.0, 0.5, 2.0]
    assert workload.prompt_tokens.tolist() == [10, 20, 30]
    assert workload.output_tokens.tolist() == [1, 2, 3]
    per_1k_s = 0.25 if trace_format == "mooncake" else 0.0
    assert workload.ttft_slo_s.tolist() == [2.0 + per_1k_s * tokens / 1000 for tokens in (10, 20, 30)]
    assert workload.tbt_slo_s.tolist() == [0.1] * 3
    assert workload.label.startswith(f"{trace_format} trace x.")


@pytest.mark.parametrize("trace_format", GOOD)
def test_unsorted_rows_are_sorted_stably_and_the_label_says_so(tmp_path: Path, trace_format: str) -> None:
    lines = GOOD[trace_format].splitlines()
    first = 0 if trace_format == "mooncake" else 1
    # The first row again at the end, with another output, so that both have the same time.
    again = lines[first].replace('output_length": 1', 'output_length": 7').replace(",10,1", ",10,7")
    shuffled = [*lines[:first], lines[first + 2], *lines[first : first + 2], again]
    workload = read_trace(written(tmp_path, "\n".join(shuffled)), trace_format)
    assert workload.arrival_s.tolist() == [0.0, 0.0, 0.5, 2.0]
    assert workload.output_tokens.tolist() == [1, 7, 2, 3]
    assert "rows sorted by arrival" in workload.label
    assert "sorted" not in read_trace(written(tmp_path, GOOD[trace_format]), trace_format).label


@pytest.mark.parametrize("trace_format", ["azure", "vidur", "burstgpt", "native"])
@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (",20,2", ",twenty,2", "is 'twenty'; must be a whole number of tokens"),
        (",20,2", ",,2", "is ''; must be a whole number"),
        (",20,2", ",20.5,2", "is '20.5'; must be a whole number"),
        (",20,2", ",20,-2", "is '-2'; must be a whole number"),
        (",20,2", ",20,nan", "is 'nan'; must be a whole number"),
        (",20,2", ",20,inf", "is 'inf'; must be a whole number"),
        (",20,2", f",{10**30},2", "must be a whole number"),
        (",20,2", ",20", "fields; needs"),
        (",20,2", ",20,2,2,2,2", "fields; needs"),
        ("0.5", "soon", "must be"),
        ("0.5", "nan", "must be"),
        ("0.5", "inf", "must be"),
        ("0.5", "-0.5", "must be"),
        ("0.5", "", "must be"),
    ],
)
def test_the_error_for_a_bad_csv_row_has_file_line_and_reason(
    tmp_path: Path, trace_format: str, old: str, new: str, reason: str
) -> None:
    old = {"0.5": "2023-11-16 18:17:04.4799600"}.get(old, old) if trace_format == "azure" else old
    path = written(tmp_path, GOOD[trace_format].replace(old, new, 1))
    text = error_of(path, trace_format)
    assert text.startswith(f"{path}:3: ")
    assert reason in text


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"input_length": 20', '"input_length": "20"', None),  # quoted numbers are numbers
        ('"input_length": 20', '"input_length": 20.0', None),
        ('"input_length": 20', '"input_length": 0', "input_length is 0; must be"),
        ('"input_length": 20', '"input_length": true', "input_length is True; must be"),
        ('"input_length": 20', '"input_length": null', "input_length is None; must be"),
        ('"input_length": 20', '"input_length": [20]', "input_length is [20]; must be"),
        ('"input_length": 20', f'"input_length": {10**400}', "input_length is 1000"),
        ('"input_length": 20, ', "", "no input_length; needs the keys timestamp, input_length, output_length"),
        ('"timestamp": 500', '"timestamp": NaN', "timestamp is nan; must be finite milliseconds"),
        ('"timestamp": 500', '"timestamp": -1', "timestamp is -1; must be finite milliseconds"),
        ('{"timestamp": 500', '"timestamp": 500', "is not a JSON object"),
        ('{"timestamp": 500', "[500]{", "is not a JSON object"),
    ],
)
def test_the_error_for_a_bad_json_row_has_file_line_and_reason(
    tmp_path: Path, old: str, new: str, reason: str | None
) -> None:
    path = written(tmp_path, GOOD["mooncake"].replace(old, new, 1))
    if reason is None:
        assert len(read_trace(path, "mooncake")) == 3
    else:
        text = error_of(path, "mooncake")
        assert text.startswith(f"{path}:2: ")
        assert reason in text


@pytest.mark.parametrize("trace_format", ["azure", "vidur", "mooncake", "native"])
def test_zero_tokens_are_an_error_except_in_burstgpt(tmp_path: Path, trace_format: str) -> None:
    text = GOOD[trace_format].replace(",20,2", ",20,0").replace('"output_length": 2', '"output_length": 0')
    path = written(tmp_path, text)
    line = 2 if trace_format == "mooncake" else 3
    assert error_of(path, trace_format).startswith(f"{path}:{line}: ")


def test_burstgpts_failures_are_dropped_and_counted(tmp_path: Path) -> None:
    text = GOOD["burstgpt"] + "3,ChatGPT,40,0,40,API log\n4,ChatGPT,0,0,0,API log\n"
    workload = read_trace(written(tmp_path, text), "burstgpt")
    assert workload.prompt_tokens.tolist() == [10, 20, 30]
    assert "2 failed requests of zero tokens dropped" in workload.label
    only_failed = written(tmp_path, GOOD["burstgpt"].splitlines()[0] + "\n3,ChatGPT,40,0,40,API log\n")
    assert "no requests" in error_of(only_failed, "burstgpt")


def test_the_error_for_an_invalid_file_is_one_line(tmp_path: Path) -> None:
    good = written(tmp_path, GOOD["azure"], "good")
    assert "unknown trace format 'csv'; known: azure, vidur, mooncake, burstgpt, native" in error_of(good, "csv")
    assert f"{good}:1: the header has no arrived_at" in error_of(good, "vidur")
    assert "ContextTokens" in error_of(written(tmp_path, "TIMESTAMP,GeneratedTokens\n"), "azure")
    for trace_format in formats():
        empty = written(tmp_path, "")
        assert f"{empty}: empty file; needs" in error_of(empty, trace_format)
        zipped = written(tmp_path, gzip.compress(b""))
        assert f"{zipped}: empty file; needs" in error_of(zipped, trace_format)
        broken = written(tmp_path, gzip.compress(GOOD[trace_format].encode())[:-9])
        assert f"{broken}: damaged gzip" in error_of(broken, trace_format)
        binary = written(tmp_path, bytes(range(128, 256)))
        assert f"{binary}: not text" in error_of(binary, trace_format)
        prose = written(tmp_path, "what\nis\nthis\n")
        assert error_of(prose, trace_format).startswith(f"{prose}:1: ")
    for trace_format in ("azure", "vidur", "burstgpt", "native"):
        header = written(tmp_path, GOOD[trace_format].splitlines()[0])
        assert "no requests" in error_of(header, trace_format)
    with pytest.raises(FileNotFoundError):
        read_trace(tmp_path / "absent", "azure")


def test_arguments_are_applied_in_order_slice_subsample_scale_limit(tmp_path: Path) -> None:
    workload = Workload.of(np.arange(100.0), np.arange(1, 101), np.ones(100), label="")
    path = tmp_path / "w.csv"
    write_native(workload, path)
    got = read_trace(
        path, "native", start_s=10, end_s=90, subsample=0.5, rate_scale=4, limit=20, seed=3, slos=Slos.of(5, 0.2)
    )
    by_hand = workload.window(10, 90).subsample(0.5, 3).rate_scale(4).head(20)
    assert got.arrival_s.tolist() == by_hand.arrival_s.tolist()
    assert got.prompt_tokens.tolist() == by_hand.prompt_tokens.tolist()
    for said in ("slice from 10 s to 90 s", "thinned to 0.5", "compressed in time x4", "first 20 requests"):
        assert said in got.label
    assert read_trace(path, "native", slos=Slos.of(5)).ttft_slo_s[0] == 2.0  # the file's own SLO takes precedence
    for bad in ({"rate_scale": 0}, {"limit": 0}, {"start_s": 500}, {"start_s": 5, "end_s": 5}, {"subsample": 0}):
        error_of(path, "native", **bad)


def test_dates_in_two_time_zones_share_a_clock(tmp_path: Path) -> None:
    text = "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.25+00:00,1,1\n2024-05-10T02:00:01+02:00,1,1\n"
    assert read_trace(written(tmp_path, text), "azure").arrival_s.tolist() == [0.0, 0.75]


def test_a_coarse_clock_is_spread_within_ticks_in_file_order(tmp_path: Path) -> None:
    ticks = np.repeat(np.arange(50) * 3000, 8)
    rows = [f'{{"timestamp": {t}, "input_length": {i + 1}, "output_length": 1}}' for i, t in enumerate(ticks)]
    path = written(tmp_path, "\n".join(rows))
    workload = read_trace(path, "mooncake", seed=1)
    assert workload.prompt_tokens.tolist() == list(range(1, 401))
    assert (workload.arrival_s * 1000 // 3000 * 3000 == ticks).all()
    assert len(np.unique(workload.arrival_s)) == 400
    assert "spread at random inside its clock's ticks of 3 s (seed 1)" in workload.label
    assert workload.arrival_s.tolist() == read_trace(path, "mooncake", seed=1).arrival_s.tolist()
    assert workload.arrival_s.tolist() != read_trace(path, "mooncake", seed=2).arrival_s.tolist()


def test_equal_times_of_a_fine_clock_stay_equal(tmp_path: Path) -> None:
    rows = [f'{{"timestamp": {t}, "input_length": 1, "output_length": 1}}' for t in (0, 40, 40, 90, 700)]
    workload = read_trace(written(tmp_path, "\n".join(rows)), "mooncake")
    assert workload.arrival_s.tolist() == [0, 0.04, 0.04, 0.09, 0.7]
    assert "spread" not in workload.label


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workload = Workload.of([0.0], [1], [1], label="")
    write_native(workload, tmp_path / "w.csv")
    before = (tmp_path / "w.csv").read_bytes()

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device", f"{self} to {target}")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_native(workload.with_slos(9, 9), tmp_path / "w.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["w.csv"]
    assert (tmp_path / "w.csv").read_bytes() == before


def test_reading_a_trace_takes_linear_time(tmp_path: Path) -> None:
    def least_s(count: int) -> float:
        path = tmp_path / f"{count}.csv"
        write_native(Workload.of(np.arange(count) / 3, np.ones(count), np.ones(count), label=""), path)
        taken_s = []
        for _ in range(3):
            start_s = time.process_time()
            read_trace(path, "native")
            taken_s.append(time.process_time() - start_s)
        return min(taken_s)

    # There are eight times as many rows; quadratic time would be a factor of 64.
    assert least_s(40_000) < 24 * least_s(5_000)


def interarrival_cv(workload: Workload) -> float:
    gaps_s = np.diff(workload.arrival_s)
    return float(gaps_s.std() / gaps_s.mean())


# Rate, CV of gaps, and percentiles 50, 95, 99 of prompts and outputs of the whole traces. The files of the Azure traces
# have only the first 60 %, so they agree loosely, and the rate of Azure code, which is silent for minutes, does not.
@needs_traces
@pytest.mark.parametrize(
    ("name", "trace_format", "rate_rps", "cv", "prompt", "output", "within"),
    [
        ("azure2023_code_first60pct.csv.gz", "azure", None, 13.2, (1469, 7303, 7436), (13, 90, 252), 0.1),
        ("azure2023_conv_first60pct.csv.gz", "azure", 5.53, 1.09, (1020, 4083, 4142), (129, 451, 601), 0.1),
        ("mooncake_arxiv_lengths.csv.gz", "mooncake", 6.56, 1.03, (6345, 26079, 61616), (30, 600, 898), 0.01),
        (
            "generated_servegen_r1_60min_w54.csv.gz",
            "native",
            10.8,
            1.59,
            (122, 6875, 22222),
            (1012, 7284, 14208),
            0.01,
        ),
    ],
)
def test_real_traces_have_the_known_statistics(
    name: str,
    trace_format: str,
    rate_rps: float | None,
    cv: float,
    prompt: tuple[float, ...],
    output: tuple[float, ...],
    within: float,
) -> None:
    workload = read_trace(TRACES / name, trace_format)
    if rate_rps is not None:
        assert workload.rate_rps == pytest.approx(rate_rps, rel=within)
    assert interarrival_cv(workload) == pytest.approx(cv, rel=within)
    assert np.percentile(workload.prompt_tokens, [50, 95, 99]) == pytest.approx(prompt, rel=within)
    assert np.percentile(workload.output_tokens, [50, 95, 99]) == pytest.approx(output, rel=within)


@needs_traces
def test_real_rows_are_read_unchanged() -> None:
    """Compare with a simple reader, row by row."""
    path = TRACES / "azure2023_conv_first60pct.csv.gz"
    with gzip.open(path, "rt") as file:
        rows = list(csv.DictReader(file))
    start = datetime.fromisoformat(rows[0]["TIMESTAMP"])
    workload = read_trace(path, "azure")
    assert workload.prompt_tokens.tolist() == [int(row["ContextTokens"]) for row in rows]
    assert workload.output_tokens.tolist() == [int(row["GeneratedTokens"]) for row in rows]
    assert workload.arrival_s.tolist() == [
        (datetime.fromisoformat(row["TIMESTAMP"]) - start).total_seconds() for row in rows
    ]


@needs_traces
def test_mooncakes_fine_clock_is_unchanged() -> None:
    workload = read_trace(TRACES / "mooncake_synthetic.jsonl.gz", "mooncake")
    assert len(workload) == 3993
    assert workload.arrival_s[[0, -1]].tolist() == [0.0, 1022.025]
    assert interarrival_cv(workload) == pytest.approx(1.01, abs=0.01)
    assert "spread" not in workload.label
