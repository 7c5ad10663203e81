"""Replays: the cluster against recordings of another simulator, and invalid recordings."""

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.crosscheck.recording import COLUMNS, read_recording, set_up, with_link
from experiments.options.parser import parse
from experiments.replay import ReplayOptions, replay, run
from hardware_profiles import InputError, load_profile
from tests.toy import TOY_LAW, toy_profile

CROSSCHECK = Path(__file__).parents[3] / "shared" / "data" / "crosscheck"
FIGURES = [f"{what}_{which}_s" for what in ("ttft", "itl") for which in ("mean", "p50", "p90", "p99")]

# ---- the recordings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "profile"),
    [
        ("synthetic_bursty_qwen3_8b", "a100-qwen3-8b"),
        ("azure_conv_x3_qwen3_8b", "a100-qwen3-8b"),
        ("azure_code_x2_llama31_8b", "a100-llama31-8b"),
    ],
)
def test_a_recording_is_met_within_one_percent(name: str, profile: str) -> None:
    path = CROSSCHECK / f"{name}.csv.gz"
    if not path.exists():
        pytest.skip(f"no recordings in {CROSSCHECK}")
    result = replay(path, with_link(load_profile(profile), 20.8))
    reference, simulated = result["reference"], result["simulated"]
    assert isinstance(reference, dict)
    assert isinstance(simulated, dict)
    errors = {figure: abs(simulated[figure] / reference[figure] - 1.0) for figure in FIGURES}
    assert max(errors.values()) <= 0.01, errors
    assert result["ttft_correlation"] >= 0.999


# ---- a recording made by hand ---------------------------------------------------------------------------------------

HEADER = ",".join(COLUMNS)
# Three requests on 2P1D; the toy machine's own times, in whole milliseconds.
ROWS = ["0,100,3,0,0,0,24,42", "5,1000,1,1,0,5,82,82", "200,50,20,0,0,200,220,400"]


def recording(tmp_path: Path, *rows: str, header: str = HEADER) -> Path:
    path = tmp_path / "recording.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def main(path: Path, *arguments: str) -> None:
    run(parse(ReplayOptions, "replay", "", ["--recording", str(path), *arguments]))


def test_the_json_object_has_the_agreed_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(recording(tmp_path, *ROWS), "--json")
    result = json.loads(capsys.readouterr().out)
    assert list(result) == ["reference", "simulated", "ttft_error_median", "ttft_correlation", "requests_per_s"]
    assert list(result["reference"]) == list(result["simulated"]) == FIGURES
    assert all(isinstance(value, float) for part in ("reference", "simulated") for value in result[part].values())
    assert result["requests_per_s"] > 0


def test_the_reference_is_the_recording(tmp_path: Path) -> None:
    reference = replay(recording(tmp_path, *ROWS), toy_profile())["reference"]
    assert isinstance(reference, dict)
    assert reference["ttft_mean_s"] == pytest.approx((24 + 77 + 20) / 3 / 1e3)
    assert reference["ttft_p50_s"] == pytest.approx(0.024)
    # A request of one token has no gap: 18 ms / 2 and 180 ms / 19 remain.
    assert reference["itl_mean_s"] == pytest.approx((0.018 / 2 + 0.18 / 19) / 2)


def test_the_simulation_is_the_clusters(tmp_path: Path) -> None:
    simulated = replay(recording(tmp_path, *ROWS), with_link(toy_profile(), 20.0))["simulated"]
    assert isinstance(simulated, dict)

    def alone_s(prompt: int) -> float:
        kv_bytes = -(-prompt // 64) * 64 * 100_000  # the recorder moves blocks of 64 tokens
        return TOY_LAW.time_s([(prompt, 0)], 0, 0) + kv_bytes / 20e9 + TOY_LAW.time_s((), 1, prompt)

    assert simulated["ttft_mean_s"] == pytest.approx((alone_s(100) + alone_s(1000) + alone_s(50)) / 3)


def test_recordings_are_replayed_under_the_fixed_step_budget(tmp_path: Path) -> None:
    assert set_up(read_recording(recording(tmp_path, *ROWS)), toy_profile()).config.step_budget == "fixed"


def test_the_table_shows_both_and_the_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(recording(tmp_path, *ROWS))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:9]] == [figure.removesuffix("_s") for figure in FIGURES]
    assert all(line.endswith("%") for line in lines[1:9])


def test_gzip_and_the_order_of_columns_make_no_difference(tmp_path: Path) -> None:
    plain = read_recording(recording(tmp_path, *ROWS))
    names = [*reversed(COLUMNS), "kv_ready_ms"]
    rows = [",".join([*reversed(row.split(",")), "7"]) for row in ROWS]
    packed = tmp_path / "packed.csv.gz"
    packed.write_bytes(gzip.compress("\n".join([",".join(names), *rows]).encode()))
    columns = read_recording(packed)
    assert {name: values.tolist() for name, values in columns.items()} == {
        name: values.tolist() for name, values in plain.items()
    }


def test_equal_arrivals_are_in_order_of_their_prefill_starts(tmp_path: Path) -> None:
    rows = ["5,30,2,0,0,90,120,130", "0,10,2,0,0,60,80,90", "0,20,2,0,0,0,50,90"]
    columns = read_recording(recording(tmp_path, *rows))
    assert columns["prompt_tokens"].tolist() == [20, 10, 30]


def test_one_request_has_no_correlation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recording(tmp_path, ROWS[0])
    assert replay(path, toy_profile())["ttft_correlation"] is None
    main(path)
    assert "correlation of TTFT undefined" in capsys.readouterr().out


