"""Options of the cluster: its machines, links, engines and reports."""

from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields
from math import inf
from typing import Any, cast, get_args

from envs.cluster import ClusterConfig, Disturbance, parse_shape
from envs.cluster.config import StepBudget
from envs.cluster.disturbance import Kind
from experiments.options.parser import option
from hardware_profiles import InputError, load_profile
from hardware_profiles.errors import unknown_name

_ELSEWHERE = {"report_age_s", "step_budget", "shape", "profile"}  # have separate options
_PLAIN: dict[str, Any] = {
    one.name: one.default
    for one in fields(ClusterConfig)
    if one.name not in _ELSEWHERE and one.default is not MISSING and type(one.default) in (bool, int, float)
}
_PER_NODE: dict[str, Callable[[str], object]] = {
    "hosts": int,
    "nics": int,
    "node_profiles": load_profile,
    "node_speeds": float,
}
NAMES = (*_PLAIN, *_PER_NODE, "disturbances")
_HELP = (
    "fields of envs.cluster.ClusterConfig. One value: "
    + ", ".join(f"{name}={str(default).lower() if isinstance(default, bool) else default:}"
                for name, default in _PLAIN.items())
    + " (these are the defaults). One value per node: " + ", ".join(f"{name}=..." for name in _PER_NODE)
    + ", such as node_speeds=1,1,1,0.6. Failures that routers are not told of: "
    "disturbances=AT_S:KIND:NODES[:FACTOR], several separated by commas, KIND speed, link or loss, NODES an index, "
    "prefill, decode or all; 0:speed:prefill:0.8: prefill nodes are a fifth slower than policies predict"
)  # fmt: skip


@dataclass(frozen=True)
class ClusterOptions:
    """The cluster without its shape; `config` adds that."""

    profile: str = option("a100-qwen3-8b", metavar="P", help="hardware profile, name or path")
    connector: str | None = option(
        None, metavar="C", help="named connector instead of the profile's link between hosts, such as rdma"
    )
    step_budget: StepBudget = option(
        ClusterConfig.step_budget,
        choices=get_args(StepBudget),
        help="slo: engines bound each step's prompt tokens by the TBT SLO of its decodes; fixed: by the token budget "
        "alone, and deflected prompts follow the router's chunk plan",
    )
    report_age_ms: float = option(100.0, metavar="MS", help="age of node reports")
    cluster_option: tuple[str, ...] = option((), metavar="NAME=VALUE", help=_HELP)

    def __post_init__(self) -> None:
        if not 0 <= self.report_age_ms < inf:
            raise InputError(f"--report-age-ms {self.report_age_ms:g}: must be finite milliseconds, 0 or more")

    def about(self, *shapes: str) -> list[str]:
        """Lines of a report on the cluster in these shapes."""
        name = load_profile(self.profile).name
        return [
            f"cluster {' and '.join(shapes)} of {name}; step budget {self.step_budget}",
            f"node reports {self.report_age_ms:g} ms old",
        ]

    def config(self, shape: str) -> ClusterConfig:
        """The cluster in a shape. Raises InputError (a profile, connector, shape or option that there is not)."""
        profile = load_profile(self.profile)
        if self.connector is not None:
            profile = profile.with_connector(self.connector)
        return ClusterConfig(
            profile,
            shape=shape,
            report_age_s=self.report_age_ms / 1e3,
            step_budget=self.step_budget,
            **cluster_fields(self.cluster_option, shape),
        )


def cluster_fields(given: Sequence[str], shape: str) -> dict[str, Any]:
    """Read NAME=VALUE items as fields of ClusterConfig. Raises InputError (no such option, or a bad value)."""
    found: dict[str, Any] = {}
    for item in given:
        name, _, text = item.partition("=")
        if name not in NAMES:
            raise unknown_name("cluster option", name, NAMES)
        try:
            found[name] = _read(name, text, shape)
        except InputError as error:
            raise InputError(f"cluster option {name}: {error}") from None
        except (KeyError, TypeError, ValueError):
            raise InputError(f"cluster option {name}: must be {_form(name)}, not {text!r}") from None
    return found


def _read(name: str, text: str, shape: str) -> object:
    if name == "disturbances":
        return tuple([one for part in text.split(",") for one in _disturbances(part, shape)])
    if name in _PER_NODE:
        return tuple([_PER_NODE[name](part) for part in text.split(",")])
    kind = type(_PLAIN[name])
    return {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)


def _form(name: str) -> str:
    """The values of an option, in words."""
    if name == "disturbances":
        return "AT_S:KIND:NODES[:FACTOR], such as 0:speed:prefill:0.8"
    if name in _PER_NODE:
        return "a number for each node, as 1,1,2,2"
    kind = type(_PLAIN[name])
    return "true or false" if kind is bool else f"a number ({kind.__name__})"


def _disturbances(text: str, shape: str) -> list[Disturbance]:
    """One part of the option, for each node it names."""
    prefill, decode = parse_shape(shape)
    nodes = range(prefill + decode)
    groups = {"prefill": nodes[:prefill], "decode": nodes[prefill:], "all": nodes}
    at_s, kind, named, *factor = text.split(":")
    numbers = groups[named] if named in groups else [int(named)]
    return [Disturbance(float(at_s), cast(Kind, kind), node, *map(float, factor)) for node in numbers]
