"""Compile the inner loop with mypyc.

    python -m hardware_profiles.compile

makes a build as `hardware_profiles.compiled` describes, unless one of the current sources exists. Without a C compiler,
or if the build fails, it prints one line that says why and removes older builds; everything then runs as plain Python.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir, contextmanager, redirect_stdout
from importlib import import_module
from io import StringIO
from modulefinder import ModuleFinder
from pathlib import Path
from time import perf_counter, time
from typing import Any

from hardware_profiles.compiled import BUILDS, MODULES, ROOT, SOURCES, current_build, forced_plain, source_lines

GROUP = "hardware_profiles.inner_loop"
"""mypyc puts the code of all modules into one library with this name plus `__mypyc`; each module's file loads it."""

_OPTIMISATION = (
    "2"  # level 1 compiles in three quarters of the time and runs 1 to 2 % slower; level 3 is not measurably faster
)
_ATTEMPTS = 3
_KEPT_BUILDS = 3
_KEPT_OBJECTS_S = 7 * 24 * 3600.0

# mypy reads only the project and the standard library. Reading the types of NumPy and others takes 100 s and changes
# only names in the C code.
_MYPY_OPTIONS = (
    "--config-file=",
    "--no-site-packages",
    "--ignore-missing-imports",
    "--follow-imports=silent",
    "--namespace-packages",
    "--explicit-package-bases",
)


class BuildError(Exception):
    """The modules could not be compiled; the message is one line that says why."""


class _Compiler:
    """Compiles and links C files, keeping object files.

    Args:
        objects: the folder of object files; a file is reused if its C code, headers and flags are the same.

    Raises:
        BuildError: there is no C compiler.
    """

    def __init__(self, objects: Path) -> None:
        try:
            import_module("setuptools")  # provides distutils, which has left the standard library
            compiler = import_module("distutils.ccompiler").new_compiler()
            import_module("distutils.sysconfig").customize_compiler(compiler)
        except ImportError as error:
            raise BuildError(str(error)) from error
        if compiler.compiler_type != "unix":
            raise BuildError(f"the compiler {compiler.compiler_type} is not supported")
        self._objects = objects
        self._compile: list[str] = [*compiler.compiler_so, f"-I{sysconfig.get_path('include')}"]
        self._link: list[str] = compiler.linker_so
        if shutil.which(self._compile[0]) is None:
            raise BuildError(f"there is no C compiler ({self._compile[0]})")
        objects.mkdir(parents=True, exist_ok=True)

    def object_file(self, source: str, headers: bytes, flags: Sequence[str], include_dirs: Sequence[str]) -> str:
        """Compile a C file that may depend on all of `headers`, and return the path of its object file."""
        state = hashlib.sha256(repr((self._compile, flags)).encode() + headers + Path(source).read_bytes())
        path = self._objects / f"{state.hexdigest()}.o"
        if path.exists():
            path.touch()
        else:
            with tempfile.TemporaryDirectory(dir=self._objects) as folder:
                made = f"{folder}/made.o"
                _run([*self._compile, *flags, *(f"-I{each}" for each in include_dirs), "-c", source, "-o", made])
                os.replace(made, path)
        return str(path)

    def link(self, objects: Sequence[str], library: Path) -> None:
        """Link object files to an extension module."""
        _run([*self._link, *objects, "-o", str(library)])


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = next((line for line in done.stderr.splitlines() if "error" in line), f"exit code {done.returncode}")
        raise BuildError(f"{command[0]}: {said}")


def compile_modules(folder: Path, objects: Path) -> dict[str, Path]:
    """Compile all modules on all cores.

    Args:
        folder: receives the compiled modules, each in the folder of its package.
        objects: a folder of object files from earlier builds.

    Returns:
        The file of each compiled module and of their library, by name.

    Raises:
        BuildError: a compiler is missing or has failed.
    """
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(os.cpu_count()) as pool:
        compiler = _Compiler(objects)
        extensions = _c_code(Path(scratch))
        headers = b"".join(path.read_bytes() for path in sorted(Path(scratch).rglob("*.h")))
        waiting = [
            [
                pool.submit(
                    compiler.object_file,
                    source,
                    headers,
                    [*extension.extra_compile_args, "-Wno-error"],
                    [*extension.include_dirs, f"{scratch}/{GROUP.partition('.')[0]}"],
                )
                for source in sorted(extension.sources, key=os.path.getsize, reverse=True)
            ]
            for extension in extensions
        ]
        suffix = sysconfig.get_config_var("EXT_SUFFIX")
        libraries = {each.name: folder / f"{each.name.replace('.', '/')}{suffix}" for each in extensions}
        for library in libraries.values():
            library.parent.mkdir(parents=True, exist_ok=True)
        try:
            made = [[each.result() for each in group] for group in waiting]
            list(pool.map(compiler.link, made, libraries.values()))
        finally:
            pool.shutdown(cancel_futures=True)
    return libraries


