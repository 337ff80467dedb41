"""Time training and requests with this package, and in plain PyTorch on the same weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

import lares_kernels as lk
from lares.cli.demo.plain import PlainModel
from lares.cli.demo.race import Program, Race, Ratio
from lares.data.dataset import Dataset
from lares.errors import LaresError
from lares.model.config import LaresConfig
from lares.model.model import LaresModel
from lares.model.packed import PackedHistories

K = 10
REQUESTS = 256  # in a call, at most
BATCH = 64  # histories of a training step
HERE, PLAIN = "here", "plain"
_FARTHEST = 1e-3  # that two float32 programs of one formula may be apart, relative
_SMALL = 1e-3  # a gradient below this part of the largest is held to the largest


class Agreement(NamedTuple):
    """Hold how far two programs are apart on the same weights, without dropout.

    Attributes:
        scores: largest difference of a score; largest_score: what it is a part of.
        gradients: largest distance of a parameter's gradient, relative to its norm.
        lists, same_lists: lists that were recommended, and how many of them are the same.
    """

    scores: float
    largest_score: float
    gradients: float
    lists: int
    same_lists: int


class Speed(NamedTuple):
    """Hold what one thing takes that models do.

    Attributes:
        what: they do, in words.
        race: of the programs, which are called ``NAME here`` and ``NAME plain``.
        calls: of a program that this takes.
        histories: in a call.
    """

    what: str
    race: Race
    calls: int = 1
    histories: int = 1

    def seconds(self, name: str, whose: str) -> float:
        """Return what it takes a model, here or in plain PyTorch."""
        return self.calls * self.race.seconds(f"{name} {whose}")

    def faster(self, name: str) -> Ratio:
        """Return how many times as long plain PyTorch takes for a model."""
        return self.race.ratio(f"{name} {PLAIN}", f"{name} {HERE}")

    def longer(self, name: str, other: str, whose: str) -> float:
        """Return how many times as long as ``other`` a model takes, here or in plain PyTorch."""
        return self.race.ratio(f"{name} {whose}", f"{other} {whose}").median


class Speeds(NamedTuple):
    """Hold what training epoch and requests take: one alone, many in one call."""

    epoch: Speed
    one: Speed
    many: Speed


class Timed:
    """A model and a copy of it, which plain PyTorch computes.

    Args:
        config: of the model; without recurrence it is SASRec. As :class:`PlainModel` takes it.
        dataset: to train on and to recommend for.
        seed: of the weights.
    """

    def __init__(self, config: LaresConfig, dataset: Dataset, seed: int) -> None:
        torch.manual_seed(seed)
        self.model = LaresModel(config, seed=seed)
        self.plain = PlainModel(copy.deepcopy(self.model))
        self.batches = _batches(dataset, config.max_length, seed)
        test = dataset.test
        ends = zip(test.starts[:REQUESTS], test.ends[:REQUESTS], strict=True)
        self.histories = [test.items[start:end].tolist() for start, end in ends]

    def agreement(self) -> Agreement:
        """Return how far both are apart.

        Raises:
            LaresError: farther than rounding can be.
        """
        both = (self.model, self.plain.model)
        for model in both:
            model.eval()
        with torch.no_grad():
            states = self.model.states_of_rows(self.histories)
            ours, theirs = self.model.score_states(states), self.plain.scores(self.histories)
        difference, largest = (float(x.abs().max()) for x in (ours - theirs, theirs))
        self._loss(self.batches[0]).backward()
        self.plain.loss(self.batches[0]).backward()
        gradients = _apart(self.model, self.plain.model)
        for model in both:
            model.zero_grad()
        if not (difference <= _FARTHEST * largest and gradients <= _FARTHEST):
            raise LaresError(
                "kernels and plain PyTorch are apart on the same weights: scores by "
                f"{difference:.1e} of {largest:.1e}, gradients by {gradients:.1e}; 'lares doctor "
                "--check' says which kernels fail here, LARES_BACKEND=reference does without them"
            )
        lists = self._recommend(self.histories), self.plain.recommend(self.histories, K)
        same = [ours == theirs for ours, theirs in zip(*lists, strict=True)]
        return Agreement(difference, largest, gradients, len(same), sum(same))

    def requests(self, histories: Sequence[Sequence[int]]) -> tuple[Program, Program]:
        """Return calls that recommend for histories, ours and plain's; both models leave training."""
        self.model.eval()
        self.plain.model.eval()
        return partial(self._recommend, histories), partial(self.plain.recommend, histories, K)

    def steps(self) -> tuple[Program, Program]:
        """Return calls that train on the next batch, ours and plain's: forward, cross entropy over all
        items, backward, Adam. They change the weights."""
        self.model.train()
        self.plain.model.train()
        return (
            self._training(self.model, self._loss),
            self._training(self.plain.model, self.plain.loss),
        )

    def _loss(self, histories: Sequence[Tensor]) -> Tensor:
        """Return the loss of :meth:`PlainModel.loss` by way of packed histories and the kernels."""
        model, config = self.model, self.model.config
        lengths = torch.tensor([len(history) - 1 for history in histories])
        items = torch.cat([history[:-1] for history in histories])
        packed = PackedHistories.from_flat(config, items, lengths, torch.arange(len(histories)))
        steps = [config.mean_depth] if config.is_recurrent else []
        (states,) = model.encoder.token_states(packed, steps=steps)
        targets = torch.cat([history[1:] for history in histories])
        catalogue = model.catalogue
        return lk.catalogue_cross_entropy(states, catalogue.items, targets, **catalogue.scoring)

    def _recommend(self, histories: Sequence[Sequence[int]]) -> list[list[int]]:
        return self.model.recommend_rows(histories, K)

    def _training(self, model: LaresModel, loss: Callable[[Sequence[Tensor]], Tensor]) -> Program:
        """Return a training step on the next batch, of the weights of ``model``."""
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        batches = cycle(self.batches)

        def step() -> None:
            optimizer.zero_grad()
            loss(next(batches)).backward()
            optimizer.step()

        return step


