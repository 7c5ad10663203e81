"""Claims about the machine: what a chunk adds to a decode step, and how far step models are off."""

from collections.abc import Sequence

from experiments.reproduce.chunk_cost import CHUNKS, Decodes, curve_s
from experiments.reproduce.claims import Claim
from experiments.reproduce.settings import Setting

FLAT_S, FLAT_UP_TO = 0.030, 512
STEEP_S, STEEP_AT = 0.200, 2048
MODEL_ERROR_PERCENT = 10.0


def machine_claims(settings: Sequence[Setting]) -> list[Claim]:
    """Three rows a profile."""
    of_profile = {setting.profile: setting for setting in reversed(settings)}
    return [row for setting in reversed(of_profile.values()) for row in (_model_error(setting), *_added_step(setting))]


def _nature(setting: Setting) -> str:
    """What the numbers of a profile were made from."""
    return str(setting.config.profile.provenance.get("nature", "not said"))


def _model_error(setting: Setting) -> Claim:
    held_out = setting.config.profile.provenance.get("held_out") or {}
    suffix = "_mape_percent"
    errors = {name.removesuffix(suffix): error for name, error in held_out.items() if name.endswith(suffix)}
    within = [kind for kind, error in errors.items() if error < MODEL_ERROR_PERCENT]
    agrees = "yes" if errors and len(within) == len(errors) else f"for {', '.join(within)}" if within else "no"
    measured = _nature(setting).partition(";")[0]
    return Claim(
        f"analytical step models are off by less than 10 % on average ({setting.profile})",
        ", ".join(f"{kind} {error:.1f} %" for kind, error in errors.items()) or "not known",
        agrees,
        f"steps that the fit did not see, against what the profile was made from: {measured}",
    )


def _added_step(setting: Setting) -> list[Claim]:
    decodes = Decodes()
    added_s = dict(zip(CHUNKS, curve_s(setting.config.profile.law, decodes), strict=True))
    flat = [added_s[chunk] for chunk in CHUNKS if chunk <= FLAT_UP_TO]
    beside = f"beside {decodes.batch} decodes of {decodes.context_tokens} tokens"
    steep = added_s[STEEP_AT] > STEEP_S
    times = added_s[FLAT_UP_TO] / flat[0], added_s[STEEP_AT] / added_s[FLAT_UP_TO]
    anchored = "anchored" in _nature(setting)
    why = "the profile is anchored to this claim, so this is no evidence" if anchored else ""
    return [
        Claim(
            f"a chunk of up to 512 tokens adds at most 30 ms, flat ({setting.profile})",
            f"at most {1e3 * max(flat):.1f} ms {beside}",
            "yes" if max(flat) <= FLAT_S else "no",
            why or f"512 tokens add {times[0]:.1f} times what {CHUNKS[0]} do: {'flat' if times[0] < 2 else 'not flat'}",
        ),
        Claim(
            f"a chunk of 2048 tokens adds more than 200 ms ({setting.profile})",
            f"{1e3 * added_s[STEEP_AT]:.0f} ms {beside}",
            "yes" if steep else "no",
            why or f"{times[1]:.1f} times what 512 tokens add; proportional would be {STEEP_AT / FLAT_UP_TO:g}",
        ),
    ]
