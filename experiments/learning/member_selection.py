"""A portfolio: the trained network and rules, and a model that selects which of them places requests.

All members play the same new training episodes, a third of them on other cluster shapes at the same rates per node.
From the results, smoothed over similar episodes, the model learns to predict each member's regret
(`agents.selection_fit`).
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from agents.distillation import Played, play_rule
from agents.export import load_policy, write_policy
from agents.selection import NETWORK, WatchedContext
from envs.choices import ChoiceSet
from envs.cluster import ClusterConfig, parse_shape
from experiments.learning.distilled_start import Lesson, draw_episode
from experiments.learning.mixture import Setting
from experiments.learning.regret_tree import grow, held_out_regret, text
from experiments.runs.cache import Cache, Result, Task
from experiments.runs.requests import Family, Source
from hardware_profiles.files import replacing
from policies import PolicySpec

RULES = tuple(
    PolicySpec.parse(name)
    for name in (
        "static",
        "lmetric",
        "colocated:load=prefill,chunk=0",
        "llm-d:uncached_tokens=16",
        "dynamo-legacy:max_local_tokens=10,max_queue=8",
        "dynamo-load:prefill_busy=16.0,decode_busy=0.7",
        "arrow:low=1.0,cooldown_s=1.0",
        "dynaserve:splits=1,beta=0.5",
        "shortest-ttft:alpha=0.6,choices=deflection",
        "shortest-ttft:alpha=0.7,choices=deflection",
        "shortest-ttft:alpha=0.8,choices=deflection",
        "shortest-ttft:alpha=0.9,choices=deflection",
        "shortest-ttft:alpha=1.0,choices=deflection",
        "shortest-ttft:alpha=0.5,choices=pairs",
        "shortest-ttft:alpha=1.0,choices=pairs",
    )
)
"""The rules of the portfolio: those that were the virtual best of a validation cell, with the settings tuned for it."""

_OTHER_SHAPES = ("1P1D", "1P2D", "2P1D", "3P3D")
"""None of them is a shape of docs/protocol.md."""
_FIRST_EPISODE = 500_000  # no distillation has as many
_CONTEXTS = 8  # of a run
_TREE_DEPTH, _FEWEST = 4, 15


@dataclass(frozen=True)
class MembersPlayed(Task):
    """Each member's result on a training episode, [P95 TTFT, seconds; SLO attainment], and contexts from the runs."""

    source: Source
    config: ClusterConfig
    members: tuple[PolicySpec, ...]
    choices: ChoiceSet
    seed: int
    episode: int

    def __str__(self) -> str:
        return f"members on episode {self.episode}"

    def run(self, inputs: None) -> Result:  # noqa: ARG002 - there are none
        """Play the members."""
        workload, rng = draw_episode(self.source, self.seed, self.episode)
        found = []
        for member in self.members:
            watched = WatchedContext(member.make(), self.choices)
            played = play_rule(workload, watched, self.config)
            contexts = rng.choice(np.array(watched.contexts), size=_CONTEXTS)
            found.append([[played.ttft_p95_s, played.attainment], contexts.round(6).tolist()])
        return Result({"where": Lesson.of_workload(workload), "members": found}, {})


def reshaped(setting: Setting, shape: str) -> Setting:
    """A setting on another cluster shape, at the same rates per node."""
    assert isinstance(setting.source, Family)
    per_node = sum(parse_shape(shape)) / sum(parse_shape(setting.config.shape))
    source = replace(setting.source, unit_rps=setting.source.unit_rps * per_node)
    return replace(setting, name=f"{setting.name} {shape}", source=source, config=replace(setting.config, shape=shape))


def drawn_settings(settings: Sequence[Setting], episodes: int, seed: int) -> list[Setting]:
    """The settings in turn; every third time around, each on another shape."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0x5E1,)))
    drawn = []
    for number in range(episodes):
        around, index = divmod(number, len(settings))
        setting, shape = settings[index], str(rng.choice(_OTHER_SHAPES))
        free = isinstance(setting.source, Family) and not setting.cluster_fields
        drawn.append(reshaped(setting, shape) if around % 3 == 2 and free else setting)
    return drawn


def select_members(
    network: Path,
    policy: Path,
    settings: Sequence[Setting],
    episodes: int,
    choices: ChoiceSet,
    seeds: tuple[int, int],
    cache: Cache,
) -> None:
    """Fit the model and write the file of the portfolio, and selection.txt next to it: mean regrets, and a small tree.

    Args:
        network: file of the trained network, a member.
        policy: file to write: the network, the names of the rules, and the model.
        settings: what the network was trained on.
        episodes: episodes that all members play.
        choices: set of choices of the network.
        seeds: of the episodes, and of the fit.
        cache: runs the episodes.
    """
    from agents.selection_fit import fit, regrets

    drawn = drawn_settings(settings, episodes, seeds[0])
    own = PolicySpec(NETWORK, "", "guard=false", network)
    of_network, of_rules = (
        [
            entry.value
            for entry in cache.run(
                [
                    MembersPlayed(one.source, one.config, members, choices, seeds[0], _FIRST_EPISODE + number)
                    for number, one in enumerate(drawn)
                ],
                f"episodes of {what}",
            )
        ]
        for members, what in (((own,), "the network"), (RULES, "the rules"))
    )
    played = [
        Lesson(
            seeds[0],
            _FIRST_EPISODE + number,
            setting,
            tuple(one["where"]),
            tuple(Played(*result) for result, _ in (*one["members"], *others["members"])),
        )
        for number, (setting, one, others) in enumerate(zip(drawn, of_network, of_rules, strict=True))
    ]
    contexts = [
        np.concatenate([values for _, values in (*one["members"], *others["members"])])
        for one, others in zip(of_network, of_rules, strict=True)
    ]
    names = (NETWORK, *(rule.text for rule in RULES))
    regret = np.array([regrets(lesson.smoothed(played)) for lesson in played])
    number = np.repeat(np.arange(episodes), [len(one) for one in contexts])
    model, held_out = fit(names, np.concatenate(contexts), number, regret, seeds[1])
    write_policy(policy, load_policy(network)._replace(regret=model))
    typical = np.array([one.mean(axis=0) for one in contexts])
    tree = held_out_regret(typical, regret[:, 1:], _TREE_DEPTH, _FEWEST)
    singles = sorted(zip(regret.mean(axis=0).tolist(), names, strict=True))
    lines = [
        f"Mean regret over {episodes} training episodes; held-out episodes for the model and the tree.",
        f"{held_out:.4f}  the member that the model selects",
        f"{tree:.4f}  the rule that the tree below selects",
        *(f"{mean:.4f}  {name}" for mean, name in singles),
        "",
        text(grow(typical, regret[:, 1:], _TREE_DEPTH, _FEWEST), names[1:]),
    ]
    with replacing(policy.with_name("selection.txt")) as path:
        path.write_text("\n".join(lines), encoding="utf-8")
    print(f"selection: {lines[1]}; {lines[3]}", file=sys.stderr)
