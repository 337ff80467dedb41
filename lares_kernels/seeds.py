"""The seed of a call: given as a number or a tensor, or drawn from torch's generator.

A drawn seed is a tensor on the CPU, from the CPU's default generator, also where the call runs on a GPU
(docs/random.md says why).
"""

from __future__ import annotations

import operator

import torch
from torch import Tensor
from torch._C._functorch import peek_interpreter_stack
from torch.compiler import is_compiling

from lares_kernels.whole import described, is_whole

_CPU = torch.device("cpu")
_LEAST, _END = -(1 << 63), 1 << 64  # of numbers: 64 bits, with a sign or without
_DRAWN = (1 << 63) - 1  # below it lie drawn ones


def drawn_seed() -> Tensor:
    """A seed () int64 from torch's default generator of the CPU."""
    if is_compiling() or peek_interpreter_stack() is None:
        return torch.randint(_DRAWN, (), dtype=torch.int64, device=_CPU)
    try:
        return torch.randint(_DRAWN, (), dtype=torch.int64, device=_CPU)
    except RuntimeError as error:
        raise RuntimeError(
            "seed is None, and torch.func.vmap (which hessian and jacfwd use) lets no seed be drawn: "
            "give a seed; forward mode, vmap and second derivatives also need "
            'with use_backend("equations")'
        ) from error


def given_seed(seed: int | Tensor) -> int | Tensor:
    """``seed`` as a number of 64 bits or a tensor () int64.

    Raises:
        TypeError, ValueError: it is neither.
    """
    if isinstance(seed, Tensor):
        if seed.numel() != 1 or not is_whole(seed):
            raise ValueError(f"seed has {described(seed)}; a tensor must hold one whole number")
        return seed.reshape(()).to(torch.int64)  # the same bits of unsigned ones
    if isinstance(seed, bool):
        raise TypeError(f"seed is {seed}; it must be a whole number, a tensor of one, or None")
    if not isinstance(seed, int):
        try:
            seed = operator.index(seed)
        except TypeError:
            raise TypeError(
                f"seed is {seed!r}; it must be a whole number, a tensor of one, or None"
            ) from None
    if not _LEAST <= seed < _END:
        raise ValueError(f"seed is {seed}; it must be a number of 64 bits, in -2^63..2^64-1")
    return seed


def seed_of_call(seed: int | Tensor | None, draws: bool) -> int | Tensor:
    """The seed that a call runs with: the given one; where none is, a drawn one if it ``draws`` in
    training, else 0."""
    if seed is not None:
        return given_seed(seed)
    return drawn_seed() if draws else 0


def signed(seed: int) -> int:
    """The 64 bits of ``seed`` as a number with a sign."""
    return seed if seed < 1 << 63 else seed - (1 << 64)


def seed_tensor(seed: int | Tensor) -> Tensor:
    """``seed`` as operators take it: a tensor ()."""
    if isinstance(seed, Tensor):
        return seed
    return torch.full((), signed(seed), dtype=torch.int64, device=_CPU)


class DrawSeeds:
    """Seeds of a module's forwards in training.

    Args:
        first: None leaves them to torch's generator, so that a forward that activation checkpointing
            runs again, or a run that goes on from what was saved, draws the same. A number is the first
            forward's, and each one after takes the next; the count is not saved.
    """

    def __init__(self, first: int | None = None) -> None:
        # A tensor: a compiled forward counts it up instead of being compiled again.
        self._next = None if first is None else seed_tensor(given_seed(first)).clone()

    @property
    def next(self) -> int | None:
        """The seed that the next forward takes, if it is known."""
        return None if self._next is None else int(self._next)

    def take(self) -> Tensor | None:
        """A seed () int64, or None for one to be drawn; neighbouring ones give unrelated draws.

        Raises:
            RuntimeError: a counted one is taken inside a backward.
        """
        if self._next is None:
            return None
        if not is_compiling() and torch._C._current_graph_task_id() != -1:
            raise RuntimeError(
                "a forward runs again inside backward, as activation checkpointing does, but its "
                f"seeds are counted and it would take the next, {self.next}: leave seed=None"
            )
        seed = self._next.clone()
        self._next.add_(1)
        return seed
