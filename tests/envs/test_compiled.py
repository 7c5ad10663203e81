"""The compiled inner loop gives what its source gives, and is refused where it is older than that."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import get_args

import pytest

import policies
from envs import compiled
from envs.cluster import ClusterConfig, simulate
from envs.cluster.config import StepBudget
from envs.generators import generate
from tests.toy import toy_profile

ROOT = Path(__file__).parents[2]


def fingerprint() -> str:
    """Of runs that preempt, deflect, split, share links and copy, under both step budgets."""
    digest = hashlib.sha256()
    rules = ("static", "kairos", "dynaserve", "arrow", "lookahead:horizon=5")
    for rule, capacity, budget in product(rules, (9_000, 400_000), get_args(StepBudget)):
        requests = 40 if rule.startswith("lookahead") else 250
        workload = generate("burst", rate_rps=14.0, requests=requests, seed=5, max_prompt_tokens=6_000)
        result = simulate(workload, policies.make(rule), ClusterConfig(toy_profile(capacity), step_budget=budget))
        digest.update(repr((result.records, result.counters)).encode())
        digest.update(result.gaps.columns().tobytes())
    return digest.hexdigest()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None and shutil.which("cc") is None, reason="there is no C compiler")
def test_compiled_and_plain_agree_to_the_byte(tmp_path: Path) -> None:
    for name in ("hardware_profiles", "envs", "policies", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    listed = re.search(r"^COMPILED := (.*?)\n\n", (ROOT / "Makefile").read_text(), re.DOTALL | re.MULTILINE)
    assert listed
    names = re.findall(r"[\w/]+\.py", listed[1])
    files = [name if "/" in name else f"envs/cluster/{name}" for name in names]
    assert len(files) == 19
    environment = {**os.environ, "MYPYC_OPT_LEVEL": "0", "PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-m", "mypyc", *files], cwd=tmp_path, env=environment, check=True)
    code = (
        "import envs.cluster.engine as e, tests.envs.test_compiled as t; assert e.__file__.endswith('.so'), e.__file__;"
        "print(t.fingerprint())"
    )
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert found.stdout.strip() == fingerprint()


def test_what_is_older_than_its_source_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_FOLDERS", (tmp_path,))
    source, built = tmp_path / "engine.py", tmp_path / "engine.cpython-311-x86_64-linux-gnu.so"
    source.touch()
    compiled.check()
    assert compiled.compiled_files() == []
    built.touch()
    os.utime(source, (1_000, 1_000))
    compiled.check()
    assert compiled.compiled_files() == [built]
    os.utime(built, (999, 999))
    with pytest.raises(ImportError, match="make compiled again, or make plain"):
        compiled.check()
