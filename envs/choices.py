"""The choices for a request: one candidate placement per row, with what the router predicts of each.

A choice set says which placements there are:

- "pairs": every pair of a node that prefills and a node that decodes, equal ones included, so that any node can do
  either job or both.
- "deflection": the paper's (arXiv 2607.02043): each prefill node, with the least loaded decode node to decode on, and
  each decode node, which then prefills and decodes.

Of the nodes of one role, only `SHORTLIST` are candidates for each job: for the prefill those with the fewest prompt
tokens to compute before and with this prompt, of equals those with fewer unfinished requests; for the decode those with
the fewest unfinished requests; then the lower index. A cluster with more nodes therefore has no more than `SHORTLIST`
times two candidates for each job, and a decision costs the same on 16P16D as on 4P4D. A shortlisted prefill candidate
can always decode the request itself.
"""

from collections.abc import Sequence
from functools import cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from envs.cluster import Placement, RequestView, RouterView
from envs.outlook import DecodeOutlook, PrefillOutlook, decode_outlook, prefill_outlook
from hardware_profiles import InputError

ChoiceSet = Literal["pairs", "deflection"]
CHOICE_SETS: tuple[str, ...] = get_args(ChoiceSet)

SHORTLIST = 4
"""Nodes of one role that are candidates for one job."""

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def check_choice_set(name: str) -> None:
    """Raise InputError if there is no such choice set."""
    if name not in CHOICE_SETS:
        raise InputError(f"choices {name!r} is none of {', '.join(CHOICE_SETS)}")


def most_choices(choice_set: ChoiceSet, prefill_nodes: int, decode_nodes: int) -> int:
    """The largest number of choices on a cluster of so many nodes."""
    candidates = min(prefill_nodes, SHORTLIST) + min(decode_nodes, SHORTLIST)
    if choice_set == "deflection":
        return candidates
    unpruned = prefill_nodes <= SHORTLIST and decode_nodes <= SHORTLIST
    return candidates**2 + (0 if unpruned else candidates)


class Choices:
    """The choices for one request, in rows; row i pairs a candidate for its prefill with one for its decode.

    Attributes:
        request: the request.
        view: the router's view that the choices were made from.
        prefill: candidates for the prefill.
        decode: candidates for the decode.
        prefill_index: (C,) position in `prefill` of each row's candidate.
        decode_index: (C,) position in `decode` of each row's.
        same_node: (C,) whether both are one node.
        transfer_s: (C,) predicted KV transfer, seconds; 0 on one node.
        ttft_s: (C,) predicted TTFT, seconds.
        keeps_roles: (C,) whether a prefill node prefills and a decode node decodes.
        feasible: (C,) whether the row may be chosen; see `of`.
        best_ttft_s: the smallest predicted TTFT over the feasible rows, seconds.
    """

    __slots__ = (
        "best_ttft_s",
        "decode",
        "decode_index",
        "feasible",
        "keeps_roles",
        "prefill",
        "prefill_index",
        "request",
        "same_node",
        "transfer_s",
        "ttft_s",
        "view",
    )

    def __init__(
        self,
        request: RequestView,
        view: RouterView,
        prefill: list[PrefillOutlook],
        decode: list[DecodeOutlook],
        prefill_index: IntArray,
        decode_index: IntArray,
    ) -> None:
        self.request = request
        self.view = view
        self.prefill = prefill
        self.decode = decode
        self.prefill_index = prefill_index
        self.decode_index = decode_index
        topology = view.topology
        hosts = topology.hosts

        # The prompt's prefill; and what follows it if the KV stays, moves within a host, or moves between hosts.
        sources = np.array([(one.node, hosts[one.node], one.queue_s, one.execution_s) for one in prefill])
        targets = np.array([self._after_prefill(one) for one in decode])
        from_node, from_host, queue_s, execution_s = sources[prefill_index].T
        to_node, to_host, room_s, join_s, step_s, near_s, far_s = targets[decode_index].T
        self.same_node = same_node = from_node == to_node
        self.transfer_s = transfer_s = np.where(same_node, 0.0, np.where(from_host == to_host, near_s, far_s))
        # A prompt that decodes elsewhere waits for room there once it is computed, another one before.
        here_s = np.maximum(queue_s, room_s) + execution_s
        elsewhere_s = np.maximum(queue_s + execution_s, room_s) + transfer_s + step_s
        self.ttft_s = np.where(same_node, here_s, elsewhere_s) + join_s

        self.feasible = feasible = np.array([one.slack_s >= 0.0 for one in prefill])[prefill_index]
        first_decode_node = topology.first_decode_node
        self.keeps_roles = keeps_roles = (from_node < first_decode_node) & (to_node >= first_decode_node)
        if not feasible.any():
            self.feasible = keeps_roles
        self.best_ttft_s = float(self.ttft_s[self.feasible].min())

    def _after_prefill(self, one: DecodeOutlook) -> tuple[float, ...]:
        topology = self.view.topology
        tokens = self.request.prompt_tokens - topology.whole_blocks(one.cached_tokens)
        near_s = topology.intra_node_transfer_s(tokens)
        far_s = topology.inter_node_transfer_s(tokens)
        return (one.node, topology.hosts[one.node], one.room_s, one.join_s, one.step_s, near_s, far_s)

    @classmethod
    def of(cls, request: RequestView, view: RouterView, choice_set: ChoiceSet, *, prefix: bool = True) -> "Choices":
        """The choices of a set for a request that has arrived now; `prefix`: count what prefix caches hold of it.

        A row is feasible unless its prefill is predicted to break what is promised to the requests that decode on that
        node. If no row is, those that keep the roles are: prefill on a prefill node, decode on a decode node. Lost
        nodes are in no row.
        """
        topology = view.topology
        requests = view.counters.decode_requests
        hits = [0] * topology.nodes
        if prefix and view.has_prefix_caches:
            hits = [view.prefix_hit_tokens(request, node) for node in range(topology.nodes)]
        sources = _sources(view, hits)
        listed = _deflections if choice_set == "deflection" else _pairs
        targets, prefill_index, decode_index = listed(view, sources)
        reports = {node: view.report(node) for node in dict.fromkeys((*sources, *targets))}
        least_requests = min([requests[node] for node in (*topology.prefill_nodes, *topology.decode_nodes)])
        return cls(
            request,
            view,
            [prefill_outlook(node, request, view, reports[node], hits[node]) for node in sources],
            [decode_outlook(node, request, view, reports[node], hits[node], least_requests) for node in targets],
            prefill_index,
            decode_index,
        )

    def __len__(self) -> int:
        return len(self.ttft_s)

    def soonest(self) -> int:
        """The feasible row with the least predicted TTFT; the first of equals."""
        return int(np.where(self.feasible, self.ttft_s, np.inf).argmin())

    def placement(self, row: int) -> Placement:
        """The placement that a row stands for."""
        source = self.prefill[self.prefill_index[row]]
        return Placement(source.node, self.decode[self.decode_index[row]].node, source.chunk_plan)


