"""The shipped profiles: their provenance, their errors, and readings that they must reproduce."""

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hardware_profiles import Link, Profile, load_profile, profile_names
from hardware_profiles.checks import fitted_link, link_readings
from hardware_profiles.model_contexts import MAX_CONTEXT_TOKENS
from hardware_profiles.profile import from_file, read_profile

BARS_PERCENT = {"prefill": 1.0, "decode": 0.2, "mixed": 1.5}
HELD_TO_THE_BARS = ("a100-qwen3-8b", "a100-llama31-8b", "a100x4-llama31-70b")
DEEPSEEK = ("a100-deepseek-v2-lite", "a100-deepseek-v2-lite-paper")
MEASUREMENTS = Path(__file__).parents[3] / "shared" / "data" / "calibration"

# Readings of aiconfigurator-core 0.12 for Qwen3-8B on a100_sxm, vllm, TP1, in ms: tokens or batch to time.
PREFILL_MS = {64: 13.65, 256: 23.66, 1024: 66.22, 2048: 126.8, 8192: 568.0}
DECODE_AT_1024_MS = {1: 12.0, 32: 16.4, 128: 26.3, 256: 46.5}
DECODE_AT_4096_MS = {1: 12.4, 32: 27.1}
CHUNK_BESIDE_32_DECODES_MS = {128: 25.5, 512: 43.1, 1024: 72.9, 2048: 129.7}


@pytest.fixture(scope="module")
def qwen() -> Profile:
    return load_profile("a100-qwen3-8b")


@pytest.mark.parametrize("name", profile_names())
def test_a_profile_states_its_provenance(name: str) -> None:
    profile = load_profile(name)
    provenance = profile.provenance
    assert profile.name == name
    assert f"--name {name}" in provenance["command"]
    assert f"--model {profile.model}" in provenance["command"] or "--readings" in provenance["command"]
    for key in ("nature", "library", "library_version", "system", "backend", "backend_version", "date", "grid"):
        assert provenance[key]
    assert profile.inter_node.source
    assert profile.intra_node.source


@pytest.mark.parametrize("kind", BARS_PERCENT)
@pytest.mark.parametrize("name", HELD_TO_THE_BARS)
def test_the_held_out_error_is_below_its_limit(name: str, kind: str) -> None:
    assert load_profile(name).provenance["held_out"][f"{kind}_mape_percent"] <= BARS_PERCENT[kind]


@pytest.mark.parametrize("name", profile_names())
def test_tables_are_dense_and_token_time_never_falls(name: str) -> None:
    law = load_profile(name).law
    assert law.max_step_tokens >= 8192 + 512
    assert len(law.decode_kv_s) == len(law.token_time_s)
    assert np.all(np.diff(law.token_time_s) >= 0.0)
    assert min(law.token_time_s[1:]) > 0.0
    assert min(law.decode_kv_s[1:]) > 0.0
    assert law.max_decode_batch == 512
    assert law.pieces is not None
    assert min(kv_s for lines in law.pieces.lines for _, kv_s, _ in lines) >= 0.0


