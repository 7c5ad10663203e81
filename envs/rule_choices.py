"""Which rows simple rules would choose, so that a learned policy can follow a rule without computing it from loads."""

from math import inf

from mypy_extensions import mypyc_attr

from envs.choices import Choices


@mypyc_attr(acyclic=True, free_list_len=1)
class RuleChoices:
    """The rows that simple rules would choose; of nodes that are tied, each has its rows.

    Attributes:
        static: rows that keep the roles, with the fewest queued prompt tokens of the prefill nodes and the fewest
            unfinished requests of the decode nodes.
        colocated: rows whose one node has the fewest prompt tokens to prefill, this prompt's uncached tokens included,
            then the fewest unfinished requests.
        lmetric: rows whose one node has the least product of these tokens and of its unfinished requests plus one.
        deflection: rows of the choice set "deflection": a prefill node with the decode node that has the fewest
            unfinished requests, or a decode node alone.
        best_deflection_s: the smallest predicted TTFT of the feasible rows among these, seconds; inf without one.
        best_keeping_s: the same of the feasible rows that keep the roles.
    """

    __slots__ = ("best_deflection_s", "best_keeping_s", "colocated", "deflection", "lmetric", "static")

    def __init__(self, choices: Choices) -> None:
        pairing = choices.pairing
        prompt_tokens = choices.request.prompt_tokens
        fewest_tokens = fewest_requests = inf  # of prefill nodes, and of decode nodes
        least_load = least_product = (inf, inf)
        loads: list[tuple[float, float]] = []
        products: list[tuple[float, float]] = []
        for source in choices.prefill:
            if not source.is_decode_node and float(source.queued_tokens) < fewest_tokens:
                fewest_tokens = float(source.queued_tokens)
            tokens = float(source.queued_tokens + prompt_tokens - source.cached_tokens)
            load = (tokens, float(source.decode_requests))
            product = (tokens * (source.decode_requests + 1.0), tokens)
            loads.append(load)
            products.append(product)
            if load < least_load:
                least_load = load
            if product < least_product:
                least_product = product
        for target in choices.decode:
            if target.is_decode_node and float(target.decode_requests) < fewest_requests:
                fewest_requests = float(target.decode_requests)
        self.static: list[bool] = []
        self.colocated: list[bool] = []
        self.lmetric: list[bool] = []
        self.deflection: list[bool] = []
        best_deflection_s = inf
        for row, position in enumerate(pairing.prefill_index):
            source = choices.prefill[position]
            target = choices.decode[pairing.decode_index[row]]
            same = pairing.same_node[row]
            to_least = choices.keeps_roles(row) and float(target.decode_requests) == fewest_requests
            deflection = same if source.is_decode_node else to_least
            self.static.append(to_least and float(source.queued_tokens) == fewest_tokens)
            self.colocated.append(same and loads[position] == least_load)
            self.lmetric.append(same and products[position] == least_product)
            self.deflection.append(deflection)
            if deflection and choices.feasible[row] and choices.ttft_s[row] < best_deflection_s:
                best_deflection_s = choices.ttft_s[row]
        self.best_deflection_s = best_deflection_s
        keeping = choices.soonest(keeping_roles=True)
        self.best_keeping_s = choices.ttft_s[keeping] if keeping >= 0 else inf
