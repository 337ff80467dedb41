"""Cache what the shapes and options of a CPU inference call come to, for calls that repeat them.

For one sequence, Python's overhead counts. Most of it checks shapes, types and options, which a server
repeats call after call. The C struct that results from them is cached here,
so that only the tensors are left to check. The checks stay in function.py: only a call like one that
has passed them runs here; one that differs in any way, or that the kernel refuses, goes through
function.py in full.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lares_kernels.binding import cpu_library as lib
from lares_kernels.common.dispatcher import is_eager
from lares_kernels.cpu.backend import struct_without_tensors, template_of
from lares_kernels.cpu.tensor_reader import (
    ExpectedTensor,
    TensorReader,
    compile_pattern,
    field_index,
)
from lares_kernels.cpu.tensors import empty_like
from lares_kernels.registry.backends import requested_backend
from lares_kernels.registry.circumstances import Circumstances, circumstances
from lares_kernels.spec.call import RefineCall, RefineOutput
from lares_kernels.spec.choices import Code
from lares_kernels.spec.config import CoreConfig
from lares_kernels.spec.parameters import parameter_shapes

_MAX_CACHED = 1024  # signatures; a server's batches have few, and past that the cache is cleared


# Everything that determines how a call runs, beside its parameters and its tensors' values: key of the
# configuration, shape of hidden, num_steps, state, whether the final state is wanted, requested
# precision and backend, and what else the choice of a backend depends on. A plain tuple: one with names
# takes three times as long to make.
Signature = tuple[str, torch.Size, int, str | None, bool, str | None, str | None, Circumstances]


@dataclass
class _CachedCall:
    """Hold what calls of one signature share.

    Attributes:
        look: checks lengths, sequence ids, hidden and the parameters, in that order, in every call:
            a weight may be replaced between calls, or its strides changed in place.
        names: names of the parameters.
        full: (B,) lengths of sequences without padding.
        trajectory: shape of the trajectory, (B, T, d); (B, d) for one step, whose state is the last.
        wants_state: the final state is returned.
        forward: the library's function.
    """

    look: TensorReader
    names: list[str]
    full: Tensor
    trajectory: tuple[int, ...]
    wants_state: bool
    forward: Callable[[lib.LaresCall], int]


_kept: dict[Signature, _CachedCall] = {}


def signature_of(
    config: CoreConfig,
    hidden: Tensor,
    cu_seqlens: Tensor | None,
    num_steps: int | Tensor,
    state: Tensor | str | None,
    wants_state: bool,
    precision: str | None,
) -> Signature | None:
    """Return the cache key of an inference call, or None if such calls are not cached.

    Packed calls are cached for one sequence only: batches of more rarely have equal sizes.
    """
    if (
        torch.is_grad_enabled()
        or not is_eager(hidden)
        or hidden.dtype is not torch.float32
        or not hidden.is_cpu
        or torch.is_autocast_enabled("cpu")
        or not (cu_seqlens is None or cu_seqlens.shape == (2,))
        or type(num_steps) is not int
        or not (state is None or type(state) is str)
    ):
        return None
    backend, _ = requested_backend()
    options = num_steps, state, wants_state, precision
    return config.key, hidden.shape, *options, backend, circumstances("cpu", None)


def is_cached(signature: Signature) -> bool:
    """Return True if a call of this signature has been cached."""
    return signature in _kept


def keep(signature: Signature, call: RefineCall) -> None:
    """Cache the struct of ``call``, which has run on the CPU kernel."""
    if len(_kept) >= _MAX_CACHED:
        _kept.clear()
    shapes = parameter_shapes(call.config)
    _, hidden_shape, *_ = signature
    order = template_of(call).reorder((*range(len(shapes)), None))
    n_sequences = call.n_sequences
    steps = () if call.options.max_steps == 1 else (call.options.max_steps,)
    places = [
        ExpectedTensor(field_index("lengths"), torch.int64, (n_sequences,)),
        ExpectedTensor(field_index("sequence_ids"), torch.int64, (n_sequences,), may_be_none=True),
        ExpectedTensor(field_index("hidden"), torch.float32, tuple(hidden_shape)),
        *(
            ExpectedTensor(field_index("parameters", order.index(place)), torch.float32, shape)
            for place, shape in enumerate(shapes.values())
        ),
    ]
    _kept[signature] = _CachedCall(
        compile_pattern(bytes(struct_without_tensors(call)), places),
        [*shapes],
        torch.full_like(call.lengths, call.padded_length or call.n_hidden_rows),
        (n_sequences, *steps, call.config.d_model),
        call.options.wants_state,
        lib.loaded().lares_refine_forward,
    )


def _lengths(
    kept: _CachedCall,
    hidden: Tensor,
    lengths: Tensor | Sequence[int] | None,
    cu_seqlens: Tensor | None,
) -> Tensor | Sequence[int] | None:
    """Return lengths (B,) without reading them, or None if such calls are not cached."""
    if cu_seqlens is None:
        if hidden.dim() == 2:
            return None
        return kept.full if lengths is None else lengths
    if hidden.dim() != 2 or lengths is not None or cu_seqlens.is_floating_point():
        return None
    return kept.full if cu_seqlens.tolist() == [0, len(hidden)] else None


def run(
    signature: Signature,
    parameters: Mapping[str, Tensor],
    hidden: Tensor,
    lengths: Tensor | Sequence[int] | None,
    cu_seqlens: Tensor | None,
    sequence_ids: Tensor | None,
    seed: int | Tensor,
    return_trajectory: bool,
) -> RefineOutput | None:
    """Return the output, or None if the call must run in full."""
    kept = _kept.get(signature)
    if kept is None or [*parameters] != kept.names:
        return None
    sizes = _lengths(kept, hidden, lengths, cu_seqlens)
    # The list keeps what lies at the addresses, even if another thread replaces a parameter.
    tensors: list[object] = [sizes, sequence_ids, hidden, *parameters.values()]
    c = lib.LaresCall()
    if not kept.look(tensors, c):
        return None
    trajectory = hidden.new_empty(*kept.trajectory)
    c.trajectory = trajectory.data_ptr()
    final = None
    if kept.wants_state:
        final = empty_like(hidden)
        c.final_state = final.data_ptr()
    c.seed = int(seed)
    c.threads = torch.get_num_threads()
    if kept.forward(c) != Code.OK:
        return None
    last = trajectory
    if trajectory.dim() == 3:
        last = trajectory.select(-2, -1).clone(memory_format=torch.contiguous_format)
    elif return_trajectory:
        trajectory = trajectory.unsqueeze(1)
    return RefineOutput(last, trajectory if return_trajectory else None, final)
