"""Links by name and the default links of each system, from links.toml."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hardware_profiles.errors import InputError

_FILE = Path(__file__).parent / "links.toml"


@dataclass(frozen=True, slots=True)
class Link:
    """A link between two engines; moving n bytes over it alone takes latency_s + n / bandwidth_bytes_per_s.

    Attributes:
        latency_s: seconds before the first byte arrives.
        bandwidth_bytes_per_s: bytes per second after that.
        source: where latency and bandwidth were measured.
    """

    latency_s: float
    bandwidth_bytes_per_s: float
    source: str

    def times(self, gpus: int) -> "Link":
        """The link of a group of GPUs, each of which sends its shard over a link like this one."""
        if gpus == 1:
            return self
        source = f"{self.source}; times {gpus} GPUs, each sending its shard"
        return Link(self.latency_s, self.bandwidth_bytes_per_s * gpus, source)


def connector_names() -> list[str]:
    """Names of the links that `load_connector` knows, fastest first."""
    links = _file()["links"]
    return sorted(links, key=lambda name: -float(links[name]["bandwidth_bytes_per_s"]))


def load_connector(name: str) -> Link:
    """Load the link between two GPUs that the connector of this name uses.

    Raises:
        InputError: there is no such connector; the message lists those that exist.
    """
    links = _file()["links"]
    if name not in links:
        raise InputError(f"no connector named {name!r}; there are {', '.join(connector_names())}")
    return Link(**links[name])


def system_links(system: str) -> dict[str, Link] | None:
    """The measured links "inter_node" and "intra_node" of one GPU of a system; None if there are none."""
    names: dict[str, str] | None = _file()["systems"].get(system)
    return None if names is None else {end: load_connector(name) for end, name in names.items()}


def _file() -> dict[str, Any]:
    return tomllib.loads(_FILE.read_text(encoding="utf-8"))
