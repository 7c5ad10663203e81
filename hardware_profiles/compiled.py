"""The modules that run compiled, and where they are loaded from.

mypyc compiles `MODULES` to C. Results are identical to the byte, and runs are about twice as fast.

In a checkout `python -m hardware_profiles.compile` (`make venv` runs it) puts the compiled modules into a folder of
build/compiled, with a list of the sources that they were made from. A package imports them from there only if all these
sources are unchanged. An edit is therefore never ignored: until the next build everything runs as plain Python. In an
installed wheel the compiled modules are next to their sources, and Python prefers them.

Objects of a compiled class can be pickled and copied only if the class has a `__reduce__` or
`@mypyc_attr(allow_interpreted_subclasses=True)`: mypyc 2.4 calls the constructor of others without arguments, and the
attribute costs no measurable time. Small objects that live for one decision have `acyclic=True, free_list_len=1`
instead: Python's garbage collector does not track them.
"""

import hashlib
import os
import sys
import sysconfig
from collections.abc import MutableSequence
from functools import cache
from pathlib import Path

MODULES = (
    "envs.choice_cost",
    "envs.choices",
    "envs.chunk_plan",
    "envs.cluster.cluster",
    "envs.cluster.decode_batch",
    "envs.cluster.engine",
    "envs.cluster.first_token_wait",
    "envs.cluster.gaps",
    "envs.cluster.in_progress",
    "envs.cluster.kv_pool",
    "envs.cluster.kv_transfer",
    "envs.cluster.lifecycle",
    "envs.cluster.network",
    "envs.cluster.placement",
    "envs.cluster.play",
    "envs.cluster.prefix_cache",
    "envs.cluster.queues",
    "envs.cluster.request",
    "envs.cluster.router_counters",
    "envs.cluster.router_view",
    "envs.cluster.scheduler",
    "envs.cluster.slo_count",
    "envs.cluster.span",
    "envs.cluster.step_budget",
    "envs.cluster.telemetry",
    "envs.cluster.timeline",
    "envs.cluster.topology",
    "envs.crowding",
    "envs.decision_process",
    "envs.features",
    "envs.objective",
    "envs.outlook",
    "envs.prediction",
    "envs.rule_choices",
    "envs.steady_load",
    "hardware_profiles.step_law",
)
"""The modules that are compiled, all or none. Their packages call `activate`."""

ROOT = Path(__file__).parent.parent
"""The folder of the project's packages."""

BUILDS = ROOT / "build" / "compiled" / str(sysconfig.get_config_var("SOABI"))
"""The builds of a checkout for this Python version, one folder per state of the sources."""

SOURCES = "sources.sha256"
"""The file of a build that lists its sources, in the format of sha256sum."""


def forced_plain() -> bool:
    """Whether the environment variable PREFILL_PLACEMENT_PLAIN asks for plain Python."""
    return os.environ.get("PREFILL_PLACEMENT_PLAIN", "0") not in ("", "0")


def source_lines(names: list[str]) -> str:
    """The content of `SOURCES`.

    Args:
        names: paths relative to `ROOT`.
    """
    return "".join(f"{hashlib.sha256((ROOT / name).read_bytes()).hexdigest()}  {name}\n" for name in names)


def current_build() -> Path | None:
    """The build whose sources are unchanged; None if there is none."""
    for listed in BUILDS.glob(f"*/{SOURCES}"):
        lines = listed.read_text()
        try:
            if lines == source_lines([line[66:] for line in lines.splitlines()]):
                return listed.parent
        except OSError:  # a source is gone
            continue
    return None


@cache
def _build_in_use() -> Path | None:
    """The build that this process imports from. It is chosen once, so that an edit meanwhile never mixes two builds."""
    return None if forced_plain() else current_build()


def activate(package: str, path: MutableSequence[str]) -> None:
    """Let a package import its compiled modules if the checkout has a build of the current sources.

    Args:
        package: the package's name.
        path: its `__path__`.
    """
    build = _build_in_use()
    if build is not None:
        path.insert(0, str(build.joinpath(*package.split("."))))


def is_compiled() -> bool:
    """Whether this process runs compiled modules."""
    loaded = (sys.modules[name].__file__ for name in MODULES if name in sys.modules)
    return any(file is not None and not file.endswith(".py") for file in loaded)


def stale_notice() -> str | None:
    """A one-line notice if the sources of a checkout have changed since they were compiled; None otherwise."""
    if forced_plain() or _build_in_use() is not None or next(BUILDS.glob(f"*/{SOURCES}"), None) is None:
        return None
    return "the compiled modules are out of date; until `make venv` this runs as plain Python, at half the speed"
