"""Which pictures `experiments.reproduce` has data for, and what each of them shows."""

from collections.abc import Sequence
from pathlib import Path

from experiments.groups import BASE
from experiments.illustrate import Picture
from experiments.markdown import plain
from experiments.printed import counted, name
from experiments.reproduce import figures
from experiments.reproduce.ablations import variants
from experiments.reproduce.chunk_cost import CHUNKS, Decodes, curve_s
from experiments.reproduce.evidence import KAIROS, Evidence, Place, share
from experiments.reproduce.machine_claims import FLAT_S, STEEP_S
from experiments.reproduce.settings import Setting
from experiments.reproduce.tail_claims import EXECUTION_SHARE
from experiments.statistics import Floats, Interval


def draw_all(
    evidence: Evidence, machines: Sequence[Setting], families: Sequence[str], bursty: str, folder: Path
) -> dict[str, Picture]:
    """Draw everything.

    Args:
        evidence: what was found.
        machines: machines and links in the paper's shape.
        families: of the main cells.
        bursty: the family that has many loads.
        folder: where the PNG files go.

    Returns:
        Pictures by what they are of: "breakdown", "execution", "tails", "step", and "ablation " and its cluster.
    """
    seeds = counted(evidence.seeds, "seed")
    drawn = {"step": _step(machines, folder / "added_step_time.png")}
    if places := [place for place in evidence.main(machines, families) if place.load == evidence.shown_load]:
        drawn["breakdown"] = _breakdown(evidence, places, seeds, folder / "breakdown.png")
    swept = {setting: several for setting in machines if (several := evidence.by_load(setting, bursty))}
    if swept:
        drawn["execution"] = _execution(evidence, swept, seeds, folder / "execution_share.png")
        drawn["tails"] = _tails(evidence, swept, seeds, folder / "p95_by_load.png")
    for setting in swept:
        place = Place(setting, bursty, evidence.shown_load)
        if all(one.policy in evidence.groups.get(one.at(place), {}) for one in variants()):
            safe = "".join(char if char.isalnum() or char in "-_." else "_" for char in setting.machine)
            drawn[f"ablation {setting}"] = _ablation(evidence, place, seeds, folder / f"ablation-{safe}.png")
    return drawn


def _breakdown(evidence: Evidence, places: Sequence[Place], seeds: str, path: Path) -> Picture:
    parts_s: dict[str, dict[str, Floats]] = {}
    for place in places:
        parts_s.setdefault(place.setting.machine, {})[place.family] = evidence.groups[place][BASE].parts_s
    load = places[0].load
    figures.breakdown(parts_s, f"{BASE}, {places[0].setting.kind}, load {load:g}", path)
    return Picture(
        path,
        "parts of the P95 TTFT of static by machine and workload",
        f"Where the TTFT of {name(BASE)} goes around P95 at load {load:g}; in brackets that TTFT. Means of {seeds}.",
    )


def _execution(evidence: Evidence, swept: dict[Setting, list[Place]], seeds: str, path: Path) -> Picture:
    curves = {
        setting.machine: [(place.load, share(evidence.groups[place], BASE, "exec")) for place in places]
        for setting, places in swept.items()
    }
    family = next(iter(swept.values()))[0].family
    figures.shares_by_load(curves, EXECUTION_SHARE, f"{BASE}, {family}", path)
    return Picture(
        path,
        "share of prefill execution in the P95 TTFT of static by load",
        f"Prefill execution in the P95 TTFT of {name(BASE)} on {plain(family)}: queues grow with load, execution does "
        f"not. Means of {seeds}, bands of 95 %.",
    )


def _tails(evidence: Evidence, swept: dict[Setting, list[Place]], seeds: str, path: Path) -> Picture:
    panels: dict[str, dict[str, list[tuple[float, Interval]]]] = {}
    for setting, places in swept.items():
        for label, rule in ((BASE, BASE), (KAIROS, KAIROS), ("kairos-tuned", evidence.tuned[setting])):
            curve = [(place.load, evidence.groups[place][rule].estimate("ttft_p95_s")) for place in places]
            panels.setdefault(setting.machine, {})[label] = curve
    family = next(iter(swept.values()))[0].family
    figures.tails_by_load(panels, family, path)
    return Picture(
        path,
        "P95 TTFT by load of static and kairos",
        f"P95 TTFT by load on {plain(family)}; a load is a multiple of the knee of {name(BASE)} on that machine. Means "
        f"of {seeds}, bands of 95 %.",
    )


def _step(machines: Sequence[Setting], path: Path) -> Picture:
    decodes = Decodes()
    curves_s = {one.profile: curve_s(one.config.profile.law, decodes) for one in machines}
    claimed = [
        (f"claimed: at most {1e3 * FLAT_S:.0f} ms up to 512", FLAT_S),
        (f"claimed: over {1e3 * STEEP_S:.0f} ms at 2048", STEEP_S),
    ]
    beside = f"beside {decodes.batch} decodes of {decodes.context_tokens} tokens"
    figures.added_step_time(CHUNKS, curves_s, claimed, f"a prefill chunk {beside}", path)
    return Picture(
        path,
        "what a prefill chunk adds to a decode step by its tokens",
        f"What a chunk without context adds to a step {beside} of context each (our choice), by each profile's law.",
    )


def _ablation(evidence: Evidence, place: Place, seeds: str, path: Path) -> Picture:
    bars: dict[str, list[tuple[str, Interval, Interval]]] = {}
    for one in variants():
        runs = evidence.groups[one.at(place)][one.policy]
        bar = (one.value, runs.estimate("ttft_p95_s"), runs.estimate("slo_attainment"))
        bars.setdefault(one.knob, []).append(bar)
    base = evidence.groups[place][BASE]
    figures.ablation_bars(
        bars,
        (base.mean("ttft_p95_s"), base.mean("slo_attainment")),
        f"{place.family}, load {place.load:g}, {place.setting}",
        path,
    )
    return Picture(
        path,
        f"P95 TTFT and SLO attainment of variants of kairos on {place.setting}",
        f"One knob of {name(KAIROS)} at a time, and prompts deflected at random; dark is the default. Means of {seeds} "
        "with 95 % intervals.",
    )
