"""A report: sections of text, tables and pictures, written as summary.md, report.html and figures/*.png."""

import json
import platform
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from experiments.reports.columns import bullets, code, plain
from experiments.reports.figures.style import save
from experiments.reports.page import write_page
from experiments.runs import fingerprint
from hardware_profiles import InputError, Profile
from hardware_profiles.files import replacing


class Picture(NamedTuple):
    """A figure in a report."""

    name: str  # of its file, without suffix
    figure: Figure
    alt: str  # what it is, in a few words
    caption: str  # what it shows, of how many requests; Markdown

    @property
    def file(self) -> str:
        """The name of its file."""
        return re.sub(r"[^\w.=-]", "_", self.name) + ".png"


Part = str | Picture
Section = tuple[str, Sequence[Part]]
"""A heading, Markdown with its marks, and what follows it; one without content is left out."""


def write_report(title: str, sections: Iterable[Section], folder: Path) -> None:
    """Write summary.md, report.html and the figures into `folder`, which is made if it is missing."""
    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []

    def shown(part: Part) -> str:
        if isinstance(part, str):
            return part
        paths.append(figures / part.file)
        save(part.figure, paths[-1])
        return f"![{plain(part.alt)}](<figures/{part.file}>)\n*Figure {len(paths)}. {part.caption}*"

    texts = [f"# {plain(title)}"]
    for head, parts in sections:
        if body := "\n\n".join(filter(None, map(shown, parts))):
            texts.append(f"{head}\n\n{body}" if head else body)
    summary = "\n\n".join(texts) + "\n"
    with replacing(folder / "summary.md") as temporary:
        temporary.write_text(summary, encoding="utf-8")
    write_page(summary, paths, folder / "report.html")


def for_console(*parts: str) -> str:
    """Parts of a summary as they are printed: marks of bold type and of code are for the page."""
    return "\n\n".join(filter(None, parts)).replace("**", "").replace("`", "")


def claim(folder: Path, command: str, options: object, **resolved: object) -> None:
    """Note in `folder` which command it is of; the same command may come back with other options.

    `resolved` are values that the options leave open. An InputError if the folder is of another command.
    """
    note = folder / "command.json"
    if note.exists():
        try:
            other = json.loads(note.read_text(encoding="utf-8"))["command"]
        except (ValueError, LookupError, TypeError):
            raise InputError(f"{note}: of another version; give another --out, or delete the folder") from None
        if other != command:
            raise InputError(f"{folder} holds the results of experiments.{other}; give another --out, or delete it")
    write_json({"command": command, "options": options, **resolved}, note)


def write_json(value: object, path: Path) -> None:
    """Write a JSON file, whole or not at all; its folder is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, default=_as_json) + "\n", encoding="utf-8")


def _as_json(value: object) -> object:
    """A dataclass, such as options, by its fields; anything else, such as a path, as text."""
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def commit() -> str:
    """The commit of the code, "-dirty" if it was changed since; "unknown" outside a repository."""
    command = ["git", "-C", str(fingerprint.ROOT), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def made_by(typed: str, profile: Profile, seeds: str) -> str:
    """A list of what one needs to repeat the command `typed`; no time of day, so equal runs say the same."""
    connector = profile.provenance.get("connector")
    versions = f"Python {platform.python_version()}, NumPy {version('numpy')}, SimPy {version('simpy')}"
    machines = f"profile {code(profile.name)}, digest {code(fingerprint.profile(profile))}"
    return bullets([
        f"command {code(typed)}",
        f"commit {code(commit())}; {versions}",
        machines + (f"; connector {plain(str(connector))}" if connector else ""),
        f"seeds {plain(seeds)}",
    ])  # fmt: skip
