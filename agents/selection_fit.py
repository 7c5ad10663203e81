"""Fitting the model of `agents.selection` to episodes that all members of the portfolio have played.

1. Many networks are fitted, the teachers. Their mean is better than any of them, because single fits differ by chance,
   most of all in contexts that are unlike those in training. But it is too large for a policy file.
2. Two networks, the students, learn that mean, also in contexts that are mixed from those of two episodes (distillation
   of an ensemble: Hinton, Vinyals and Dean 2015, arXiv 1503.02531; mixed inputs: Zhang et al. 2018, arXiv 1710.09412).
3. The members' misses are a linear function of the students' hidden units.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from agents.regret import MISSED
from agents.selection import RegretModel

_STUDENTS, _HIDDEN = 2, 104
_EPOCHS, _BATCH, _LEARNING_RATE, _WEIGHT_DECAY = 80, 1024, 1e-2, 1e-3
_SELECTION_WEIGHT, _TEMPERATURE = 3.0, 0.05  # of the loss: the regret of a member drawn by predictions
_STUDENT_EPOCHS, _STUDENT_BATCH, _STUDENT_RATE = 24, 2048, 2e-3
_DATA_WEIGHT = 0.3  # of the teachers' loss in that of the students
_NEAR_BEST, _OTHERS = 0.3, 0.1  # students learn best where the teachers predict little regret
_MIX, _NOISE, _NOISY = (0.3, 1.2), 0.15, 0.5  # share of the first context; standard deviations; share with noise
_RIDGE = 100.0
_CHUNK = 4096  # contexts that are predicted at once


class _Linear(nn.Module):
    """A linear layer of each of several networks, with the first weights of `nn.Linear`."""

    def __init__(self, networks: int, inputs: int, outputs: int) -> None:
        super().__init__()
        most = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(networks, outputs, inputs).uniform_(-most, most))
        self.bias = nn.Parameter(torch.empty(networks, outputs).uniform_(-most, most))

    def forward(self, rows: Tensor) -> Tensor:
        return torch.baddbmm(self.bias[:, None], rows, self.weight.transpose(1, 2))


class _Networks(nn.Module):
    """The networks of a RegretModel in torch: scaled contexts (N, B, K) to roots (N, B, M)."""

    def __init__(self, networks: int, features: int, members: int) -> None:
        super().__init__()
        self.first = _Linear(networks, features, _HIDDEN)
        self.second = _Linear(networks, _HIDDEN, _HIDDEN)
        self.regret = _Linear(networks, _HIDDEN, members)

    def hidden(self, scaled: Tensor) -> Tensor:
        """The second layer of hidden units, (N, B, H)."""
        return torch.tanh(self.second(torch.tanh(self.first(scaled))))

    def forward(self, scaled: Tensor) -> Tensor:
        roots: Tensor = self.regret(self.hidden(scaled))
        return roots


def fit(
    members: Sequence[str],
    contexts: np.ndarray,
    episode: np.ndarray,
    regret: np.ndarray,
    missed: np.ndarray,
    seed: int,
    folds: int,
    epochs: int = _EPOCHS,
) -> tuple[RegretModel, float]:
    """Fit the roots of the regrets; roots, because small regrets decide which member is selected.

    The loss is the squared error, plus the regret of a member that is drawn with a softmax of the negative predictions,
    which is close to that of the selected member and has a gradient.

    Args:
        members: names of the members.
        contexts: (N, K); several of each episode.
        episode: (N,) int; the episode of each context.
        regret: (E, M); the regrets of each episode, at least two.
        missed: (E, M); the shares of requests that missed an SLO.
        seed: of weights, held-out episodes, order of the batches and mixed contexts.
        folds: into so many parts are the episodes divided; each part is held out by two teachers.
        epochs: passes of the teachers over the contexts.

    Returns:
        The model, its weights rounded to 16 bits, and the mean regret of the members that two teachers select on
        episodes that they have not learned from.
    """
    rng = np.random.default_rng(seed)
    torch.set_num_threads(1)  # a second one is slower at this size
    torch.manual_seed(seed)
    limits = {"low": contexts.min(axis=0).astype(np.float32), "high": contexts.max(axis=0).astype(np.float32)}
    scaled = torch.as_tensor(RegretModel(tuple(members), limits).scaled(contexts), dtype=torch.float32)
    regrets = torch.as_tensor(regret[episode], dtype=torch.float32)

    folds = min(folds, len(regret))
    fold = (rng.permutation(len(regret)) % folds)[episode]
    teachers = _Networks(2 * folds, scaled.shape[1], len(members))
    _teach(teachers, scaled, regrets, np.repeat(fold[None] == np.arange(folds)[:, None], 2, axis=0), epochs, rng)
    roots = _in_chunks(teachers, scaled.expand(2 * folds, -1, -1))
    selected = roots.reshape(folds, 2, *regrets.shape).mean(dim=1)[fold, np.arange(len(fold))].argmin(dim=1)
    held_out = float(regrets.gather(1, selected[:, None]).mean())

    students = _Networks(_STUDENTS, scaled.shape[1], len(members))
    students.load_state_dict({name: weight[:_STUDENTS] for name, weight in teachers.state_dict().items()})
    _learn(students, teachers, scaled, roots.mean(dim=0), regrets, rng)
    weights = {name: weight.numpy() for name, weight in students.state_dict().items()}
    weights |= _misses(students, scaled, np.log(missed + MISSED)[episode])
    weights = {name: weight.astype(np.float16).astype(np.float32) for name, weight in weights.items()}
    weights["mean"] = regret.mean(axis=0).astype(np.float32)
    return RegretModel(tuple(members), limits | weights), held_out


def _loss(roots: Tensor, regrets: Tensor) -> Tensor:
    """The losses (N,) of predicted roots (N, B, M) where the members have these regrets (N, B, M)."""
    drawn = torch.softmax(-roots * roots.abs() / _TEMPERATURE, dim=2)
    squares = torch.square(roots - regrets.sqrt()).mean(dim=(1, 2))
    return squares + _SELECTION_WEIGHT * (drawn * regrets).sum(dim=2).mean(dim=1)


def _teach(
    teachers: _Networks,
    scaled: Tensor,
    regrets: Tensor,
    held_out: np.ndarray,
    epochs: int,
    rng: np.random.Generator,
) -> None:
    """Fit the teachers, each to the contexts that it does not hold out.

    Of each teacher, the weights of the epoch with the least loss on the contexts `held_out` (N, B) are kept.
    """
    inside, outside = (_padded(kept, rng) for kept in (~held_out, held_out))
    scaled_outside, regrets_outside = scaled[outside], regrets[outside]
    best = {name: weight.clone() for name, weight in teachers.state_dict().items()}
    least = torch.full((len(held_out),), float("inf"))
    batches = -(-inside.shape[1] // _BATCH)
    step = _steps(teachers, epochs * batches, _LEARNING_RATE)
    for _ in range(epochs):
        order = torch.as_tensor(rng.permuted(inside, axis=1))
        for rows in torch.split(order, _BATCH, dim=1):
            step(_loss(teachers(scaled[rows]), regrets[rows]).sum())
        found = _loss(_in_chunks(teachers, scaled_outside), regrets_outside)
        better = found < least
        least = torch.where(better, found, least)
        for name, weight in teachers.state_dict().items():
            best[name][better] = weight[better]
    teachers.load_state_dict(best)


def _padded(kept: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Indices of the contexts that each network keeps (N, B); where there are fewer, some occur twice."""
    found = [np.flatnonzero(row) for row in kept]
    most = max(len(row) for row in found)
    return np.stack([np.concatenate([row, rng.choice(row, most - len(row))]) for row in found])


