"""Fingerprints: equal for equal things, different for each change; that of code covers all that a run imports."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.cluster import ClusterConfig, Disturbance
from experiments.runs import fingerprint
from experiments.runs.fingerprint import imported_files
from hardware_profiles import Link, Profile, load_profile
from policies import PolicySpec
from tests.toy import TOY_LAW, toy_profile

ROOT = Path(__file__).parents[3]
PACKAGES = ("hardware_profiles", "envs", "policies", "agents", "experiments")
TASKS = ("experiments.runs.trial", "experiments.runs.tuning", "experiments.runs.saturation")


# ---- text, files, clusters -------------------------------------------------------------------------------------------


@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"))), st.data())
def test_a_digest_tells_parts_apart(parts: list[str], data: st.DataObject) -> None:
    other = data.draw(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"))))
    assert (fingerprint.digest(*parts) == fingerprint.digest(*other)) == (parts == other)


def test_a_digest_is_of_the_content_of_files(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"same")
    other.write_bytes(b"same")
    assert fingerprint.digest(files=[one]) == fingerprint.digest(files=[other])
    other.write_bytes(b"not the same")
    assert fingerprint.digest(files=[one]) != fingerprint.digest(files=[other])


def config(**changes: Any) -> ClusterConfig:
    return ClusterConfig(toy_profile(), **changes)


CHANGED: dict[str, Any] = {
    "profile": toy_profile(300_000),
    "shape": "1P3D",
    "hosts": (0, 0, 1, 1),
    "report_age_s": 0.05,
    "token_budget": 1024,
    "step_budget": "fixed",
    "slo_share": 0.9,
    "chunk_grain_tokens": 16,
    "max_seqs": 128,
    "max_prompts": 1,
    "kv_block_tokens": 32,
    "kv_watermark": 0.01,
    "kv_hold_s": 60.0,
    "host_overhead_s": 0.002,
    "host_overhead_per_seq_s": 1e-5,
    "node_profiles": (toy_profile(), toy_profile(), toy_profile(), toy_profile(300_000)),
    "node_speeds": (1.0, 1.0, 1.0, 0.6),
    "nics": (0, 0, 1, 1),
    "prefix_cache": True,
    "prefix_cache_share": 0.2,
    "prefix_cache_host_tokens": 1000,
    "kv_streaming": True,
    "disturbances": (Disturbance(1.0, "loss", 3),),
}


def test_equal_clusters_have_equal_fingerprints() -> None:
    assert fingerprint.cluster(config()) == fingerprint.cluster(config())
    again = ClusterConfig(replace(toy_profile(), provenance={"measured": "another day"}))
    assert fingerprint.cluster(again) != fingerprint.cluster(replace(again, shape="1P3D"))


@pytest.mark.parametrize("name", [field.name for field in fields(ClusterConfig)])
def test_a_cluster_with_any_other_field_has_another_fingerprint(name: str) -> None:
    assert fingerprint.cluster(replace(config(), **{name: CHANGED[name]})) != fingerprint.cluster(config())


@pytest.mark.parametrize(
    "other",
    [
        replace(toy_profile(), name="other"),
        replace(toy_profile(), kv_bytes_per_token=100_001),
        replace(toy_profile(), inter_node=Link(1e-4, 21e9, "made up")),
        toy_profile(law=replace(TOY_LAW, decode_seq_s=0.00006)),
        toy_profile(law=replace(TOY_LAW, token_time_s=(*TOY_LAW.token_time_s[:-1], 99.0))),
        toy_profile(law=replace(TOY_LAW, decode_kv_s=(*TOY_LAW.decode_kv_s[:-1], 99.0))),
    ],
)
def test_a_profile_with_another_number_has_another_fingerprint(other: Profile) -> None:
    assert fingerprint.profile(other) != fingerprint.profile(toy_profile())


def test_where_a_profile_comes_from_is_not_part_of_its_fingerprint() -> None:
    noted = replace(toy_profile(), provenance={"measured": "another day"})
    assert fingerprint.profile(noted) == fingerprint.profile(toy_profile())


def test_a_profile_that_is_read_twice_has_one_fingerprint() -> None:
    first, second = load_profile("a100-qwen3-8b"), load_profile("a100-qwen3-8b")
    assert fingerprint.profile(first) == fingerprint.profile(second)


@pytest.mark.parametrize("other", ["kairos:beta=0.9", "mine=kairos", "static"])
def test_another_policy_has_another_fingerprint(other: str) -> None:
    parse = PolicySpec.parse
    assert fingerprint.policy(parse(other)) == fingerprint.policy(parse(other)) != fingerprint.policy(parse("kairos"))


# ---- code ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A copy of the project's source, to edit; fingerprints of code are otherwise kept per process."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    fingerprint.code.cache_clear()
    yield tmp_path
    fingerprint.code.cache_clear()


@pytest.mark.slow
def test_the_fingerprint_of_code_is_of_all_that_it_imports(project: Path) -> None:
    task = "experiments.runs.trial"

    def now() -> str:
        fingerprint.code.cache_clear()
        return fingerprint.code(task, root=project)

    before = now()
    assert before == fingerprint.code(task)
    for module, counts in (("policies/kairos.py", True), ("agents/ppo.py", False), ("envs/new_module.py", False)):
        path = project / module
        text = path.read_text() if path.exists() else ""
        path.write_text(text + "\n# edited\n")
        assert (now() != before) == counts, module
        path.write_text(text)
        assert now() == before


@pytest.fixture(scope="module")
def imported() -> dict[str, set[str]]:
    """The files that each kind of run imports."""
    return {
        task.rpartition(".")[2]: {path.relative_to(ROOT).as_posix() for path in imported_files([task], ROOT)}
        for task in TASKS
    }


@pytest.mark.parametrize(
    ("module", "tasks"),
    [
        ("agents/episodes.py", set()),
        ("envs/cluster/engine.py", {"trial", "tuning", "saturation"}),
        ("envs/generators.py", {"trial", "tuning", "saturation"}),
        ("envs/objective.py", {"trial", "tuning", "saturation"}),
        ("envs/traces.py", {"trial", "tuning", "saturation"}),
        ("experiments/analysis/metrics.py", {"trial", "tuning", "saturation"}),
        ("experiments/analysis/request_table.py", {"trial", "tuning", "saturation"}),
        ("experiments/runs/requests.py", {"trial", "tuning", "saturation"}),
        ("experiments/runs/saturation.py", {"saturation"}),
        ("experiments/runs/search_space.py", {"tuning"}),
        ("experiments/runs/trial.py", {"trial"}),
        ("experiments/runs/tuning.py", {"tuning"}),
        ("hardware_profiles/step_law.py", {"trial", "tuning", "saturation"}),
        ("policies/kairos.py", {"trial", "tuning", "saturation"}),
        ("policies/spec.py", {"trial", "tuning", "saturation"}),
        ("agents/ppo.py", set()),
        ("agents/training.py", set()),
        ("envs/placement_env.py", set()),
        ("experiments/compare.py", set()),
        ("experiments/options/parser.py", set()),
        ("experiments/reports/comparison_report.py", set()),
        ("experiments/reports/figures/style.py", set()),
        ("hardware_profiles/calibrate.py", set()),
    ],
)
def test_a_module_counts_for_the_runs_that_import_it(
    module: str, tasks: set[str], imported: dict[str, set[str]]
) -> None:
    assert (ROOT / module).is_file()
    assert {task for task, files in imported.items() if module in files} == tasks


def test_the_reader_of_a_trained_policy_counts_for_it() -> None:
    reads = fingerprint.code("agents.placement_policy")
    learned = PolicySpec.parse("mine=runs/nowhere/policy.npz")
    before = fingerprint.policy(learned)
    assert before == fingerprint.digest("mine", reads)
    names = {path.name for path in imported_files(["agents.placement_policy"], ROOT)}
    assert {"placement_policy.py", "numpy_policy.py", "observation.py"} <= names


@pytest.mark.slow
def test_every_module_that_is_loaded_for_a_run_is_in_the_fingerprint() -> None:
    code = (
        f"import sys, {', '.join(TASKS)}\n"
        "print(*[m.__file__ for m in list(sys.modules.values()) if getattr(m, '__file__', None)], sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {path for line in done.stdout.splitlines() if (path := Path(line)).suffix == ".py"}
    projects = {path for path in loaded if path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in PACKAGES}
    files = set(imported_files(TASKS, ROOT))
    assert ROOT / "policies" / "kairos.py" in projects <= files


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
