"""A portfolio: the trained network, costs and rules, and a model that selects which of them places requests.

The members play the same new training episodes (`experiments.learning.selection_settings`). From the results, smoothed
over similar episodes, the model learns to predict each member's regret and misses (`agents.selection_fit`). Costs that
are not among the most useful members of the first episodes do not play the others. The last episodes are a curriculum,
as in Genet (Xia et al., SIGCOMM 2022): they draw from the settings of the others, other clusters included, by the
regret of the members that a first model selects there.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from agents.distillation import Played
from agents.own_view import trained_evenly
from agents.policy_file import load_policy, write_policy
from agents.regret import regrets
from agents.selection import NETWORK, RegretModel
from envs.choices import ChoiceSet
from experiments.learning.distilled_start import EpisodePlayed, Lesson, shared_out
from experiments.learning.mixture import Setting
from experiments.learning.regret_tree import grow, held_out_regret, text
from experiments.learning.selection_episodes import SelectionEpisodes, joined, read_episodes, write_episodes
from experiments.learning.selection_settings import drawn_settings
from experiments.runs.cache import Cache
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
"""The rules of the portfolio: those that were at or near the best in validation cells, as they were tuned on 2P2D."""

_FOLDS, _FIRST_FOLDS = 7, 2  # of the fit of the model, and of the one that draws the last episodes
_FIRST_EPISODE = 500_000  # no distillation has as many
_CONTEXTS = 24  # of an episode
_TREE_DEPTH, _FEWEST = 4, 15
_EARLY, _BY_REGRET = 0.3, 0.25  # shares of the episodes: the first, which all costs play, and those of the curriculum
_SHARPNESS = 2.0
"""The last fit smooths less, because boundaries between members are narrow. Members are still kept by the wider
smoothing, because one of them may be the best in a few episodes by chance."""
_MEMBERS = 26
"""The largest number of members that are kept: the more there are, the more likely one looks better than it is."""


@dataclass(frozen=True)
class SelectionTraining:
    """The episodes that a selection is fitted to.

    Attributes:
        episodes: how many the members play; costs that are neither useful nor kept play the first three tenths of them
            only. The last quarter is drawn by regret.
        other_clusters: share of the earlier ones that are on other clusters.
        elsewhere: the settings with other hardware profiles, see `drawn_settings`.
        earlier: files of episodes of other runs, see `experiments.learning.selection_episodes`. Members without results
            in one of them are left out.
    """

    episodes: int
    other_clusters: float = 0.25
    elsewhere: tuple[tuple[Setting, ...], ...] = ()
    earlier: tuple[Path, ...] = ()


def select_members(
    network: Path,
    policy: Path,
    settings: Sequence[Setting],
    training: SelectionTraining,
    choices: ChoiceSet,
    seeds: tuple[int, int],
    cache: Cache,
    kept: Sequence[str] = (),
) -> None:
    """Fit the model and write the file of the portfolio; next to it, selection.txt and episodes.npz.

    The text has mean regrets and a small tree, and the other file what the model was fitted to.

    Args:
        network: file of the trained network and of costs, which are members.
        policy: file to write: the network, the costs, the names of the members, and the model.
        settings: what the network was trained on.
        training: the episodes.
        choices: set of choices of the network.
        seeds: of the episodes, and of the fit.
        cache: runs the episodes.
        kept: members that are kept, useful or not.
    """
    file = load_policy(network)
    earlier = [read_episodes(path) for path in training.earlier]
    episodes = training.episodes
    by_regret = int(_BY_REGRET * episodes)
    first = drawn_settings(settings, episodes - by_regret, seeds[0], training.other_clusters, training.elsewhere)
    drawn = list(enumerate(first, start=_FIRST_EPISODE))
    own_roles = trained_evenly(file.training)
    play = partial(play_members, network=network, own_roles=own_roles, choices=choices, seed=seeds[0], cache=cache)
    early = int(_EARLY * episodes) if file.costs else 0
    others, costs = (NETWORK, *(rule.text for rule in RULES)), tuple(file.costs)
    lessons = play(drawn[:early], costs)
    if early:
        names = (*others, *costs)
        useful = {names[member] for member in most_useful(episodes_of(lessons, names).regret, _MEMBERS)}
        useful |= {*others, *kept}
        playing = [member for member, name in enumerate(names) if name in useful]
        lessons = [replace(one, results=tuple(one.results[member] for member in playing)) for one in lessons]
        costs = tuple(name for name in costs if name in useful)
    lessons += play(drawn[early:], costs)
    names = (*others, *costs)

    fit = partial(fit_selection, earlier=earlier, seed=seeds[1], kept=kept)
    if by_regret:
        own = episodes_of(lessons, names)
        model, _ = fit(own, own.regret, folds=_FIRST_FOLDS)
        last = shared_out(by_regret, regret_by_setting(model, names, lessons, own.regret))
        lessons += play(list(enumerate(last, start=_FIRST_EPISODE + len(drawn))), costs)
    own = episodes_of(lessons, names, _SHARPNESS)
    model, held_out = fit(own, episodes_of(lessons, names).regret)
    write_episodes(policy.with_name("episodes.npz"), own)
    about = described(model, held_out, names, lessons, own.regret)
    used = {name: weights for name, weights in file.costs.items() if name in model.members}
    with replacing(policy.with_name("selection.txt")) as path:
        path.write_text(about, encoding="utf-8")
    write_policy(policy, file._replace(regret=model, costs=used))
    print(about.partition("\n\n")[0], file=sys.stderr)


def play_members(
    drawn: Sequence[tuple[int, Setting]],
    costs: Sequence[str],
    network: Path,
    own_roles: bool,
    choices: ChoiceSet,
    seed: int,
    cache: Cache,
) -> list[Lesson]:
    """The network, the rules and these costs play the episodes as parts of a trained policy would.

    Contexts are those of the network's runs. `own_roles`: see `EpisodePlayed`.
    """
    own = PolicySpec(NETWORK, "", f"guard=false,members={NETWORK}", network)
    of_costs = tuple(PolicySpec(name, "", f"members={name}", network) for name in costs)
    played = [
        [
            entry.value
            for entry in cache.run(
                [
                    EpisodePlayed(one.source, one.config, members, seed, number, count, choices, own_roles)
                    for number, one in drawn
                ],
                f"episodes of {what}",
            )
        ]
        for members, count, what in (
            ((own,), _CONTEXTS, "the network"),
            (RULES, 0, "the rules"),
            *([(of_costs, 0, "the costs")] if costs else []),
        )
    ]
    return [
        Lesson(
            seed,
            number,
            setting,
            tuple(of_each[0]["where"]),
            tuple(Played(*result) for one in of_each for result in one["results"]),
            np.array(of_each[0]["contexts"]),
        )
        for (number, setting), *of_each in zip(drawn, *played, strict=True)
    ]


def episodes_of(lessons: Sequence[Lesson], names: Sequence[str], sharpness: float = 1.0) -> SelectionEpisodes:
    """The episodes with results smoothed over similar ones.

    The larger the sharpness, the more alike in rate and TBT SLO must episodes be to count as similar.
    """
    lessons = [replace(one, where=(sharpness * one.where[0], sharpness * one.where[1])) for one in lessons]
    smoothed = [[(one.ttft_p95_s, one.attainment) for one in lesson.smoothed(lessons)] for lesson in lessons]
    ttft_p95_s, attainment = np.moveaxis(np.array(smoothed), 2, 0)
    is_rule = np.array([1 <= member <= len(RULES) for member in range(len(names))])
    found = [regrets(*of_members, is_rule) for of_members in zip(ttft_p95_s, attainment, strict=True)]
    contexts = np.array([lesson.contexts for lesson in lessons])
    return SelectionEpisodes(tuple(names), contexts, np.array(found), 1.0 - attainment)


def regret_by_setting(
    model: RegretModel, names: Sequence[str], lessons: Sequence[Lesson], regret: np.ndarray
) -> dict[Setting, float]:
    """The regret (E, M) of the members that the model selects, summed over the episodes of each setting."""
    kept = [names.index(member) for member in model.members]
    found: dict[Setting, float] = {}
    for lesson, of_members in zip(lessons, regret[:, kept], strict=True):
        selected = int(model.predict(lesson.contexts.mean(axis=0)).argmin())
        found[lesson.setting] = found.get(lesson.setting, 0.0) + float(of_members[selected])
    return found


def most_useful(regret: np.ndarray, count: int, first: Sequence[int] = (0,)) -> list[int]:
    """Members for a smaller portfolio: some, then always the one with which the least regret falls most.

    Args:
        regret: (E, M); the regret of each member on each episode.
        count: how many to keep.
        first: the members to begin with, at least one.
    """
    kept = list(first)
    least = regret[:, kept].min(axis=1)
    while len(kept) < min(count, regret.shape[1]):
        falls = np.minimum(least[:, None], regret).mean(axis=0)
        falls[kept] = np.inf
        kept.append(int(falls.argmin()))
        least = np.minimum(least, regret[:, kept[-1]])
    return sorted(kept)


def fit_selection(
    own: SelectionEpisodes,
    wider: np.ndarray,
    earlier: Sequence[SelectionEpisodes],
    seed: int,
    kept: Sequence[str],
    folds: int = _FOLDS,
) -> tuple[RegretModel, float]:
    """Fit the model to these episodes and to earlier ones; returns it and its regret when held out.

    The model has the most useful members by the regrets `wider` (E, M), of those that all episodes have, and `kept`
    ones first. `folds`: see `agents.selection_fit`.
    """
    from agents.selection_fit import fit

    shared = [name for name in own.members if all(name in one.members for one in earlier)]
    first = [shared.index(name) for name in kept if name in shared]
    useful = most_useful(own._replace(regret=wider).of(shared).regret, _MEMBERS, first or [0])
    episodes = joined([own, *earlier], [shared[number] for number in useful])
    count, of_each, parts = episodes.contexts.shape
    return fit(
        episodes.members,
        episodes.contexts.reshape(-1, parts),
        np.repeat(np.arange(count), of_each),
        episodes.regret,
        episodes.missed,
        seed,
        folds,
    )


def described(
    model: RegretModel, held_out: float, names: Sequence[str], lessons: Sequence[Lesson], regret: np.ndarray
) -> str:
    """The text of selection.txt."""
    kept = [names.index(member) for member in model.members]
    typical = np.array([lesson.contexts.mean(axis=0) for lesson in lessons])
    of_rules, rules = regret[:, 1 : 1 + len(RULES)], names[1 : 1 + len(RULES)]
    tree = held_out_regret(typical, of_rules, _TREE_DEPTH, _FEWEST)
    means = sorted(zip(regret.mean(axis=0).tolist(), names, strict=True))
    lines = [
        f"Mean regret over {len(lessons)} training episodes; of the model and the tree, over held-out ones.",
        f"{held_out:.4f}  the member that the model selects",
        f"{tree:.4f}  the rule that the tree below selects",
        f"{regret[:, kept].min(axis=1).mean():.4f}  the best of the {len(kept)} members that are kept",
        *(f"{mean:.4f}  {name}{'' if name in model.members else ' (left out)'}" for mean, name in means),
        "",
        text(grow(typical, of_rules, _TREE_DEPTH, _FEWEST), rules),
    ]
    return "\n".join(lines)
