"""Ops with a gradient written by hand: differentiated once, in reverse. All else raises.

Second derivatives, forward mode and vmap are backend ``equations``'s, which is plain PyTorch. Asked
of any other they would come out as zeros or not at all: PyTorch itself does not know better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from lares_kernels.dispatcher import may_have_tangents


def refuse(what: str) -> NoReturn:
    """Raise ``RuntimeError``: only backend ``equations`` has that."""
    raise RuntimeError(
        f"{what} is not to be had of this backend, whose gradients are written by hand and are "
        'differentiated once, in reverse: run it inside "with use_backend("equations")"'
    )


class Refusing:
    """What an op's ``torch.autograd.Function`` inherits from where no compiler looks on, which would
    not take one with these methods."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Any:
        refuse("a derivative in forward mode")

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> Any:
        refuse("vmap")


class HandWrittenGradient(torch.autograd.Function):
    """The gradient of such an op, of all tensors that it depends on; ``forward`` gives a tuple."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        refuse("a second derivative")

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Any:
        refuse("a second derivative")

    # As a class method, since it must call the class that it is found on.
    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> Any:
        """One after the other, as jacrev asks for gradients of every output."""
        each = [
            cls.apply(  # type: ignore[no-untyped-call]
                *(
                    given if dim is None else given.select(dim, i)
                    for given, dim in zip(inputs, in_dims, strict=True)
                )
            )
            for i in range(info.batch_size)
        ]
        gradients = tuple(torch.stack(of_all) for of_all in zip(*each, strict=True))
        return gradients, (0,) * len(gradients)


def register(
    library: torch.library.Library, name: str, apply: Callable[..., Any] | None = None
) -> None:
    """Give the operator ``name`` of ``library`` a derivative: ``apply`` of its arguments.

    None: its results have no gradient. Without this PyTorch would take an operator that is called
    where autograd looks on for one with a gradient that is lost.
    """
    operator = getattr(torch.ops.lares_kernels, name).default

    def run(keyset: Any, *arguments: Any) -> Any:
        if apply is not None and _is_differentiated(arguments):
            if torch._C._are_functorch_transforms_active():
                raise RuntimeError(
                    f"torch.ops.lares_kernels.{name} cannot be differentiated by torch.func; the "
                    "functions of lares_kernels can"
                )
            return apply(*arguments)
        with torch._C._AutoDispatchBelowAutograd():
            return operator.redispatch(keyset & torch._C._after_autograd_keyset, *arguments)

    library.impl(name, run, "Autograd", with_keyset=True)


def _is_differentiated(arguments: Sequence[Any]) -> bool:
    tensors = list(_tensors(arguments))
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return True
    if not (may_have_tangents() and torch._C._is_fwd_grad_enabled()):
        return False
    unpack = torch.autograd.forward_ad.unpack_dual
    return any(
        tensor.is_floating_point() and unpack(tensor).tangent is not None for tensor in tensors
    )


def _tensors(arguments: Sequence[Any]) -> Iterator[Tensor]:
    for argument in arguments:
        if isinstance(argument, Tensor):
            yield argument
        elif isinstance(argument, list):
            yield from argument
