"""Register hand-written gradients: once, in reverse mode. All other differentiation raises.

Backend ``equations``, plain PyTorch, has second derivatives, forward mode and vmap. With any other,
PyTorch by itself would return zeros for them or nothing. So each operator registers its differentiation
at the dispatcher, which all ways to differentiate pass (``create_graph``, ``torch.func``, forward mode,
compiled programs).
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

from lares_kernels.common.dispatcher import may_have_tangents


def refuse(what: str) -> NoReturn:
    """Raise ``RuntimeError``: only backend ``equations`` has that."""
    raise RuntimeError(
        f"{what} is not available from this backend, whose gradients are written by hand and are "
        'differentiated once, in reverse: run it inside "with use_backend("equations")"'
    )


def differentiable_by(
    library: torch.library.Library,
    name: str,
    function: type[torch.autograd.Function],
    inputs_of: Callable[..., Sequence[Any]] | None = None,
    asked: Callable[..., Sequence[Any]] | None = None,
) -> None:
    """Let the operator ``name`` be differentiated by ``function``'s backward, once.

    Args:
        library: the library that defines the operator.
        name: name of the operator.
        function: has ``setup_context`` and ``backward``.
        inputs_of: maps the operator's arguments to those of ``function``; the same by default.
        asked: maps the operator's arguments to those that make it save what backward needs.
    """

    class Level(_SingleLevelFunction):
        """Hold one of torch.func's levels of differentiation."""

        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            *given, below = inputs  # it comes last, where it moves no other
            output = below()
            function.setup_context(ctx, tuple(given), output)
            return output

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor | None) -> Any:
            return (*function.backward(ctx, *gradients), None)

        @staticmethod
        def jvp(ctx: Any, *tangents: Tensor | None) -> Any:
            refuse("a derivative in forward mode")

    # Profiles and graphs show its name.
    named: Any = types.new_class(function.__name__, (Level,))

    def differentiated(below: Callable[..., Any], arguments: Sequence[Any]) -> Any:
        if asked is not None:
            arguments = asked(*arguments)
        inputs = arguments if inputs_of is None else inputs_of(*arguments)
        run = partial(below, *arguments)
        return named.apply(*inputs, run)

    def in_batches(info: Any, in_dims: Any, *arguments: Any) -> Any:
        refuse("vmap")

    _register(library, name, differentiated)
    torch.library.register_vmap(f"lares_kernels::{name}", in_batches, lib=library)


class _LastLevel(_SingleLevelFunction):
    """Raise on backward and forward mode of what cannot be differentiated further."""

    @staticmethod
    def forward(ctx: Any, below: Callable[[], Any], *tensors: Tensor) -> Any:
        ctx.set_materialize_grads(False)
        return tuple(below())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        refuse("a second derivative")

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Any:
        refuse("a second derivative")


def not_differentiable(library: torch.library.Library, name: str) -> None:
    """Make derivatives of the operator ``name``, a gradient, raise as soon as they are requested.

    Under vmap, with which jacrev computes gradients of every output, it runs for one at a time.
    """
    operator = getattr(torch.ops.lares_kernels, name).default

    def differentiated(below: Callable[..., Any], arguments: Sequence[Any]) -> Any:
        run = partial(below, *arguments)
        found = _LastLevel.apply(run, *_tensors(arguments))  # type: ignore[attr-defined]
        return list(found) if operator._schema.returns[0].type.str() == "List[Tensor]" else found

    def in_batches(info: Any, in_dims: Sequence[Any], *arguments: Any) -> Any:
        each = [
            operator(*(_pick(given, dim, i) for given, dim in zip(arguments, in_dims, strict=True)))
            for i in range(info.batch_size)
        ]
        kind = type(each[0])
        stacked = kind(torch.stack(of_all) for of_all in zip(*each, strict=True))
        return stacked, kind([0] * len(stacked))

    _register(library, name, differentiated)
    torch.library.register_vmap(f"lares_kernels::{name}", in_batches, lib=library)


def without_gradient(library: torch.library.Library, name: str) -> None:
    """Let the results of the operator ``name`` have no gradient, as the user is told."""
    _register(library, name, None)


def _pick(given: Any, dim: Any, i: int) -> Any:
    """Return the ``i``-th of a batch, if there is a batch dimension."""
    if isinstance(given, list):
        dims = dim if isinstance(dim, list | tuple) else [dim] * len(given)
        return [_pick(each, of, i) for each, of in zip(given, dims, strict=True)]
    return given if dim is None else given.select(dim, i)


def _register(
    library: torch.library.Library,
    name: str,
    differentiated: Callable[[Callable[..., Any], Sequence[Any]], Any] | None,
) -> None:
    operator = getattr(torch.ops.lares_kernels, name).default

    def run(keyset: Any, *arguments: Any) -> Any:
        def below(*arguments: Any) -> Any:
            with torch._C._AutoDispatchBelowAutograd():
                return operator.redispatch(keyset & torch._C._after_autograd_keyset, *arguments)

        if differentiated is None or not _is_differentiated(arguments):
            return below(*arguments)
        if not torch._C._are_functorch_transforms_active():
            return differentiated(below, arguments)
        return _in_level(differentiated, below, arguments)

    library.impl(name, run, "Autograd", with_keyset=True)


def _in_level(
    differentiated: Callable[[Callable[..., Any], Sequence[Any]], Any],
    below: Callable[..., Any],
    arguments: Sequence[Any],
) -> Any:
    """Call ``differentiated`` if the current level is one of torch.func's."""
    from torch._functorch.utils import enable_single_level_autograd_function

    reverse, forward = torch.is_grad_enabled(), torch._C._is_fwd_grad_enabled()

    def others(*arguments: Any) -> Any:
        # A function's forward is not differentiated by its own level; by the others it is.
        with torch.set_grad_enabled(reverse), forward_ad._set_fwd_grad_enabled(forward):
            return below(*arguments)

    with enable_single_level_autograd_function():
        return differentiated(others, arguments)


def _is_differentiated(arguments: Sequence[Any]) -> bool:
    tensors = list(_tensors(arguments))
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return True
    if not (may_have_tangents() and torch._C._is_fwd_grad_enabled()):
        return False
    unpack: Any = forward_ad.unpack_dual
    return any(
        tensor.is_floating_point() and unpack(tensor).tangent is not None for tensor in tensors
    )


def _tensors(arguments: Sequence[Any]) -> Iterator[Tensor]:
    for argument in arguments:
        if isinstance(argument, Tensor):
            yield argument
        elif isinstance(argument, list):
            yield from argument
