"""The choices for a request: one candidate placement per row, with the router's predictions for it.

A choice set defines the candidate placements:

- "pairs": every pair of a prefilling node and a decoding node, including pairs of one node with itself, so that any
  node can do either job or both.
- "deflection": the choices of arXiv 2607.02043: each prefill node, with the least loaded decode node for the decode;
  and each decode node, which then does both jobs.

Of the nodes of one role, only `SHORTLIST` are candidates for each job. For the prefill these are the nodes with the
fewest prompt tokens to compute, this prompt included, and on a tie with the fewest unfinished requests; for the decode,
the nodes with the fewest unfinished requests; the last tie-breaker is the lower index. Larger clusters therefore have
at most 2 * `SHORTLIST` candidates for each job, and a decision on 16P16D takes as long as on 4P4D. A shortlisted
prefill candidate can always decode the request itself.
"""

from functools import lru_cache
from math import inf
from typing import Literal, get_args

from envs.cluster import Placement, RequestView, RouterView
from envs.outlook import DecodeOutlook, PrefillOutlook
from envs.prediction import NodeSteps
from hardware_profiles import InputError

ChoiceSet = Literal["pairs", "deflection"]
CHOICE_SETS: tuple[str, ...] = get_args(ChoiceSet)

SHORTLIST = 4
"""Nodes of one role that are candidates for one job."""


def check_choice_set(name: str) -> None:
    """Raise InputError if there is no such choice set."""
    if name not in CHOICE_SETS:
        raise InputError(f"choices {name!r} is not one of {', '.join(CHOICE_SETS)}")


def most_choices(choice_set: ChoiceSet, prefill_nodes: int, decode_nodes: int) -> int:
    """The largest number of choices on a cluster with these numbers of nodes."""
    candidates = min(prefill_nodes, SHORTLIST) + min(decode_nodes, SHORTLIST)
    if choice_set == "deflection":
        return candidates
    unpruned = prefill_nodes <= SHORTLIST and decode_nodes <= SHORTLIST
    return candidates**2 + (0 if unpruned else candidates)


class Pairing:
    """The candidates that each row pairs, as positions instead of nodes, so that few objects serve all decisions.

    Attributes:
        prefill_index: position of each row's candidate for the prefill.
        decode_index: position of each row's candidate for the decode.
        same_node: whether both candidates are the same node.
    """

    __slots__ = ("decode_index", "prefill_index", "same_node")

    def __init__(self, prefill_index: list[int], decode_index: list[int], same_node: list[bool]) -> None:
        self.prefill_index = prefill_index
        self.decode_index = decode_index
        self.same_node = same_node


class Choices:
    """The choices for one request. Row i pairs a candidate for the prefill with a candidate for the decode.

    Attributes:
        request: the request.
        view: the router's view that the choices were made from.
        prefill: candidates for the prefill.
        decode: candidates for the decode.
        pairing: the two candidates of each row.
        transfer_s: predicted KV transfer of each row, seconds; 0 if one node does both jobs.
        ttft_s: predicted TTFT of each row, seconds.
        feasible: whether each row may be chosen; see `of`.
        best_ttft_s: the smallest predicted TTFT over the feasible rows, seconds.
    """

    __slots__ = (
        "best_ttft_s",
        "decode",
        "feasible",
        "pairing",
        "prefill",
        "request",
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
        pairing: Pairing,
    ) -> None:
        self.request = request
        self.view = view
        self.prefill = prefill
        self.decode = decode
        self.pairing = pairing
        topology = view.topology
        hosts = topology.hosts
        near_s: list[float] = []
        far_s: list[float] = []
        for target in decode:
            tokens = request.prompt_tokens - topology.whole_blocks(target.cached_tokens)
            near_s.append(topology.intra_node_transfer_s(tokens))
            far_s.append(topology.inter_node_transfer_s(tokens))
        self.transfer_s: list[float] = []
        self.ttft_s: list[float] = []
        self.feasible: list[bool] = []
        best_ttft_s = inf
        decode_index = pairing.decode_index
        same_node = pairing.same_node
        for row, position in enumerate(pairing.prefill_index):
            source = prefill[position]
            at = decode_index[row]
            target = decode[at]
            transfer_s = 0.0
            # A prompt that decodes on another node waits for room there after its prefill; one that stays waits before.
            if same_node[row]:
                ttft_s = max(source.queue_s, target.room_s) + source.execution_s
            else:
                transfer_s = near_s[at] if hosts[source.node] == hosts[target.node] else far_s[at]
                ttft_s = max(source.queue_s + source.execution_s, target.room_s) + transfer_s + target.step_s
            ttft_s += target.join_s
            feasible = source.slack_s >= 0.0
            if feasible and ttft_s < best_ttft_s:
                best_ttft_s = ttft_s
            self.transfer_s.append(transfer_s)
            self.ttft_s.append(ttft_s)
            self.feasible.append(feasible)
        if best_ttft_s == inf:
            self.feasible = [self.keeps_roles(row) for row in range(len(self.ttft_s))]
            best_ttft_s = self.ttft_s[self.soonest()]
        self.best_ttft_s = best_ttft_s

    @classmethod
    def of(cls, request: RequestView, view: RouterView, choice_set: ChoiceSet, *, prefix: bool = True) -> "Choices":
        """The choices of a set for a request that has arrived now.

        A row is feasible unless its prefill is predicted to break the TBT limit of the requests that decode on that
        node. If no row passes this test, the rows that keep the roles are feasible. Lost nodes are in no row.

        Args:
            request: the request.
            view: the cluster.
            choice_set: the set.
            prefix: use the contents of prefix caches in the predictions.
        """
        topology = view.topology
        hits = [0] * topology.nodes
        if prefix and view.has_prefix_caches:
            hits = [view.prefix_hit_tokens(request, node) for node in range(topology.nodes)]
        sources = _sources(view, hits)
        if choice_set == "deflection":
            least = view.least_loaded_decode_node()
            targets = [least] + [node for node in sources if topology.decodes[node] and node != least]
            pairing = _deflections(_positions(sources, targets))
        else:
            targets = _targets(view)
            positions = _positions(sources, targets)
            pairing = _pairs(len(targets), positions)
            targets += [sources[source] for source, position in enumerate(positions) if position < 0]
        requests = view.counters.decode_requests
        least_requests = requests[sources[0]]
        for node in topology.live_nodes:
            if requests[node] < least_requests:
                least_requests = requests[node]
        prefill: list[PrefillOutlook] = []
        decode: list[DecodeOutlook] = []
        same = sources == targets  # the usual case: both outlooks of a node share its report
        for node in sources:
            report = view.report(node)
            steps = NodeSteps(topology, node, report)
            prefill.append(PrefillOutlook(node, request, view, report, steps, hits[node]))
            if same:
                decode.append(DecodeOutlook(node, request, view, report, steps, hits[node], least_requests))
        if not same:
            for node in targets:
                report = view.report(node)
                steps = NodeSteps(topology, node, report)
                decode.append(DecodeOutlook(node, request, view, report, steps, hits[node], least_requests))
        return Choices(request, view, prefill, decode, pairing)

    def __len__(self) -> int:
        return len(self.ttft_s)

    def keeps_roles(self, row: int) -> bool:
        """Whether a row prefills on a prefill node and decodes on a decode node."""
        pairing = self.pairing
        source = self.prefill[pairing.prefill_index[row]]
        return not source.is_decode_node and self.decode[pairing.decode_index[row]].is_decode_node

    def feasible_rows(self) -> list[int]:
        """The rows that may be chosen."""
        return [row for row, feasible in enumerate(self.feasible) if feasible]

    def soonest(self, *, keeping_roles: bool = False) -> int:
        """The first feasible row with the least predicted TTFT; -1 if there is none.

        Args:
            keeping_roles: consider only rows that prefill on a prefill node and decode on a decode node.
        """
        best = -1
        best_s = inf
        for row, ttft_s in enumerate(self.ttft_s):
            if self.feasible[row] and (best < 0 or ttft_s < best_s) and (not keeping_roles or self.keeps_roles(row)):
                best = row
                best_s = ttft_s
        return best

    def placement(self, row: int) -> Placement:
        """The placement of a row."""
        source = self.prefill[self.pairing.prefill_index[row]]
        placement = (source.node, self.decode[self.pairing.decode_index[row]].node, source.chunk_plan, 0)
        return tuple.__new__(Placement, placement)  # skips NamedTuple.__new__, a Python function


