"""What several commands ask for in the same words: the cluster, the SLOs, seeds and processes."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from math import inf
from typing import get_args

from envs.cluster import ClusterConfig
from envs.cluster.config import StepBudget
from envs.generators import families
from envs.slos import MOONCAKE_TTFT_PER_1K_TOKENS_S, SloClass, Slos
from envs.workload import TBT_SLO_S, TTFT_SLO_S
from experiments import executors
from experiments.cluster_options import cluster_options
from hardware_profiles import InputError, load_profile

_ONE_FOR_ALL = ("ttft_slo", "tbt_slo", "ttft_slo_per_1k_tokens")
SLO_ARGUMENTS = (*_ONE_FOR_ALL, "slo_class")
"""The arguments of `add_slos`, by name."""


def add_slos(parser: ArgumentParser) -> None:
    """--ttft-slo, --tbt-slo, --ttft-slo-per-1k-tokens, and --slo-class instead of these; `slos` reads them."""
    add = parser.add_argument
    add("--ttft-slo", type=float, metavar="S", help=f"seconds (default {TTFT_SLO_S:g})")
    add("--tbt-slo", type=float, metavar="S", help=f"seconds (default {TBT_SLO_S:g})")
    add(
        "--ttft-slo-per-1k-tokens",
        type=float,
        metavar="S",
        help="seconds that each 1,000 prompt tokens add to the TTFT SLO "
        f"(default 0; {MOONCAKE_TTFT_PER_1K_TOKENS_S:g} for mooncake-conv and for traces in mooncake format)",
    )
    add(
        "--slo-class",
        nargs="+",
        action="extend",
        metavar="SHARE:TTFT:TBT[:TTFT_PER_1K]",
        help="classes of requests with separate SLOs, instead of the three above; such as 0.3:1:0.05 0.7:10:0.2",
    )


def slos(args: Namespace) -> Slos:
    """The SLOs that the arguments of `add_slos` describe.

    Raises:
        InputError: an argument out of range, one that is no class, or both classes and SLOs for all.
    """
    named = [name for name in _ONE_FOR_ALL if getattr(args, name) is not None]
    if args.slo_class:
        if named:
            raise InputError(f"{option(named[0])} goes without --slo-class only, which states all SLOs of a class")
        try:
            return Slos(tuple([_slo_class(given) for given in args.slo_class]))
        except InputError as error:
            raise InputError(f"--slo-class {' '.join(args.slo_class)}: {error}") from None
    check_positive(args, *[name for name in ("ttft_slo", "tbt_slo") if name in named])
    added_s = args.ttft_slo_per_1k_tokens
    if added_s is not None and not 0 <= added_s < inf:
        raise InputError(f"--ttft-slo-per-1k-tokens {added_s:g}: must be finite seconds, 0 or more")
    ttft_s = TTFT_SLO_S if args.ttft_slo is None else args.ttft_slo
    return Slos.of(ttft_s, TBT_SLO_S if args.tbt_slo is None else args.tbt_slo, added_s)


def _slo_class(given: str) -> SloClass:
    try:
        share, ttft_s, tbt_s, *added_s = map(float, given.split(":"))
    except ValueError:
        added_s = [0.0, 0.0]
    if len(added_s) > 1:
        raise InputError(f"{given!r} is not of the form SHARE:TTFT:TBT or SHARE:TTFT:TBT:TTFT_PER_1K, in numbers")
    return SloClass(ttft_s, tbt_s, added_s[0] if added_s else None, share)


def add_cluster(parser: ArgumentParser) -> None:
    """--profile, --connector, --step-budget, --cluster-option and --report-age-ms; no shape."""
    add = parser.add_argument
    add("--profile", default="a100-qwen3-8b", metavar="P", help="hardware profile, name or path (default %(default)s)")
    add("--connector", metavar="C", help="named connector in place of the profile's link between hosts, such as rdma")
    add(
        "--cluster-option", nargs="+", default=[], metavar="NAME=VALUE", help="such as kv_streaming=true; ClusterConfig"
    )
    add_step_budget(parser)
    add("--report-age-ms", type=float, default=100.0, metavar="MS", help="age of node reports (default %(default)g)")


def add_step_budget(parser: ArgumentParser) -> None:
    """--step-budget."""
    parser.add_argument(
        "--step-budget",
        choices=get_args(StepBudget),
        default=ClusterConfig.step_budget,
        help="slo: engines bound each step's prompt tokens by the TBT SLO of its decodes; fixed: by the token budget "
        "alone, and deflected prompts follow the router's chunk plan (default %(default)s)",
    )


def add_executor(parser: ArgumentParser) -> None:
    """--executor and --jobs."""
    add = parser.add_argument
    add("--executor", choices=executors.EXECUTORS, default="local", help="where runs go (default %(default)s)")
    add("--jobs", type=int, metavar="N", help="runs at a time (default 1; with ray twice the cluster's cores)")


def check_executor(args: Namespace) -> None:
    """Raise InputError where the arguments of `add_executor` ask for what is not to be had."""
    if args.jobs is not None:
        check_counts(args, "jobs")
    executors.check(args.executor)


def cluster(args: Namespace, shape: str) -> ClusterConfig:
    """The cluster that the arguments of `add_cluster` describe, in a shape.

    Raises:
        InputError: an argument that cannot be.
    """
    profile = load_profile(args.profile)
    if args.connector is not None:
        profile = profile.with_connector(args.connector)
    if not 0 <= args.report_age_ms < inf:
        raise InputError(f"--report-age-ms {args.report_age_ms:g}: must be finite milliseconds, 0 or more")
    age_s = args.report_age_ms / 1e3
    options = cluster_options(args.cluster_option, shape)
    return ClusterConfig(profile, shape=shape, report_age_s=age_s, step_budget=args.step_budget, **options)


def check_counts(args: Namespace, *names: str) -> None:
    """Raise InputError where one of these arguments is not at least 1."""
    for name in names:
        if getattr(args, name) < 1:
            raise InputError(f"{option(name)} {getattr(args, name)}: must be at least 1")


def check_positive(args: Namespace, *names: str) -> None:
    """Raise InputError where one of these arguments, a number or several, is not finite and above 0."""
    for name in names:
        given = getattr(args, name)
        for value in given if isinstance(given, list) else [given]:
            if not 0 < value < inf:
                raise InputError(f"{option(name)} {value:g}: must be a finite number above 0")


def option(name: str) -> str:
    """How an argument is typed."""
    return "--" + name.replace("_", "-")


def check_families(named: Sequence[str]) -> None:
    """Raise InputError where one of these is no workload family."""
    for family in named:
        if family not in families():
            raise InputError(f"unknown workload {family!r}; known: {', '.join(families())}")
