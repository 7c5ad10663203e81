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
        split_tokens: above 0: only that many first tokens are prefilled on `prefill_node`; their KV moves to
            `decode_node`, which prefills the rest, in the chunks of the plan. 0: the prompt is not split.
    """

    prefill_node: int
    decode_node: int
    chunk_plan: tuple[int, ...] = ()
    split_tokens: int = 0


def prefill_then_decode(prefill_node: int, decode_node: int) -> Placement:
    """`Placement(prefill_node, decode_node)` in a third of the time; a router makes one for every request."""
    return tuple.__new__(Placement, (prefill_node, decode_node, (), 0))
