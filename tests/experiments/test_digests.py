"""The fingerprint of the code changes with what a run imports, and with nothing else."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.digests import _MAKES_RESULTS, simulation_digest
from experiments.imports import imported_files

ROOT = Path(__file__).parents[2]
PACKAGES = ("hardware_profiles", "envs", "policies", "agents", "experiments")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project's source."""
    root = tmp_path_factory.mktemp("project")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, root / name, ignore=lambda _, names: [n for n in names if n == "__pycache__"])
    return root


@pytest.fixture(scope="module")
def before(project: Path) -> str:
    """The fingerprint of the copy as it was made."""
    return simulation_digest(project)


def edited(project: Path, module: str) -> str:
    """The fingerprint after an edit of a module, which is taken back."""
    path = project / module
    text = path.read_text()
    path.write_text(text + "\n# edited\n")
    after = simulation_digest(project)
    path.write_text(text)
    return after


@pytest.mark.parametrize(
    "module",
    [
        "experiments/cells.py",
        "experiments/cost.py",
        "experiments/knee.py",
        "experiments/knobs.py",
        "experiments/metrics.py",
        "experiments/sources.py",
        "experiments/tuning.py",
        "agents/placement_policy.py",
        "envs/cluster/engine.py",
        "envs/generators.py",
        "envs/traces.py",
        "hardware_profiles/step_law.py",
        "policies/kairos.py",
    ],
)
def test_editing_a_module_that_a_run_imports_changes_the_fingerprint(project: Path, before: str, module: str) -> None:
    assert edited(project, module) != before


@pytest.mark.parametrize(
    "module",
    [
        "agents/ppo.py",
        "agents/training.py",
        "envs/placement_env.py",
        "experiments/compare.py",
        "experiments/figures.py",
        "experiments/report.py",
        "experiments/train.py",
        "hardware_profiles/calibrate.py",
    ],
)
def test_editing_a_module_that_no_run_imports_does_not(project: Path, before: str, module: str) -> None:
    assert edited(project, module) == before


def test_every_module_that_is_loaded_for_a_run_is_in_the_fingerprint() -> None:
    code = (
        f"import sys, {', '.join(_MAKES_RESULTS)}\n"
        "print(*[m.__file__ for m in list(sys.modules.values()) if getattr(m, '__file__', None)], sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {path for line in done.stdout.splitlines() if (path := Path(line)).suffix == ".py"}
    ours = {path for path in loaded if path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in PACKAGES}
    files = set(imported_files(_MAKES_RESULTS, ROOT))
    assert ROOT / "policies" / "kairos.py" in ours <= files


def test_imports_in_every_form_are_found(tmp_path: Path) -> None:
    sources = {
        "__init__": "",
        "start": "import envs.plain as p, json\nfrom envs import submodule\nfrom .relative import name\n"
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import envs.typed\nelse:\n    import envs.untyped\n"
        "def late():\n    from envs.inside import x\n",
        "plain": "import envs.indirect",
        "submodule": "import envs.start  # a circle",
        **dict.fromkeys(["relative", "untyped", "inside", "indirect", "typed", "alone"], ""),
    }
    (tmp_path / "envs").mkdir()
    for name, text in sources.items():
        (tmp_path / "envs" / f"{name}.py").write_text(text)
    found = {path.stem for path in imported_files(["envs.start"], tmp_path)}
    assert found == set(sources) - {"typed", "alone"}
    with pytest.raises(ModuleNotFoundError, match=r"envs\.absent"):
        imported_files(["envs.absent"], tmp_path)
