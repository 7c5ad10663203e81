"""The place where runs go, and the folder that results are written to."""

from pathlib import Path

import pytest

from experiments.compare import CompareOptions
from experiments.options.execution_options import ExecutionOptions
from experiments.options.parser import parse
from experiments.runs.executors import Execution
from hardware_profiles import InputError


def test_jobs_and_executor_become_an_execution(tmp_path: Path) -> None:
    assert ExecutionOptions().cache(tmp_path).execution == Execution(None, "local")
    assert ExecutionOptions().cache(tmp_path, 2).execution == Execution(2, "local")
    assert ExecutionOptions(jobs=3).cache(tmp_path, 2).execution == Execution(3, "local")
    with pytest.raises(InputError, match="--jobs 0: must be at least 1"):
        ExecutionOptions(jobs=0)


def test_a_given_folder_is_taken_and_holds_the_runs(tmp_path: Path) -> None:
    assert ExecutionOptions(out=tmp_path).folder("compare", "anything") == tmp_path
    assert ExecutionOptions().cache(tmp_path).folder == tmp_path / "runs"


def test_without_one_equal_commands_share_a_folder_and_others_do_not() -> None:
    def folder(text: str) -> Path:
        options = parse(CompareOptions, "compare", "", text.split())
        return options.execution.folder("compare", options)

    given = "--policies static --workload burst"
    assert folder(given) == folder(given)
    for same in ("--workload burst --policies static", f"{given} --jobs 2", f"{given} --executor local"):
        assert folder(same) == folder(given)
    assert folder(given).parent == Path("runs")
    assert folder(given).name.startswith("compare-")
    others = [f"{given} --seeds 3", f"{given} --tbt-slo 0.05", "--policies kairos --workload burst"]
    assert len({folder(one) for one in [given, *others]}) == 4
