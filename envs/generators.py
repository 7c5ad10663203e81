"""Workload families: requests generated from a seed at a given mean rate.

| family        | arrivals                                          | prompt tokens          | output tokens  |
|---------------|---------------------------------------------------|------------------------|----------------|
| LPLD          | Poisson                                           | low: 1-512             | low: 1-128     |
| LPHD          | Poisson                                           | low: 1-512             | high: 129-2048 |
| HPLD          | Poisson                                           | high: 513-16384        | low: 1-128     |
| HPHD          | Poisson                                           | high: 513-16384        | high: 129-2048 |
| burst         | ON/OFF, bursts of 24 requests at 3x the mean rate | heavy-tailed, to 32768 | moderate       |
| spike         | Poisson, 1.6x the rate in the middle third        | as burst               | as burst       |
| azure-code    | ON/OFF, fitted to Azure code 2023                 | fitted, to 7437        | fitted         |
| mooncake-conv | two-state MMPP, fitted to Mooncake conversations  | fitted, to 32768       | fitted         |

The boundaries between low and high, 512 and 128 tokens, are from the literature. The distributions are not from a
paper: lognormals with medians of 200 (low prompt), 2048 (high prompt), 48 (low output) and 384 (high output) tokens,
truncated at the bounds. burst and spike are not from a paper either: prompts with a median of 900 tokens and a Pareto
tail of index 1.3 above 4096, and outputs with a median of 128, so that prefill is the bottleneck. The fitted families
are fitted to whole public traces. Mooncake's prompts reach 126195 tokens and are clipped at 32768 by default.

The rate only compresses time: (family, seed) determines the lengths and the pattern of arrivals, so runs at two loads
have the same requests, in bursts of the same number of requests. A longer run begins with the shorter one, except for
spike, whose middle third depends on the length of the run.

By default all requests have the same SLOs (envs.slos). The TTFT SLO of mooncake-conv grows by 0.25 s per 1,000 prompt
tokens, because a prompt of 30,000 tokens cannot meet 2 s; this default is not from a paper.
"""

from dataclasses import dataclass
from math import inf, log

import numpy as np

from envs.arrivals import ArrivalProcess, GammaRenewal, Mmpp, OnOff, surge
from envs.lengths import Lengths, LogNormal, ParetoTail
from envs.slos import DEFAULT_SLOS, MOONCAKE_TTFT_PER_1K_TOKENS_S, Slos
from envs.streams import stream
from envs.workload import FloatArray, Workload
from hardware_profiles.errors import InputError

# Default limit on prompts: any node's KV cache should hold several such prompts.
MAX_PROMPT_TOKENS = 32768
# Longer outputs are too rare in the traces for the fits to be valid.
MAX_OUTPUT_TOKENS = 8192
_MAX_REQUESTS = 10_000_000

_GAPS, _INTENSITY, _PROMPTS, _OUTPUTS = range(4)  # keys of the streams

_LOW_PROMPT_TOKENS, _LOW_OUTPUT_TOKENS = 512, 128
_LOW_PROMPT = Lengths((LogNormal(log(200), 0.7),), up_to=_LOW_PROMPT_TOKENS)
_HIGH_PROMPT = Lengths((LogNormal(log(2048), 0.8),), above=_LOW_PROMPT_TOKENS, up_to=16384)
_LOW_OUTPUT = Lengths((LogNormal(log(48), 0.7),), up_to=_LOW_OUTPUT_TOKENS)
_HIGH_OUTPUT = Lengths((LogNormal(log(384), 0.6),), above=_LOW_OUTPUT_TOKENS, up_to=2048)
_LONG_TAILED_PROMPT = Lengths((LogNormal(log(900), 1.0),), tail=ParetoTail(4096, 1.3, 32768))
_MODERATE_OUTPUT = Lengths((LogNormal(log(128), 0.7),), up_to=1024)

_POISSON = GammaRenewal()


@dataclass(frozen=True)
class _Family:
    """A family: arrivals (and their description in the label), lengths, and the rate's factor in the middle third.

    `ttft_per_1k_tokens_s` is the default of the family's SLOs.
    """

    arrivals: ArrivalProcess
    arrivals_say: str
    prompt: Lengths
    output: Lengths
    surge: float = 1.0
    fitted: bool = False
    ttft_per_1k_tokens_s: float = 0.0


_FAMILIES = {
    "LPLD": _Family(_POISSON, "Poisson arrivals", _LOW_PROMPT, _LOW_OUTPUT),
    "LPHD": _Family(_POISSON, "Poisson arrivals", _LOW_PROMPT, _HIGH_OUTPUT),
    "HPLD": _Family(_POISSON, "Poisson arrivals", _HIGH_PROMPT, _LOW_OUTPUT),
    "HPHD": _Family(_POISSON, "Poisson arrivals", _HIGH_PROMPT, _HIGH_OUTPUT),
    # In units of the mean gap: a burst lasts 8 at rate 3, and bursts take a third of the time.
    "burst": _Family(
        Mmpp((3.0, 0.0), (8.0, 16.0)),
        "ON/OFF arrivals (bursts of 24 requests on average, at 3x the mean rate)",
        _LONG_TAILED_PROMPT,
        _MODERATE_OUTPUT,
    ),
    "spike": _Family(_POISSON, "Poisson arrivals", _LONG_TAILED_PROMPT, _MODERATE_OUTPUT, surge=1.6),
    "azure-code": _Family(
        OnOff(on_s=12.8, off_log_mean=2.88, off_log_sd=1.19, burst_rps=9.58, burst_log_sd=0.5, gap_shape=0.36),
        "ON/OFF arrivals fitted to Azure code 2023",
        Lengths((LogNormal(5.54, 1.32, 0.31), LogNormal(7.65, 0.72, 0.69)), cap=7437),
        Lengths((LogNormal(2.37, 0.38, 0.66), LogNormal(3.60, 0.90, 0.34)), cap=MAX_OUTPUT_TOKENS),
        fitted=True,
    ),
    "mooncake-conv": _Family(
        Mmpp((2.84, 3.71), (44.0, 83.0)),
        "MMPP arrivals fitted to Mooncake conversations",
        Lengths(
            (LogNormal(6.81, 0.02, 0.095), LogNormal(8.94, 1.08, 0.905)),
            tail=ParetoTail(17_900, 1.51, 126_195),
        ),
        Lengths((LogNormal(4.03, 1.62, 0.34), LogNormal(6.01, 0.35, 0.66)), cap=MAX_OUTPUT_TOKENS),
        fitted=True,
        ttft_per_1k_tokens_s=MOONCAKE_TTFT_PER_1K_TOKENS_S,
    ),
}


