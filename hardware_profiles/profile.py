"""A loaded hardware profile: everything that a simulation needs to know about a machine and its model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from hardware_profiles.connectors import Link, load_connector
from hardware_profiles.errors import InputError
from hardware_profiles.schema import LinkSection, ProfileFile, read_json_file
from hardware_profiles.step_law import StepLaw
from hardware_profiles.tables import step_law

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Profile:
    """A machine (one GPU, or a tensor-parallel group acting as one) serving one model.

    Attributes:
        name: the profile's name.
        model: model identifier.
        law: step law that engines run by: the kernels plus the decode overhead.
        kernel_law: step law of the kernels alone, as fitted.
        kv_bytes_per_token: bytes of KV cache per token, over all GPUs of the group.
        kv_capacity_tokens: tokens of KV cache that fit.
        inter_node: link to an engine on another host.
        intra_node: link to an engine on the same host.
        provenance: the sources of the numbers, copied from the file.
        max_context_tokens: the longest prompt plus output that the model was published for; None: unknown. No simulated
            number depends on it.
    """

    name: str
    model: str
    law: StepLaw
    kernel_law: StepLaw
    kv_bytes_per_token: int
    kv_capacity_tokens: int
    inter_node: Link
    intra_node: Link
    provenance: Mapping[str, Any] = field(hash=False)
    max_context_tokens: int | None = None

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        # A shipped profile is pickled as its name: pickling its tables would take longer than a short run.
        if self.name in profile_names() and _shipped(self.name) is self:
            return _shipped, (self.name,)
        return Profile, tuple([getattr(self, each.name) for each in fields(self)])

    def step_time_s(self, chunks: Sequence[tuple[int, int]], decode_batch: int, decode_kv_tokens: float) -> float:
        """Seconds of kernel time for one step; arguments and errors as `StepLaw.time_s`."""
        return self.kernel_law.time_s(chunks, decode_batch, decode_kv_tokens)

    def with_connector(self, name: str) -> "Profile":
        """The same machine with another link between hosts: a name that `load_connector` knows.

        Only `inter_node` changes, to one such link per GPU of a tensor-parallel group; `provenance` records the change.

        Raises:
            InputError: there is no such connector.
        """
        link = load_connector(name).times(int(self.provenance.get("tp", 1)))
        note = f"{name}, instead of inter_node: {self.inter_node.source}"
        return replace(self, inter_node=link, provenance={**self.provenance, "connector": note})


def profile_names() -> list[str]:
    """Names of the profiles that ship with the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


def load_profile(name_or_path: str | Path) -> Profile:
    """Load a shipped profile by name, or any profile file by its path.

    Raises:
        InputError: there is no such profile, or the file is invalid; the message names the file and the key.
    """
    text = str(name_or_path)
    return _shipped(text) if text in profile_names() else from_file(read_profile(text))


@cache  # so that all environments share one table of some megabytes
def _shipped(name: str) -> Profile:
    return from_file(read_profile(name))


def read_profile(name_or_path: str | Path) -> ProfileFile:
    """Read the file of a profile, found as by `load_profile`.

    Raises:
        InputError: see `load_profile`.
    """
    text = str(name_or_path)
    if text in profile_names():
        path = _FOLDER / f"{text}.json"
    elif text.endswith(".json") or "/" in text:
        path = Path(text)
    else:
        raise InputError(f"no profile named {text!r}; there are {', '.join(profile_names())}, or give a path")
    return read_json_file(path, ProfileFile)


def from_file(file: ProfileFile) -> Profile:
    """Convert a profile file to the profile that simulations use."""
    kernel_law = step_law(file.step_law)
    return Profile(
        name=file.name,
        model=file.model,
        law=kernel_law.with_overhead(decode_s=file.decode_overhead.step_s),
        kernel_law=kernel_law,
        kv_bytes_per_token=file.kv_bytes_per_token,
        kv_capacity_tokens=file.kv_capacity_tokens,
        inter_node=_link(file.links.inter_node),
        intra_node=_link(file.links.intra_node),
        provenance=file.provenance.model_dump(exclude_none=True, exclude={"held_out": {"sample"}})
        | {"decode_overhead": file.decode_overhead.model_dump()},
        max_context_tokens=file.max_context_tokens,
    )


def _link(section: LinkSection) -> Link:
    return Link(section.latency_s, section.bandwidth_bytes_per_s, section.source)
