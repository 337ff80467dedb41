"""Cores with every pair of choices, and the check of a backend on one: served rightly, or refused."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, product
from typing import Any

import torch

from lares_kernels import CoreConfig, use_backend
from lares_kernels.registry.backends import REFINE, verify
from lares_kernels.spec.call import Request
from lares_kernels.spec.choices import Activation, Adapter, DropoutOf, Mixer, Norm, Padding
from tests.kernels.problems import YARDSTICKS, make_core

WINDOW = 9
CHOICES: dict[str, tuple[str, ...]] = {
    "adapter": Adapter.texts(),
    "activation": Activation.texts(),
    "norm": Norm.texts(),
    "mixer": Mixer.texts(),
    "padding": Padding.texts(),
    "dropout_of": DropoutOf.texts(),
}
PAIRS = [
    {first: a, second: b}
    for first, second in combinations(CHOICES, 2)
    for a, b in product(CHOICES[first], CHOICES[second])
]


def name(pair: dict[str, str]) -> str:
    return "-".join(pair.values())


def core_with(pair: dict[str, str], width: int) -> CoreConfig | None:
    """Return a core with a pair of choices; None where the specification knows none, and says so."""
    more: dict[str, Any] = (
        {} if pair.get("mixer", "attention") == "attention" else {"window": WINDOW}
    )
    try:
        return CoreConfig(width, 2, 24, 1, dropout=0.25, attn_dropout=0.25, **pair, **more)
    except ValueError as error:
        # The message names one of the two, which do not go together.
        assert any(kind in str(error) for kind in pair), error
        return None


def served_cores(
    backend: str, width: int, device_type: str, products: torch.dtype
) -> list[CoreConfig]:
    """Return few cores that together have every pair of choices that the backend serves.

    Of all combinations those are asked for one after the other that have the most new pairs.
    """
    left: dict[CoreConfig, set[tuple[str, str]]] = {}
    for values in product(*CHOICES.values()):
        choice = dict(zip(CHOICES, values, strict=True))
        config = core_with(choice, width)
        if config is None:
            continue
        reason = verify(REFINE.named(backend), Request(config, device_type, products))
        if reason is None:
            left[config] = {*combinations([f"{k}={v}" for k, v in choice.items()], 2)}
        else:
            # It names an option of the core, and its value.
            name, _, value = reason.partition(" is ")
            assert value.startswith(f"{choice[name]!r};" if name in choice else ""), reason
    found = []
    missing = set().union(*left.values())
    while missing:
        best = max(left, key=lambda config: len(left[config] & missing))
        found.append(best)
        missing -= left.pop(best)
    return found


def run(config: CoreConfig, backend: str, precision: str) -> Iterator[torch.Tensor]:
    """Yield last states and gradients of a call in training, by a backend."""
    core = make_core(config).float()
    d = config.d_model
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(3, WINDOW, d, generator=generator).requires_grad_()
    steps = 2 if config.is_recurrent else 1
    with use_backend(backend):
        out = core(hidden, torch.tensor([WINDOW, 2, 5]), num_steps=steps, precision=precision)
        loss = (out.last * torch.linspace(-1, 1, d)).sum()
        yield out.last.detach()
        yield from torch.autograd.grad(loss, [hidden, *core.parameters()])


def check(backend: str, config: CoreConfig, precision: str, allowed: float) -> None:
    """Hold what a backend gives to the equations.

    ``allowed`` is the relative error of a whole tensor, measured on the largest one's scale, beyond
    twice that of the reference in the same precision.
    """
    wanted = [*run(config, "equations", "fp32")]
    found = [*run(config, backend, precision)]
    plain = wanted if precision == "fp32" else [*run(config, "reference", precision)]
    floor = 1e-2 * max(float(tensor.norm()) for tensor in wanted)
    for mine, yardstick, right in zip(found, plain, wanted, strict=True):
        scale = max(float(right.norm()), floor)
        error = float((mine - right).norm()) / scale
        most = allowed + YARDSTICKS * float((yardstick - right).norm()) / scale
        assert error <= most, (config, tuple(right.shape), error, most)
