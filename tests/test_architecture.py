"""The structure: imports go one way, and the picture of it is up to date."""

import ast
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))
import draw_architecture as architecture  # noqa: E402

ORDER = ("hardware_profiles", "envs", "policies", "agents", "experiments")
LAYERS = ("experiments.analysis", "experiments.runs", "experiments.reports", "experiments")
LEARNING = ("experiments.runs", "experiments.learning", "experiments")
MOST_FLOORS, MOST_COMMANDS, MOST_FILES, MOST_LINES = 7, 15, 12, 300


def reached(edges: dict[str, set[str]], name: str) -> set[str]:
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for other in edges[waiting.pop()] - found:
            found.add(other)
            waiting.append(other)
    return found


def imports_within_experiments() -> dict[str, set[str]]:
    """The modules of experiments/ that each of them imports; packages themselves aside."""
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in (ROOT / "experiments").rglob("*.py")
        if path.name != "__init__.py"
    }
    edges: dict[str, set[str]] = {}
    for module, path in modules.items():
        named: set[str] = set()
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                named |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        edges[module] = (named & modules.keys()) - {module}
    return edges


def test_imports_between_packages_go_one_way() -> None:
    edges = architecture.edges()
    tops = {name: {other.partition(".")[0] for other in others} for name, others in edges.items()}
    for package, others in tops.items():
        rank = ORDER.index(package.partition(".")[0])
        assert all(ORDER.index(other) <= rank for other in others), f"{package} imports {others}"
    for below, above in [*pairwise(LAYERS), *pairwise(LEARNING)]:
        assert above not in edges[below], f"{below} imports {above}"


def test_no_modules_of_experiments_import_each_other_in_a_circle() -> None:
    edges = imports_within_experiments()
    assert not [name for name in edges if name in reached(edges, name)]


def test_experiments_stays_small_enough_to_understand() -> None:
    edges = imports_within_experiments()
    floors: dict[str, int] = {}

    def floor(name: str) -> int:
        if name not in floors:
            floors[name] = 1 + max(map(floor, edges[name]), default=0)
        return floors[name]

    assert max(map(floor, edges)) <= MOST_FLOORS
    folders = [path for path in (ROOT / "experiments").rglob("*") if path.is_dir() and path.name != "__pycache__"]
    for folder in [ROOT / "experiments", *folders]:
        files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith("__")]
        most = MOST_COMMANDS if folder.name == "experiments" else MOST_FILES
        assert len(files) <= most, f"{folder} has {len(files)} files"
        for path in folder.glob("*.py"):
            lines = len(path.read_text(encoding="utf-8").splitlines())
            assert lines <= MOST_LINES, f"{path} has {lines} lines"


def test_every_package_is_installed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    found = [path.parent.relative_to(ROOT) for name in ORDER for path in (ROOT / name).rglob("__init__.py")]
    assert sorted(listed) == sorted(".".join(path.parts) for path in found)


def test_no_two_modules_have_one_name() -> None:
    packages = [path for name in ORDER for path in (ROOT / name).rglob("*.py")]
    names = [path.name for path in packages if not path.name.startswith("__")]
    assert not {name for name in names if names.count(name) > 1}


def test_the_picture_in_contributing_is_up_to_date() -> None:
    assert architecture.PICTURE.relative_to(ROOT).as_posix() in (ROOT / "CONTRIBUTING.md").read_text()
    with Image.open(architecture.PICTURE) as picture:
        assert picture.text["Description"] == architecture.text(architecture.edges()), (
            "python docs/draw_architecture.py draws it again"
        )
