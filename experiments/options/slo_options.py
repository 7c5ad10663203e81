"""Options of the SLOs."""

from dataclasses import dataclass
from math import inf

from envs.slos import MOONCAKE_TTFT_PER_1K_TOKENS_S, SloClass, Slos
from envs.workload import TBT_SLO_S, TTFT_SLO_S
from experiments.options.parser import check_positive, flag, option
from hardware_profiles import InputError

_LONGEST_S = {"ttft_slo": 600.0, "tbt_slo": 10.0}
"""Above these the number was meant in milliseconds."""


@dataclass(frozen=True)
class SloOptions:
    """SLOs of all requests, or classes of requests with separate SLOs."""

    ttft_slo: float | None = option(None, metavar="S", help=f"seconds (default {TTFT_SLO_S:g})")
    tbt_slo: float | None = option(None, metavar="S", help=f"seconds (default {TBT_SLO_S:g})")
    ttft_slo_per_1k_tokens: float | None = option(
        None,
        metavar="S",
        help="seconds that each 1,000 prompt tokens add to the TTFT SLO "
        f"(default 0; {MOONCAKE_TTFT_PER_1K_TOKENS_S:g} for mooncake-conv and for traces in mooncake format)",
    )
    slo_class: tuple[str, ...] = option(
        (),
        metavar="SHARE:TTFT:TBT[:TTFT_PER_1K]",
        help="classes of requests with separate SLOs, instead of the three above; such as 0.3:1:0.05 0.7:10:0.2:0.5 "
        "(TTFT_PER_1K: 0 if left out)",
    )

    def __post_init__(self) -> None:
        named = [name for name in ("ttft_slo", "tbt_slo", "ttft_slo_per_1k_tokens") if getattr(self, name) is not None]
        if self.slo_class and named:
            raise InputError(f"{flag(named[0])} goes without --slo-class only, which states all SLOs of a class")
        check_positive(self, "ttft_slo", "tbt_slo")
        for name, longest_s in _LONGEST_S.items():
            given = getattr(self, name)
            if given is not None and given > longest_s:
                raise InputError(f"{flag(name)} {given:g}: is in seconds; {given:g} ms is {given / 1e3:g}")
        added_s = self.ttft_slo_per_1k_tokens
        if added_s is not None and not 0 <= added_s < inf:
            raise InputError(f"--ttft-slo-per-1k-tokens {added_s:g}: must be finite seconds, 0 or more")
        self.slos()

    def slos(self) -> Slos:
        """The SLOs. Raises InputError (a class out of range, or text that is no class)."""
        if self.slo_class:
            try:
                return Slos(tuple([_slo_class(given) for given in self.slo_class]))
            except InputError as error:
                raise InputError(f"--slo-class {' '.join(self.slo_class)}: {error}") from None
        ttft_s = TTFT_SLO_S if self.ttft_slo is None else self.ttft_slo
        return Slos.of(ttft_s, TBT_SLO_S if self.tbt_slo is None else self.tbt_slo, self.ttft_slo_per_1k_tokens)


def _slo_class(given: str) -> SloClass:
    try:
        numbers = [float(part) for part in given.split(":")]
    except ValueError:
        numbers = []
    if not 3 <= len(numbers) <= 4:
        raise InputError(f"{given!r} is not of the form SHARE:TTFT:TBT or SHARE:TTFT:TBT:TTFT_PER_1K, in numbers")
    share, ttft_s, tbt_s, *added_s = numbers
    return SloClass(ttft_s, tbt_s, sum(added_s), share)
