"""List the commands: `python -m experiments`."""

import ast
from pathlib import Path


def commands() -> dict[str, str]:
    """Every command with the first line of its module's docstring; a module that defines a `run` is a command."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        module = ast.parse(path.read_bytes())
        if any(isinstance(node, ast.FunctionDef) and node.name == "run" for node in module.body):
            found[path.stem] = (ast.get_docstring(module) or "").partition("\n")[0]
    return found


if __name__ == "__main__":
    for name, what in commands().items():
        print(f"python -m experiments.{name:20} {what}")
