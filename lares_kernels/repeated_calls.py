"""Inference on the CPU that repeats an earlier call: what its shapes and options come to is kept.

Beside the arithmetic of one sequence stands Python. Most of it looks at shapes, types and options,
which a server repeats call after call. The C struct that they come to is kept here; left to do is to
look at the tensors. The checks stay in function.py: only a call like one that has passed them runs
here; one that differs in any way, or that the kernel refuses, goes through function.py in full.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeGuard

import torch
from torch import Tensor

from lares_kernels import cpu_library as lib
from lares_kernels.backends import asked_backend
from lares_kernels.call import RefineCall
from lares_kernels.config import CoreConfig
from lares_kernels.cpu import OfCore, of_core, struct_without_tensors
from lares_kernels.ops import only_run
from lares_kernels.parameters import parameter_shapes

_MOST_KEPT = 1024  # signatures; a server's batches have few, and past that keeping starts anew


class Signature(NamedTuple):
    """What decides how a call runs, beside its parameters and the numbers in its tensors."""

    config: str
    shape: torch.Size
    num_steps: int
    state: str | None
    wants_state: bool
    precision: str | None
    backend: str | None


class _Placed(NamedTuple):
    """Where a call's parameters lay, all on the CPU, and the C struct that says so.

    Attributes:
        addresses: of the parameters.
        struct: the C struct but for its other tensors, seed and threads.
    """

    addresses: list[int]
    struct: bytes


@dataclass
class _Kept:
    """What calls of one signature have in common.

    Attributes:
        struct: the C struct but for its tensors, seed and threads.
        core: of the core alone.
        names, shapes: of the parameters.
        full: (B,) lengths of sequences without padding.
        trajectory: (B, T, d), its shape.
        placed: of the latest call. A weight may be replaced between calls, or turned where it lies, so
            that no call can do without a look at each.
    """

    struct: bytes
    core: OfCore
    names: list[str]
    shapes: list[tuple[int, ...]]
    full: Tensor
    trajectory: tuple[int, int, int]
    placed: _Placed | None = None


_kept: dict[Signature, _Kept] = {}


def signature_of(
    config: CoreConfig,
    hidden: Tensor,
    cu_seqlens: Tensor | None,
    num_steps: int | Tensor,
    state: Tensor | str | None,
    wants_state: bool,
    precision: str | None,
) -> Signature | None:
    """Of a call with one rollout and without dropout; None if it is not of the kind that is kept.

    Of packed ones those of one sequence are: with more, hardly a batch has the size of another.
    """
    if (
        torch.is_grad_enabled()
        or not only_run(hidden)
        or hidden.dtype is not torch.float32
        or not hidden.is_contiguous()
        or not hidden.is_cpu
        or torch.is_autocast_enabled("cpu")
        or not (cu_seqlens is None or cu_seqlens.shape == (2,))
        or type(num_steps) is not int
        or not (state is None or type(state) is str)
    ):
        return None
    backend, _ = asked_backend()
    return Signature(config.key, hidden.shape, num_steps, state, wants_state, precision, backend)


def is_kept(signature: Signature) -> bool:
    """Whether a call of this signature has been kept."""
    return signature in _kept


def keep(signature: Signature, call: RefineCall) -> None:
    """Keep what ``call``, which has run on the CPU kernel, came to."""
    if len(_kept) >= _MOST_KEPT:
        _kept.clear()
    shapes = parameter_shapes(call.config)
    _kept[signature] = _Kept(
        bytes(struct_without_tensors(call)),
        of_core(call),
        [*shapes],
        [*shapes.values()],
        torch.full_like(call.lengths, call.padded_length or call.n_hidden_rows),
        (call.n_sequences, call.max_steps, call.config.d_model),
    )


def _struct(kept: _Kept, ordered: list[Tensor]) -> lib.LaresCall | None:
    """A C struct with these parameters; None if the library cannot read them where they lie."""
    if [tensor.shape for tensor in ordered] != kept.shapes:
        return None
    placed = kept.placed
    if placed is None or [*map(Tensor.data_ptr, ordered)] != placed.addresses:
        addresses = lib.float32_addresses(ordered)
        if addresses is None:
            return None
        c = lib.LaresCall.from_buffer_copy(kept.struct)
        c.parameters[:] = kept.core.in_places((*addresses, None))
        kept.placed = _Placed(addresses, bytes(c))
        return c
    # What lies at these places is on the CPU. It must still be of one type and order.
    types = [tensor.dtype for tensor in ordered]
    if types != [torch.float32] * len(types) or not all(map(Tensor.is_contiguous, ordered)):
        return None
    return lib.LaresCall.from_buffer_copy(placed.struct)


def _lies_ready(numbers: Tensor | Sequence[int], like: Tensor) -> TypeGuard[Tensor]:
    """Whether the library can read (B,) numbers where they lie, as it can ``like``."""
    return (
        type(numbers) is Tensor
        and numbers.dtype is torch.int64
        and numbers.shape == like.shape
        and numbers.is_contiguous()
        and numbers.is_cpu
    )


def _lengths(
    kept: _Kept,
    hidden: Tensor,
    lengths: Tensor | Sequence[int] | None,
    cu_seqlens: Tensor | None,
) -> Tensor | None:
    """(B,) lengths as the library reads them; None if these are not of the kind that is kept."""
    if hidden.dim() == 2:
        if cu_seqlens is None or lengths is not None or cu_seqlens.is_floating_point():
            return None
        return kept.full if cu_seqlens.tolist() == [0, len(hidden)] else None
    if cu_seqlens is not None:
        return None
    if lengths is None:
        return kept.full
    return lengths if _lies_ready(lengths, kept.full) else None


def run(
    signature: Signature,
    parameters: Mapping[str, Tensor],
    hidden: Tensor,
    lengths: Tensor | Sequence[int] | None,
    cu_seqlens: Tensor | None,
    sequence_ids: Tensor | None,
    seed: int,
) -> tuple[Tensor, Tensor | None] | None:
    """(trajectory (B, T, d), final state if it is wanted); None if the call must run in full."""
    kept = _kept.get(signature)
    if kept is None or [*parameters] != kept.names:
        return None
    c = _struct(kept, [*parameters.values()])
    sizes = _lengths(kept, hidden, lengths, cu_seqlens)
    if c is None or sizes is None:
        return None
    if sequence_ids is not None:
        if not _lies_ready(sequence_ids, kept.full):
            return None
        c.sequence_ids = sequence_ids.data_ptr()
    trajectory = lib.room(*kept.trajectory)
    final = None
    if signature.wants_state:
        final = lib.room_like(hidden)
        c.final_state = final.data_ptr()
    c.hidden = hidden.data_ptr()
    c.lengths = sizes.data_ptr()
    c.trajectory = trajectory.data_ptr()
    c.seed = seed
    c.threads = torch.get_num_threads()
    if lib.loaded().lares_refine_forward(c) != lib.OK:
        return None
    return trajectory, final
