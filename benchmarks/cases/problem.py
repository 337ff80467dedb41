"""The tensors of a case: parameters, input, lengths, a first state and a gradient to send back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor, nn

from benchmarks.cases.baselines import draw_state
from benchmarks.cases.lengths import draw_lengths
from benchmarks.cases.op import Case
from lares_kernels import RecurrentCore

# From s_0, or None to draw it, to `last` (B, d).
Program = Callable[[Tensor | None], Tensor]


@dataclass(frozen=True)
class Problem:
    """A case's tensors in one type.

    Attributes:
        case: the shape they were made for.
        parameters: of the core, by name.
        hidden: (B, L, d).
        lengths: (B,).
        state: (B, L, d) first state, for comparing programs that would draw different ones.
        cotangent: (B, d), the gradient of ``last``. A random one: the squared norm of a normalised row
            is constant, so its gradient would be zero.
    """

    case: Case
    parameters: dict[str, nn.Parameter]
    hidden: Tensor
    lengths: Tensor
    state: Tensor
    cotangent: Tensor

    def core(self, dropout: bool) -> RecurrentCore:
        """A module over the same parameters, in training mode where ``dropout``."""
        core = RecurrentCore(self.case.config)
        for name, parameter in self.parameters.items():
            setattr(core, name, parameter)
        return core.train(dropout)

    def double(self) -> Problem:
        """The same in float64."""
        parameters = {n: nn.Parameter(p.detach().double()) for n, p in self.parameters.items()}
        return replace(
            self,
            parameters=parameters,
            hidden=self.hidden.detach().double().requires_grad_(),
            state=self.state.double(),
            cotangent=self.cotangent.double(),
        )

    def evaluate(
        self, program: Program, backward: bool, state: Tensor | None = None
    ) -> list[Tensor]:
        """``last``, and with ``backward`` the gradients of ``hidden`` and every parameter."""
        if not backward:
            with torch.no_grad():
                return [program(state)]
        last = program(state)
        wanted = [self.hidden, *self.parameters.values()]
        grads = torch.autograd.grad(last, wanted, self.cotangent.to(last.dtype))
        return [last.detach(), *grads]


@lru_cache(maxsize=2)
def _of_shape(shape: Case) -> Problem:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    core = RecurrentCore(shape.config)
    core.reset_parameters(std=shape.d_model**-0.5)  # large enough for attention to differ by token
    lengths = draw_lengths(shape.lengths, shape.batch, shape.max_length)
    hidden = torch.randn(shape.batch, shape.max_length, shape.d_model, generator=generator)
    state = draw_state(shape.config, hidden)
    cotangent = torch.randn(shape.batch, shape.d_model, generator=generator)
    return Problem(
        shape,
        dict(core.to(shape.device).named_parameters()),
        hidden.to(shape.device).requires_grad_(),
        lengths.to(shape.device),
        state.to(shape.device),
        cotangent.to(shape.device),
    )


def problem_of(case: Case) -> Problem:
    """The float32 problem of a case, made once for all cases of its shape."""
    return _of_shape(case.shape)
