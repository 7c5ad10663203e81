"""Invalid input, as every test of it expects it: an error of one line, and nothing written."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hardware_profiles import InputError


@contextmanager
def refused(*says: str, out: Path | None = None) -> Iterator[None]:
    """The body raises an InputError of one line that contains these texts, and `out` does not exist afterwards."""
    with pytest.raises(InputError) as error:
        yield
    for text in says:
        assert text in str(error.value)
    assert "\n" not in str(error.value)
    assert out is None or not out.exists()
