"""Compiled modules behave like their sources, and are used only while these are unchanged."""

import hashlib
import os
import pickle
import re
import shutil
import subprocess
import sys
from copy import deepcopy
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

import policies
from envs.cluster import ClusterConfig, simulate
from envs.cluster.config import StepBudget
from envs.generators import generate
from envs.vector_env import PlacementVectorEnv
from hardware_profiles.compiled import MODULES, is_compiled
from tests.toy import toy_profile

ROOT = Path(__file__).parents[2]

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")


def fingerprint() -> str:
    """A hash of runs that preempt, deflect, split, share links and copy, under both step budgets, and of episodes."""
    digest = hashlib.sha256()
    variants = (
        {"cluster": "2P2D", "miss_weight": 0.5, "tail_weight": 1.0},
        {"cluster": "6P5D", "step_budget": "fixed", "start": "running", "warm_up_s": (0.5, 1.0)},
        {"cluster": "1P3D", "choices": "deflection", "profile": toy_profile(9_000)},
    )
    for variant in variants:
        arguments: dict[str, Any] = {"profile": toy_profile(), "rate_rps": 30.0, "horizon_requests": 60} | variant
        envs = PlacementVectorEnv(3, **arguments)
        observation, _ = envs.reset(seed=1)
        rng = np.random.default_rng(2)
        for _ in range(70):
            chosen = (rng.random(observation["action_mask"].shape) * observation["action_mask"]).argmax(axis=1)
            observation, rewards, *_ = envs.step(chosen)
            for array in (rewards, *observation.values()):
                digest.update(array.tobytes())
    rules = ("static", "kairos", "dynaserve", "arrow", "lookahead:horizon=5")
    for rule, capacity, budget in product(rules, (9_000, 400_000), get_args(StepBudget)):
        requests = 40 if rule.startswith("lookahead") else 250
        workload = generate("burst", rate_rps=14.0, requests=requests, seed=5, max_prompt_tokens=6_000)
        result = simulate(workload, policies.make(rule), ClusterConfig(toy_profile(capacity), step_budget=budget))
        digest.update(repr((result.records, result.counters)).encode())
        digest.update(result.gaps.columns().tobytes())
    return digest.hexdigest()


@needs_compiler
@pytest.mark.slow
@pytest.mark.skipif(not is_compiled(), reason="the tests run plain")
def test_compiled_and_plain_agree_to_the_byte() -> None:
    code = (
        "import hardware_profiles.compiled as c, tests.hardware_profiles.test_compiled as t\n"
        "assert not c.is_compiled()\nprint(t.fingerprint())"
    )
    assert run("-c", code, folder=ROOT, PREFILL_PLACEMENT_PLAIN="1").stdout.strip() == fingerprint()


def test_all_modules_run_compiled_or_none() -> None:
    code = (
        f"import sys, {', '.join(MODULES)}\n"
        f"print(len({{sys.modules[name].__file__.endswith('.py') for name in {MODULES}}}))"
    )
    assert run("-c", code, folder=ROOT).stdout == "1\n"


def test_a_step_law_survives_pickling_and_copying() -> None:
    law = toy_profile().law
    assert pickle.loads(pickle.dumps(law)) == law == deepcopy(law)


# ---- builds, on a project of three modules --------------------------------------------------------------------------


def run(*arguments: str, folder: Path, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python on the project in a folder, without this process's choice of compiled or plain modules."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PREFILL_PLACEMENT_PLAIN", "CC")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(folder), **environment},
        capture_output=True,
        text=True,
        check=check,
    )


def build(project: Path, **environment: str) -> list[str]:
    """Compile the project; return the lines that the command prints."""
    done = run("-m", "hardware_profiles.compile", folder=project, **environment)
    assert done.stdout == ""
    return done.stderr.splitlines()


