"""Cache what a core and the options of a CPU inference call come to, for calls that repeat them.

For few sequences, Python's overhead counts. Most of it checks types, options and parameters, which a
server repeats call after call, with other sequences. The C struct that results from them is cached
here, so that only the tensors are left to check. The checks stay in function.py: only a call like one
that has passed them runs here, with any number of sequences of any length; one that differs in
anything else, or that the kernel refuses, goes through function.py in full.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lares_kernels.binding import cpu_library as lib
from lares_kernels.common.dispatcher import is_eager
from lares_kernels.common.whole import is_whole
from lares_kernels.cpu.backend import struct_without_tensors, template_of
from lares_kernels.cpu.tensor_reader import (
    ANY,
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

_MAX_CACHED = 1024  # signatures; a server has few, and past that the cache is cleared


# Everything that determines how a call runs, beside its tensors: key of the configuration, dimensions
# of hidden, num_steps, state, whether the final state is wanted, requested precision and backend, and
# what else the choice of a backend depends on. A plain tuple: one with names takes three times as long
# to make.
Signature = tuple[str, int, int, str | None, bool, str | None, str | None, Circumstances]


@dataclass
class _CachedCall:
    """Hold what calls of one signature share.

    Attributes:
        look: checks lengths, sequence ids, hidden and the parameters, in that order, in every call:
            a weight may be replaced between calls, or its strides changed in place.
        names: names of the parameters.
        steps: sizes of the trajectory between (B, and d): (T,); () for one step, whose state is the
            last.
        wants_state: the final state is returned.
        forward: the library's function.
    """

    look: TensorReader
    names: list[str]
    steps: tuple[int, ...]
    wants_state: bool
    forward: Callable[[lib.LaresCall], int]


_kept: dict[Signature, _CachedCall] = {}


def signature_of(
    config: CoreConfig,
    hidden: Tensor,
    num_steps: int | Tensor,
    state: Tensor | str | None,
    wants_state: bool,
    precision: str | None,
) -> Signature | None:
    """Return the cache key of an inference call, or None if such calls are not cached."""
    if (
        torch.is_grad_enabled()
        or not is_eager(hidden)
        or hidden.dtype is not torch.float32
        or not hidden.is_cpu
        or torch.is_autocast_enabled("cpu")
        or type(num_steps) is not int
        or not (state is None or type(state) is str)
    ):
        return None
    backend, _ = requested_backend()
    options = num_steps, state, wants_state, precision
    return config.key, hidden.dim(), *options, backend, circumstances("cpu", None)


def is_cached(signature: Signature) -> bool:
    """Return True if a call of this signature has been cached."""
    return signature in _kept


def keep(signature: Signature, call: RefineCall) -> None:
    """Cache the struct of ``call``, which has run on the CPU kernel."""
    if len(_kept) >= _MAX_CACHED:
        _kept.clear()
    shapes = parameter_shapes(call.config)
    order = template_of(call).reorder((*range(len(shapes)), None))
    d = call.config.d_model
    places = [
        ExpectedTensor(field_index("lengths"), torch.int64, (ANY,)),
        ExpectedTensor(field_index("sequence_ids"), torch.int64, (ANY,), may_be_none=True),
        ExpectedTensor(
            field_index("hidden"), torch.float32, (ANY, ANY, d) if call.padded_length else (ANY, d)
        ),
        *(
            ExpectedTensor(field_index("parameters", order.index(place)), torch.float32, shape)
            for place, shape in enumerate(shapes.values())
        ),
    ]
    _kept[signature] = _CachedCall(
        compile_pattern(bytes(struct_without_tensors(call)), places),
        [*shapes],
        () if call.options.max_steps == 1 else (call.options.max_steps,),
        call.options.wants_state,
        lib.loaded().lares_refine_forward,
    )


def _lengths(
    hidden: Tensor, lengths: Tensor | Sequence[int] | None, cu_seqlens: Tensor | None
) -> Tensor | Sequence[int] | None:
    """Return lengths (B,), or None if there are none that a cached call can have."""
    if cu_seqlens is None:
        if lengths is None and hidden.dim() == 3:
            return torch.full(hidden.shape[:1], hidden.shape[1], dtype=torch.int64)
        return lengths
    if hidden.dim() != 2 or lengths is not None or not is_whole(cu_seqlens):
        return None
    if not cu_seqlens.is_cpu or cu_seqlens.dim() != 1 or len(cu_seqlens) < 2 or cu_seqlens[0] != 0:
        return None
    return cu_seqlens.to(torch.int64).diff()


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
    sizes = _lengths(hidden, lengths, cu_seqlens)
    # The list keeps what lies at the addresses, even if another thread replaces a parameter.
    tensors: list[object] = [sizes, sequence_ids, hidden, *parameters.values()]
    c = lib.LaresCall()
    if not kept.look(tensors, c):
        return None
    assert isinstance(sizes, Tensor)  # as `look` has seen
    n_sequences = sizes.shape[0]
    if sequence_ids is not None and sequence_ids.shape[0] != n_sequences:
        return None
    c.n_sequences = n_sequences
    if hidden.dim() == 2:
        c.n_rows = hidden.shape[0]
    elif hidden.shape[0] == n_sequences:
        c.padded_length = hidden.shape[1]
        c.n_rows = n_sequences * hidden.shape[1]
    else:
        return None
    trajectory = hidden.new_empty(n_sequences, *kept.steps, hidden.shape[-1])
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
