"""Random calls of the recurrence for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lares_kernels import CoreConfig, RecurrentCore, RefineOutput, use_backend

# Section 9 of the contract: relative error of a whole tensor in float32.
FORWARD, BACKWARD = 1e-5, 1e-4
# With products in bfloat16 an error may be this many times that of plain PyTorch doing the same.
YARDSTICKS = 2.0
SMALL = CoreConfig(d_model=16, n_heads=2, d_ff=24, n_layers=2)
# Of three rollouts of four sequences.
DEPTHS = torch.tensor([[2, 1, 3], [1, 1, 4], [4, 4, 4], [3, 2, 1]])


def _variants() -> Iterator[CoreConfig]:
    for adapter in ("add", "gate", "concat", "none"):
        for norm in ("post", "pre"):
            yield replace(SMALL, adapter=adapter, norm=norm)
    for activation in ("gelu_tanh", "relu", "silu"):
        yield replace(SMALL, activation=activation, n_layers=1)
    for adapter in ("add", "none"):
        yield replace(SMALL, adapter=adapter, norm="query")
    for norm, padding in (("query", "left-zeros"), ("post", "left-zeros"), ("pre", "left")):
        yield replace(SMALL, norm=norm, padding=padding, dropout_of="feed-forward")


# Those that mix whole windows of 20 rows.
MIXERS = [
    replace(SMALL, mixer=mixer, adapter=adapter, window=20)
    for mixer in ("filter", "bsarec")
    for adapter in ("add", "gate", "concat", "none")
]
# Every adapter with every norm, every activation once more, every place of padding.
VARIANTS = list(_variants())
# The same for Triton's interpreter, which is slow: adapters do not know how many layers follow.
FEW_LAYERS = [c if c.adapter == "add" else replace(c, n_layers=1) for c in VARIANTS]


def name(config: CoreConfig) -> str:
    parts = (config.adapter, config.norm, config.activation, config.n_layers, config.padding)
    return "-".join(str(part) for part in parts)


class SeededCore(RecurrentCore):
    """Draws by seed 0 unless told otherwise, so that calls in training can be compared."""

    def forward(self, *inputs: Any, seed: Any = 0, **options: Any) -> RefineOutput:
        return super().forward(*inputs, seed=seed, **options)


def make_core(config: CoreConfig, seed: int = 0, scale: float = 0.3) -> RecurrentCore:
    """A core in float64 whose every parameter is away from its neutral value."""
    torch.manual_seed(seed)
    core = SeededCore(config, dtype=torch.float64)
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return core


def random_loss(*parts: Tensor) -> Tensor:
    """One random linear function of all parts, the same in every type."""
    generator = torch.Generator().manual_seed(9)
    terms = [(part * torch.randn(part.shape, generator=generator).to(part)).sum() for part in parts]
    return torch.stack([term.double() for term in terms]).sum()


@dataclass
class Problem:
    core: RecurrentCore
    hidden: Tensor
    lengths: Tensor
    options: dict[str, Any]

    def run(self, **changes: Any) -> RefineOutput:
        asked = {"return_trajectory": True, "return_state": True, **self.options, **changes}
        return self.core(self.hidden, self.lengths, **asked)

    def gradients(self, **changes: Any) -> list[Tensor]:
        """Of a random linear function of all outputs, for hidden and every parameter."""
        out = self.run(**changes)
        loss = random_loss(out.trajectory, out.state)
        return list(torch.autograd.grad(loss, [self.hidden, *self.core.parameters()]))


def make_problem(config: CoreConfig, *, depth: Any = 3, seed: int = 0, **options: Any) -> Problem:
    """Sequences of 1, 5, 3 and 9 items."""
    core = make_core(config, seed)
    lengths = torch.tensor([1, 5, 3, 9])
    hidden = torch.randn(4, 9, config.d_model, dtype=torch.float64, requires_grad=True)
    if config.is_recurrent:
        options["num_steps"] = depth
    return Problem(core, hidden, lengths, options)


def relative(found: Tensor, expected: Tensor) -> float:
    """``|found - expected| / |expected|`` (absolute where nothing is expected)."""
    scale = expected.detach().norm().item()
    return (found - expected).detach().norm().item() / (scale if scale > 0 else 1.0)


def exact_problem(
    config: CoreConfig, lengths: list[int], scale: float = 0.1, device: str = "cpu"
) -> tuple[RecurrentCore, Tensor, Tensor]:
    """Core and hidden (B, L, d) in float64, whose every number float32 holds exactly, and lengths."""
    core = make_core(config, scale=scale).float().double().to(device)
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(len(lengths), max(lengths), config.d_model, generator=generator)
    return core, hidden.double().to(device), torch.tensor(lengths, device=device)


def many_on_a_card(size: int) -> tuple[RecurrentCore, Tensor, Tensor, Tensor]:
    """Published core with dropout in float32, hidden, lengths and depths of ``size`` sequences."""
    core = make_core(CoreConfig(dropout=0.5, attn_dropout=0.5), scale=0.1).float().cuda()
    number = torch.arange(size, device="cuda")
    hidden = torch.randn(size, 20, 64, device="cuda")
    return core, hidden, number * 7 % 20 + 1, number % 4 + 1


def outputs_and_gradients(
    core: RecurrentCore, hidden: Tensor, lengths: Tensor, **options: Any
) -> tuple[list[Tensor], list[Tensor]]:
    """(trajectory and state, gradients of hidden and every parameter of a random loss)."""
    hidden = hidden.clone().requires_grad_()
    out = core(hidden, lengths, return_trajectory=True, return_state=True, **options)
    loss = random_loss(out.trajectory, out.state)
    grads = torch.autograd.grad(loss, [hidden, *core.parameters()])
    return [out.trajectory.detach(), out.state.detach()], list(grads)


def gradients_of_the_given_state(
    backend: str, config: CoreConfig, **options: Any
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Gradients of a given state and every parameter, by the backend and by the equations.

    The loss knows the trajectory alone. The options are for the backend, which computes in float32.
    """
    core, hidden, lengths = exact_problem(config, [4, 9, 2])
    state = torch.randn(hidden.shape, dtype=torch.float64)
    found = []
    for name, dtype, more in (
        (backend, torch.float32, options),
        ("equations", torch.float64, {}),
    ):
        core.to(dtype)
        first = state.to(dtype).requires_grad_()
        asked = {"num_steps": 2, "state": first, "return_trajectory": True, **more}
        with use_backend(name):
            out = core(hidden.to(dtype), lengths, **asked)
        loss = out.last.square().sum() + out.trajectory[:, 0].sum()
        found.append(torch.autograd.grad(loss, [first, *core.parameters()]))
    assert found[0][0][0, 4:].abs().max() == 0  # of padding
    return found[0], found[1]


