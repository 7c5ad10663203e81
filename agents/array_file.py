"""Files of arrays and metadata: one `.npz` without pickled objects. Reading one runs no code."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hardware_profiles.files import replacing


def write_arrays(path: Path, metadata: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write a file, atomically; the metadata are JSON values."""
    with replacing(path) as temporary, temporary.open("wb") as opened:
        np.savez_compressed(opened, allow_pickle=False, metadata=np.array(json.dumps(metadata)), **arrays)


def read_arrays(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The metadata and the arrays of a file. Raises exceptions of many types if it is missing or damaged."""
    # Opened here, because np.load does not close a damaged file that it opened.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    if damaged := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
        raise ValueError(f"{damaged[0]} is not an array")  # NumPy returns a damaged member as bytes
    return json.loads(str(arrays.pop("metadata"))), arrays
