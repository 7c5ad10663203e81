"""What every figure does alike."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hardware_profiles.files import replacing


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