def _c_code(folder: Path) -> list[Any]:
    """Translate the modules to C files in `folder` with mypyc, and return its list of extensions.

    Raises:
        BuildError: mypyc is missing, or refuses the sources.
    """
    said = StringIO()
    cache = f"--cache-dir={BUILDS / 'mypy'}"  # not the one of a type check that runs at the same time
    try:
        from mypyc.build import mypycify

        with chdir(ROOT), redirect_stdout(said):
            return mypycify(
                [*_MYPY_OPTIONS, cache, *(f"{name.replace('.', '/')}.py" for name in MODULES)],
                opt_level=_OPTIMISATION,
                debug_level="0",
                multi_file=True,
                target_dir=str(folder),
                group_name=GROUP,
            )
    except ImportError as error:
        raise BuildError(str(error)) from error
    except (Exception, SystemExit) as error:  # mypyc exits, or raises an internal error
        raise BuildError(f"mypyc: {(said.getvalue() or repr(error)).splitlines()[0]}") from error


def sources() -> list[str]:
    """Files that the compiled code depends on, relative to `ROOT`: the modules and all project files that they import.

    Imports for type checking count too, because mypyc generates code from types.
    """
    finder = ModuleFinder(path=[str(ROOT)])
    for name in (*MODULES, "hardware_profiles.compile"):
        finder.import_hook(name)
    files = (getattr(module, "__file__", None) for module in finder.modules.values())
    return sorted(Path(file).relative_to(ROOT).as_posix() for file in files if file is not None)


def build() -> None:
    """Add a build of the current sources to `BUILDS`, and remove the oldest.

    Raises:
        BuildError: the build failed.
        OSError: the folder cannot be written.
    """
    BUILDS.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time():
        if current_build() is None:
            _build()


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Wait for builds by other processes: mypy locks its cache and fails if another process has it."""
    import fcntl  # exists wherever a unix compiler does

    with (BUILDS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build() -> None:
    for _ in range(_ATTEMPTS):
        with tempfile.TemporaryDirectory(dir=BUILDS) as scratch:
            made = Path(scratch) / "made"
            before = source_lines(sources())
            compile_modules(made, BUILDS / "objects")
            if before != source_lines(sources()):  # a source was edited meanwhile
                continue
            (made / SOURCES).write_text(before)
            try:
                made.rename(BUILDS / hashlib.sha256(before.encode()).hexdigest()[:16])
            except OSError:
                if current_build() is None:  # no other process has made the same build
                    raise
        _remove_old()
        return
    raise BuildError("the sources keep changing")


def _remove_old() -> None:
    """Remove all but the latest builds, and object files that no build has used for a week."""
    builds = sorted(BUILDS.glob(f"*/{SOURCES}"), key=lambda listed: listed.stat().st_mtime)
    for listed in builds[:-_KEPT_BUILDS]:
        shutil.rmtree(listed.parent)
    for path in BUILDS.glob("objects/*.o"):
        if path.stat().st_mtime < time() - _KEPT_OBJECTS_S:
            path.unlink(missing_ok=True)


def main() -> None:
    """Run the command."""
    if forced_plain() or current_build() is not None:
        return
    began = perf_counter()
    print(f"compiling {len(MODULES)} modules; later builds compile only what changed", file=sys.stderr)
    try:
        build()
    except (BuildError, OSError) as error:
        for listed in BUILDS.glob(f"*/{SOURCES}"):  # their sources have changed
            shutil.rmtree(listed.parent, ignore_errors=True)
        print(f"not compiled; everything runs as plain Python at half the speed: {error}", file=sys.stderr)
    else:
        print(f"compiled in {perf_counter() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
