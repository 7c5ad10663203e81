"""Laws of the Workload type: validation, slicing, scaling, thinning, and its file."""

import gzip
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.traces import read_trace, write_native
from envs.workload import Workload
from hardware_profiles.errors import InputError


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    gaps_s = draw(st.lists(st.floats(0, 1e4), min_size=1, max_size=30))
    tokens = st.lists(st.integers(1, 10**6), min_size=len(gaps_s), max_size=len(gaps_s))
    slos_s = st.lists(st.floats(1e-3, 1e3), min_size=len(gaps_s), max_size=len(gaps_s))
    return Workload.of(
        np.cumsum(gaps_s),
        draw(tokens),
        draw(tokens),
        ttft_slo_s=draw(slos_s),
        tbt_slo_s=draw(slos_s),
        label="any",
    )


def columns(workload: Workload) -> list[list[float]]:
    """Everything but the label, exactly."""
    return [
        array.tolist()
        for array in (
            workload.arrival_s,
            workload.prompt_tokens,
            workload.output_tokens,
            workload.ttft_slo_s,
            workload.tbt_slo_s,
        )
    ]


def test_scalar_slos_apply_to_every_request_and_have_defaults() -> None:
    workload = Workload.of([0.0, 1.0], [1, 2], [3, 4], label="two", ttft_slo_s=5.0)
    assert workload.ttft_slo_s.tolist() == [5.0, 5.0]
    assert workload.tbt_slo_s.tolist() == [0.1, 0.1]
    assert workload.with_slos(1.0, [0.2, 0.3]).tbt_slo_s.tolist() == [0.2, 0.3]


def test_requests_beyond_a_models_context_are_counted() -> None:
    workload = Workload.of([0.0, 1.0, 2.0], [900, 901, 5_000], [100, 100, 1], label="three")
    assert workload.beyond_context(1_000) == 2
    assert workload.beyond_context(10_000) == 0


def test_arrays_are_copies_and_read_only() -> None:
    arrival_s = np.array([0.0, 1.0])
    workload = Workload.of(arrival_s, [1, 2], [3, 4], label="two")
    arrival_s[0] = 9.0
    assert workload.arrival_s[0] == 0.0
    for name in ("arrival_s", "prompt_tokens", "output_tokens", "ttft_slo_s", "tbt_slo_s"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(workload, name)[0] = 1


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"arrival_s": []}, "at least one"),
        ({"arrival_s": [[0.0, 1.0, 2.0]]}, "list"),
        ({"arrival_s": [0.0, 2.0, 1.0]}, "arrival_s: request 2 .*sort"),
        ({"arrival_s": [-1.0, 0.0, 1.0]}, "arrival_s: request 0 .*0 or more"),
        ({"arrival_s": [0.0, np.nan, 1.0]}, "arrival_s: request 1 .*finite"),
        ({"arrival_s": [0.0, 1.0, np.inf]}, "arrival_s: request 2 .*finite"),
        ({"prompt_tokens": [1, 0, 1]}, "prompt_tokens: request 1 .*at least 1"),
        ({"prompt_tokens": [1, 1]}, "prompt_tokens: .*each of the 3"),
        ({"prompt_tokens": ["a", "b", "c"]}, "prompt_tokens: must be numbers"),
        ({"output_tokens": [1, 1, -4]}, "output_tokens: request 2 .*at least 1"),
        ({"output_tokens": [1, 1.5, 1]}, "output_tokens: request 1 .*whole"),
        ({"output_tokens": [1, 1, np.inf]}, "output_tokens: request 2 .*whole"),
        ({"output_tokens": [1, 1, 1e30]}, "output_tokens: request 2 .*whole"),
        ({"ttft_slo_s": 0.0}, "ttft_slo_s: request 0 .*above 0"),
        ({"tbt_slo_s": [0.1, np.nan, 0.1]}, "tbt_slo_s: request 1 .*finite"),
        ({"tbt_slo_s": [0.1, 0.1]}, "tbt_slo_s: .*each of the 3"),
    ],
)
def test_an_invalid_workload_is_an_error(changed: dict[str, object], reason: str) -> None:
    good = {"arrival_s": [0.0, 0.0, 1.0], "prompt_tokens": [1, 2, 3], "output_tokens": [1, 2, 3], "label": "three"}
    Workload.of(**good)
    with pytest.raises(InputError, match=reason) as caught:
        Workload.of(**good | changed)
    assert "\n" not in str(caught.value)


@given(workloads(), st.floats(0.01, 100))
def test_rate_scale_only_compresses_arrivals(workload: Workload, factor: float) -> None:
    scaled = workload.rate_scale(factor)
    assert scaled.arrival_s == pytest.approx(workload.arrival_s / factor)
    assert columns(scaled)[1:] == columns(workload)[1:]
    if (
        workload.arrival_s[-1] - workload.arrival_s[0] > 1e-3
    ):  # otherwise the difference of late arrivals has few digits
        assert scaled.rate_rps == pytest.approx(factor * workload.rate_rps)


