"""What `experiments.tune` chose, for a command that runs it: tuned.json."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import policies
from envs.cluster import ClusterConfig
from envs.slos import Slos
from experiments.digests import profile_digest
from hardware_profiles import InputError


def made_for(config: ClusterConfig, slos: Slos) -> dict[str, object]:
    """What knobs are tuned for; report ages and other options of the cluster may differ, so that they can be varied."""
    return {
        "profile": config.profile.name,
        "profile_digest": profile_digest(config.profile),
        "cluster": config.shape,
        "step_budget": config.step_budget,
        "slos": [asdict(one) for one in slos.classes],
    }


@dataclass(frozen=True)
class Tuned:
    """A file of chosen knobs.

    Attributes:
        path: of the file.
        contents: what it says.
    """

    path: Path
    contents: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> "Tuned":
        """Read a file, or the one in a folder of `experiments.tune`.

        Raises:
            InputError: it is not such a file.
        """
        path = path / "tuned.json" if path.is_dir() else path
        try:
            found = cls(path, json.loads(path.read_bytes()))
            found.about()
        except (ValueError, LookupError, TypeError, AttributeError):
            raise InputError(f"{path}: not a file that experiments.tune wrote, or a damaged one") from None
        return found

    @property
    def chosen(self) -> dict[str, str]:
        """The setting of each policy."""
        return {name: str(found["chosen"]) for name, found in self.contents["policies"].items()}

    def check(self, config: ClusterConfig, slos: Slos) -> None:
        """Refuse to be used for something else than the knobs were tuned for.

        Raises:
            InputError: names what differs.
        """
        contents = dict(self.contents)
        if "slos" not in contents:  # a file of version 0.1.0, when there were two numbers
            old = Slos.of(contents["ttft_slo_s"], contents["tbt_slo_s"])
            contents["slos"] = made_for(config, old)["slos"]
        for name, value in made_for(config, slos).items():
            if contents[name] != value:
                what = "a profile or connector of digest" if name == "profile_digest" else name
                raise InputError(f"{self.path}: tuned for {what} {contents[name]}, not {value}")

    def replace(self, names: Sequence[str]) -> list[str]:
        """The same policies; rules named without knobs get the setting that was chosen, and keep their label.

        Raises:
            InputError: a rule that has knobs to tune, and was not tuned.
        """
        for name in names:
            if name in policies.names() and policies.grid(name) and name not in self.chosen:
                raise InputError(f"{self.path}: {name} was not tuned; tune it too, or name it with its knobs")
        return [f"{name}={self.chosen[name]}" if name in self.chosen else name for name in names]

    @property
    def budget(self) -> str:
        """What was spent on each rule, as part of a sentence."""
        budget, seeds = self.contents["budget"], self.contents["seeds"]
        return (
            f"up to {budget['settings']} settings of each policy, {budget['runs_per_setting']} runs of "
            f"{budget['requests_per_run']} requests each, seeds {min(seeds)} to {max(seeds)}, on which nothing is "
            "evaluated"
        )

    def about(self) -> str:
        """A line that says what was tuned, and how."""
        knobs = "; ".join(f"{name} {setting.partition(':')[2]}" for name, setting in self.chosen.items())
        return f"knobs tuned ({self.path.name}: {self.budget}): {knobs}"
