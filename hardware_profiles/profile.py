"""A loaded hardware profile: everything a simulation needs to know of a machine and a model on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hardware_profiles.errors import InputError
from hardware_profiles.schema import LinkSection, dense_tables, read_profile_file
from hardware_profiles.step_law import StepLaw

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Link:
    """A link between two engines; moving n bytes over it alone takes latency_s + n / bandwidth_bytes_per_s.

    Attributes:
        latency_s: seconds before the first byte arrives.
        bandwidth_bytes_per_s: bytes a second after that.
        source: where the two were measured.
    """

    latency_s: float
    bandwidth_bytes_per_s: float
    source: str


@dataclass(frozen=True, slots=True)
class Profile:
    """A machine (one GPU, or a tensor-parallel group acting as one) serving one model.

    Attributes:
        name: the profile's name.
        model: model identifier.
        law: step law an engine runs by: kernels plus the decode overhead.
        kernel_law: step law of the kernels alone, as fitted.
        kv_bytes_per_token: bytes of KV cache a token, over all GPUs of the group.
        kv_capacity_tokens: tokens of KV cache that fit.
        inter_node: link to an engine on another host.
        intra_node: link to an engine on the same host.
        provenance: where the numbers come from, as in the file.
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

    def step_time_s(self, chunks: Sequence[tuple[int, int]], decode_batch: int, decode_kv_tokens: float) -> float:
        """Seconds of kernel time for one step; arguments and errors as `StepLaw.time_s`."""
        return self.kernel_law.time_s(chunks, decode_batch, decode_kv_tokens)


def profile_names() -> list[str]:
    """Names of the profiles that ship with the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


def load_profile(name_or_path: str | Path) -> Profile:
    """Load a shipped profile by name, or any profile file by its path.

    Raises:
        InputError: no such profile, or a faulty file; one line naming the file and the key.
    """
    text = str(name_or_path)
    if text in profile_names():
        path = _FOLDER / f"{text}.json"
    elif text.endswith(".json") or "/" in text:
        path = Path(text)
    else:
        raise InputError(f"no profile named {text!r}; there are {', '.join(profile_names())}, or give a path")
    return _from_file(path)


def _from_file(path: Path) -> Profile:
    file = read_profile_file(path)
    law = file.step_law
    token_time_s, decode_kv_s = dense_tables(law)
    kernel_law = StepLaw(
        token_time_s=token_time_s,
        chunk_const_s=law.chunk_const_s,
        chunk_context_s=law.chunk_context_s,
        chunk_self_s=law.chunk_self_s,
        decode_const_s=law.decode_const_s,
        decode_seq_s=law.decode_seq_s,
        decode_kv_s=decode_kv_s,
    )
    return Profile(
        name=file.name,
        model=file.model,
        law=replace(kernel_law, decode_const_s=law.decode_const_s + file.decode_overhead.step_s),
        kernel_law=kernel_law,
        kv_bytes_per_token=file.kv_bytes_per_token,
        kv_capacity_tokens=file.kv_capacity_tokens,
        inter_node=_link(file.links.inter_node),
        intra_node=_link(file.links.intra_node),
        provenance=file.model_dump(include={"provenance"})["provenance"]
        | {"decode_overhead": file.decode_overhead.model_dump()},
    )


def _link(section: LinkSection) -> Link:
    return Link(section.latency_s, section.bandwidth_bytes_per_s, section.source)