Listed = tuple[Sequence[int], IntArray, IntArray]
"""Candidates for the decode, and of each row the positions of its two candidates among those for prefill and decode."""


def _sources(view: RouterView, hits: list[int]) -> Sequence[int]:
    """Candidates for the prefill, prefill nodes first; `hits`: tokens of the prompt that each node has cached."""
    topology = view.topology
    work = [tokens - hit for tokens, hit in zip(view.counters.queued_prompt_tokens, hits, strict=True)]
    ties = view.counters.decode_requests
    return (*_least(topology.prefill_nodes, work, ties), *_least(topology.decode_nodes, work, ties))


def _deflections(view: RouterView, sources: Sequence[int]) -> Listed:
    """A row per candidate: a prefill node with the least loaded decode node, a decode node alone."""
    first_decode_node = view.topology.first_decode_node
    least = view.least_loaded_decode_node()
    targets = list(dict.fromkeys((least, *[node for node in sources if node >= first_decode_node])))
    decode_index = [targets.index(node) if node >= first_decode_node else 0 for node in sources]
    return targets, np.arange(len(sources)), np.array(decode_index)


def _pairs(view: RouterView, sources: Sequence[int]) -> Listed:
    """Every candidate for the prefill with every one for the decode, then with itself if it is none for the decode."""
    topology = view.topology
    requests = view.counters.decode_requests
    shared = (*_least(topology.prefill_nodes, requests), *_least(topology.decode_nodes, requests))
    prefill_index, decode_index = _grid(len(sources), len(shared))
    alone = [position for position, node in enumerate(sources) if node not in shared]
    if alone:
        prefill_index = np.concatenate((prefill_index, alone))
        decode_index = np.concatenate((decode_index, len(shared) + np.arange(len(alone))))
    return (*shared, *[sources[position] for position in alone]), prefill_index, decode_index


def _least(nodes: tuple[int, ...], values: list[int], ties: list[int] | None = None) -> tuple[int, ...]:
    """The `SHORTLIST` nodes with the least values, in order of their index; of equals by `ties`, then by index."""
    if len(nodes) <= SHORTLIST:
        return nodes
    second = ties if ties is not None else values
    return tuple(sorted(sorted(nodes, key=lambda node: (values[node], second[node], node))[:SHORTLIST]))


@cache
def _grid(rows: int, columns: int) -> tuple[IntArray, IntArray]:
    """Row and column of each cell of a grid, row by row."""
    return np.repeat(np.arange(rows), columns), np.tile(np.arange(columns), rows)
