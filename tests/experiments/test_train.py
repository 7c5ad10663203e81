"""The train command: what it writes, that it goes on where it stopped, and what it says of mistakes."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import agents  # noqa: F401 - makes policy files known
import policies
from envs.cluster import ClusterConfig, simulate
from envs.generators import generate
from envs.objective import Objective
from envs.slos import Slos
from envs.workload import Workload
from experiments.cost import measure
from experiments.sources import EVALUATION_SEED, TUNING_SEEDS, Arrivals, Episodes, Family, Trace
from experiments.train import parse, train
from hardware_profiles import InputError, load_profile
from hardware_profiles.cli import run_main
from tests.toy import toy_profile

ROOT = Path(__file__).parents[2]
SMALL = [
    "--timesteps",
    "4096",
    "--seeds",
    "2",
    "--requests",
    "200",
    "--loads",
    "0.9",
    "--wandb",
    "disabled",
    "--jobs",
    "1",
]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "experiments.train", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_a_run_writes_its_folder_and_the_same_command_goes_on_with_it(tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ["--out", str(out), "--warm-start", "lookahead", "--warm-episodes", "1", *SMALL]
    done = command(*arguments)
    assert done.returncode == 0, done.stderr
    for name in ("config.json", "command.txt", "meta.json", "progress.csv", "model.zip", "policy.npz", "summary.md"):
        assert (out / name).stat().st_size > 0
    assert {path.name.partition("-")[0] for path in (out / "figures").glob("*.png")} >= {"ttft_cdf", "ttft_breakdown"}
    with (out / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["policy"] for row in rows} >= {"static", "kairos", "shortest-ttft", "warm-start", "ppo"}
    assert len({row["seed"] for row in rows}) == 2
    assert json.loads((out / "tuning.json").read_text())["chosen"] in {row["policy"] for row in rows}
    assert "against static" in done.stdout

    before = (out / "policy.npz").read_bytes(), (out / "comparison.csv").read_bytes()
    again = command(*arguments)
    assert again.returncode == 0, again.stderr
    assert "is there already" in again.stderr
    assert ((out / "policy.npz").read_bytes(), (out / "comparison.csv").read_bytes()) == before

    other = command("--out", str(out), *SMALL, "--seed", "5")
    assert other.returncode == 2
    assert "another command" in other.stderr

    workload = generate("burst", rate_rps=8.0, requests=100, seed=1)
    policy = policies.make(f"mine={out / 'policy.npz'}")
    assert len(simulate(workload, policy, ClusterConfig(load_profile("a100-qwen3-8b"))).records) == 100


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--workload", "nothing"], "unknown workload 'nothing'"),
        (["--rate-scale", "2"], "--rate-scale goes with --trace only"),
        (["--trace", "absent.csv"], "--trace needs --trace-format"),
        (["--trace", "absent.csv", "--trace-format", "azure"], "absent.csv: No such file"),
        (["--timesteps", "0"], "--timesteps 0: must be at least 1"),
        (["--profile", "h900"], "no profile named 'h900'"),
        (["--cluster", "2P"], "NPMD"),
        (["--loads", "-1"], "--loads -1"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    with pytest.raises(SystemExit) as left:
        run_main(lambda: train(parse(["--out", str(out), *arguments])))
    assert left.value.code == 2
    stderr = capsys.readouterr().err
    assert says in stderr
    assert stderr.count("\n") == 1
    assert not out.exists()


def test_training_and_evaluation_never_share_requests() -> None:
    episodes = Episodes((Arrivals(Family("burst", 8.0), 0.5, 1.3),), 64, seed=0)
    trained = {episodes(k).prompt_tokens.tobytes() for k in range(20)}
    source = Family("burst", 8.0)
    evaluated = {source.evaluation(64, 1.0, EVALUATION_SEED + k).prompt_tokens.tobytes() for k in range(20)}
    tuned = {source.tuning(64, 1.0, seed).prompt_tokens.tobytes() for seed in TUNING_SEEDS}
    assert len(trained | evaluated | tuned) == 20 + 20 + len(TUNING_SEEDS)


def test_a_traces_parts_do_not_overlap_in_time() -> None:
    whole = Workload.of(np.arange(2000.0), np.arange(1, 2001), np.ones(2000), label="numbered")
    trace = Trace("numbered", whole)
    trained = np.concatenate([trace.draw(300, 1.0, seed).prompt_tokens for seed in range(200)])
    tuned = trace.tuning(10_000, 1.0, 0).prompt_tokens
    evaluated = trace.evaluation(1, 1.0, 0).prompt_tokens
    assert trained.max() < tuned.min() <= tuned.max() < evaluated.min()
    assert evaluated.max() == 2000
    assert trace.draw(300, 2.0, 0).rate_rps == pytest.approx(2.0)
    with pytest.raises(InputError, match="too few to train on"):
        Trace("short", whole.head(10))


def test_an_episode_of_a_trace_keeps_each_requests_block_hashes() -> None:
    hashes = tuple((number,) for number in range(2000))
    whole = Workload.of(np.arange(2000.0), np.arange(1, 2001), np.ones(2000), label="hashed", block_hashes=hashes)
    episode = Trace("hashed", whole).draw(300, 2.0, 0)
    assert episode.block_hashes == tuple((int(tokens) - 1,) for tokens in episode.prompt_tokens)
    assert episode.arrival_s[0] == 0.0


def test_the_tuning_cost_is_the_environments() -> None:
    workload = generate("burst", rate_rps=10.0, requests=200, seed=4, slos=Slos.of(tbt_s=0.02))
    config = ClusterConfig(toy_profile(), step_budget="fixed")
    policy = "always-local"
    result = simulate(workload, policies.make(policy), config)
    waits = np.array([r.first_token_s - r.arrival_s for r in result.records]) / 2.0
    columns = result.gaps.columns()
    gaps_s = np.concatenate([np.repeat(f + g * np.arange(int(k)), int(w)) for _, k, f, g, w in columns])
    excess = np.maximum(0.0, gaps_s / 0.02 - 1.0).sum() / 200
    assert excess > 0
    tried = measure(policy, workload, config, Objective(tail_weight=3.0))
    assert tried.cost == pytest.approx((waits + 3.0 * waits**2).mean() + excess)
    met = [r.first_token_s - r.arrival_s <= 2.0 and r.tbt_max_s <= 0.02 for r in result.records]
    assert tried.attainment == pytest.approx(np.mean(met))