def played(project: Path, **environment: str) -> str:
    """The project's result, whether it ran compiled, and the notice that its commands print first."""
    code = (
        "from envs.inner import double\nfrom hardware_profiles.compiled import is_compiled, stale_notice\n"
        "print(double(21), 'compiled' if is_compiled() else 'plain', 'with' if stale_notice() else 'without', 'notice')"
    )
    return run("-c", code, folder=project, **environment).stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Two packages with one compiled module each, and a plain module that both use."""
    activated = "from hardware_profiles.compiled import activate\n\nactivate(__name__, __path__)\n"
    listed = (ROOT / "hardware_profiles" / "compiled.py").read_text()
    modules = 'MODULES = ("envs.inner", "hardware_profiles.factor")\n'
    listed, found = re.subn(r"^MODULES = \(\n.*?^\)\n", modules, listed, flags=re.DOTALL | re.MULTILINE)
    assert found == 1
    files = {
        "envs/__init__.py": activated,
        "envs/inner.py": "from envs.plain import one\nfrom hardware_profiles.factor import FACTOR\n\n\n"
        "def double(x: int) -> int:\n    return FACTOR * one() * x\n",
        "envs/plain.py": "def one() -> int:\n    return 1\n",
        "envs/unused.py": "",
        "hardware_profiles/__init__.py": activated,
        "hardware_profiles/compiled.py": listed,
        "hardware_profiles/compile.py": (ROOT / "hardware_profiles" / "compile.py").read_text(),
        "hardware_profiles/factor.py": "FACTOR: int = 2\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@needs_compiler
@pytest.mark.slow
def test_an_edited_source_runs_plain_until_it_is_compiled_again(project: Path) -> None:
    assert played(project) == "42 plain without notice"
    assert build(project)[-1].startswith("compiled in")
    assert played(project) == "42 compiled without notice"
    assert build(project) == []
    (project / "hardware_profiles" / "factor.py").write_text("FACTOR: int = 3\n")
    assert played(project) == "63 plain with notice"
    assert build(project)[-1].startswith("compiled in")
    assert played(project) == "63 compiled without notice"
    (project / "envs" / "unused.py").write_text("# nothing compiled imports this")
    assert played(project) == "63 compiled without notice"
    (project / "envs" / "plain.py").write_text("def one() -> float:\n    return 0.5\n")
    assert played(project) == "31.5 plain with notice"
    (project / "envs" / "plain.py").write_text("def one() -> int:\n    return 1\n")
    assert played(project) == "63 compiled without notice"
    assert played(project, PREFILL_PLACEMENT_PLAIN="1") == "63 plain without notice"


@needs_compiler
@pytest.mark.slow
def test_a_build_reuses_the_objects_of_earlier_builds(project: Path) -> None:
    build(project)
    (objects,) = project.glob("build/compiled/*/objects")
    before = set(objects.iterdir())
    inner = project / "envs" / "inner.py"
    inner.write_text(inner.read_text().replace("FACTOR * one()", "one() * FACTOR"))
    build(project)
    assert 1 <= len(set(objects.iterdir()) - before) < len(before) / 2
    assert played(project) == "42 compiled without notice"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "said"),
    [({"CC": "/bin/false"}, "/bin/false: exit code 1"), ({"CC": "no-such-compiler"}, "no C compiler")],
)
def test_without_a_compiler_one_line_says_so_and_all_runs_plain(
    project: Path, environment: dict[str, str], said: str
) -> None:
    lines = build(project, **environment)
    assert len(lines) == 2
    assert "everything runs as plain Python" in lines[1]
    assert said in lines[1]
    assert played(project) == "42 plain without notice"


@needs_compiler
@pytest.mark.slow
def test_a_failed_build_removes_older_ones(project: Path) -> None:
    build(project)
    inner = project / "envs" / "inner.py"
    inner.write_text(inner.read_text().replace("-> int", "-> str"))  # mypyc refuses this
    assert "everything runs as plain Python: mypyc: envs/inner.py" in build(project)[-1].replace(
        " at half the speed", ""
    )
    assert played(project) == "42 plain without notice"


@needs_compiler
@pytest.mark.slow
def test_two_concurrent_builds_make_one(project: Path) -> None:
    command = [sys.executable, "-m", "hardware_profiles.compile"]
    environment = {**os.environ, "PYTHONPATH": str(project), "PREFILL_PLACEMENT_PLAIN": "0"}
    started = [subprocess.Popen(command, cwd=project, env=environment, stderr=subprocess.PIPE) for _ in range(2)]
    for process in started:
        assert b"plain" not in process.communicate()[1]
    assert len(list(project.glob("build/compiled/*/*/sources.sha256"))) == 1
    assert played(project) == "42 compiled without notice"


def test_forced_plain_builds_nothing(project: Path) -> None:
    assert build(project, PREFILL_PLACEMENT_PLAIN="1") == []
    assert not (project / "build").exists()


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("environment", [{}, {"CC": "/bin/false"}, {"PREFILL_PLACEMENT_PLAIN": "1"}])
def test_a_wheel_is_either_fully_compiled_or_pure(project: Path, environment: dict[str, str]) -> None:
    shutil.copy(ROOT / "setup.py", project)
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "toy"\nversion = "1"\n[tool.setuptools]\npackages = ["envs", "hardware_profiles"]\n'
    )
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "-w", "dist")
    run("-m", "pip", "wheel", *options, ".", folder=project, **environment)
    (wheel,) = (project / "dist").iterdir()
    shutil.unpack_archive(wheel, project / "installed", "zip")
    compiled = not environment
    assert wheel.name.endswith("-py3-none-any.whl") != compiled
    assert len(list((project / "installed").rglob("*.so"))) == (3 if compiled else 0)
    assert played(project / "installed") == f"42 {'compiled' if compiled else 'plain'} without notice"
