"""The programs of docs/examples.md run as they stand."""

import re
from pathlib import Path

import pytest

from experiments import compare
from experiments.compare import CompareOptions
from experiments.options.parser import parse
from tests.experiments.short_knees import shorten_knees

TEXT = (Path(__file__).parent.parent / "docs" / "examples.md").read_text(encoding="utf-8")
POLICY, FROM_PYTHON, LOOP, TRAINING = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
(TRACE,) = re.findall(r"```\n(arrival_s,.*?)```", TEXT, re.DOTALL)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands run in a folder that has the files of the page."""
    (tmp_path / "my_policy.py").write_text(POLICY)
    (tmp_path / "my_trace.csv").write_text(TRACE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    shorten_knees(monkeypatch, 60)


def run(arguments: str) -> list[str]:
    compare.run(parse(CompareOptions, "compare", "", [*arguments.split(), "--out", "out"]))
    return [line.split(",")[0] for line in Path("out/cells.csv").read_text().splitlines()[1:]]


def test_the_policy_is_compared_under_its_labels() -> None:
    policies = "static mine=my_policy:Mine careful=my_policy:Mine:threshold=512"
    found = run(f"--policies {policies} --workload burst --loads 0.9 --seeds 1 --requests 60")
    assert found == ["static", "mine", "careful"]


def test_the_trace_is_read() -> None:
    assert run("--policies static kairos --trace my_trace.csv --trace-format native") == ["static", "kairos"]


@pytest.mark.parametrize("program", [FROM_PYTHON, LOOP], ids=["policy from Python", "Gymnasium loop"])
def test_the_programs_run_and_print_what_the_page_says(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(program, {})
    last = capsys.readouterr().out.splitlines()[-1]
    assert float(last.partition("mean ")[2].partition(" ")[0] or last) > 0
    assert program != LOOP or last in TEXT


@pytest.mark.slow
def test_a_model_trained_as_the_page_says_is_compared() -> None:
    program = TRAINING.replace("learn(100_000)", "learn(64)").replace(", env)", ", env, n_steps=64)")
    assert "n_steps=64" in program
    exec(program, {})
    found = run("--policies static mine=model.zip --workload burst --loads 0.9 --seeds 1 --requests 60")
    assert found == ["static", "mine"]
