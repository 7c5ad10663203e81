"""The picture of `experiments.capacity`: policies by splits, coloured by goodput per GPU."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from experiments.capacity.report import Capacity, named
from experiments.drawing import save
from experiments.printed import label

_GAP = 0.35  # between clusters of different sizes, in cells


def heat_map(found: Sequence[Capacity], title: str, path: Path) -> None:
    """Goodput per GPU, a row a policy and a column a split; the best of a split is bold.

    Args:
        found: every policy on every split.
        title: what was run.
        path: the PNG file to write.
    """
    rows = named(found)
    splits = list(dict.fromkeys(one.split for one in found))
    value = {(one.policy, one.split): one.per_gpu_rps.value for one in found}
    sizes = {one.split: one.nodes for one in found}
    lefts: list[float] = []
    for i, split in enumerate(splits):
        gap = _GAP if i and sizes[split] != sizes[splits[i - 1]] else 0.0
        lefts.append(lefts[-1] + 1 + gap if i else 0.0)
    top = max(value.values())
    figure = Figure(figsize=(2.6 + 0.62 * len(splits), 1.6 + 0.42 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    mesh = None
    for left, split in zip(lefts, splits, strict=True):
        column = np.array([[value[policy, split]] for policy in rows])
        mesh = axes.pcolormesh([left, left + 1], range(len(rows) + 1), column, vmin=0, vmax=top, cmap="viridis")
        for row, shown in enumerate(column[:, 0]):
            dark = shown < 0.6 * top
            weight = "bold" if shown == column.max() else "normal"
            axes.annotate(
                f"{shown:.2f}",
                (left + 0.5, row + 0.5),
                ha="center",
                va="center",
                fontsize=8,
                color="white" if dark else "black",
                weight=weight,
            )
    assert mesh is not None
    figure.colorbar(mesh, ax=axes, label="goodput (req/s/GPU)", pad=0.01)
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xticks([left + 0.5 for left in lefts], splits, rotation=45)
    axes.set_yticks([row + 0.5 for row in range(len(rows))], [label(policy) for policy in rows])
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    save(figure, path)
