"""Draw docs/figures/architecture.png: the packages and which imports which, read from the source.

    python docs/draw_architecture.py

A package stands above all that it imports; an arrow that follows from two others is left out. The edges are stored in
the file, so a test can tell when it is out of date.
"""

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "figures" / "architecture.png"
PACKAGES = {
    "hardware_profiles": "what machines can do: step laws, links, KV sizes",
    "envs": "workloads, the Gymnasium environment, its choices and features",
    "envs.cluster": "the cluster model: engines, KV transfers, router view",
    "policies": "placement rules by name",
    "agents": "learned policies: network, PPO, export",
    "experiments": "the commands",
    "experiments.options": "what is asked for on a command line",
    "experiments.learning": "the mixture, distillation, the training run",
    "experiments.runs": "one run, the cache, executors, data splits, knee, tuning",
    "experiments.analysis": "requests, metrics, intervals, comparisons",
    "experiments.reports": "tables, pages",
    "experiments.reports.figures": "figures",
    "experiments.speed": "measurements of the bench",
    "experiments.crosscheck": "recordings, the other simulator",
    "experiments.serving": "the live router, its service",
    "experiments.mock_stack": "NVIDIA Dynamo with mock engines",
}
_COLOURS = {"hardware_profiles": "#e9ecef", "envs": "#d0ebff", "policies": "#d3f9d8", "agents": "#ffe8cc"}
_OTHER = "#f3d9fa"


def package_of(module: str) -> str | None:
    """The package of PACKAGES that a module is in; None for other projects'."""
    inside = [name for name in PACKAGES if module == name or module.startswith(f"{name}.")]
    return max(inside, key=len, default=None)


def edges() -> dict[str, set[str]]:
    """The packages that each package imports, for type checking or otherwise."""
    found: dict[str, set[str]] = {name: set() for name in PACKAGES}
    for path in sorted(ROOT.glob("*/**/*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        package = package_of(module)
        if package is not None:
            found[package] |= {other for name in _imports(path) if (other := package_of(name)) not in (None, package)}
    return found


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def floors(imports: Mapping[str, set[str]]) -> dict[str, int]:
    """The floor of each package: one above the highest that it imports; what a folder shares with its parent aside."""

    @cache
    def floor(name: str) -> int:
        return 1 + max((floor(other) for other in imports[name] - {name.rpartition(".")[0]}), default=-1)

    return {name: floor(name) for name in imports}


def essential(imports: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The edges that do not follow from others."""
    below = {name: others - {name.rpartition(".")[0]} for name, others in imports.items()}

    @cache
    def reached(name: str) -> frozenset[str]:
        return frozenset(below[name]).union(*(reached(other) for other in below[name]))

    return {
        name: {other for other in others if not any(other in reached(via) for via in others - {other})}
        for name, others in below.items()
    }


def text(imports: Mapping[str, set[str]]) -> str:
    """The edges as text, one package per line."""
    return "\n".join(f"{name}: {' '.join(sorted(imports[name]))}" for name in sorted(imports))


def draw() -> Figure:
    """Draw the packages on their floors."""
    imports = edges()
    floor_of = floors(imports)
    rows: dict[int, list[str]] = {}
    for name, floor in floor_of.items():
        rows.setdefault(floor, []).append(name)
    width = max(map(len, rows.values()))
    figure = Figure(figsize=(3.4 * width, 1.15 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    place = {
        name: (3.4 * (i + (width - len(names)) / 2), 1.15 * floor)
        for floor, names in rows.items()
        for i, name in enumerate(names)
    }
    for name, others in essential(imports).items():
        for other in others:
            (x, y), (to_x, to_y) = place[name], place[other]
            arrow = FancyArrowPatch(
                (x + 1.5, y), (to_x + 1.5, to_y + 0.75), arrowstyle="-|>", mutation_scale=9, color="0.6", lw=0.8
            )
            axes.add_patch(arrow)
    for name, (x, y) in place.items():
        colour = _COLOURS.get(name.partition(".")[0], _OTHER)
        box = FancyBboxPatch(
            (x, y), 3.0, 0.75, boxstyle="round,pad=0,rounding_size=0.08", fc=colour, ec="0.4", zorder=2
        )
        axes.add_patch(box)
        axes.text(x + 1.5, y + 0.5, name, ha="center", va="center", fontsize=10, weight="bold", zorder=3)
        axes.text(x + 1.5, y + 0.22, PACKAGES[name], ha="center", va="center", fontsize=6.2, zorder=3, wrap=True)
    axes.set_xlim(-0.2, 3.4 * width)
    axes.set_ylim(-0.2, 1.15 * len(rows) - 0.3)
    axes.axis("off")
    return figure


def main() -> None:
    """Write the picture."""
    PICTURE.parent.mkdir(exist_ok=True)
    draw().savefig(PICTURE, dpi=120, metadata={"Software": None, "Description": text(edges())})


if __name__ == "__main__":
    main()
