"""A placement: the value that policies return and that actions of the environment stand for."""

from collections.abc import Sequence
from typing import NamedTuple

from hardware_profiles.errors import InputError


class Placement(NamedTuple):
    """The nodes that prefill and decode a request.

    Attributes:
        prefill_node: node that prefills. It equals `decode_node` for a deflected request, whose KV is not transferred.
        decode_node: node that decodes.
        chunk_plan: tokens of each successive chunk; the last size is repeated if the plan ends before the prompt.
            Empty: the engine chooses the chunks.
        split_tokens: if above 0, only this many first tokens are prefilled on `prefill_node`; their KV moves to
            `decode_node`, which prefills the rest in the chunks of the plan. 0: the prompt is not split.
    """

    prefill_node: int
    decode_node: int
    chunk_plan: tuple[int, ...] = ()
    split_tokens: int = 0


def checked_placement(answer: object, policy: str, request: int, nodes: int) -> Placement:
    """Check the value that a policy returned for a request.

    Args:
        answer: the returned value, which is not None.
        policy: name of the policy.
        request: the request's number.
        nodes: nodes of the cluster.

    Raises:
        InputError: the answer is not a `Placement`, a node is not an int from 0 to `nodes` - 1, or another field has
            the wrong type.
    """
    if isinstance(answer, Placement):
        fields: Sequence[object] = answer  # a field may hold anything, whatever its annotation says
        prefill_node, decode_node, chunk_plan, split_tokens = fields
        if (
            type(prefill_node) is int  # a bool is an int, too
            and type(decode_node) is int
            and 0 <= prefill_node < nodes
            and 0 <= decode_node < nodes
            and (not chunk_plan or (type(chunk_plan) is tuple and all(type(each) is int for each in chunk_plan)))
            and type(split_tokens) is int
        ):
            return answer
    raise InputError(
        f"policy {policy} returned {answer!r} for request {request}; place must return None or a Placement of ints:"
        f" nodes from 0 to {nodes - 1}, a chunk_plan that is a tuple of ints, and split_tokens"
    )


def prefill_then_decode(prefill_node: int, decode_node: int) -> Placement:
    """`Placement(prefill_node, decode_node)` in a third of the time, because a router makes one per request."""
    return tuple.__new__(Placement, (prefill_node, decode_node, (), 0))
