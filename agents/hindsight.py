"""Hindsight: what other policies would have done with the recent requests, by simulation on a model of the cluster.

A router knows the requests that it has placed, the output lengths of those that have finished, and the configuration of
the cluster. It can therefore simulate the recent past under any policy. All policies get the same requests, so their
differences contain no noise from arrivals. The model of the cluster is exact except for disturbances
(`ClusterConfig.disturbances`), which a router does not know; that of a real router would be less exact.
"""

from collections import deque
from collections.abc import Callable, Sequence
from math import isnan, log, sqrt
from typing import NamedTuple

import numpy as np

from envs.cluster import Cluster, ClusterConfig, Policy, RequestRecord, RequestView, RouterView, Topology
from envs.cluster.play import play
from envs.workload import Row

SPAN_S = 30.0
LEAST_REQUESTS, MOST_REQUESTS = 2000, 6000
"""A simulation has the requests of the last SPAN_S seconds, within these limits; if there are fewer, they are repeated,
because a queue must have time to grow. Not from a paper."""
SECONDS_PER_REQUEST = 25e-6
"""Time that a simulation takes per request and policy, seconds; measured on one core for 2P2D."""
_DRAIN_S = 30.0  # simulated after the last arrival; requests that have not finished by then count as they are
_NEVER_S = 1e6  # the TTFT of a request without a first token
_OUTPUT_TOKENS = 128  # of a request, while none has finished
_GOLDEN = (sqrt(5.0) - 1.0) / 2.0
_OTHER_HASHES = 1 << 48  # added to the block hashes of repeated requests


class Hindsight(NamedTuple):
    """The results of M policies for the same N requests.

    Attributes:
        ttft_s: (M, N) TTFT, seconds; _NEVER_S without a first token.
        missed: (M, N) whether the request missed one of its SLOs.
    """

    ttft_s: np.ndarray
    missed: np.ndarray


class History:
    """The latest MOST_REQUESTS requests that a router has placed."""

    def __init__(self) -> None:
        self._requests: deque[RequestView] = deque(maxlen=MOST_REQUESTS)

    def __len__(self) -> int:
        return len(self._requests)

    def span_s(self, now_s: float) -> float:
        """Time since the first of them arrived, seconds."""
        return now_s - self._requests[0].arrival_s if self._requests else 0.0

    def unfinished_share(self, view: RouterView) -> float:
        """Share of the requests whose output length is not known yet."""
        finishes = view.counters.finishes
        return sum([one.number not in finishes for one in self._requests]) / len(self._requests)

    def add(self, request: RequestView) -> None:
        """Remember a request."""
        self._requests.append(request)

    def rows(self, view: RouterView) -> list[Row]:
        """Requests to simulate: the recent ones, repeated as often as needed, from time 0 on.

        The output lengths of requests that have not finished are estimated.

        Args:
            view: knows the output lengths of finished requests.
        """
        rate_rps = len(self._requests) / self.span_s(view.now_s)
        size = min(MOST_REQUESTS, max(LEAST_REQUESTS, int(rate_rps * SPAN_S)))
        requests, outputs = list(self._requests)[-size:], self._output_tokens(view)[-size:]
        first_s = requests[0].arrival_s
        span_s = (view.now_s - first_s) * (len(requests) + 1) / len(requests)
        rows: list[Row] = []
        for number in range(size):
            around, index = divmod(number, len(requests))
            request = requests[index]
            arrival_s = request.arrival_s - first_s + around * span_s
            hashes = tuple([one + around * _OTHER_HASHES for one in request.block_hashes])
            slos = request.ttft_slo_s, request.tbt_slo_s
            rows.append((arrival_s, request.prompt_tokens, outputs[index], *slos, hashes))
        return rows

    def _output_tokens(self, view: RouterView) -> list[int]:
        """The output length of each request, or a likely one.

        Short outputs finish first, so the lengths of finished requests alone would be too short. The survival function
        of lengths is estimated from finished requests and from what the others have generated so far (Kaplan and Meier
        1958); the length of a request that has not finished is a quantile of the part beyond what it has generated.
        """
        finishes = view.counters.finishes
        known = [(*finishes[one.number], one.arrival_s) for one in self._requests if one.number in finishes]
        spent_s = sum([finish_s - arrival_s for _, finish_s, arrival_s in known])
        tokens_per_s = sum([tokens for tokens, _, _ in known]) / spent_s if spent_s > 0.0 else 0.0
        tokens = np.array(
            [
                finishes[one.number][0] if one.number in finishes else (view.now_s - one.arrival_s) * tokens_per_s
                for one in self._requests
            ]
        )
        finished = np.array([one.number in finishes for one in self._requests])
        if not finished.any():
            return [_OUTPUT_TOKENS] * len(tokens)
        order = np.lexsort((~finished, tokens))
        at_risk = np.arange(len(tokens), 0, -1)
        survival = np.cumprod(1.0 - finished[order] / at_risk)
        lengths = tokens[order]
        mean_left = tokens.sum() / finished.sum()  # beyond the longest: exponential, at the mean hazard
        found = tokens.copy()
        for index in np.flatnonzero(~finished):
            position = int(np.searchsorted(lengths, tokens[index], side="right")) - 1
            # A fixed sequence with equal shares everywhere in (0, 1), instead of a random stream.
            share = 1.0 - (self._requests[index].number + 0.5) * _GOLDEN % 1.0
            wanted = share * survival[position]
            at = int(np.searchsorted(-survival, -wanted))
            found[index] = lengths[at] if at < len(lengths) else lengths[-1] - log(wanted / survival[-1]) * mean_left
        return [max(1, int(one)) for one in found]