def _learn(
    students: _Networks,
    teachers: _Networks,
    scaled: Tensor,
    roots: Tensor,
    regrets: Tensor,
    rng: np.random.Generator,
) -> None:
    """Fit the students to the regrets and to the mean `roots` of the teachers, also in mixed contexts."""
    batches = -(-len(scaled) // _STUDENT_BATCH)
    step = _steps(students, _STUDENT_EPOCHS * batches, _STUDENT_RATE)
    order = np.tile(np.arange(len(scaled)), (_STUDENTS, 1))
    deviation = scaled.std(dim=0)
    for _ in range(_STUDENT_EPOCHS):
        for rows in torch.split(torch.as_tensor(rng.permuted(order, axis=1)), _STUDENT_BATCH, dim=1):
            mixed = _mixed(scaled, deviation, max(1, rows.shape[1] // 2), rng)
            with torch.no_grad():
                taught = teachers(mixed.expand(len(teachers.first.bias), -1, -1)).mean(dim=0)
            found = students(scaled[rows])
            loss = _DATA_WEIGHT * _loss(found, regrets[rows]).sum() + _difference(found, roots[rows])
            step(loss + _difference(students(mixed.expand(_STUDENTS, -1, -1)), taught.expand(_STUDENTS, -1, -1)))


def _mixed(scaled: Tensor, deviation: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """Scaled contexts (count, K) on lines through two others, some values with noise, within the range in training."""
    one, other = (scaled[rng.integers(len(scaled), size=count)] for _ in range(2))
    share = torch.as_tensor(rng.uniform(*_MIX, (count, 1)), dtype=torch.float32)
    noise = rng.normal(scale=_NOISE, size=one.shape) * (rng.random(one.shape) < _NOISY)
    return (share * one + (1.0 - share) * other + deviation * torch.as_tensor(noise, dtype=torch.float32)).clip(-1, 1)


def _difference(roots: Tensor, taught: Tensor) -> Tensor:
    """The squared differences to the teachers' roots, members with little regret first; summed over the networks."""
    weight = torch.exp(-(taught - taught.min(dim=2, keepdim=True).values) / _NEAR_BEST) + _OTHERS
    return (weight * torch.square(roots - taught)).mean(dim=(1, 2)).sum()


def _misses(students: _Networks, scaled: Tensor, targets: np.ndarray) -> Mapping[str, np.ndarray]:
    """Weights of the linear function of the hidden units that is closest to the targets (B, M); ridge regression."""
    hidden = _in_chunks(students.hidden, scaled.expand(_STUDENTS, -1, -1))
    units = hidden.numpy().astype(np.float64).transpose(1, 0, 2).reshape(len(scaled), -1)
    units = np.concatenate([units, np.ones((len(units), 1))], axis=1)
    found = np.linalg.solve(units.T @ units + _RIDGE * np.eye(units.shape[1]), units.T @ targets)
    # A prediction is the mean over the networks.
    weight = _STUDENTS * found[:-1].reshape(_STUDENTS, _HIDDEN, -1).transpose(0, 2, 1)
    return {"missed.weight": weight, "missed.bias": np.tile(found[-1], (_STUDENTS, 1))}


def _steps(networks: _Networks, steps: int, learning_rate: float) -> Callable[[Tensor], None]:
    """A function that makes one step of the optimizer with a loss."""
    optimizer = torch.optim.AdamW(networks.parameters(), lr=learning_rate, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)

    def step(loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()

    return step


def _in_chunks(function: Callable[[Tensor], Tensor], scaled: Tensor) -> Tensor:
    """The values (N, B, ...) of a function of scaled contexts (N, B, K); needs less memory than one call."""
    with torch.no_grad():
        return torch.cat([function(part) for part in torch.split(scaled, _CHUNK, dim=1)], dim=1)