def test_bandwidth_is_per_gpu_and_every_gpu_of_a_group_has_it() -> None:
    alone, group = (with_link(load_profile(name), 20.8) for name in ("a100-llama31-8b", "a100x4-llama31-70b"))
    assert alone.inter_node.bandwidth_bytes_per_s == pytest.approx(20.8e9)
    assert group.inter_node.bandwidth_bytes_per_s == pytest.approx(4 * 20.8e9)
    assert alone.inter_node.latency_s == group.inter_node.latency_s == 0.0


# ---- invalid recordings ----------- ----------------------------------------------------------------------------------

GOOD = ROWS[0]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("0,100,3,0,0,0,24", "7 values, the header names 8 columns"),
        ("", "1 values, the header names 8 columns"),
        (f"{GOOD},9", "9 values"),
        ("zero,100,3,0,0,0,24,42", "could not convert string to float: 'zero'"),
        ("0,,3,0,0,0,24,42", "could not convert"),
        ("nan,100,3,0,0,0,24,42", "times and nodes must be 0 or more"),
        ("0,100,3,0,0,0,inf,42", "times and nodes must be 0 or more"),
        ("-1,100,3,0,0,0,24,42", "times and nodes must be 0 or more"),
        ("0,0,3,0,0,0,24,42", "tokens above 0"),
        ("0,100,0,0,0,0,24,42", "tokens above 0"),
        ("0,100.5,3,0,0,0,24,42", "tokens and nodes whole"),
        ("0,100,3,0.5,0,0,24,42", "tokens and nodes whole"),
        ("0,100,3,0,-1,0,24,42", "nodes must be 0 or more"),
        ("0,1e300,3,0,0,0,24,42", "prompt_tokens 1e+300 is above"),
        ("0,100,3,100000,0,0,24,42", "prefill_node 100000 is above 998"),
        ("10,100,3,0,0,9,24,42", "out of order"),
        ("0,100,3,0,0,25,24,42", "out of order"),
        ("0,100,3,0,0,0,43,42", "out of order"),
        ("0,100,3,0,0,0,0,42", "first token is as early as the arrival"),
        ("0,100,3,0,0,0,24,24", "last token is as early as the first"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, row: str, says: str) -> None:
    path = recording(tmp_path, GOOD, row, *ROWS[1:])
    with pytest.raises(InputError) as caught:
        read_recording(path)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def cut_short(path: Path) -> None:
    path.write_bytes(gzip.compress(path.read_bytes())[:-20])


def spoilt_inside(path: Path) -> None:
    packed = bytearray(gzip.compress(path.read_bytes()))
    packed[12] ^= 0xFF
    path.write_bytes(packed)


def not_gzip(path: Path) -> None:
    path.write_bytes(b"\x1f\x8b" + b"nothing of the kind")


def not_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00binary")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def header_only(path: Path) -> None:
    path.write_text(HEADER + "\n")


def without_a_column(path: Path) -> None:
    path.write_text(HEADER.replace("decode_node", "node") + f"\n{GOOD}\n")


def single_tokens(path: Path) -> None:
    path.write_text(f"{HEADER}\n0,100,1,0,0,0,24,24\n5,1000,1,1,0,5,82,82\n")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (cut_short, "not a CSV file"),
        (spoilt_inside, "not a CSV file"),
        (not_gzip, "not a CSV file"),
        (not_text, "not a CSV file"),
        (empty, ":1: no column arrival_ms"),
        (header_only, "no rows below the header"),
        (without_a_column, ":1: no column decode_node; a recording has arrival_ms, prompt_tokens"),
        (single_tokens, "no request of two tokens or more"),
    ],
)
def test_a_file_that_is_no_recording_is_named(tmp_path: Path, spoil: Callable[[Path], None], says: str) -> None:
    path = recording(tmp_path, *ROWS)
    spoil(path)
    with pytest.raises(InputError) as caught:
        replay(path, toy_profile())
    assert str(caught.value).startswith(str(path))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_prompt_beyond_the_kv_capacity_is_refused(tmp_path: Path) -> None:
    path = recording(tmp_path, "0,5000,3,0,0,0,24,42", *ROWS[1:])
    with pytest.raises(InputError, match=r"request 0: 5000 prompt .* do not fit"):
        replay(path, toy_profile(kv_capacity_tokens=4_000))


@pytest.mark.parametrize("bandwidth", ["0", "-1", "nan", "inf"])
def test_a_bandwidth_is_above_0(tmp_path: Path, bandwidth: str) -> None:
    with pytest.raises(InputError, match=r"--link-gb-per-s \S+: must be a finite number above 0"):
        main(recording(tmp_path, *ROWS), f"--link-gb-per-s={bandwidth}")


# ---- the command itself ---------------------------------------------------------------------------------------------


def command(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "experiments.replay", "--recording", str(path), *arguments],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_bad_row_leaves_one_line_and_exit_code_2(tmp_path: Path) -> None:
    path = recording(tmp_path, GOOD, "0,100,3,0,0,0,24")
    done = command(path, "--json")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"error: {path}:3: 7 values, the header names 8 columns\n"


def test_a_missing_file_leaves_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = command(tmp_path / "nowhere.csv")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"error: {tmp_path / 'nowhere.csv'}: No such file or directory\n"


def test_a_good_recording_leaves_json_and_exit_code_0(tmp_path: Path) -> None:
    done = command(recording(tmp_path, *ROWS), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert list(json.loads(done.stdout)["simulated"]) == FIGURES