def _batches(dataset: Dataset, longest: int, seed: int) -> list[list[Tensor]]:
    """Return the training part of histories in batches, in the order of an epoch.

    Args:
        dataset: whose samples are every prefix.
        longest: items to learn from; of longer histories the last are taken.
    """
    train = dataset.train
    starts, last = np.unique(train.starts[::-1], return_index=True)
    ends = train.ends[::-1][last] + 1
    firsts = np.maximum(starts, ends - longest - 1)
    order = np.random.default_rng(seed).permutation(len(ends))
    rows = torch.from_numpy(train.items.astype(np.int64))
    histories = [rows[firsts[user] : ends[user]] for user in order]
    return [histories[first : first + BATCH] for first in range(0, len(histories), BATCH)]


def _apart(ours: LaresModel, plain: LaresModel) -> float:
    """Return the largest distance of a parameter's gradients, relative to their norm."""
    found = dict(ours.named_parameters())
    wanted = {name: p.grad for name, p in plain.named_parameters() if p.grad is not None}
    least = _SMALL * max(float(grad.norm()) for grad in wanted.values())
    apart = []
    for name, grad in wanted.items():
        own = found[name].grad
        distance = torch.inf if own is None else float((own - grad).norm())
        apart.append(distance / max(float(grad.norm()), least))
    return float(torch.tensor(apart).max())  # NaN if one is


def timed(models: Mapping[str, Timed], seconds: float) -> Speeds:
    """Return what all models take, ours and plain, with weights that training changes in the end.

    Args:
        models: by name, on the same data.
        seconds: to spend, half of it on training.
    """
    first = next(iter(models.values()))
    typical = sorted(first.histories, key=len)[len(first.histories) // 2]
    one, many = (
        Race(_named({name: each.requests(asked) for name, each in models.items()}), seconds / 4)
        for asked in ([typical], first.histories)
    )
    step = Race(_named({name: each.steps() for name, each in models.items()}), seconds / 2)
    return Speeds(
        epoch=Speed(f"epoch of {len(first.batches)} steps", step, len(first.batches)),
        one=Speed(f"1 request, {len(typical)} items", one),
        many=Speed(f"{len(first.histories)} requests", many, histories=len(first.histories)),
    )


def _named(programs: Mapping[str, tuple[Program, Program]]) -> dict[str, Program]:
    return {
        f"{name} {whose}": program
        for name, both in programs.items()
        for whose, program in zip((HERE, PLAIN), both, strict=True)
    }
