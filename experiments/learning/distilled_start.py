"""A start for PPO: the best rule of each episode, distilled into one network.

1. Several rules play training episodes. The teacher of an episode is the best rule (`agents.distillation.best_rule`) by
   the average over episodes of the same setting at a similar load and TBT SLO, because single episodes often disagree
   between rules that are nearly as good.
2. The network is fitted to the teachers' choices, first on the runs of the teachers, then also on states that it visits
   itself (DAgger), each round on new episodes.
3. Later rounds have more episodes of the settings in which the network is farther behind the best rule: a curriculum by
   the gap to a baseline (Genet; Xia et al. 2022, arXiv 2202.05940).
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np

from agents.context import CONTEXT, WatchedContext
from agents.distillation import Played, best_rule, label_episode, play_rule
from agents.numpy_policy import NumpyActor
from agents.own_view import WithOwnView
from agents.placement_policy import current_layout
from agents.policy_file import load_policy, save_policy
from agents.seen import SeenRange
from envs.choices import ChoiceSet, most_choices
from envs.cluster import ClusterConfig, Policy, parse_shape
from envs.warm_up import WARM_UPS, WarmUp
from envs.workload import Workload
from experiments.learning.mixture import Setting, draw_for_training
from experiments.runs.cache import Cache, Result, Task, packed
from experiments.runs.requests import Source
from policies import PolicySpec

TEACHERS = tuple(
    PolicySpec.parse(name)
    for name in (
        "static",
        "colocated:load=prefill,chunk=0",
        "lmetric",
        "dynamo-legacy:max_local_tokens=10,max_queue=8",
        "arrow:low=1.0,cooldown_s=1.0",
        "shortest-ttft:alpha=0.7,choices=deflection",
        "shortest-ttft:alpha=0.8,choices=deflection",
        "shortest-ttft:alpha=1.0,choices=deflection",
        "shortest-ttft:alpha=1.0,choices=pairs",
    )
)
"""Rules that were best on some episodes in trials. `dynaserve` is left out because no row is a split prompt."""

_RATES_ALIKE, _TBT_SLOS_ALIKE = 0.06, 0.05  # natural logarithms
_LONGEST_WARM_UP_S = 15.0
_EXAMPLES, _LEARNER_SHARE = 300, 0.8  # of an episode, and of its requests
_EPOCHS = 8
_ATTAINMENT_GAP = 5.0


def draw_episode(source: Source, seed: int, episode: int) -> tuple[Workload, np.random.Generator]:
    """The requests of an episode, and the generator of everything else that it draws."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0xD157, episode)))
    return draw_for_training(source, source.long_episode_requests, rng), rng