def at_rate(rows: Sequence[Row], factor: float) -> list[Row]:
    """Requests that arrive at `factor` times their rate."""
    return [(row[0] / factor, *row[1:]) for row in rows]


class LookBack(NamedTuple):
    """Simulations to do, picklable: the same requests under several policies.

    Attributes:
        at_rates: the requests, once for each rate at which they arrive.
        members: which policies, by their number among the members of a portfolio.
        config: the cluster, which is empty at first.
        lost: nodes that are lost.
    """

    at_rates: Sequence[Sequence[Row]]
    members: Sequence[int]
    config: ClusterConfig
    lost: frozenset[int] = frozenset()

    @property
    def requests(self) -> int:
        """Number of requests, summed over policies and rates."""
        return sum(map(len, self.at_rates)) * len(self.members)

    def run(self, fresh: Callable[[int], Policy]) -> list[Hindsight]:
        """Simulate; the result has one item per rate. `fresh` makes a member that has placed nothing yet."""
        topology = Topology(self.config)
        for node in self.lost:
            topology.lose(node)
        return [simulated(rows, topology, [fresh(one) for one in self.members]) for rows in self.at_rates]


def simulated(rows: Sequence[Row], topology: Topology, policies: Sequence[Policy]) -> Hindsight:
    """Simulate requests under each policy, on an empty cluster.

    Args:
        rows: the requests.
        topology: of the cluster.
        policies: in a state from which they can start; the simulation changes it.
    """
    ttft_s = np.full((len(policies), len(rows)), _NEVER_S)
    missed = np.ones((len(policies), len(rows)), dtype=bool)
    for index, policy in enumerate(policies):
        records: list[RequestRecord] = []
        cluster = Cluster(topology.config, records.append, topology=topology.copy())
        play(cluster, list(rows), policy.place, policy.name, cluster.clock.advance_to, None)
        cluster.clock.advance_to(cluster.clock.now + _DRAIN_S)
        cluster.settle()
        records += [request.record() for request in cluster.lifecycle.in_flight.values()]
        for record in records:
            if not isnan(record.first_token_s):
                number = record.request
                ttft_s[index, number] = waited_s = record.first_token_s - record.arrival_s
                missed[index, number] = waited_s > rows[number][3] or record.tbt_max_s > rows[number][4]
    return Hindsight(ttft_s, missed)
