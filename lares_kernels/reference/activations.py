"""Compute the feed-forward's activations and their derivatives, element by element."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

_SQRT_HALF = math.sqrt(0.5)
_INV_SQRT_2PI = 1.0 / math.sqrt(2.0 * math.pi)
_TANH_SCALE = math.sqrt(2.0 / math.pi)
_TANH_CUBIC = 0.044715


class Activation(NamedTuple):
    """Hold ``value(x)`` and ``derivative(x)``, both of ``x``'s shape and dtype."""

    value: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor]


def _gelu_derivative(x: Tensor) -> Tensor:
    """Compute ``Phi(x) + x phi(x)``."""
    return 0.5 * (1.0 + torch.erf(x * _SQRT_HALF)) + x * torch.exp(-0.5 * x * x) * _INV_SQRT_2PI


def _gelu_tanh_derivative(x: Tensor) -> Tensor:
    tanh = torch.tanh(_TANH_SCALE * (x + _TANH_CUBIC * x**3))
    inner = _TANH_SCALE * (1.0 + 3.0 * _TANH_CUBIC * x * x)
    return 0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * inner


def _silu_derivative(x: Tensor) -> Tensor:
    gate = torch.sigmoid(x)
    return gate * (1.0 + x * (1.0 - gate))


ACTIVATIONS: dict[str, Activation] = {
    "gelu": Activation(functional.gelu, _gelu_derivative),
    "gelu_tanh": Activation(
        lambda x: functional.gelu(x, approximate="tanh"), _gelu_tanh_derivative
    ),
    "relu": Activation(functional.relu, lambda x: (x > 0).to(x.dtype)),
    "silu": Activation(functional.silu, _silu_derivative),
}
