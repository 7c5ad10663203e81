"""The project's files that a module imports, found from the source without running it."""

import ast
from collections.abc import Iterable, Iterator
from importlib.util import resolve_name
from pathlib import Path

_PACKAGES = ("hardware_profiles", "envs", "policies", "agents", "experiments")


def imported_files(modules: Iterable[str], root: Path) -> list[Path]:
    """Files of `modules` and of everything that they import from this project, directly or not, sorted.

    Imports inside functions count. Imports for type checking only do not, because they never run.

    Args:
        modules: names with dots.
        root: the folder that holds the project's packages.

    Raises:
        ModuleNotFoundError: one of `modules` has no file.
    """
    files: dict[str, Path | None] = {}
    waiting = list(modules)
    for name in waiting:
        if _file(name, root) is None:
            raise ModuleNotFoundError(f"no module {name} in {root}")
    while waiting:
        name = waiting.pop()
        if name not in files:
            path = files[name] = _file(name, root)
            parent = name.rpartition(".")[0]
            waiting += [parent] if parent else []  # Python imports the packages around a module, too
            waiting += _imports(name, path) if path is not None else []
    return sorted(path for path in files.values() if path is not None)


def _file(name: str, root: Path) -> Path | None:
    """The file of a module or package of this project; None for another project's, and for a name inside a module."""
    parts = name.split(".")
    if parts[0] not in _PACKAGES:
        return None
    base = root.joinpath(*parts)
    return next((path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file()), None)


def _imports(name: str, path: Path) -> Iterator[str]:
    """Names that a file imports; `from x import y` gives x and x.y, which may be a module or not."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in _running(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Every node below `node` but the bodies of `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        yield child
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for other in child.orelse:
                yield other
                yield from _running(other)
        else:
            yield from _running(child)
