"""A placement: the one value that every rule returns and every action decodes to."""

from typing import NamedTuple


class Placement(NamedTuple):
    """Where a request's prompt is prefilled and where it decodes.

    Attributes:
        prefill_node: node that prefills. Equal to `decode_node` for a deflected request: its KV is born where it is
            needed and nothing is transferred.
        decode_node: node that decodes.
        chunk_plan: tokens of each successive chunk; the last one serves for what remains beyond the plan. Empty: the
            engine's token budget alone decides.
    """

    prefill_node: int
    decode_node: int
    chunk_plan: tuple[int, ...] = ()
