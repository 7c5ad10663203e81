"""Python's garbage collection, tuned for simulations."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def rare_garbage_collection() -> Iterator[None]:
    """Run the cyclic garbage collector rarely: simulations create few cycles, and the default rate costs 3 to 10 %."""
    usual = gc.get_threshold()
    gc.set_threshold(1_000_000, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)