@given(workloads(), st.floats(0, 1e5))
def test_two_adjacent_windows_contain_every_request_once(workload: Workload, cut_s: float) -> None:
    before = int((workload.arrival_s < cut_s).sum())
    parts = []
    if before:
        parts.append(workload.window(0, cut_s))
        assert len(parts[0]) == before
        assert columns(parts[0]) == columns(workload.head(before))
    if before < len(workload):
        parts.append(workload.window(cut_s))
        assert parts[-1].arrival_s.tolist() == (workload.arrival_s[before:] - cut_s).tolist()
    assert list(chain.from_iterable(part.prompt_tokens for part in parts)) == workload.prompt_tokens.tolist()


@given(workloads(), st.integers(1, 40))
def test_head_keeps_the_first_requests(workload: Workload, count: int) -> None:
    assert columns(workload.head(count)) == [column[:count] for column in columns(workload)]


def test_thinning_keeps_the_share_and_nested_sets() -> None:
    count = 20_000
    workload = Workload.of(np.arange(count), np.arange(1, count + 1), np.ones(count), label="many")
    half, fifth = workload.subsample(0.5, seed=3), workload.subsample(0.2, seed=3)
    deviation = np.sqrt(count * 0.5 * 0.5)
    assert abs(len(half) - count / 2) < 4 * deviation
    assert set(fifth.prompt_tokens) < set(half.prompt_tokens)
    assert (half.arrival_s == half.prompt_tokens - 1).all()
    assert columns(half) == columns(workload.subsample(0.5, seed=3))
    assert columns(half) != columns(workload.subsample(0.5, seed=4))


def test_the_label_states_changes_and_only_them() -> None:
    workload = Workload.of(np.arange(10.0), np.ones(10), np.ones(10), label="ten")
    assert workload.rate_scale(1).subsample(1).head(10).label == "ten"
    assert workload.rate_scale(2).label == "ten, arrivals compressed in time x2"
    assert workload.rate_scale(0.5).label == "ten, arrivals stretched in time x2"
    assert workload.head(3).label == "ten, first 3 requests"
    assert workload.window(2, 5).label == "ten, slice from 2 s to 5 s"
    assert workload.window(2).label == "ten, slice from 2 s to the end"
    assert workload.subsample(0.5, 7).label == "ten, thinned to 0.5 of the requests at random (seed 7)"
    assert repr(workload) == "<Workload: 10 requests at 1 req/s; ten>"


def test_the_rate_of_one_request_is_0_and_of_simultaneous_ones_inf() -> None:
    assert Workload.of([3.0], [1], [1], label="one").rate_rps == 0
    assert Workload.of([3.0, 3.0], [1, 1], [1, 1], label="two").rate_rps == np.inf


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w.head(0),
        lambda w: w.window(5, 5),
        lambda w: w.window(-1),
        lambda w: w.window(np.nan),
        lambda w: w.window(100),
        lambda w: w.slice(3, 3),
        lambda w: w.slice(-1, 3),
        lambda w: w.slice(0, 11),
        lambda w: w.rate_scale(0),
        lambda w: w.rate_scale(np.nan),
        lambda w: w.rate_scale(np.inf),
        lambda w: w.subsample(0),
        lambda w: w.subsample(1.1),
        lambda w: w.subsample(1e-9),
        lambda w: w.subsample(0.5, seed=-1),
        lambda w: w.with_slos(0, 0.1),
        lambda w: w.with_slos(1, [0.1]),
    ],
)
def test_the_error_for_a_change_out_of_range_is_one_line(change: object) -> None:
    workload = Workload.of(np.arange(10.0), np.ones(10), np.ones(10), label="ten")
    with pytest.raises(InputError, match=r"^[^\n]+$"):
        change(workload)  # type: ignore[operator]


@given(workloads())
def test_native_files_restore_what_was_written(tmp_path_factory: pytest.TempPathFactory, workload: Workload) -> None:
    tmp_path = tmp_path_factory.mktemp("native")
    for name in ("w.csv", "w.csv.gz"):
        write_native(workload, tmp_path / name)
        assert columns(read_trace(tmp_path / name, "native")) == columns(workload)
    raw = (tmp_path / "w.csv.gz").read_bytes()
    assert gzip.decompress(raw) == (tmp_path / "w.csv").read_bytes()
    write_native(workload, tmp_path / "w.csv.gz")
    assert (tmp_path / "w.csv.gz").read_bytes() == raw
    assert sorted(path.name for path in tmp_path.iterdir()) == ["w.csv", "w.csv.gz"]


@given(workloads(), st.data())
def test_a_slice_has_time_0_at_its_first_request(workload: Workload, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(workload) - 1))
    last = data.draw(st.integers(first + 1, len(workload)))
    part, rows = workload.slice(first, last), workload.rows(first, last)
    assert part.rows() == [(row[0] - rows[0][0], *row[1:]) for row in rows]


def test_rows_are_the_requests_as_plain_values() -> None:
    workload = Workload.of([0.0, 1.5, 2.0], [5, 6, 7], [1, 2, 3], label="three", ttft_slo_s=[1.0, 2.0, 3.0])
    assert workload.rows() == [
        (0.0, 5, 1, 1.0, 0.1, ()),
        (1.5, 6, 2, 2.0, 0.1, ()),
        (2.0, 7, 3, 3.0, 0.1, ()),
    ]
    assert workload.rows(1, 2) == workload.rows()[1:2]
    assert all(type(value) in (float, int, tuple) for row in workload.rows() for value in row)
