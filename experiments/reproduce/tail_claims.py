"""Claims about where the P95 TTFT of a scheduler without deflection goes."""

from collections.abc import Sequence

import numpy as np

from envs.cluster import Topology
from experiments.groups import BASE
from experiments.markdown import code
from experiments.printed import percent, share_of
from experiments.reproduce.claims import Claim, within
from experiments.reproduce.evidence import Evidence, Place, crossing, share
from experiments.reproduce.settings import Setting

EXECUTION_SHARE = (0.02, 0.23)
SMALL_WAIT = 0.05
"""A decode wait below this share of P95 TTFT is none to speak of; ours."""


def tail_claims(evidence: Evidence, settings: Sequence[Setting], family: str) -> list[Claim]:
    """The share of execution, and what the rest is: two rows a machine and link.

    Args:
        evidence: what was found.
        settings: machines and links.
        family: whose tail is taken apart.
    """
    found = []
    for setting in settings:
        places = evidence.main([setting], [family])
        if places:
            found += [_execution(evidence, setting, places), _rest(evidence, places)]
    return found


def _execution(evidence: Evidence, setting: Setting, places: Sequence[Place]) -> Claim:
    shares = {place.load: share(evidence.groups[place], BASE, "exec") for place in places}
    agrees = within(list(shares.values()), *EXECUTION_SHARE)
    return Claim(
        f"prefill execution is 2 to 23 % of P95 TTFT ({setting.machine}, {places[0].family})",
        "; ".join(f"load {load:g}: {share_of(interval)} %" for load, interval in shares.items()),
        agrees,
        "" if agrees == "yes" else why_execution(evidence, places),
    )


def why_execution(evidence: Evidence, places: Sequence[Place]) -> str:
    """Why execution is a larger share: at which load it is not, and what the requests in the tail are."""
    setting, family, _ = places[0]
    curve = [(one.load, share(evidence.groups[one], BASE, "exec").value) for one in evidence.by_load(setting, family)]
    most = EXECUTION_SHARE[1]
    load = crossing(curve, most)
    where = f"at most {percent(most)} % from load {load:.2f} on" if load is not None else "more at every load tried"
    at = max(places, key=lambda place: share(evidence.groups[place], BASE, "exec").value)
    runs = evidence.groups[at][BASE]
    names = ("tail_prompt_tokens", "prompt_tokens")
    tail, mean = (float(np.mean([getattr(out.tally, name) for out in runs.outcomes])) for name in names)
    return (
        f"queues grow with load, execution does not: {where}. At load {at.load:g} prompts around P95 have {tail:,.0f} "
        f"tokens, {tail / mean:.1f} times the mean, and their execution takes {1e3 * runs.parts_s[1]:,.0f} ms"
    )


def _rest(evidence: Evidence, places: Sequence[Place]) -> Claim:
    """At the load that stands for all."""
    place = next(one for one in places if one.load == evidence.shown_load)
    group = evidence.groups[place]
    queue, transfer, wait = (share(group, BASE, part) for part in ("queue", "transfer", "decode_wait"))
    small = wait.value <= SMALL_WAIT
    return Claim(
        f"queueing and KV transfer are the rest of it ({place.setting.machine}, {place.family})",
        f"load {place.load:g}: queue {share_of(queue)} %, transfer {share_of(transfer)} %, decode wait "
        f"{share_of(wait)} %",
        "yes" if small else "no",
        contention(evidence, place) if small else f"requests of {code(BASE)} wait for a decode slot",
    )


def contention(evidence: Evidence, place: Place) -> str:
    """How much of the transfer around P95 the link would take for it alone."""
    runs = evidence.groups[place][BASE]
    topology = Topology(place.setting.config)
    tokens = float(np.mean([out.tally.tail_prompt_tokens for out in runs.outcomes]))
    alone_s = topology.transfer_s(topology.prefill_nodes[0], topology.decode_nodes[0], round(tokens))
    transfer_s = float(runs.parts_s[2])
    beyond = max(0.0, 1.0 - alone_s / transfer_s) if transfer_s else 0.0
    return (
        f"a prompt of {tokens:,.0f} tokens takes the link {1e3 * alone_s:,.0f} ms alone, and {1e3 * transfer_s:,.0f} "
        f"ms around P95: {percent(beyond)} % of that is waiting for other transfers, for room or for a step to end"
    )
