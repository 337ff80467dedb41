"""Find the seed of a call: given as a number or a tensor, or drawn from torch's generator.

Kernels on a GPU read it from device memory when they run. A drawn seed is a tensor on the CPU, from the
CPU's default generator, even for a call on a GPU, except in programs that a GPU replays by itself
(docs/reference/random.md says why).
"""

from __future__ import annotations

import operator
import threading
from functools import lru_cache

import torch
from torch import Tensor
from torch._C._functorch import peek_interpreter_stack
from torch.compiler import is_compiling

from lares_kernels.common.devices import is_capturing
from lares_kernels.common.whole import described, is_whole

_CPU = torch.device("cpu")
_LEAST, _END = -(1 << 63), 1 << 64  # range of seeds: 64 bits, signed or unsigned
_DRAWN = (1 << 63) - 1  # upper bound of drawn seeds
# One lock for all objects, since an object with a lock can be neither copied nor pickled.
_COUNTING = threading.Lock()


def drawn_seed(device: torch.device = _CPU) -> Tensor:
    """Draw a seed () int64 from torch's default generator of the CPU.

    If a graph is captured on ``device``, or a program compiled for it, the seed is from that device's
    generator, and each replay takes the next one.
    """
    again = device.type == "cuda" and (is_compiling() or is_capturing(device.type))
    place = device if again else _CPU
    if is_compiling() or peek_interpreter_stack() is None:
        return torch.randint(_DRAWN, (), dtype=torch.int64, device=place)
    try:
        return torch.randint(_DRAWN, (), dtype=torch.int64, device=place)
    except RuntimeError as error:
        raise RuntimeError(
            "seed is None, and torch.func.vmap (which hessian and jacfwd use) lets no seed be drawn: "
            "give a seed; forward mode, vmap and second derivatives also need "
            'with use_backend("equations")'
        ) from error


def given_seed(seed: int | Tensor) -> int | Tensor:
    """Return ``seed`` as a number of 64 bits or a tensor () int64.

    Raises:
        TypeError, ValueError: ``seed`` is neither.
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


def seed_of_call(seed: int | Tensor | None, draws: bool, device: torch.device) -> int | Tensor:
    """Return the seed that a call on ``device`` runs with: the given one; else a drawn one if it
    ``draws`` in training; else 0."""
    if seed is not None:
        return given_seed(seed)
    return drawn_seed(device) if draws else 0


def signed(seed: int) -> int:
    """Return the 64 bits of ``seed`` as a signed number."""
    return seed if seed < 1 << 63 else seed - (1 << 64)


def seed_for(seed: int | Tensor, device: torch.device) -> int | Tensor:
    """Return ``seed`` as a call on ``device`` takes it: on a GPU a tensor there, so that nothing
    waits for it; else a number.

    Raises:
        RuntimeError: a graph is captured on ``device``, and the seed is a tensor somewhere else.
    """
    seed = given_seed(seed)
    if not isinstance(seed, Tensor) or (device.type == "cuda" and seed.device == device):
        return seed
    if is_capturing(device.type):
        raise RuntimeError(
            f"the seed is a tensor on {seed.device}, which the host reads once: the graph that is "
            "captured would repeat the same draws in every replay. Leave the seed out, for one to "
            f"be drawn at each replay, or give a tensor on {device}, which is read at each; a "
            "number repeats its draws"
        )
    return int(seed)


def seed_memory(seed: int | Tensor, device: torch.device) -> Tensor:
    """Return ``seed`` () int64 in memory of ``device``, without waiting for it."""
    if isinstance(seed, Tensor):
        return seed.contiguous()
    if is_capturing(device.type):
        return _seed_in_memory(seed, device)  # which belongs to the graph
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
    return _kept_seed(signed(seed), device, stream)


@lru_cache(maxsize=64)
def _kept_seed(seed: int, device: torch.device, stream: int) -> Tensor:
    """Return the same, cached while it is likely to be used again, by a backward or by
    inference. The cache is by stream, since the memory is written on one."""
    return _seed_in_memory(seed, device)


def _seed_in_memory(seed: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.full((), signed(seed), dtype=torch.int64, device=device)


def seed_tensor(seed: int | Tensor, device: torch.device = _CPU) -> Tensor:
    """Return ``seed`` as operators take it: a tensor (), for a number on the GPU where the call
    runs or on the CPU."""
    if isinstance(seed, Tensor):
        return seed
    place = device if device.type == "cuda" else _CPU
    return torch.full((), signed(seed), dtype=torch.int64, device=place)


class DrawSeeds:
    """Generate the seeds of a module's forwards in training.

    Args:
        first: None draws them from torch's generator, so that a forward that activation checkpointing
            repeats, or a resumed run, draws the same. A number is the seed of the first forward, and
            each later one takes the next; the count is not saved. Threads take different seeds, unless
            their forwards are compiled.
    """

    def __init__(self, first: int | None = None) -> None:
        self._next = None
        if first is not None:
            # A tensor: a compiled forward counts it up instead of being compiled again. One of
            # inference mode could not be counted outside of it.
            with torch.inference_mode(False):
                self._next = seed_tensor(given_seed(first)).clone()

    @property
    def next(self) -> int | None:
        """Return the seed of the next forward, if it is known."""
        return None if self._next is None else int(self._next)

    def take(self) -> Tensor | None:
        """Return a seed () int64, or None to draw one; neighbouring seeds give unrelated draws.

        Raises:
            RuntimeError: a counted seed is taken inside a backward.
        """
        if self._next is None:
            return None
        if is_compiling():
            return self._counted()
        if torch._C._current_graph_task_id() != -1:
            raise RuntimeError(
                "a forward runs again inside backward, as activation checkpointing does, but its "
                f"seeds are counted and it would take the next, {self.next}: leave seed=None"
            )
        with _COUNTING, torch.inference_mode(False):
            if self._next.is_inference():  # it was copied there
                self._next = self._next.clone()
            return self._counted()

    def _counted(self) -> Tensor:
        assert self._next is not None
        seed = self._next.clone()
        self._next.add_(1)
        return seed