def assert_equal_to_equations(
    backend: str, config: CoreConfig, lengths: list[int], **options: Any
) -> None:
    """A backend in float32 is as near to the equations in float64 as section 9 asks."""
    core, hidden, sizes = exact_problem(config, lengths)
    with use_backend("equations"):
        exact, exact_grads = outputs_and_gradients(core, hidden, sizes, **options)
    core.float()
    with use_backend(backend):
        found, grads = outputs_and_gradients(core, hidden.float(), sizes, **options)
    for mine, wanted in zip(found, exact, strict=True):
        assert relative(mine.double(), wanted) < FORWARD
    # A gradient that is zero but for rounding (a key's bias) is measured on the largest one's scale.
    scale = 1e-3 * max(float(g.norm()) for g in exact_grads[1:])
    for what, mine, wanted in zip(
        ["hidden", *dict(core.named_parameters())], grads, exact_grads, strict=True
    ):
        error = float((mine.double() - wanted).norm())
        assert error < BACKWARD * max(float(wanted.norm()), scale), what


def assert_newest_rows_alone_suffice(
    backend: str, config: CoreConfig, lengths: list[int], depths: Tensor, given: bool
) -> None:
    """Without ``return_state`` the last layer of a last step skips the other rows; same gradients.

    Args:
        depths: (B,) of the sequences.
        given: whether the first state is an argument, which then has a gradient.
    """
    core, hidden, sizes = exact_problem(config, lengths)
    state = torch.randn_like(hidden) if given else None
    found = []
    for name, dtype in (("equations", torch.float64), (backend, torch.float32)):
        core.to(dtype)
        inputs = [t.detach().to(dtype).requires_grad_() for t in (hidden, state) if t is not None]
        with use_backend(name):
            out = core(
                inputs[0],
                sizes,
                num_steps=depths,
                state=inputs[1] if given else None,
                return_trajectory=True,
            )
        grads = torch.autograd.grad(random_loss(out.trajectory), [*inputs, *core.parameters()])
        found.append((out.trajectory, grads))
    (exact, exact_grads), (mine, grads) = found
    assert relative(mine.double(), exact) < FORWARD
    scale = 1e-3 * max(float(g.norm()) for g in exact_grads)
    for g, wanted in zip(grads, exact_grads, strict=True):
        assert float((g - wanted).norm()) < BACKWARD * max(float(wanted.norm()), scale)
