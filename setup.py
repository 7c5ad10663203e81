"""Wheels hold the compiled inner loop next to its sources; pyproject.toml says everything else.

Without a C compiler, if the build fails, or with PREFILL_PLACEMENT_PLAIN=1, the wheel is a pure one. Editable installs
and source archives never compile; in a checkout `make venv` does.
"""

import shutil
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import ClassVar

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

# The package itself imports what it depends on, which a build does not have.
_package = ModuleType("hardware_profiles")
_package.__path__ = [str(Path(__file__).parent / "hardware_profiles")]
sys.modules[_package.__name__] = _package

from hardware_profiles.compile import BuildError, compile_modules  # noqa: E402
from hardware_profiles.compiled import forced_plain  # noqa: E402


class Compiled(build_ext):
    """Takes extension modules that are compiled already.

    Attributes:
        files: of each module, by name.
    """

    files: ClassVar[dict[str, Path]] = {}

    def build_extension(self, ext: Extension) -> None:
        """Copy a module to where the wheel is put together."""
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.files[ext.name], target)


class Wheel(bdist_wheel):
    """A wheel with compiled modules where they can be made."""

    def run(self) -> None:
        """Compile, then make the wheel."""
        with tempfile.TemporaryDirectory() as folder:
            try:
                made = {} if forced_plain() else compile_modules(Path(folder) / "modules", Path(folder) / "objects")
            except (BuildError, OSError) as error:
                print(f"not compiled, the wheel is plain Python at half the speed: {error}", file=sys.stderr)
                made = {}
            Compiled.files = made
            self.distribution.ext_modules = [Extension(name, []) for name in made]
            self.root_is_pure = not made
            # Compiled modules of an earlier wheel must not get into this one.
            shutil.rmtree(self.get_finalized_command("build").build_lib, ignore_errors=True)
            super().run()


setup(cmdclass={"bdist_wheel": Wheel, "build_ext": Compiled})