def families() -> tuple[str, ...]:
    """Return the names of the families that can be generated."""
    return tuple(_FAMILIES)


def slos_of_family(name: str, slos: Slos = DEFAULT_SLOS) -> Slos:
    """Return `slos` with the family's default for values that they leave open.

    Raises:
        InputError: the family is unknown.
    """
    return slos.with_default(_family(name).ttft_per_1k_tokens_s)


def generate(
    name: str,
    *,
    rate_rps: float,
    requests: int | None = None,
    duration_s: float | None = None,
    seed: int,
    slos: Slos = DEFAULT_SLOS,
    max_prompt_tokens: int = MAX_PROMPT_TOKENS,
) -> Workload:
    """Generate a workload of a family; the same arguments give the same bytes.

    Args:
        name: one of `families()`.
        rate_rps: mean rate, requests per second, exact in expectation; for spike, the rate outside its middle third.
        requests: number of requests; give either this or `duration_s`.
        duration_s: all requests that arrive in [0, duration_s), seconds.
        seed: 0 or more.
        slos: SLOs of the requests; see `slos_of_family`.
        max_prompt_tokens: longer prompts are clipped to it.

    Raises:
        InputError: the family is unknown, an argument is out of range, or no request arrives in duration_s.
    """
    family = _family(name)
    _check(rate_rps, requests, duration_s)
    if max_prompt_tokens <= family.prompt.above:
        raise InputError(f"max_prompt_tokens {max_prompt_tokens}: must be above {family.prompt.above} for {name}")
    arrival_s = _arrivals(family, rate_rps, requests, duration_s, seed)
    if not arrival_s.size:
        raise InputError(f"{name} at {rate_rps:g} req/s: no request arrives in {duration_s:g} s with seed {seed}")
    workload = Workload.of(
        arrival_s,
        family.prompt.draw(len(arrival_s), stream(seed, _PROMPTS), cap=max_prompt_tokens),
        family.output.draw(len(arrival_s), stream(seed, _OUTPUTS)),
        label=_label(name, family, rate_rps, max_prompt_tokens, seed),
    )
    return slos_of_family(name, slos).apply(workload, seed)


def _family(name: str) -> _Family:
    if name not in _FAMILIES:
        raise InputError(f"unknown workload {name!r}; known: {', '.join(families())}")
    return _FAMILIES[name]


def _check(rate_rps: float, requests: int | None, duration_s: float | None) -> None:
    if not (0 < rate_rps < inf):
        raise InputError(f"rate {rate_rps:g} req/s: must be a finite number above 0")
    if (requests is None) == (duration_s is None):
        raise InputError("a workload needs either a number of requests or a duration, not both")
    if requests is not None and not (1 <= requests <= _MAX_REQUESTS):
        raise InputError(f"{requests} requests: must be from 1 to {_MAX_REQUESTS}")
    if duration_s is not None and not (0 < duration_s <= _MAX_REQUESTS / rate_rps):
        raise InputError(
            f"duration {duration_s:g} s at {rate_rps:g} req/s: must be above 0, for at most {_MAX_REQUESTS} requests"
        )


def _arrivals(
    family: _Family, rate_rps: float, requests: int | None, duration_s: float | None, seed: int
) -> FloatArray:
    mean_factor = (2 + family.surge) / 3  # mean over the thirds of the run

    def first(count: int, span: float) -> FloatArray:
        times_s = family.arrivals.times_s(count, stream(seed, _GAPS), stream(seed, _INTENSITY))
        # From seconds of the process to mean gaps, and then to seconds at the given rate.
        times = times_s * family.arrivals.mean_rate_rps
        return (times if family.surge == 1 else surge(times, family.surge, span)) / rate_rps

    if requests is not None:
        return first(requests, requests / mean_factor)
    assert duration_s is not None
    span = duration_s * rate_rps
    count = int(1.2 * span * mean_factor) + 100
    while (arrival_s := first(count, span))[-1] < duration_s:
        count *= 2
    return arrival_s[: np.searchsorted(arrival_s, duration_s)]


def _label(name: str, family: _Family, rate_rps: float, max_prompt_tokens: int, seed: int) -> str:
    parts = [f"{name}: {family.arrivals_say} at {rate_rps:.3g} req/s"]
    if family.surge != 1:
        parts.append(f"{family.surge:g}x that in the middle third")
    if family.fitted:
        factor = rate_rps / family.arrivals.mean_rate_rps
        did = "compressed" if factor >= 1 else "stretched"
        parts.append(f"time {did} x{max(factor, 1 / factor):.3g} from the fit")
    longest = family.prompt.longest
    clipped = max_prompt_tokens < longest
    parts.append(f"prompts clipped to {max_prompt_tokens}" if clipped else f"prompts of at most {longest:.0f}")
    return f"{', '.join(parts)} tokens, seed {seed}"
