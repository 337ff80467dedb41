"""A whole step of self-supervised pre-training, with the ops or with a plain padded encoder and the
matrix of scores.

The rest is the same program: batches and partners, alignment losses, Adam. What a
part takes is read from hooks around the encoder, on the host's clock; on a GPU the clock waits for the
device, six times a step.
"""

from __future__ import annotations

import copy
import time
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.cases.baselines import PlainCore, draw_state, newest
from benchmarks.cases.equality import YARDSTICKS
from benchmarks.steps.spt_data import drawn_dataset
from lares import LaresConfig, LaresModel
from lares.model import EncoderOutput, LaresEncoder, PackedHistories
from lares.objectives.spt.config import SptConfig
from lares.objectives.spt.losses import SptDepths, SptLosses
from lares.objectives.spt.prefixes import SptObjective
from lares.training.spt_phases import SptPhase
from lares.training.steps import Place

PARTS = ("data", "encoder", "losses", "optimizer")
DEPTHS = SptDepths(recommendation=4, alignment=4, augmented=4, selected_step=1)
GRADIENT_LIMIT = 1e-4


class PlainEncoder(nn.Module):
    """:class:`lares.model.encoder.LaresEncoder` in padded eager PyTorch, over the same parameters.

    Like the program published with the paper it encodes the three roles of a batch one after the other.
    """

    def __init__(self, encoder: LaresEncoder) -> None:
        super().__init__()
        assert encoder.pre is not None
        assert encoder.core is not None
        self.config = encoder.config
        self.item_embedding = encoder.item_embedding
        self.position_embedding = encoder.position_embedding
        self.input_norm = encoder.input_norm
        self.pre, self.core = PlainCore(encoder.pre), PlainCore(encoder.core)

    def forward(
        self,
        histories: PackedHistories,
        lengths: None,
        num_steps: Tensor,
        initial_state: Tensor | None = None,
        *,
        return_trajectory: bool = True,
        **_: Any,
    ) -> EncoderOutput:
        size = len(histories) // 3
        states = (None,) * 3 if initial_state is None else initial_state.split(size)
        roles = [
            self.encode(*role)
            for role in zip(
                histories.padded.split(size),
                histories.lengths.split(size),
                num_steps[::size].tolist(),
                states,
                strict=True,
            )
        ]
        trajectory = torch.cat(roles)
        return EncoderOutput(trajectory[:, -1], trajectory, None, None)

    def encode(
        self, item_seq: Tensor, lengths: Tensor, num_steps: int, state: Tensor | None
    ) -> Tensor:
        """``z_1 .. z_T`` of one role, (B, T, d)."""
        width = item_seq.shape[1]
        hidden = self.item_embedding(item_seq) + self.position_embedding.weight[:width]
        hidden = F.dropout(self.input_norm(hidden), self.config.dropout, self.training)
        for weights in self.pre.layers():
            hidden = self.pre.layer(hidden, *weights)
        if state is None:
            state = draw_state(self.config.core_config(), hidden.detach())
        steps, layers = [], self.core.layers()
        for _ in range(num_steps):
            state = self.core.step(layers, state, hidden)
            steps.append(newest(state, lengths))
        return torch.stack(steps, dim=1)


class PlainObjective(SptObjective):
    """:class:`SptObjective` with the matrix of scores in its recommendation loss."""

    def recommendation(self, states: Tensor, targets: Tensor, n_targets: int) -> Tensor:
        return F.cross_entropy(self.model.score_states(states), targets)


