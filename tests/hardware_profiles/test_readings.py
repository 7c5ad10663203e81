"""Readings files, measured and composite, and the profiles made from them."""

import copy
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware_profiles import InputError, load_profile
from hardware_profiles.calibrate import main
from hardware_profiles.cli import run_main
from hardware_profiles.composite import Composite, CompositeFile
from hardware_profiles.readings import read_readings
from hardware_profiles.step_sources import Step

COMPOSITE = CompositeFile(
    model="toy/composed",
    tp=1,
    gpu="toy",
    kind="made up",
    F_knots_tokens=[1, 64, 1024],
    F_knots_ms=[5.0, 10.0, 50.0],
    lm_head_ms=0.5,
    prefill_c_area_ms_per_tok2=2e-6,
    prefill_ctx_upproj_ms_per_ctx_token_per_chunk=0.0,
    decode_const_ms=1.0,
    decode_c_maxlen_ms=1e-3,
    decode_c_kv_ms_per_token=1e-5,
    decode_c_req_ms=0.01,
    kv_bytes_per_token=1000,
)
SHAPES = [
    (1, 1, 0, 0, 0), (2, 8, 0, 0, 0), (1, 64, 128, 0, 0), (2, 100, 64, 0, 0),
    (1, 64, 0, 2, 64), (1, 128, 64, 4, 128), (2, 32, 0, 8, 32),
]  # fmt: skip
HELD_OUT = [(1, 50, 70, 0, 0), (0, 0, 0, 3, 100), (1, 90, 30, 5, 60)]


