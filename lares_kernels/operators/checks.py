"""Check the arguments of ``torch.ops.lares_kernels.refine`` and ``refine_backward``.

``refine`` of function.py has checked all this with better messages, and bypasses it where it can.
Direct calls of an operator, and exported programs, are checked here: kernels get addresses, so a tensor
of another size than expected would mean access to foreign memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lares_kernels.common.whole import whole_numbers
from lares_kernels.registry.backends import REFINE, options_of
from lares_kernels.spec.call import (
    PRECISIONS,
    RefineCall,
    Request,
    check_floats,
    check_hidden,
    check_max_steps,
    check_rollouts,
    check_state,
    check_steps_done,
    product_precision,
)
from lares_kernels.spec.config import CoreConfig
from lares_kernels.spec.lengths import check_max_length
from lares_kernels.spec.noise import MAX_SEQUENCES
from lares_kernels.spec.options import CallOptions, CallTensors
from lares_kernels.spec.parameters import check_parameters, parameter_shapes
from lares_kernels.spec.seeds import given_seed


def check_forward(
    hidden: Tensor,
    state: Tensor | None,
    parameters: list[Tensor],
    tensors: CallTensors,
    options: CallOptions,
) -> None:
    """Raise unless a kernel can be given these; values of ids, lengths and depths it checks itself.

    Raises:
        ValueError, TypeError: a tensor or an option does not fit; the message names it.
        BackendError: the backend cannot serve this call.
    """
    core, rollouts = core_of(options.config), options.rollouts
    lengths, num_steps, sequence_ids, seed = tensors
    check_hidden(core, hidden)
    names = [*parameter_shapes(core)]
    if len(parameters) != len(names):
        raise ValueError(
            f"parameters are {len(parameters)} tensors; this core has {len(names)}: "
            f"{', '.join(names)}"
        )
    device = hidden.device
    check_parameters(core, dict(zip(names, parameters, strict=True)), hidden)
    check_rollouts(core, rollouts)
    check_max_steps(core, options.max_steps)
    check_steps_done(options.steps_done, options.max_steps, state is not None)
    check_max_length(options.max_length)
    padded = hidden.dim() == 3
    n_sequences = hidden.shape[0] if padded else len(lengths)
    if not 1 <= n_sequences <= MAX_SEQUENCES:
        raise ValueError(f"there are {n_sequences} sequences; there must be 1..{MAX_SEQUENCES}")
    for name, numbers, size in (
        ("lengths", lengths, n_sequences),
        ("num_steps", num_steps, n_sequences * rollouts),
        ("sequence_ids", sequence_ids, n_sequences),
    ):
        if numbers is not None:
            whole_numbers(name, numbers, ((size,),))
            if numbers.device != device:
                raise ValueError(f"{name} is on {numbers.device}, but hidden on {device}")
    if state is not None:
        group = (n_sequences,) if rollouts == 1 else (n_sequences, rollouts)
        shape = (*group, *hidden.shape[1:]) if padded else (len(hidden) * rollouts, core.d_model)
        check_state(core, state, device, shape)
    given_seed(seed)
    product_precision(options.precision, hidden.dtype, device.type)  # raises for unknown ones
    told = options_of(options._asdict())
    request = Request(core, device.type, PRECISIONS[options.precision], told)
    REFINE.check_serves(options.backend, request, device.index)


def check_backward(
    call: RefineCall,
    hidden: Tensor,
    kept: Tensor,
    kept_dtype: torch.dtype,
    g_trajectory: Tensor | None,
    g_state: Tensor | None,
) -> None:
    """Raise ``ValueError`` unless the rest of what backward is given fits the call."""
    if not call.options.differentiates:
        raise ValueError("differentiates is False: forward kept nothing for backward")
    device = hidden.device
    check_floats("kept", kept, device, (call.kept_size,))
    if kept.dtype is not kept_dtype:
        raise ValueError(f"kept is {kept.dtype}; forward of this backend gives {kept_dtype}")
    if g_trajectory is not None:
        shape = (call.n_sequences, call.options.max_steps, call.config.d_model)
        check_floats("g_trajectory", g_trajectory, device, shape)
    if g_state is not None and call.options.wants_state:
        check_floats("g_state", g_state, device, call.state_shape)


def core_of(key: str) -> CoreConfig:
    """Return the configuration whose ``key`` an operator was given."""
    try:
        return CoreConfig.from_key(key)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"config is {key!r}; it must be the key of a CoreConfig ({error})".replace("\n", " ")
        ) from None