class SptStep:
    """A training step to call; ``parts`` takes the seconds of every call's parts.

    Args:
        data: ``scientific18`` or ``beauty14``.
        batch: samples of a step; three encodings each.
        plain: with :class:`PlainEncoder` and :class:`PlainObjective`.
        device: type of the device.
        precision: of the products, ``fp32`` or ``bf16`` (under autocast).
        compiled: plain's steps under ``torch.compile``.
    """

    def __init__(
        self,
        data: str,
        batch: int,
        plain: bool,
        device: str = "cpu",
        precision: str = "fp32",
        compiled: bool = False,
    ) -> None:
        dataset = drawn_dataset(data)
        config = LaresConfig(n_items=dataset.vocabulary.n_items)
        torch.manual_seed(0)
        self.model = LaresModel(config)
        if plain:
            encoder = PlainEncoder(self.model.encoder)
            if compiled:
                encoder.core.step = torch.compile(encoder.core.step)  # type: ignore[method-assign]
                encoder.pre.layer = torch.compile(encoder.pre.layer)  # type: ignore[method-assign]
            self.model.encoder = encoder  # type: ignore[assignment]
        self.device, self.precision = torch.device(device), precision
        place = Place(rank=0, n_processes=1, device=self.device)
        self.phase = SptPhase(self.model, SptConfig(), dataset.train, 0, place)
        objective = PlainObjective(self.model, SptConfig()) if plain else self.phase.objective
        self.objective = objective.to(self.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.order = np.random.default_rng(0).permutation(len(dataset.train))
        self.batch, self.n_calls = batch, 0
        self.parts: list[dict[str, float]] = []
        self.model.encoder.register_forward_pre_hook(self._enter)
        self.model.encoder.register_forward_hook(self._leave)
        self._entered = self._left = self._reached = 0.0

    def __call__(self) -> None:
        first = self.n_calls * self.batch % (len(self.order) - self.batch)
        self.objective.train()
        clock = [self._now()]
        batch, _, seed, _ = self.phase.make(self.order[first : first + self.batch], self.n_calls)
        clock.append(self._now())
        with self._autocast(self.precision):
            losses: SptLosses = self.objective(batch, DEPTHS, seed)
        losses.total.backward()
        clock.append(self._now())
        self.optimizer.step()
        self.optimizer.zero_grad()
        clock.append(self._now())
        self.n_calls += 1
        encoder = self._left - self._entered + clock[2] - self._reached
        seconds = [after - before for before, after in pairwise(clock)]
        seconds[1:2] = [encoder, seconds[1] - encoder]
        self.parts.append(dict(zip(PARTS, seconds, strict=True)))

    def gradients(self, double: bool) -> dict[str, Tensor]:
        """Of every parameter for one batch, without dropout, from one drawn first state.

        Args:
            double: in float64, else as the step is timed.
        """
        # Only a double is a copy: what was compiled belongs to the original.
        objective = copy.deepcopy(self.objective) if double else self.objective
        objective.eval()
        batch, _, seed, _ = self.phase.make(self.order[: self.batch], 0)
        generator = torch.Generator().manual_seed(0)
        config = self.model.config
        shape = (self.batch, config.max_length, config.d_model)
        state = torch.randn(shape, generator=generator).to(self.device)
        if double:
            objective.double()
            state = state.double()
        assert batch.partners is not None
        width = max(batch.histories.width, batch.partners.width)
        states = (state[:, :width],) * 3
        with self._autocast("fp32" if double else self.precision):
            losses: SptLosses = objective(batch, DEPTHS, seed, initial_states=states)
        losses.total.backward()
        found = {
            _common_name(name): parameter.grad
            for name, parameter in sorted(objective.named_parameters())
            if parameter.grad is not None
        }
        objective.zero_grad()
        return found

    def _autocast(self, precision: str) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16")

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def _enter(self, *_: object) -> None:
        self._entered = self._now()

    def _leave(self, _module: nn.Module, _inputs: object, output: EncoderOutput) -> None:
        self._left = self._now()
        for tensor in (output.last, output.trajectory):
            if tensor is not None and tensor.requires_grad:
                tensor.register_hook(self._gradient_came)

    def _gradient_came(self, _: Tensor) -> None:
        # Of the newest row and of the trajectory: what comes after the later one is the encoder's.
        self._reached = self._now()


def _common_name(name: str) -> str:
    """A parameter's name, which is longer where a plain encoder holds it."""
    for block in ("pre", "core"):
        name = name.replace(f"encoder.{block}.core.", f"encoder.{block}.")
    return name


class Step(Protocol):
    """A step whose gradients can be held to a plain one's."""

    precision: str

    def gradients(self, double: bool) -> dict[str, Tensor]: ...


def errors_of(step: Step, plain: Step) -> dict[str, float]:
    """How far a step's gradients are from those of plain PyTorch in float64, by parameter.

    Raises:
        AssertionError: other parameters have gradients.
    """
    found, exact = step.gradients(double=False), plain.gradients(double=True)
    if found.keys() != exact.keys():
        raise AssertionError(f"{sorted(found)} have gradients, plain's {sorted(exact)}")
    scale = 1e-3 * max(float(g.norm()) for g in exact.values())
    return {
        name: float((found[name].double() - wanted).norm()) / max(float(wanted.norm()), scale)
        for name, wanted in exact.items()
    }


def check_equal(step: Step, plain: Step) -> None:
    """Raise ``AssertionError`` unless a step's gradients are those of plain PyTorch in float64.

    In bf16 they may be twice as far away as the worst of plain's own in bf16.
    """
    limit = GRADIENT_LIMIT
    if step.precision == "bf16":
        limit = YARDSTICKS * max(errors_of(plain, plain).values())
    for name, error in errors_of(step, plain).items():
        if not error <= limit:
            raise AssertionError(f"gradient of {name} is {error:.1e} away from plain's in float64")
