"""The steps that `calibrate` fits and holds out, for each source of step times: estimator, readings or composite."""

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hardware_profiles.composite import NOT_MEASURED, Composite, CompositeFile
from hardware_profiles.connectors import Link, system_links
from hardware_profiles.errors import InputError
from hardware_profiles.estimator import LIBRARY, Estimator
from hardware_profiles.readings import Readings, read_readings
from hardware_profiles.step_sources import Kind, Step, StepSource
from hardware_profiles.steps import KINDS, draw, draw_description, grid, grid_description

HELD_OUT_STEPS = 2000
HELD_OUT_SEED = 20261121


class Plan(NamedTuple):
    """Everything in a profile that depends on the source of step times.

    Attributes:
        source: the source of step times.
        fitted: the steps to fit.
        held_out: the steps to test the law on.
        provenance: the parts of the profile's provenance that depend on the source.
        model: model identifier.
        kv_bytes_per_token: KV bytes per token over all GPUs.
        kv_capacity_tokens: tokens that fit.
        links: the profile's links, "inter_node" and "intra_node".
    """

    source: StepSource
    fitted: Mapping[Kind, Sequence[Step]]
    held_out: Mapping[Kind, Sequence[Step]]
    provenance: dict[str, Any]
    model: str
    kv_bytes_per_token: int
    kv_capacity_tokens: int
    links: dict[str, Link]


def _draws(kinds: Sequence[Kind], kv_capacity_tokens: int) -> tuple[dict[Kind, list[Step]], dict[str, Any]]:
    """Draw held-out steps of each kind, and describe them for the profile."""
    rng = np.random.default_rng(HELD_OUT_SEED)
    steps = {kind: draw(kind, HELD_OUT_STEPS, kv_capacity_tokens, rng) for kind in kinds}
    return steps, {"steps_of_each_kind": HELD_OUT_STEPS, "seed": HELD_OUT_SEED, "drawn": draw_description()}


def plan_estimator(args: argparse.Namespace) -> Plan:
    """Plan a calibration by aiconfigurator-core, which has times for any step.

    Raises:
        InputError: the library is not installed, or cannot serve the model on the system.
    """
    estimator = Estimator(args.model, args.system, args.backend, args.tp)
    kv = estimator.kv_size()
    fitted = grid(kv.capacity_tokens)
    held_out, drawn = _draws(KINDS, kv.capacity_tokens)
    links = system_links(args.system) or estimator.data_sheet_links()
    return Plan(
        source=estimator,
        fitted=fitted,
        held_out=held_out,
        provenance={
            "nature": "measured kernels of this GPU, interpolated and added up by the library",
            "library": LIBRARY,
            "library_version": estimator.library_version,
            "backend": args.backend,
            "backend_version": estimator.backend_version,
            "tp": args.tp,
            "grid": grid_description(fitted),
            "kv_capacity": kv.how,
            "held_out": drawn,
        },
        model=args.model,
        kv_bytes_per_token=kv.bytes_per_token,
        kv_capacity_tokens=kv.capacity_tokens,
        links={end: link.times(args.tp) for end, link in links.items()},
    )


def plan_readings(args: argparse.Namespace) -> Plan:
    """Plan a calibration by a file: a composite's formula, which has times for any step, or measured steps.

    Raises:
        InputError: the file is invalid, or the options do not fit it.
    """
    file = read_readings(args.readings)
    capacity = args.kv_capacity_tokens
    capacity_source = args.kv_capacity_source
    if capacity is None:
        capacity = None if isinstance(file, CompositeFile) else file.kv_capacity_tokens
        capacity_source = f"{args.readings.name}"
        if capacity is None:
            raise InputError(f"{args.readings}: no kv_capacity_tokens; give --kv-capacity-tokens")
    links = system_links(args.system)
    if links is None:
        raise InputError(f"no measured links of system {args.system!r} in links.toml")
    if args.model not in (None, file.model):
        raise InputError(f"{args.readings}: readings of {file.model}, not of {args.model}")
    provenance: dict[str, Any] = {
        "library": f"readings file {args.readings.name}",
        "library_version": f"sha256 {hashlib.sha256(args.readings.read_bytes()).hexdigest()[:16]}",
        "tp": file.tp,
        "kv_capacity": capacity_source,
    }
    source: StepSource
    fitted: dict[Kind, list[Step]]
    held_out: dict[Kind, list[Step]]
    if isinstance(file, CompositeFile):
        source = Composite(file, args.anchor, args.anchor_batch)
        fitted = {"prefill": grid(capacity)["prefill"]}  # its mixed steps are the sum of their parts
        held_out, drawn = _draws(("prefill", "decode", "mixed"), capacity)
        nature = f"{NOT_MEASURED}: {file.kind}"
        if args.anchor:
            anchors = ", ".join(f"{tokens} tokens {seconds * 1e3:g} ms" for tokens, seconds in args.anchor)
            nature += f"; then anchored: next to {args.anchor_batch} decodes a chunk without context adds: {anchors}"
            nature += f" ({args.anchor_source})"
        provenance |= {"nature": nature, "backend": args.backend, "backend_version": "as composed"}
        provenance |= {"grid": grid_description(fitted), "held_out": drawn}
    else:
        if args.anchor:
            raise InputError(f"{args.readings}: --anchor is for composite files, but this one holds measured steps")
        source = Readings(file)
        fitted = {kind: file.fitted.of_kind(kind) for kind in ("prefill", "mixed")}
        held_out = {kind: file.held_out.of_kind(kind) for kind in ("prefill", "decode", "mixed")}
        least = min(len(group) for group in held_out.values())
        if not least:
            raise InputError(f"{args.readings}: held_out.steps must hold prefill, decode and mixed steps")
        provenance |= {"nature": file.nature, "backend": file.software, "backend_version": file.software_version}
        batches, contexts = len(file.decode.sequences), len(file.decode.context_tokens)
        counts = ", ".join(f"{len(group)} {kind}" for kind, group in fitted.items())
        read = f"{len(file.prefill.tokens)} single prompts, {batches} batches at {contexts} contexts, {counts} steps"
        provenance |= {"grid": read, "held_out": {"steps_of_each_kind": least, "drawn": file.command}}
    return Plan(
        source=source,
        fitted=fitted,
        held_out=held_out,
        provenance=provenance,
        model=file.model,
        kv_bytes_per_token=file.kv_bytes_per_token,
        kv_capacity_tokens=capacity,
        links={end: link.times(file.tp) for end, link in links.items()},
    )
