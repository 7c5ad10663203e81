"""The train command: its files, that it resumes, and how it reports invalid input."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import policies
from agents.model_zip import StableBaselinesPolicy
from agents.policy_file import load_policy, write_policy
from envs.cluster import ClusterConfig, simulate
from envs.generators import generate
from experiments import train
from experiments.learning import cost_search, member_selection
from experiments.options.parser import parse
from experiments.train import TrainOptions
from hardware_profiles import InputError, load_profile
from hardware_profiles.cli import run_main
from policies.registry import TRAINED
from tests.experiments.short_knees import shorten_knees

SHIPPED = TRAINED["ppo"]
SMALL = "--timesteps 4096 --seeds 2 --requests 200 --loads 0.9 --wandb disabled --jobs 1"


@pytest.fixture(scope="module", autouse=True)
def _small_knees() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        shorten_knees(patch, 200)
        yield


def run(arguments: str, out: Path) -> None:
    train.run(parse(TrainOptions, "train", "", [*arguments.split(), "--out", str(out)]))


@pytest.mark.slow
def test_a_run_writes_its_folder_and_the_same_command_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(member_selection, "RULES", member_selection.RULES[:2])
    monkeypatch.setattr(cost_search, "_REQUESTS", (100, 100))
    out = tmp_path / "run"
    given = f"{SMALL} --warm-start lookahead --warm-episodes 1 --portfolio-episodes 2 --cost-generations 1"
    run(given, out)
    printed = capsys.readouterr()
    for name in ("config.json", "command.txt", "meta.json", "progress.csv", "model.zip", "policy.npz", "summary.md"):
        assert (out / name).stat().st_size > 0
    assert {path.name.partition("-")[0] for path in (out / "figures").glob("*.png")} >= {"ttft_cdf", "ttft_breakdown"}
    with (out / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["policy"] for row in rows} >= {"static", "kairos", "shortest-ttft", "warm-start", "network", "ppo"}
    assert len({row["seed"] for row in rows}) == 2
    searches = ["cost-burst", "cost-burst-light", "cost-burst-heavy"]
    assert list(load_policy(out / "policy.npz").costs) == [*searches, *(f"{name}-refined" for name in searches)]
    assert "tuning" not in printed.err  # the shipped setting of kairos is used
    assert "against static" in printed.out

    before = (out / "policy.npz").read_bytes(), (out / "comparison.csv").read_bytes()
    run(given, out)
    assert "is trained already" in capsys.readouterr().err
    assert ((out / "policy.npz").read_bytes(), (out / "comparison.csv").read_bytes()) == before

    with pytest.raises(InputError, match="holds a policy that was trained with other options or other code"):
        run(f"{given} --seed 5", out)


@pytest.mark.slow
def test_members_come_from_policy_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member_selection, "RULES", member_selection.RULES[:1])
    shipped = load_policy(SHIPPED)
    names = list(shipped.costs)
    costs = {names[0]: shipped.costs[names[0]], names[1]: shipped.costs[names[2]]}
    write_policy(tmp_path / "other.npz", shipped._replace(costs=costs))
    out = tmp_path / "run"
    run(f"{SMALL} --members {SHIPPED} {tmp_path / 'other.npz'} --portfolio-episodes 4", out)
    assert load_policy(out / "network.npz").costs == {}
    members = load_policy(out / "members.npz").costs
    assert list(members) == names  # the same weights count once, whatever their name
    finished = load_policy(out / "policy.npz")
    assert all((finished.weights[name] == weight).all() for name, weight in shipped.weights.items())
    assert finished.costs.keys() <= members.keys()
    before = (out / "policy.npz").read_bytes()
    (tmp_path / "other.npz").unlink()
    write_policy(tmp_path / "other.npz", shipped)
    with pytest.raises(InputError, match="holds a policy that was trained with other options or other code"):
        run(f"{SMALL} --members {SHIPPED} {tmp_path / 'other.npz'} --portfolio-episodes 4", out)
    assert (out / "policy.npz").read_bytes() == before


@pytest.mark.slow
def test_rules_are_tuned_only_if_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(f"{SMALL} --rules tune --cluster-option kv_streaming=true", tmp_path)
    assert "tuning kairos: 18 settings on 8 runs each" in capsys.readouterr().err
    with (tmp_path / "comparison.csv").open() as file:
        assert json.loads((tmp_path / "tuning.json").read_text())["chosen"] in {
            row["policy"] for row in csv.DictReader(file)
        }
    workload = generate("burst", rate_rps=8.0, requests=100, seed=1)
    config = ClusterConfig(load_profile("a100-qwen3-8b"))
    for file in ("policy.npz", "model.zip"):
        assert len(simulate(workload, policies.make(f"mine={tmp_path / file}"), config).records) == 100
    # Without a warm start nothing is folded or guarded, so both files hold the same network. Placements may differ
    # where nodes are alike, because the last digits of NumPy and torch do.
    weights = load_policy(tmp_path / "policy.npz").weights
    actor = StableBaselinesPolicy(tmp_path / "model.zip")._policy.network.actor.state_dict()
    assert weights.keys() == actor.keys()
    assert all((actor[name].numpy() == weight).all() for name, weight in weights.items())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--workload nothing", "unknown workload 'nothing'"),
        ("--rate-scale 2", "--rate-scale goes with --trace only"),
        ("--trace absent.csv", "--trace needs --trace-format"),
        ("--trace absent.csv --trace-format azure", "absent.csv: No such file"),
        ("--timesteps 0", "--timesteps 0: must be at least 1"),
        ("--portfolio-episodes 1", "--portfolio-episodes 1: must be 0, or at least 2"),
        ("--knees absent.json", "absent.json: No such file"),
        ("--knees some.json --tbt-slos 0.03 0.05", "--knees some.json: a file has the knees of one TBT SLO"),
        ("--other-profiles h100-llama31-8b", "--other-profiles goes with --portfolio-episodes"),
        ("--earlier-episodes absent.npz", "--earlier-episodes goes with --portfolio-episodes"),
        ("--portfolio-episodes 2 --earlier-episodes absent.npz", "absent.npz: no such file of episodes"),
        ("--portfolio-episodes 2 --other-profiles h200", "no profile named 'h200'"),
        ("--other-clusters 1.5", "--other-clusters 1.5: must be from 0 to 1"),
        ("--portfolio-episodes -1", "--portfolio-episodes -1: must be 0 or more"),
        ("--cost-generations -1", "--cost-generations -1: must be 0 or more"),
        ("--cost-generations 5", "--cost-generations goes with --portfolio-episodes"),
        ("--members absent.npz", "--members goes with --portfolio-episodes"),
        ("--members absent.npz --portfolio-episodes 2", "absent.npz: no such policy file"),
        ("--members absent.npz --portfolio-episodes 2 --warm-start rules", "--members goes without --warm-start"),
        (
            f"--members {SHIPPED} --portfolio-episodes 2 --choices deflection",
            "its network chooses from pairs, not from",
        ),
        ("--profile h900", "no profile named 'h900'"),
        ("--cluster 2P", "NPMD"),
        ("--tbt-slos 30", "--tbt-slo 30: is in seconds"),
        ("--tbt-slos 0.03 --tbt-slo 0.03", "--tbt-slos goes without --tbt-slo"),
        ("--tbt-slos 0.03 0.04", "nothing was tuned for"),
        ("--cluster-option kv_streamin=true", "did you mean 'kv_streaming'?"),
        ("--loads -1", "--loads -1"),
        ("--tbt-slo 100", "--tbt-slo 100: is in seconds"),
        ("--nonsense", "unrecognized arguments: --nonsense"),
    ],
)
def test_invalid_train_options_give_one_line_and_exit_code_2(
    arguments: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    with pytest.raises(SystemExit) as left:
        run_main(lambda: run(arguments, out))
    assert left.value.code == 2
    stderr = capsys.readouterr().err
    assert says in stderr
    assert stderr.count("\n") == 1
    assert not out.exists()
