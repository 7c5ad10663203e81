"""The resumable cache: a finished task is never run again, and a changed task is never answered with an old result."""

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.placement_network import PlacementNetwork
from agents.placement_policy import current_layout
from agents.policy_file import save_policy
from experiments.runs import fingerprint
from experiments.runs.cache import Cache, Result, Task
from experiments.runs.trial import Trial
from hardware_profiles import InputError
from policies import PolicySpec
from tests.experiments.made_up import CONFIG, MadeUpRequests, trial

RAN: list[str] = []
"""The tasks that were run in this process, in order."""


@dataclass(frozen=True)
class Named(Task):
    """A task whose identity is its name."""

    name: str

    @cached_property
    def key(self) -> str:
        return fingerprint.digest(self.name)

    def __str__(self) -> str:
        return f"task {self.name}"

    def inputs(self) -> str:
        return self.name

    def run(self, inputs: str) -> Result:
        RAN.append(inputs)
        if inputs == "bad":
            raise InputError("bad task")
        return Result({"length": len(inputs), "share": 0.1 + 0.2}, {".txt": inputs.encode()})


def run(folder: Path, *names: str) -> list[str]:
    """Run tasks in a fresh cache of a folder; the names of those that were really run."""
    RAN.clear()
    tasks = [Named(name) for name in names]
    entries = Cache(folder).run(tasks)
    assert [entry.value["length"] for entry in entries] == [len(name) for name in names]
    assert [entry.path.with_suffix(".txt").read_text() for entry in entries] == list(names)
    return list(RAN)


def lines(folder: Path) -> list[str]:
    return (folder / "results.jsonl").read_text().splitlines()


NAMES = st.lists(st.sampled_from(["a", "bb", "ccc", "dddd", "eeeee"]), max_size=8)


@given(first=NAMES, second=NAMES)
def test_only_tasks_that_are_not_finished_are_run(
    tmp_path_factory: pytest.TempPathFactory, first: list[str], second: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    assert run(folder, *first) == list(dict.fromkeys(first))
    assert run(folder, *second) == [name for name in dict.fromkeys(second) if name not in first]
    assert run(folder, *first, *second) == []
    assert len(Cache(folder)._values) == len({*first, *second})


def test_a_result_is_the_same_when_it_is_read_again(tmp_path: Path) -> None:
    (new,) = Cache(tmp_path).run([Named("a")])
    cache = Cache(tmp_path)
    (kept,) = cache.run([Named("a")])
    assert kept == new
    assert kept.value["share"] == 0.1 + 0.2


def test_progress_says_what_is_finished_and_what_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "a", "b")
    first = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in first] == ["[1/2] task a", "[2/2] task b"]
    run(tmp_path, "a", "b", "c")
    again = capsys.readouterr().err.splitlines()
    assert again[0] == "2 of 3 runs are finished already"
    assert [line.partition(",")[0] for line in again[1:]] == ["[1/1] task c"]


@given(cut=st.integers(1, 60))
def test_a_last_line_that_was_cut_off_costs_that_run_alone(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    folder = tmp_path_factory.mktemp("cache")
    run(folder, "a", "b", "c")
    index = folder / "results.jsonl"
    whole = index.read_bytes()
    index.write_bytes(whole[:-cut])
    assert cut < len(whole.splitlines()[-1])
    assert run(folder, "a", "b", "c") == ["c"]
    assert index.read_bytes() == whole
    assert run(folder, "a", "b", "c") == []


def test_a_task_that_fails_leaves_the_finished_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="bad task"):
        Cache(tmp_path).run([Named("a"), Named("bad"), Named("c")])
    assert [json.loads(line)["task"] for line in lines(tmp_path)] == ["task a"]
    assert run(tmp_path, "a", "c") == ["c"]


def test_files_are_there_before_the_entry_and_none_is_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("experiments.runs.cache.json.dumps", stop)
    with pytest.raises(KeyboardInterrupt):
        Cache(tmp_path).run([Named("a")])
    assert [path.name for path in tmp_path.iterdir()] == [f"{Named('a').key}.txt"]
    monkeypatch.undo()
    assert run(tmp_path, "a") == ["a"]


def test_a_cache_without_results_makes_no_folder(tmp_path: Path) -> None:
    folder = tmp_path / "not there"
    assert Cache(folder).run([]) == []
    assert not folder.exists()


# ---- the identity of a trial -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        trial("kairos"),
        trial("kairos:beta=0.9"),
        trial("mine=static"),
        trial(seed=1),
        trial(load=2.0),
        trial(requests=MadeUpRequests(1)),
        trial(requests=MadeUpRequests(0, count=41)),
        trial(config=replace(CONFIG, shape="1P3D")),
        trial(config=replace(CONFIG, report_age_s=0.0)),
        trial(config=replace(CONFIG, profile=replace(CONFIG.profile, kv_capacity_tokens=300_000))),
        trial(keep_requests=False),
        replace(trial(), workload="other"),
    ],
)
def test_a_trial_that_differs_in_anything_is_another_task(other: Trial) -> None:
    assert other.key != trial().key


def test_an_equal_trial_is_the_same_task() -> None:
    assert trial().key == trial().key
    assert trial("kairos:beta=0.9").key == trial("kairos:beta=0.9").key


def test_a_trial_of_other_code_is_another_task(monkeypatch: pytest.MonkeyPatch) -> None:
    before = trial().key
    monkeypatch.setattr(fingerprint, "code", lambda *_, **__: "edited")
    assert trial().key != before


def test_a_trial_of_a_file_with_other_content_is_another_task(tmp_path: Path) -> None:
    layout = current_layout("pairs")

    def write(path: Path, hidden: int) -> Path:
        save_policy(path, PlacementNetwork(layout.sizes, hidden), layout, {})
        return path

    path = write(tmp_path / "policy.npz", 8)
    before = trial(f"mine={path}").key
    other_place = tmp_path / "moved.npz"
    other_place.write_bytes(path.read_bytes())
    assert trial(f"mine={path}").key == before == trial(f"mine={other_place}").key
    assert trial(f"other={path}").key != before
    write(path, 9)
    assert trial(f"mine={path}").key != before


def test_a_users_class_counts_with_the_content_of_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "users_rule_for_the_cache.py"
    file.write_text("class Rule:\n    def place(self, request, view):\n        return None\n")
    name = "users_rule_for_the_cache:Rule"
    before = trial(name).key
    assert PolicySpec.parse(name).source == file
    assert trial(name).key == before
    file.write_text(file.read_text() + "# edited\n")
    assert trial(name).key != before
