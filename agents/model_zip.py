"""A model of stable-baselines3 (`model.zip`) as a placement policy, next to the rules.

Such a file holds pickled Python objects: loading one runs code from it, so load only files that you trust. A policy
file that `experiments.train` writes (`policy.npz`) holds arrays only.
"""

from pathlib import Path
from typing import Any, cast
from zipfile import BadZipFile

import numpy as np

from envs.choices import CHOICE_SETS, Choices, ChoiceSet
from envs.cluster import Placement, RequestView, RouterView
from envs.observation import encode
from hardware_profiles.errors import InputError


class StableBaselinesPolicy:
    """Chooses the feasible choice that the model likes best, without drawing at random.

    Works for policies with a categorical distribution over choices (A2C, PPO, MaskablePPO) and for Q networks (DQN),
    trained on `PrefillPlacement-v1`.

    Args:
        path: the file that the model's `save` wrote.

    Raises:
        InputError: the file cannot be used; names it and says why.
    """

    def __init__(self, path: str | Path) -> None:
        from stable_baselines3.common.save_util import load_from_zip_file

        self.path = Path(path)
        self.name = self.path.stem
        if not self.path.is_file():
            raise InputError(f"{path}: no such file")
        try:
            data, parameters, _ = load_from_zip_file(self.path, device="cpu")
            make = data["policy_class"]
            kwargs = data.get("policy_kwargs", {})
            self._policy = make(data["observation_space"], data["action_space"], lambda _: 0.0, **kwargs)
            self._policy.load_state_dict(parameters["policy"])
        except (ValueError, LookupError, TypeError, AttributeError, BadZipFile, RuntimeError, ImportError) as error:
            first = str(error).partition("\n")[0]
            raise InputError(f"{path}: not a model of stable-baselines3 that can be loaded ({first})") from error
        self._policy.set_training_mode(False)
        self._shapes = {name: space.shape for name, space in getattr(self._policy.observation_space, "items", dict)()}

    def place(self, request: RequestView, view: RouterView) -> Placement:
        """Choose where `request` is prefilled and decodes, from what the router can see."""
        choices, observation = self._observed(request, view)
        return choices.placement(self._best(observation))

    def _observed(self, request: RequestView, view: RouterView) -> tuple[Choices, dict[str, Any]]:
        for choice_set in CHOICE_SETS:
            choices = Choices.of(request, view, cast(ChoiceSet, choice_set))
            if self._shapes.get("action_mask") != (len(choices),):
                continue  # encoding costs more than choices
            observation = encode(choices)
            if {name: value.shape for name, value in observation.items()} == self._shapes:
                return choices, observation
        found = ", ".join(f"{name} {shape}" for name, shape in self._shapes.items()) or "nothing known"
        raise InputError(
            f"{self.path}: was trained on observations of another shape ({found}); it plays the cluster and the set of "
            "choices that it was trained on"
        )

    def _best(self, observation: dict[str, Any]) -> int:
        import torch

        with torch.no_grad():
            batch, _ = self._policy.obs_to_tensor(observation)
            if hasattr(self._policy, "q_net"):
                scores = self._policy.q_net(batch)[0]
            else:
                scores = self._policy.get_distribution(batch).distribution.logits[0]
        feasible = np.asarray(observation["action_mask"], dtype=bool)
        return int(np.where(feasible, scores.numpy(), -np.inf).argmax())
