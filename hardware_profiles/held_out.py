"""The errors of a profile's law on steps that were held out of its fit."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hardware_profiles.errors import InputError
from hardware_profiles.estimator import LIBRARY, Estimator
from hardware_profiles.schema import ProfileFile
from hardware_profiles.step_law import StepLaw
from hardware_profiles.step_sources import Kind, Step, steps_s
from hardware_profiles.steps import KINDS, draw
from hardware_profiles.tables import step_law

Array = npt.NDArray[np.float64]
RECOMPUTED_STEPS = 1000


class HeldOut(NamedTuple):
    """Measured and modelled times of steps of one kind, in seconds, shape (steps,)."""

    measured_s: Array
    law_s: Array

    @property
    def error(self) -> Array:
        """Relative error of each step."""
        return self.law_s / self.measured_s - 1.0


def sample(file: ProfileFile) -> dict[Kind, HeldOut]:
    """Compare the law with the held-out steps that the profile stores."""
    law = step_law(file.step_law)
    kept = file.provenance.held_out.sample
    readings = {kind: getattr(kept, kind) for kind in KINDS if getattr(kept, kind) is not None}
    return {kind: HeldOut(np.array(of.seconds), _law_s(law, of.each())) for kind, of in readings.items()}


def recomputed(file: ProfileFile, seed: int) -> dict[Kind, HeldOut] | None:
    """Compare the law with new random steps; None if the profile is not from the estimator or it is not installed."""
    provenance = file.provenance
    if provenance.library != LIBRARY:
        return None
    try:
        estimator = Estimator(file.model, provenance.system, provenance.backend, provenance.tp)
    except InputError:
        return None
    law = step_law(file.step_law)
    rng = np.random.default_rng(seed)
    drawn: Mapping[Kind, Sequence[Step]] = {
        kind: draw(kind, RECOMPUTED_STEPS, file.kv_capacity_tokens, rng) for kind in KINDS
    }
    return {kind: HeldOut(steps_s(estimator, steps), _law_s(law, steps)) for kind, steps in drawn.items()}


def _law_s(law: StepLaw, steps: Sequence[Step]) -> Array:
    return np.array([law.time_s(step.chunks, step.batch, step.kv_tokens) for step in steps])