def drawn_warm_up(workload: Workload, rng: np.random.Generator) -> tuple[WarmUp, int]:
    """The rule that places the first requests of an episode, and their number."""
    warm_up: WarmUp = WARM_UPS[int(rng.integers(len(WARM_UPS)))]  # type: ignore[assignment]  # the literals
    until_s = float(rng.uniform(0.0, _LONGEST_WARM_UP_S))
    return warm_up, min(int(np.searchsorted(workload.arrival_s, until_s)), len(workload) // 3)


@dataclass(frozen=True)
class EpisodePlayed(Task):
    """Each policy's result on a training episode, [P95 TTFT, seconds; SLO attainment]; `episode` is its number.

    If `contexts` is above 0, the first policy is watched, and so many contexts of its run are drawn. `own_roles`: the
    policies see the cluster as a trained policy does (`agents.own_view`), with its roles or those of the cluster.
    """

    source: Source
    config: ClusterConfig
    policies: tuple[PolicySpec, ...]
    seed: int
    episode: int
    contexts: int = 0
    choices: ChoiceSet = "pairs"  # of the observations that contexts are made from
    own_roles: bool | None = None

    def __str__(self) -> str:
        return f"{'rules' if len(self.policies) > 1 else self.policies[0].label} on episode {self.episode}"

    def run(self, inputs: None) -> Result:  # noqa: ARG002 - there are none
        """Play the policies."""
        workload, rng = draw_episode(self.source, self.seed, self.episode)
        policies: list[Policy] = [one.make() for one in self.policies]
        contexts: list[list[float]] = []
        if self.contexts:
            policies[0] = watched = WatchedContext(policies[0])
        if self.own_roles is not None:
            policies = [WithOwnView(one, self.own_roles) for one in policies]
        played = [play_rule(workload, policy, self.config) for policy in policies]
        if self.contexts:
            contexts = rng.choice(np.array(watched.contexts), size=self.contexts).round(6).tolist()
        results = [[one.ttft_p95_s, one.attainment] for one in played]
        return Result({"where": Lesson.of_workload(workload), "results": results, "contexts": contexts}, {})


@dataclass(frozen=True)
class Lesson:
    """An episode that policies have played: its seed and number, its setting, and the results of each policy.

    `where` is (log rate, log TBT SLO), each divided by the distance at which episodes stop being alike. `contexts`
    (N, K) are those of the first policy's run; none if it was not watched.
    """

    seed: int
    episode: int
    setting: Setting
    where: tuple[float, float]
    results: tuple[Played, ...]
    contexts: np.ndarray = field(default_factory=lambda: np.zeros((0, len(CONTEXT))), compare=False)

    @staticmethod
    def of_workload(workload: Workload) -> tuple[float, float]:
        """`where` for a workload."""
        return log(workload.rate_rps) / _RATES_ALIKE, log(float(workload.tbt_slo_s.mean())) / _TBT_SLOS_ALIKE

    def smoothed(self, others: Sequence["Lesson"]) -> list[Played]:
        """The policies' results, averaged over lessons of the same setting with Gaussian weights."""
        alike = [one for one in others if one.setting == self.setting]
        distance = np.array([one.where for one in alike]) - self.where
        weights = np.exp(-0.5 * (distance**2).sum(axis=1))
        values = np.array([[(log(one.ttft_p95_s), one.attainment) for one in lesson.results] for lesson in alike])
        means = np.average(values, axis=0, weights=weights)
        return [Played(exp(p95), attainment) for p95, attainment in means.tolist()]


@dataclass(frozen=True)
class LabelledEpisode(Task):
    """Examples from a training episode; `learner` is the file of the policy that places most requests, if any."""

    source: Source
    config: ClusterConfig
    teacher: PolicySpec
    learner: PolicySpec | None
    choices: ChoiceSet
    seed: int
    episode: int

    def __str__(self) -> str:
        return f"episode {self.episode}, labelled by {self.teacher.text}"

    def inputs(self) -> Mapping[str, np.ndarray] | None:
        """The learner's weights, which may be on this machine alone."""
        return None if self.learner is None or self.learner.path is None else load_policy(self.learner.path).weights

    def run(self, inputs: Mapping[str, np.ndarray] | None) -> Result:
        """Play and label the episode; keep some examples at random."""
        workload, rng = draw_episode(self.source, self.seed, self.episode)
        warm_up = drawn_warm_up(workload, rng)
        found = label_episode(
            workload,
            self.config,
            self.teacher.make(),
            self.choices,
            None if inputs is None else NumpyActor(inputs),
            _LEARNER_SHARE,
            *warm_up,
            rng,
        )
        kept = rng.permutation(len(found["actions"]))[:_EXAMPLES]
        return Result(None, {".npz": packed(**{name: array[kept] for name, array in found.items()})})


def play_rules(settings: Sequence[Setting], seed: int, first: int, cache: Cache) -> list[Lesson]:
    """TEACHERS play one episode of each of these settings, in turn; the episodes are numbered from `first` on."""
    turns = list(enumerate(settings, start=first))
    tasks = [EpisodePlayed(setting.source, setting.config, TEACHERS, seed, episode) for episode, setting in turns]
    found = [entry.value for entry in cache.run(tasks, "episodes of the rules")]
    return [
        Lesson(seed, episode, setting, tuple(one["where"]), tuple(Played(*result) for result in one["results"]))
        for (episode, setting), one in zip(turns, found, strict=True)
    ]


def best_p95_s(lessons: Sequence[Lesson]) -> dict[Setting, float]:
    """Median over a setting's episodes of the best rule's P95 TTFT, seconds."""
    found: dict[Setting, list[float]] = {}
    for lesson in lessons:
        found.setdefault(lesson.setting, []).append(lesson.results[best_rule(lesson.results)].ttft_p95_s)
    return {setting: float(np.median(values)) for setting, values in found.items()}


class Distillation:
    """A network that is fitted to the teachers' choices, round by round.

    Attributes:
        network: the network after the last round.
        learner: the file that holds it. Each round has a separate file, because the next round's episodes depend on it.
        seen: the range of all examples so far.

    Args:
        choices: the set of choices.
        seed: of the network and its fits.
        hidden: width of the network.
        folder: where the files are written.
        cache: runs the episodes.
        training: arguments of the training, stored in the files.
    """

    def __init__(
        self,
        choices: ChoiceSet,
        seed: int,
        hidden: int,
        folder: Path,
        cache: Cache,
        training: Mapping[str, Any],
    ) -> None:
        import torch

        from agents.placement_network import PlacementNetwork

        self._choices, self._seed = choices, seed
        self._folder, self._cache, self._training = folder, cache, training
        self._layout = current_layout(choices)
        torch.manual_seed(seed)
        self.network = PlacementNetwork(self._layout.sizes, hidden=hidden)
        self.learner: PolicySpec | None = None
        self.seen: SeenRange | None = None
        self._kept: list[dict[str, np.ndarray]] = []
        self._rounds = 0

    def fit(self, lessons: Sequence[Lesson], others: Sequence[Lesson]) -> None:
        """One more round, on new lessons; their teachers are chosen by the average over `others`."""
        from agents.pretrain import FitArguments, clone_actions

        tasks = [
            LabelledEpisode(
                lesson.setting.source,
                lesson.setting.config,
                TEACHERS[best_rule(lesson.smoothed(others))],
                self.learner,
                self._choices,
                lesson.seed,
                lesson.episode,
            )
            for lesson in lessons
        ]
        shapes = {parse_shape(lesson.setting.config.shape) for lesson in others}
        rows = max(most_choices(self._choices, *shape) for shape in shapes)
        self._kept += [padded(entry.arrays(".npz"), rows) for entry in self._cache.run(tasks, "labelled episodes")]
        examples = {name: np.concatenate([one[name] for one in self._kept]) for name in self._kept[0]}
        actions = examples.pop("actions")
        self._rounds += 1
        fitting = FitArguments(epochs=_EPOCHS, batch_size=1024, learning_rate=2e-3, seed=self._seed)
        fit = clone_actions(self.network, examples, actions, fitting)
        losses = f"{fit.held_out_losses[0]:.3f} to {min(fit.held_out_losses):.3f}"
        print(f"distillation, round {self._rounds}: held-out cross-entropy {losses}", file=sys.stderr)
        self.seen = SeenRange.of(examples)
        path = self._folder / f"distilled-{self._rounds}.npz"
        save_policy(path, self.network, self._layout, {**self._training, "distilled_only": True})
        self.learner = PolicySpec("learner", "", "", path)

    def gaps(self, lessons: Sequence[Lesson]) -> dict[Setting, float]:
        """How far the learner is behind the best rule, mean over the lessons of each setting.

        The gap of a lesson is the logarithm of the ratio of the P95 TTFTs, at least 0 and at most 1, plus
        _ATTAINMENT_GAP times the loss of SLO attainment.
        """
        assert self.learner is not None
        tasks = [
            EpisodePlayed(lesson.setting.source, lesson.setting.config, (self.learner,), lesson.seed, lesson.episode)
            for lesson in lessons
        ]
        found: dict[Setting, list[float]] = {}
        for lesson, entry in zip(lessons, self._cache.run(tasks, "episodes of the learner"), strict=True):
            own, best = Played(*entry.value["results"][0]), lesson.results[best_rule(lesson.smoothed(lessons))]
            behind = min(1.0, max(0.0, log(own.ttft_p95_s / best.ttft_p95_s)))
            lost = max(0.0, best.attainment - own.attainment)
            found.setdefault(lesson.setting, []).append(behind + _ATTAINMENT_GAP * lost)
        return {setting: float(np.mean(values)) for setting, values in found.items()}


def shared_out(count: int, gaps: Mapping[Setting, float]) -> list[Setting]:
    """`count` settings, each about as often as its share of the gaps, plus a tenth shared out evenly."""
    weights = np.array(list(gaps.values())) / max(1e-9, sum(gaps.values())) * 0.9 + 0.1 / len(gaps)
    counts = np.diff(np.round(np.concatenate([[0.0], np.cumsum(weights / weights.sum())]) * count).astype(int))
    return [setting for setting, times in zip(gaps, counts.tolist(), strict=True) for _ in range(times)]


def padded(examples: dict[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
    """Examples with as many rows as the largest cluster has choices."""
    missing = rows - examples["action_mask"].shape[1]
    found = dict(examples)
    for name in examples.keys() & {"choices", "action_mask", "scores", "costs"}:
        array = examples[name]
        found[name] = np.pad(array, [(0, 0), (0, missing), *[(0, 0)] * (array.ndim - 2)])
    return found
