"""Nothing is evaluated on requests that it was trained or tuned on."""

import json
from pathlib import Path

import numpy as np
import pytest

from agents.episodes import FIRST_TRAINING_SEED
from envs.slos import DEFAULT_SLOS
from envs.traces import write_native
from envs.workload import Workload
from experiments.learning.mixture import draw_for_training
from experiments.runs.data_splits import (
    ALARM_SEED,
    CAPACITY_SEED,
    EVALUATION_SEED,
    KNEE_SEEDS,
    TRAINING_SEED,
    TUNING_SEEDS,
)
from experiments.runs.requests import Family, TraceRequests, made
from hardware_profiles import InputError


def test_training_tuning_and_evaluation_never_share_requests() -> None:
    source = Family("burst", 8.0)
    rng = np.random.default_rng(0)
    trained = {draw_for_training(source, 64, rng).prompt_tokens.tobytes() for _ in range(20)}
    evaluated = {made(source.evaluation(1.0, 64, EVALUATION_SEED + k)).prompt_tokens.tobytes() for k in range(20)}
    tuned = {made(source.tuning(1.0, 64, seed)).prompt_tokens.tobytes() for seed in TUNING_SEEDS}
    assert len(trained | evaluated | tuned) == 20 + 20 + len(TUNING_SEEDS)


def test_the_ranges_of_seeds_do_not_overlap() -> None:
    assert TRAINING_SEED == FIRST_TRAINING_SEED
    first = [EVALUATION_SEED, TUNING_SEEDS[0], KNEE_SEEDS[0], CAPACITY_SEED, ALARM_SEED]
    last = [EVALUATION_SEED + 10_000, TUNING_SEEDS[-1], KNEE_SEEDS[-1], CAPACITY_SEED + 10_000, 2**31]
    assert all(end < start for end, start in zip(last, first[1:], strict=False))


def recorded(tmp_path: Path, requests: int) -> TraceRequests:
    """A trace whose prompts are numbered, one per second."""
    whole = Workload.of(
        np.arange(float(requests)),
        np.arange(1, requests + 1),
        np.ones(requests),
        label="numbered",
    )
    path = tmp_path / "numbered.csv"
    write_native(whole, path)
    return TraceRequests.of(path, "native", 1.0, None, DEFAULT_SLOS)


def test_the_parts_of_a_trace_do_not_overlap_in_time(tmp_path: Path) -> None:
    trace = recorded(tmp_path, 2000)
    trained = np.concatenate([trace.draw(300, 1.0, seed).prompt_tokens for seed in range(50)])
    tuned = made(trace.tuning(1.0, 10_000, 0)).prompt_tokens
    evaluated = made(trace.evaluation(1.0, 1, 0)).prompt_tokens
    assert trained.max() < tuned.min() <= tuned.max() < evaluated.min()
    assert evaluated.max() == 2000
    assert trace.draw(300, 2.0, 0).rate_rps == pytest.approx(2.0)


def test_a_short_trace_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="numbered: 10 requests are too few to train on"):
        recorded(tmp_path, 10).check_length()


def test_an_episode_of_a_trace_keeps_block_hashes(tmp_path: Path) -> None:
    path = tmp_path / "hashed.jsonl"
    rows = [
        {"timestamp": 1000 * number, "input_length": number + 1, "output_length": 1, "hash_ids": [number]}
        for number in range(2000)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    trace = TraceRequests.of(path, "mooncake", 1.0, None, DEFAULT_SLOS)
    episode = trace.draw(300, 2.0, 0)
    assert episode.block_hashes == tuple((int(tokens) - 1,) for tokens in episode.prompt_tokens)
    assert episode.arrival_s[0] == 0.0
