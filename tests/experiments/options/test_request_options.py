"""Which requests: generated families, or a recorded trace, and what goes with which."""

from pathlib import Path

import pytest

from envs.slos import DEFAULT_SLOS
from experiments.options.request_options import RequestOptions, check_families
from experiments.runs.requests import made
from hardware_profiles import InputError, load_profile
from tests.refusal import refused

TRACE = "arrival_s,prompt_tokens,output_tokens\n" + "".join(f"{i * 0.5},{100 * i + 1},20\n" for i in range(1000))


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "toy.csv"
    path.write_text(TRACE)
    return path


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"workload": ("burst",), "trace": Path("t.csv")}, "--workload and --trace go one without the other"),
        ({"trace": Path("t.csv")}, "--trace needs --trace-format: "),
        ({"trace": Path("t.csv"), "trace_format": "native", "requests": 5}, "--requests goes with --workload only"),
        ({"workload": ("burst",), "trace_format": "native"}, "--trace-format goes with --trace only"),
        ({"workload": ("burst",), "rate_scale": 2.0}, "--rate-scale goes with --trace only"),
        ({"workload": ("burst",), "limit": 9}, "--limit goes with --trace only"),
        ({"trace": Path("t.csv"), "trace_format": "native", "limit": 0}, "--limit 0: must be at least 1"),
        ({"trace": Path("t.csv"), "trace_format": "native", "rate_scale": 0.0}, "--rate-scale 0: must be"),
        ({"workload": ("burst", "lplh")}, "unknown workload 'lplh'; "),
        ({"workload": ("bursty",)}, "unknown workload 'bursty'; did you mean 'burst'? known: "),
    ],
)
def test_options_that_do_not_go_together_are_named(given: dict[str, object], says: str) -> None:
    with refused(says):
        RequestOptions(**given)  # type: ignore[arg-type]


def test_an_unknown_family_suggests_the_close_name() -> None:
    with pytest.raises(InputError, match="unknown workload 'LPLd'; did you mean 'LPLD'"):
        check_families(["burst", "LPLd"])


def test_a_trace_is_read_with_its_options(trace: Path) -> None:
    options = RequestOptions(trace=trace, trace_format="native", rate_scale=2.0, limit=50)
    read = options.read_trace(DEFAULT_SLOS, load_profile("a100-qwen3-8b"))
    assert read is not None
    assert len(made(read)) == 50
    assert made(read).arrival_s[-1] == pytest.approx(49 * 0.25)
    assert RequestOptions(workload=("burst",)).read_trace(DEFAULT_SLOS, load_profile("a100-qwen3-8b")) is None


def test_prompts_beyond_the_context_are_noticed(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options, profile = RequestOptions(trace=trace, trace_format="native"), load_profile("a100-qwen3-8b")
    options.read_trace(DEFAULT_SLOS, profile)
    assert profile.max_context_tokens is not None
    beyond = sum(100 * i + 1 + 20 > profile.max_context_tokens for i in range(1000))
    assert f"note: {beyond:,} of 1,000 requests are longer than the context" in capsys.readouterr().err


def test_a_trace_that_is_not_there_is_an_os_error_with_its_name() -> None:
    with pytest.raises(FileNotFoundError) as error:
        RequestOptions(trace=Path("nowhere.csv"), trace_format="native").read_trace(
            DEFAULT_SLOS, load_profile("a100-qwen3-8b")
        )
    assert str(error.value.filename) == "nowhere.csv"