def _sources(view: RouterView, hits: list[int]) -> list[int]:
    """Candidates for the prefill, prefill nodes first; `hits` are the prompt tokens that each node has cached."""
    topology = view.topology
    counters = view.counters
    if len(topology.prefill_nodes) <= SHORTLIST and len(topology.decode_nodes) <= SHORTLIST:
        return list(topology.prefill_nodes + topology.decode_nodes)
    work = [tokens - hit for tokens, hit in zip(counters.queued_prompt_tokens, hits, strict=True)]
    ties = counters.decode_requests
    return _least(topology.prefill_nodes, work, ties) + _least(topology.decode_nodes, work, ties)


def _targets(view: RouterView) -> list[int]:
    """Candidates for the decode of any prompt, prefill nodes first."""
    topology = view.topology
    requests = view.counters.decode_requests
    return _least(topology.prefill_nodes, requests, requests) + _least(topology.decode_nodes, requests, requests)


def _least(nodes: tuple[int, ...], values: list[int], ties: list[int]) -> list[int]:
    """The `SHORTLIST` nodes with the least values, ordered by index; ties are broken by `ties`, then by index."""
    if len(nodes) <= SHORTLIST:
        return list(nodes)
    ranked = sorted([(values[node], ties[node], node) for node in nodes])
    return sorted([node for _, _, node in ranked[:SHORTLIST]])


def _positions(sources: list[int], targets: list[int]) -> tuple[int, ...]:
    """Position of each prefill candidate among the decode candidates; -1 if it is not one."""
    if sources == targets:
        return tuple(range(len(sources)))
    return tuple([targets.index(node) if node in targets else -1 for node in sources])


@lru_cache(1024)
def _pairs(shared: int, positions: tuple[int, ...]) -> Pairing:
    """Pair every prefill candidate with every decode candidate, and with itself if it is not a decode candidate.

    Args:
        shared: number of decode candidates that any prompt may use.
        positions: position of each prefill candidate among them; -1: it is not one.
    """
    prefill_index = [source for source in range(len(positions)) for _ in range(shared)]
    decode_index = list(range(shared)) * len(positions)
    same_node = [position == target for position in positions for target in range(shared)]
    alone = [source for source, position in enumerate(positions) if position < 0]
    decode_index += range(shared, shared + len(alone))
    return Pairing(prefill_index + alone, decode_index, same_node + [True] * len(alone))


@lru_cache(1024)
def _deflections(positions: tuple[int, ...]) -> Pairing:
    """Pair each prefill node with the first decode candidate, and each decode node with itself.

    Args:
        positions: position of each prefill candidate among the decode candidates; -1: it is a prefill node.
    """
    same_node = [position >= 0 for position in positions]
    return Pairing(list(range(len(positions))), [max(0, position) for position in positions], same_node)
