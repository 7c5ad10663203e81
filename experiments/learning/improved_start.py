"""A better start for PPO: a distilled network, improved with placements played forward on copies of the cluster."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agents.distillation import best_rule
from agents.lookahead_costs import LookaheadArguments, cost_episode
from agents.numpy_policy import NumpyActor
from agents.policy_file import load_policy
from envs.choices import ChoiceSet, most_choices
from envs.cluster import ClusterConfig, parse_shape
from experiments.learning.distilled_start import TEACHERS, Distillation, Lesson, draw_episode, drawn_warm_up, padded
from experiments.learning.mixture import Setting, objective_for
from experiments.runs.cache import Cache, Result, Task, packed
from experiments.runs.requests import Source
from policies import PolicySpec

_KL_WEIGHT = 0.1


@dataclass(frozen=True)
class CostedEpisode(Task):
    """A training episode that a learner plays; every placement of some requests is costed with the teacher as base."""

    source: Source
    config: ClusterConfig
    teacher: PolicySpec
    learner: PolicySpec
    arguments: LookaheadArguments
    seed: int
    episode: int

    def __str__(self) -> str:
        return f"look-ahead episode {self.episode}"

    def inputs(self) -> Mapping[str, np.ndarray]:
        """The learner's weights, which may be on this machine alone."""
        assert self.learner.path is not None
        return load_policy(self.learner.path).weights

    def run(self, inputs: Mapping[str, np.ndarray]) -> Result:
        """Play the episode."""
        workload, rng = draw_episode(self.source, self.seed, self.episode)
        warm_up = drawn_warm_up(workload, rng)
        found = cost_episode(
            workload, self.config, self.teacher.make(), NumpyActor(inputs), *warm_up, self.arguments, rng
        )
        return Result(None, {".npz": packed(**found)})


def improve(
    distilled: Distillation,
    settings: Sequence[Setting],
    lessons: Sequence[Lesson],
    yardstick_s: Mapping[Setting, float],
    episodes: int,
    choices: ChoiceSet,
    cache: Cache,
) -> None:
    """Improve a distilled network on new episodes; the settings take turns."""
    from agents.pretrain import FitArguments, lower_costs

    assert distilled.learner is not None
    seed = lessons[-1].seed
    tasks = []
    for number, setting in enumerate(settings[i % len(settings)] for i in range(episodes)):
        episode = lessons[-1].episode + 1 + number
        where = Lesson.of_workload(draw_episode(setting.source, seed, episode)[0])
        teacher = TEACHERS[best_rule(Lesson(seed, episode, setting, where, ()).smoothed(lessons))]
        arguments = LookaheadArguments(
            choices=choices, objective=objective_for(yardstick_s[setting] / setting.ttft_slo_s)
        )
        tasks.append(
            CostedEpisode(setting.source, setting.config, teacher, distilled.learner, arguments, seed, episode)
        )
    rows = max(most_choices(choices, *parse_shape(setting.config.shape)) for setting in settings)
    played = [padded(entry.arrays(".npz"), rows) for entry in cache.run(tasks, "look-ahead episodes")]
    groups = np.repeat(np.arange(episodes) % len(settings), [len(one["costs"]) for one in played])
    examples = {name: np.concatenate([one[name] for one in played]) for name in played[0]}
    costs, scores = examples.pop("costs"), examples.pop("scores")
    fitting = FitArguments(epochs=10, batch_size=512, learning_rate=5e-4, seed=seed)
    fit = lower_costs(distilled.network, examples, costs, scores, groups, _KL_WEIGHT, fitting)
    print(f"look-ahead: held-out loss {fit.held_out_losses[0]:.3f} to {min(fit.held_out_losses):.3f}", file=sys.stderr)
