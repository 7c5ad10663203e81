"""The cluster's inner loop may be compiled: `make compiled` puts its files through mypyc, `make plain` undoes it.

Same source, same results to the byte, less than half the time. A compiled file is imported instead of its source, so
one that is older than its source is refused rather than run.
"""

from pathlib import Path

_ROOT = Path(__file__).parent.parent
_FOLDERS = (_ROOT / "envs" / "cluster", _ROOT / "hardware_profiles")


def compiled_files() -> list[Path]:
    """The compiled files that are there, in order."""
    return sorted(path for folder in _FOLDERS for path in folder.glob("*.so"))


def check() -> None:
    """Refuse compiled files that are older than their source.

    Raises:
        ImportError: names one and says what to do.
    """
    for path in compiled_files():
        source = path.with_name(path.name.partition(".")[0] + ".py")
        if source.exists() and source.stat().st_mtime > path.stat().st_mtime:
            raise ImportError(f"{source} is newer than its compiled form; run make compiled again, or make plain")
