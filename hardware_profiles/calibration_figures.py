"""A figure of a step law's accuracy: modelled against measured step times, and errors by kind of step."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # writes files without a display

import matplotlib.pyplot as plt
import numpy as np

from hardware_profiles.held_out import HeldOut
from hardware_profiles.step_sources import Kind

# Colours and markers that differ in grey and for colour-blind readers (Okabe and Ito).
_LOOKS: dict[Kind, tuple[str, str]] = {
    "prefill": ("#0072B2", "o"),
    "decode": ("#E69F00", "s"),
    "mixed": ("#009E73", "^"),
    "averaged": ("#CC79A7", "x"),
}


def draw_errors(name: str, source: str, kinds: Mapping[Kind, HeldOut], path: Path) -> None:
    """Write the figure to `path` (PNG); `source` names what the law is compared with, e.g. "measured"."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    for kind, held_out in kinds.items():
        colour, marker = _LOOKS[kind]
        look = {"color": colour, "marker": marker, "s": 12, "alpha": 0.6, "linewidths": 0.8}
        measured_ms = held_out.measured_s * 1e3
        left.scatter(measured_ms, held_out.law_s * 1e3, **look, label=f"{kind} ({len(measured_ms)})")
        right.scatter(measured_ms, held_out.error * 100, **look)
    all_ms = np.concatenate([held_out.measured_s for held_out in kinds.values()]) * 1e3
    ends_ms = (all_ms.min() * 0.8, all_ms.max() * 1.25)
    left.plot(ends_ms, ends_ms, color="0.4", linewidth=0.8, zorder=0)
    left.set(xscale="log", yscale="log", xlim=ends_ms, ylim=ends_ms)
    left.set(xlabel=f"{source} step, ms", ylabel="modelled step, ms")
    left.legend(title="kind (steps)", frameon=False)
    right.axhline(0.0, color="0.4", linewidth=0.8, zorder=0)
    right.set(xscale="log", xlabel=f"{source} step, ms", ylabel=f"modelled minus {source}, %")
    figure.suptitle(f"{name}: steps held out of the fit")
    figure.savefig(path, dpi=130)
    plt.close(figure)