def test_the_law_does_not_depend_on_the_last_digits_of_logarithms_and_fits(
    qwen: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processors differ in them, but shipped settings name the digest of the profile that they were tuned for."""
    polyfit = np.polyfit

    def otherwise(*given: Any, **named: Any) -> np.ndarray:
        found: np.ndarray = polyfit(*given, **named) * (1.0 + 1e-15)
        return found

    monkeypatch.setattr(np, "polyfit", otherwise)
    assert from_file(read_profile("a100-qwen3-8b")) == qwen


@pytest.mark.parametrize("name", profile_names())
def test_decodes_shorten_no_step_except_slightly_at_short_contexts(name: str) -> None:
    law = load_profile(name).kernel_law
    for batch in range(1, law.max_decode_batch + 1):
        for context, least_s in ((256, -1e-6), (1, -0.05 * law.token_time_s[batch])):
            base_s, kv_s, _ = law.decode_line(batch, batch * context)
            assert base_s + kv_s * batch * context >= least_s


@pytest.mark.parametrize(
    ("name", "kv_bytes_per_token", "kv_capacity_tokens"),
    [
        ("a100-qwen3-8b", 36 * 2 * 8 * 128 * 2, 390_000),  # layers, K and V, KV heads, head size, bytes
        ("a100-llama31-8b", 32 * 2 * 8 * 128 * 2, 445_000),
        ("a100-deepseek-v2-lite", 27 * (512 + 64) * 2, 1_380_000),  # layers, latent and rotary key, bytes
        ("a100-deepseek-v2-lite-paper", 27 * (512 + 64) * 2, 1_380_000),
    ],
)
def test_kv_sizes_follow_from_the_model_and_the_card(
    name: str, kv_bytes_per_token: int, kv_capacity_tokens: int
) -> None:
    profile = load_profile(name)
    assert profile.kv_bytes_per_token == kv_bytes_per_token
    assert profile.kv_capacity_tokens == pytest.approx(kv_capacity_tokens, rel=0.03)


@pytest.mark.parametrize("name", profile_names())
def test_every_shipped_profile_states_its_models_context(name: str) -> None:
    profile = load_profile(name)
    assert profile.max_context_tokens == MAX_CONTEXT_TOKENS[profile.model]


def test_the_engines_law_is_the_kernels_plus_the_decode_overhead(qwen: Profile) -> None:
    overhead_s = qwen.provenance["decode_overhead"]["step_s"]
    assert overhead_s == pytest.approx(0.951394e-3)
    assert qwen.law.time_s((), 32, 32768) == pytest.approx(qwen.step_time_s((), 32, 32768) + overhead_s)
    assert qwen.law.time_s([(512, 0)], 0, 0) == qwen.step_time_s([(512, 0)], 0, 0)
    llama = load_profile("a100-llama31-8b")
    assert llama.law == llama.kernel_law


@pytest.mark.parametrize(("tokens", "ms"), PREFILL_MS.items())
def test_prefill_steps_match_the_readings(qwen: Profile, tokens: int, ms: float) -> None:
    assert qwen.step_time_s([(tokens, 0)], 0, 0) * 1e3 == pytest.approx(ms, rel=0.02)


@pytest.mark.parametrize(
    ("batch", "context", "ms"),
    [(batch, 1024, ms) for batch, ms in DECODE_AT_1024_MS.items()]
    + [(batch, 4096, ms) for batch, ms in DECODE_AT_4096_MS.items()],
)
def test_decode_steps_match_the_readings(qwen: Profile, batch: int, context: int, ms: float) -> None:
    assert qwen.step_time_s((), batch, batch * context) * 1e3 == pytest.approx(ms, rel=0.03)


@pytest.mark.parametrize(("chunk", "ms"), CHUNK_BESIDE_32_DECODES_MS.items())
def test_mixed_steps_match_the_readings(qwen: Profile, chunk: int, ms: float) -> None:
    # The readings are the library's own mixed call with isl = 1024, osl = 256: an average chunk of a prompt of
    # 1024 tokens (or two such prompts), and decodes halfway through the 256 output tokens.
    prompts = max(1, chunk // 1024)
    chunks = [(chunk // prompts, (1024 - chunk // prompts) // 2)] * prompts
    assert qwen.step_time_s(chunks, 32, 32 * (1024 + 128)) * 1e3 == pytest.approx(ms, rel=0.04)


@pytest.mark.parametrize("name", DEEPSEEK)
def test_the_composite_profiles_say_that_they_are_no_measurement(name: str) -> None:
    assert load_profile(name).provenance["nature"].startswith("NOT a measurement of this model")


@pytest.mark.parametrize(
    ("batch", "context", "ms"),
    [(1, 512, 6.4), (32, 2048, 24.0), (128, 2048, 33.9)],
)
def test_decode_steps_match_the_composite(batch: int, context: int, ms: float) -> None:
    composite = load_profile("a100-deepseek-v2-lite")
    assert composite.step_time_s((), batch, batch * context) * 1e3 == pytest.approx(ms, rel=0.01)


def chunk_adds_ms(name: str, chunk: int, context: int, batch: int = 32) -> float:
    law = load_profile(name).kernel_law
    kv = batch * 2048
    return (law.time_s([(chunk, context)], batch, kv) - law.time_s((), batch, kv)) * 1e3


@pytest.mark.parametrize(("chunk", "context", "ms"), [(512, 0, 16), (512, 4096, 22), (2048, 0, 68), (2048, 4096, 85)])
def test_time_added_by_a_chunk_matches_the_composite(chunk: int, context: int, ms: float) -> None:
    assert chunk_adds_ms("a100-deepseek-v2-lite", chunk, context) == pytest.approx(ms, rel=0.07)


def test_time_added_by_a_chunk_matches_the_papers_two_points() -> None:
    for chunk in (64, 128, 256, 512):
        assert chunk_adds_ms(DEEPSEEK[1], chunk, 0) <= 30.0
    assert chunk_adds_ms(DEEPSEEK[1], 512, 0) == pytest.approx(28.0, rel=1e-3)
    assert chunk_adds_ms(DEEPSEEK[1], 2048, 0) == pytest.approx(205.0, rel=1e-3)
    for batch in (16, 32, 64):
        assert chunk_adds_ms(DEEPSEEK[1], 512, 0, batch) <= 31.0
        assert chunk_adds_ms(DEEPSEEK[1], 2048, 0, batch) > 200.0


@pytest.mark.parametrize("link", ["inter_node", "intra_node"])
def test_links_equal_a_fit_to_the_measurements(qwen: Profile, link: str) -> None:
    if not MEASUREMENTS.is_dir():
        pytest.skip(f"no measurements at {MEASUREMENTS}")
    shipped: Link = getattr(qwen, link)
    connector = {"inter_node": "rdma", "intra_node": "nvlink"}[link]
    latency_s, bandwidth_bytes_per_s = fitted_link(*link_readings(MEASUREMENTS, connector))
    assert shipped.latency_s == pytest.approx(latency_s, rel=0.05)
    assert shipped.bandwidth_bytes_per_s == pytest.approx(bandwidth_bytes_per_s, rel=0.01)


@pytest.mark.slow
def test_a_shipped_profile_is_pickled_by_name(qwen: Profile) -> None:
    assert len(pickle.dumps(qwen)) < 1000
    assert pickle.loads(pickle.dumps(qwen)) is qwen
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(_prefill_s, qwen).result() == _prefill_s(qwen)


def test_a_changed_profile_of_the_same_name_is_pickled_by_value(qwen: Profile) -> None:
    other = qwen.with_connector("nixl-default-ucx")
    assert other.name == qwen.name
    again = pickle.loads(pickle.dumps(other))
    assert again == other
    assert again is not qwen


def _prefill_s(profile: Profile) -> float:
    return profile.step_time_s([(777, 0)], 3, 4000)
