"""What every figure does alike."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hardware_profiles.files import replacing

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""The palette of Okabe and Ito, safe for colour-blind readers."""


def save(figure: Figure, path: Path) -> None:
    """Write a PNG file; equal pictures give equal bytes."""
    with replacing(path) as temporary:
        # No software version in the file, or a newer matplotlib would change it.
        figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})


def plain(axes: Axes) -> None:
    """A faint grid behind, and no frame but the two axes."""
    axes.grid(alpha=0.3, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def text_colour(background: Sequence[float]) -> str:
    """The colour of text that can be read on a background (red, green, blue from 0 to 1)."""
    red, green, blue = background[:3]
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
