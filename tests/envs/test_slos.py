"""Laws of the SLOs: the SLOs of a class, and the assignment of requests to classes."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.generators import families, generate, slos_of_family
from envs.slos import DEFAULT_SLOS, SloClass, Slos
from envs.traces import read_trace, slos_of_format, write_native
from envs.workload import Workload
from hardware_profiles.errors import InputError

STRICT = SloClass(0.5, 0.03, 0.1, share=0.3)
LENIENT = SloClass(10.0, 0.2, share=0.7)
TWO = Slos((STRICT, LENIENT))


def promises(workload: Workload) -> list[tuple[float, float]]:
    return list(zip(workload.ttft_slo_s.tolist(), workload.tbt_slo_s.tolist(), strict=True))


@given(
    ttft_s=st.floats(0.01, 100.0),
    tbt_s=st.floats(0.001, 1.0),
    per_1k_s=st.floats(0.0, 10.0),
    prompts=st.lists(st.integers(1, 200_000), min_size=1, max_size=20),
)
def test_a_ttft_slo_grows_with_the_prompt(ttft_s: float, tbt_s: float, per_1k_s: float, prompts: list[int]) -> None:
    workload = Workload.of(range(len(prompts)), prompts, [1] * len(prompts), label="any")
    found = Slos.of(ttft_s, tbt_s, per_1k_s).apply(workload, seed=0)
    assert found.ttft_slo_s == pytest.approx([ttft_s + per_1k_s * tokens / 1000 for tokens in prompts])
    assert found.tbt_slo_s.tolist() == [tbt_s] * len(prompts)
    assert found.with_slos(1.0, 1.0).rows() == workload.with_slos(1.0, 1.0).rows()


@given(seed=st.integers(0, 2**40), longer=st.integers(2, 300), data=st.data())
def test_a_longer_workload_begins_with_the_classes_of_the_shorter_one(
    seed: int, longer: int, data: st.DataObject
) -> None:
    shorter = data.draw(st.integers(1, longer))
    long, short = (
        generate("LPLD", rate_rps=rate, requests=requests, seed=seed, slos=TWO)
        for rate, requests in ((7.0, longer), (70.0, shorter))
    )
    assert promises(long)[:shorter] == promises(short)


def test_each_class_has_its_share_and_its_slos() -> None:
    workload = generate("LPLD", rate_rps=1.0, requests=20_000, seed=1, slos=TWO)
    strict = workload.tbt_slo_s == STRICT.tbt_s
    assert strict.mean() == pytest.approx(0.3, abs=0.01)
    assert set(workload.tbt_slo_s) == {0.03, 0.2}
    assert workload.ttft_slo_s[strict] == pytest.approx(0.5 + 0.1 * workload.prompt_tokens[strict] / 1000)
    assert set(workload.ttft_slo_s[~strict]) == {10.0}
    # Classes are drawn from a separate random stream, independent of lengths and arrivals.
    assert abs(np.corrcoef(strict, workload.prompt_tokens)[0, 1]) < 0.03


@pytest.mark.parametrize("family", families())
def test_only_mooncakes_ttft_slo_grows_by_default(family: str) -> None:
    workload = generate(family, rate_rps=10.0, requests=50, seed=3)
    per_1k_s = 0.25 if family == "mooncake-conv" else 0.0
    assert workload.ttft_slo_s.tolist() == (2.0 + per_1k_s * workload.prompt_tokens / 1000).tolist()
    assert set(workload.tbt_slo_s) == {0.1}
    flat = generate(family, rate_rps=10.0, requests=50, seed=3, slos=Slos.of(ttft_per_1k_tokens_s=0.0))
    assert set(flat.ttft_slo_s) == {2.0}


def test_a_part_of_a_trace_keeps_the_class_of_each_request(tmp_path: Path) -> None:
    path = tmp_path / "lengths.jsonl"
    rows = [f'{{"timestamp": {i}, "input_length": {i + 1}, "output_length": 1}}\n' for i in range(200)]
    path.write_text("".join(rows))
    whole = read_trace(path, "mooncake", slos=TWO, seed=5)
    part = read_trace(path, "mooncake", slos=TWO, seed=5, start_s=0.05, subsample=0.5, limit=40)
    assert set(whole.tbt_slo_s) == {0.03, 0.2}
    assert promises(part) == [promises(whole)[tokens - 1] for tokens in part.prompt_tokens.tolist()]


def test_a_native_files_slo_columns_take_precedence(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    write_native(Workload.of([0.0, 1.0], [5, 6], [1, 1], label="", ttft_slo_s=[3.0, 4.0], tbt_slo_s=0.5), path)
    assert promises(read_trace(path, "native", slos=TWO)) == [(3.0, 0.5), (4.0, 0.5)]
    path.write_text("arrival_s,prompt_tokens,output_tokens,tbt_slo_s\n0,1000,1,0.5\n")
    assert promises(read_trace(path, "native", slos=Slos.of(3.0, 0.1, 1.0))) == [(4.0, 0.5)]


def test_a_single_flat_ttft_slo_is_known() -> None:
    assert DEFAULT_SLOS.flat_ttft_s == slos_of_family("burst").flat_ttft_s == 2.0
    assert Slos((SloClass(3.0, 0.1, share=0.5), SloClass(3.0, 0.2, share=0.5))).flat_ttft_s == 3.0
    assert TWO.flat_ttft_s is None
    assert slos_of_format("mooncake").flat_ttft_s is None
    assert slos_of_format("mooncake", Slos.of(3.0, ttft_per_1k_tokens_s=0.0)).flat_ttft_s == 3.0


def test_the_text_states_all_values() -> None:
    assert str(slos_of_family("burst")) == "TTFT 2 s, TBT 0.1 s"
    assert str(slos_of_family("mooncake-conv")) == "TTFT 2 s + 0.25 s per 1,000 prompt tokens, TBT 0.1 s"
    assert str(TWO) == (
        "0.3 of the requests: TTFT 0.5 s + 0.1 s per 1,000 prompt tokens, TBT 0.03 s; "
        "0.7 of the requests: TTFT 10 s, TBT 0.2 s"
    )


def test_shares_may_sum_to_nearly_1() -> None:
    thirds = Slos(tuple(SloClass(ttft_s, share=0.3333) for ttft_s in (1.0, 2.0, 3.0)))
    found = generate("LPLD", rate_rps=1.0, requests=3000, seed=0, slos=thirds)
    assert np.unique(found.ttft_slo_s, return_counts=True)[1] == pytest.approx([1000] * 3, rel=0.1)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: SloClass(0.0), "ttft_slo_s 0: must be finite seconds above 0"),
        (lambda: SloClass(float("nan")), "ttft_slo_s nan"),
        (lambda: SloClass(1.0, float("inf")), "tbt_slo_s inf"),
        (lambda: SloClass(1.0, 0.1, -1.0), "ttft_per_1k_tokens_s -1: must be .* 0 or more"),
        (lambda: SloClass(share=0.0), "share 0: must be above 0, at most 1"),
        (lambda: SloClass(share=1.5), "share 1.5"),
        (lambda: Slos(()), "at least one class"),
        (lambda: Slos((SloClass(share=0.5), SloClass(share=0.4))), "add up to 0.9: must add up to 1"),
    ],
)
def test_the_error_for_an_invalid_slo_is_one_line(wrong: object, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        wrong()  # type: ignore[operator]
    assert "\n" not in str(caught.value)