def readings(source: Composite) -> dict[str, Any]:
    """A file of measured steps whose readings come from a composite."""
    batches, contexts, tokens = [1, 2, 4, 8], [16, 64, 128], [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
    names = ("prompts", "new_tokens", "context_tokens", "batch", "decode_context_tokens")

    def steps(shapes: list[tuple[int, ...]]) -> dict[str, Any]:
        columns = dict(zip(names, map(list, zip(*shapes, strict=True)), strict=True))
        return {**columns, "seconds": [source.step_s(Step(*shape)) for shape in shapes]}

    return {
        "model": "toy/measured",
        "nature": "made up",
        "gpu": "toy",
        "software": "none",
        "software_version": "0",
        "tp": 1,
        "date": "2026-11-21",
        "command": "none",
        "kv_bytes_per_token": 1000,
        "kv_capacity_tokens": 50_000,
        "prefill": {"tokens": tokens, "seconds": [source.prefill_s(1, n, 0) for n in tokens]},
        "decode": {
            "sequences": batches,
            "context_tokens": contexts,
            "seconds": [[source.decode_s(b, b * c) for c in contexts] for b in batches],
        },
        "fitted": steps(SHAPES),
        "held_out": steps(HELD_OUT),
    }


MEASURED = readings(Composite(COMPOSITE))


def calibrate(monkeypatch: pytest.MonkeyPatch, folder: Path, content: Any, *options: str) -> int:
    path = folder / "readings.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    arguments = ["--readings", str(path), "--system", "a100_sxm", "--name", "toy", "--out", str(folder), *options]
    monkeypatch.setattr(sys, "argv", ["calibrate", *arguments])
    with pytest.raises(SystemExit) as left:
        run_main(main)
    assert isinstance(left.value.code, int)
    return left.value.code


def test_a_profile_from_measured_steps_reproduces_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "profiles"
    options = ("--out", str(folder), "--max-context-tokens", "9000")
    assert calibrate(monkeypatch, tmp_path, MEASURED, *options) == 0
    profile = load_profile(folder / "toy.json")
    assert profile.max_context_tokens == 9000
    assert (profile.model, profile.kv_bytes_per_token, profile.kv_capacity_tokens) == ("toy/measured", 1000, 50_000)
    assert profile.provenance["nature"] == "made up"
    source = Composite(COMPOSITE)
    for tokens in MEASURED["prefill"]["tokens"]:
        assert profile.step_time_s([(tokens, 0)], 0, 0) == pytest.approx(source.prefill_s(1, tokens, 0), rel=1e-3)
    for batch in MEASURED["decode"]["sequences"]:
        for context in MEASURED["decode"]["context_tokens"]:
            measured_s = source.decode_s(batch, batch * context)
            assert profile.step_time_s((), batch, batch * context) == pytest.approx(measured_s, rel=1e-3)
    for shape in (*SHAPES, *HELD_OUT):
        step = Step(*shape)
        law_s = profile.step_time_s(step.chunks, step.batch, step.kv_tokens)
        assert law_s == pytest.approx(source.step_s(step), rel=0.02)


def test_a_profile_from_a_composite_says_that_it_is_no_measurement(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    capacity = ("--kv-capacity-tokens", "60000", "--kv-capacity-source", "me")
    assert calibrate(monkeypatch, tmp_path, COMPOSITE.model_dump(), *capacity) == 0
    profile = load_profile(tmp_path / "toy.json")
    assert profile.provenance["nature"] == "NOT a measurement of this model: made up"
    assert (profile.kv_capacity_tokens, profile.provenance["kv_capacity"]) == (60_000, "me")
    assert profile.max_context_tokens is None
    assert profile.provenance["held_out"]["mixed_mape_percent"] < 1.0


@settings(max_examples=30)
@given(decodes_at_anchor=st.integers(1, 64), at_512_ms=st.floats(20.0, 60.0), times=st.floats(4.0, 8.0))
def test_an_anchored_composite_meets_its_anchors_and_never_falls(
    decodes_at_anchor: int, at_512_ms: float, times: float
) -> None:
    at_2048_ms = at_512_ms * times
    source = Composite(COMPOSITE, [(512, at_512_ms / 1e3), (2048, at_2048_ms / 1e3)], decodes_at_anchor)
    decodes = (decodes_at_anchor, 1000)
    alone_s = source.step_s(Step(0, 0, 0, *decodes))
    for chunk, wanted_ms in ((512, at_512_ms), (2048, at_2048_ms)):
        assert (source.step_s(Step(1, chunk, 0, *decodes)) - alone_s) * 1e3 == pytest.approx(wanted_ms, rel=1e-9)
    assert np.all(np.diff([source.tokens_s(n) for n in range(1, source.max_tokens + 1)]) >= 0.0)


def test_anchors_that_make_a_larger_chunk_faster_are_an_error() -> None:
    with pytest.raises(InputError, match="larger chunk"):
        Composite(COMPOSITE, [(512, 0.1), (2048, 0.05)], 1)


def broken(key: str, value: Any) -> dict[str, Any]:
    content = copy.deepcopy(MEASURED)
    place = content
    *path, last = key.split(".")
    for part in path:
        place = place[part]
    place[last] = value
    return content


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{", "JSON"),
        (broken("surprise", 1), "surprise"),
        (broken("prefill.tokens", [1, 2]), "prefill"),
        (broken("prefill", {"tokens": [1, 2], "seconds": [0.1, 0.2]}), "prefill.tokens must reach 2"),
        (broken("decode.context_tokens", [16, 64, 100]), "multiple of 16"),
        (broken("decode.context_tokens", [16, 128, 64]), "increasing"),
        (broken("decode.seconds", [[0.1]] * 4), "seconds at sequences = 1"),
        (broken("fitted.batch", [0] * len(SHAPES)), "neither a prefill nor a decode nor a mixed step"),
        (broken("fitted.seconds", [0.1]), "seconds but"),
        (broken("held_out.batch", [0, 9, 5]), "largest batch"),
        (broken("held_out.seconds", [0.1, -0.2, 0.3]), "held_out.seconds.1"),
        (COMPOSITE.model_dump() | {"F_knots_tokens": [1, 1024, 64]}, "F_knots_tokens must increase"),
        (COMPOSITE.model_dump() | {"lm_head_ms": "x"}, "lm_head_ms"),
        (COMPOSITE.model_dump(), "--kv-capacity-tokens"),
    ],
)
def test_the_error_for_an_invalid_file_names_file_and_key(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, content: Any, named: str
) -> None:
    assert calibrate(monkeypatch, tmp_path, content) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"error: {tmp_path / 'readings.json'}: ")
    assert line.count("\n") == 1
    assert named in line
    assert [path.name for path in tmp_path.iterdir()] == ["readings.json"]


def test_anchors_need_a_composite(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert calibrate(monkeypatch, tmp_path, MEASURED, "--anchor", "512:30", "--anchor-source", "me") == 2
    assert "--anchor is for composite files" in capsys.readouterr().err


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.json"):
        read_readings(tmp_path / "nothing.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not UTF-8"):
        read_readings(tmp_path / "bytes.json")
