"""A whole step of reinforcement post-training beside the program that keeps every probability.

The plain program is what the paper describes, as one would write it: each rollout is encoded by itself
in padded eager PyTorch, and its every step gives log-probabilities of the whole catalogue, from which
the target's are read; so does the reference.

``python -m benchmarks.steps.rpt BATCH IMPLEMENTATION`` prints the bytes that a step takes beside model,
reference and optimiser, in a process where nothing else has run; ``python -m benchmarks.steps.rpt BATCH
ROUNDS NAME ...`` the seconds of each program's steps, in turns, where the C library's allocator is left
as it is.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.core.memory import peak_growth
from benchmarks.core.race import Race
from benchmarks.steps.spt import PlainEncoder
from benchmarks.steps.spt_data import drawn_dataset
from lares import LaresConfig, LaresModel
from lares.objectives.rpt.config import RptConfig
from lares.objectives.rpt.losses import group_advantages
from lares.objectives.rpt.prefixes import RptBatch, RptObjective
from lares.training.rpt_phases import RptPhase
from lares.training.steps import Place

DATA, N_ITEMS = "beauty14", 24_588  # lengths; the catalogue of Amazon 2023 Musical Instruments
BATCH, DEPTHS = 400, (2, 4, 8, 12)
NAMES = ("plain", "op")
CPU = Place(rank=0, n_processes=1, device=torch.device("cpu"))


class PlainObjective(nn.Module):
    """The objective with all log-probabilities of all steps in memory; arguments as
    :class:`lares.objectives.rpt.prefixes.RptObjective`'s."""

    def __init__(self, model: LaresModel, reference: LaresModel, rpt: RptConfig) -> None:
        super().__init__()
        self.model, self.reference, self.rpt = model, reference, rpt
        self.encoder, self.reference_encoder = (
            PlainEncoder(each.encoder) for each in (model, reference)
        )

    def train(self, mode: bool = True) -> PlainObjective:
        super().train(mode)
        self.reference_encoder.eval()
        return self

    def forward(
        self,
        batch: RptBatch,
        depths: tuple[int, ...],
        seed: int,
        reference_seed: int,
        states: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """The loss; ``states`` (B, G, L, d) fixes the first ones, else torch's generator draws."""
        found, reference, rewards = [], [], []
        histories = batch.histories.padded, batch.histories.lengths
        for rollout, depth in enumerate(depths):
            own, fixed = (None, None) if states is None else (s[:, rollout] for s in states)
            trajectory = self.encoder.encode(*histories, depth, own)
            scores = trajectory @ self.model.items.mT
            found.append(self._of_target(scores.log_softmax(-1), batch.targets))
            best = scores[:, -1].detach()[:, 1:].topk(self.rpt.k).indices + 1
            rewards.append((best == batch.targets[:, None]).any(1).float())
            with torch.no_grad():
                trajectory = self.reference_encoder.encode(*histories, depth, fixed)
                scores = trajectory @ self.reference.items.mT
                reference.append(self._of_target(scores.log_softmax(-1), batch.targets))
        advantages = group_advantages(torch.stack(rewards, dim=1))
        losses = []
        for rollout, (own, other) in enumerate(zip(found, reference, strict=True)):
            q = other - own
            gain = (own - own.detach()).exp() * advantages[:, rollout, None]
            losses.append((self.rpt.beta * (q.exp() - q - 1.0) - gain).mean(dim=1))
        return torch.stack(losses).mean()

    @staticmethod
    def _of_target(log_probabilities: Tensor, targets: Tensor) -> Tensor:
        index = targets[:, None, None].expand(*log_probabilities.shape[:2], 1)
        return log_probabilities.gather(-1, index).squeeze(-1)


class RptStep:
    """A step to call: batch, rollouts, reference, losses, gradients, Adam.

    Args:
        name: ``op``, or ``plain`` for :class:`PlainObjective`.
        batch: samples.
    """

    precision = "fp32"  # of the products

    def __init__(self, name: str, batch: int = BATCH) -> None:
        torch.manual_seed(0)
        model = LaresModel(LaresConfig(n_items=N_ITEMS, dropout=0.1, attn_dropout=0.1))
        reference = copy.deepcopy(model).requires_grad_(False).eval()
        rpt = RptConfig()
        fused = RptObjective(model, rpt, reference=reference)
        self.phase = RptPhase(fused, drawn_dataset(DATA).train, 0, CPU)
        self.plain = PlainObjective(model, reference, rpt) if name == "plain" else None
        self.objective: nn.Module = fused if self.plain is None else self.plain
        self.optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
        self.model, self.batch, self.n_calls = model, batch, 0
        self.order = np.random.default_rng(0).permutation(len(self.phase.samples))

    def __call__(self) -> None:
        first = self.n_calls * self.batch % (len(self.order) - self.batch)
        indices = self.order[first : first + self.batch]
        self.objective.train()
        batch, _, *seeds = self.phase.make(indices, self.n_calls)
        found = self.objective(batch, DEPTHS, *seeds)
        (found if self.plain is not None else found[0].total).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.n_calls += 1

    def gradients(self, double: bool) -> dict[str, Tensor]:
        """Of every parameter for one batch, without dropout, from drawn first states.

        Args:
            double: in float64, else as the step is timed.
        """
        objective = copy.deepcopy(self.objective) if double else self.objective
        if double:
            objective.double()
        objective.eval()
        batch, _, *seeds = self.phase.make(self.order[: self.batch], 0)
        shape = (*batch.histories.padded.shape, 2 * len(DEPTHS), self.model.config.d_model)
        drawn = torch.randn(shape, generator=torch.Generator().manual_seed(0)).permute(0, 2, 1, 3)
        states = (drawn.double() if double else drawn).split(len(DEPTHS), dim=1)
        if self.plain is not None:
            objective(batch, DEPTHS, *seeds, states).backward()
        else:
            objective(batch, DEPTHS, *seeds, None, states)[0].total.backward()
        model = objective.model
        assert isinstance(model, LaresModel)
        found = {
            name: each.grad for name, each in model.named_parameters() if each.grad is not None
        }
        objective.zero_grad()
        return found


def bytes_taken(name: str, batch: int) -> int:
    """By one step, beside model, reference, Adam's moments and the gradients."""
    step = RptStep(name, batch)
    RptStep(name, batch=8)()  # what a first call loads
    model = step.model
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    step.optimizer.step()
    step.optimizer.zero_grad()
    gradients = sum(parameter.nbytes for parameter in model.parameters())
    return peak_growth(step) - gradients


def seconds_of_rounds(names: Sequence[str], batch: int, rounds: int) -> dict[str, list[float]]:
    """Of the programs' steps, by name; the first round is not counted."""
    race = Race({name: RptStep(name, batch) for name in names})
    race.run(rounds)
    return {name: [sample.wall for sample in samples] for name, samples in race.samples.items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    size, asked, *wanted = sys.argv[1:]
    if asked.isdigit():
        print(json.dumps(seconds_of_rounds(wanted, int(size), int(asked))))
    else:
        print(bytes_taken(asked, int(size)))
