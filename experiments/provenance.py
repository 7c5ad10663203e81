"""Where numbers come from: the lines at the foot of every summary."""

import platform
from importlib.metadata import version

from experiments.digests import profile_digest
from experiments.markdown import code, plain
from experiments.output import commit
from hardware_profiles import Profile


def made_by(command: str, profile: Profile, seeds: str) -> list[str]:
    """What somebody needs to make the same again, a line of Markdown each; no time of day, so equal runs say the same.

    Args:
        command: as typed, from `python` on.
        profile: the machines; a connector in place of the profile's own link is part of it.
        seeds: which.
    """
    connector = profile.provenance.get("connector")
    return [
        f"command {code(command)}",
        f"commit {code(commit())}; Python {platform.python_version()}, NumPy {version('numpy')}, "
        f"SimPy {version('simpy')}",
        f"profile {code(profile.name)}, digest {code(profile_digest(profile))}"
        + (f"; connector {plain(str(connector))}" if connector else ""),
        f"seeds {plain(seeds)}",
    ]
