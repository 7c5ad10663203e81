"""The figure of `experiments.capacity`: policies by splits, coloured by goodput per GPU."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from envs.cluster import parse_shape
from experiments.reports.figures import style
from experiments.reports.formatting import label
from policies import PolicySpec


def heat_map(values: Mapping[tuple[PolicySpec, str], float], title: str) -> Figure:
    """Goodput per GPU of each policy (row) on each split (column), with a gap between sizes; bold: best of a split."""
    policies, splits = (list(dict.fromkeys(names)) for names in zip(*values, strict=True))
    rates_rps = np.array([[values[policy, split] for split in splits] for policy in policies])
    sizes = [sum(parse_shape(split)) for split in splits]
    gaps = [column for column, (left, right) in enumerate(pairwise(sizes), 1) if left != right]
    figure = Figure(figsize=(2.6 + 0.62 * len(splits), 1.6 + 0.42 * len(policies)), layout="constrained")
    axes = figure.add_subplot()
    texts = [[f"{rate_rps:.2f}" for rate_rps in line] for line in rates_rps]
    image = style.heat_map(axes, rates_rps, Normalize(0, rates_rps.max()), "viridis", texts, gaps)
    for text, best in zip(axes.texts, (rates_rps == rates_rps.max(axis=0)).flat, strict=True):
        text.set(fontsize=8, fontweight="bold" if best else "normal")
    figure.colorbar(image, ax=axes, label="goodput (req/s/GPU)", pad=0.01)
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xticks(range(len(splits)), splits, rotation=45)
    axes.set_yticks(range(len(policies)), map(label, policies))
    return figure
