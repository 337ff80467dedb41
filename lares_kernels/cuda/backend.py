"""Backend ``cuda``: one kernel with weights in shared memory and state in registers."""

from __future__ import annotations

import math
import os
from functools import cache, partial

import torch
from torch import Tensor

from lares_kernels.call import RefineCall, Request
from lares_kernels.config import ADAPTERS, CoreConfig
from lares_kernels.cuda import library as lib
from lares_kernels.cuda.packing import pack
from lares_kernels.cuda.plan import (
    LaunchPlan,
    config_reason,
    launch_plan,
    length_reason,
    shapes_of,
)
from lares_kernels.errors import BackendError
from lares_kernels.noise import threshold_and_planes
from lares_kernels.tiles import most_tiles

_ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "silu")
_PRECISIONS = (torch.bfloat16, torch.float16)
_MOST_NUMBERS = 1 << 31  # the kernels count the numbers of a tensor in 32 bits


class CudaBackend:
    """Tiles of whole sequences; a warp takes 16 rows through all steps.

    Not chosen without being asked for: it has not run on a card yet.
    """

    name = "cuda"
    automatic = False

    def availability(self) -> str | None:
        library = lib.load()
        if isinstance(library, str):
            return library
        if lib.device_type() == "cuda" and not torch.cuda.is_available():
            return "there is no GPU"
        return None

    def verify(self, request: Request) -> str | None:
        if request.device_type != lib.device_type():
            return f"tensors are on {request.device_type}"
        if request.product_dtype not in _PRECISIONS:
            served = " and ".join(str(dtype) for dtype in _PRECISIONS)
            return f"products in {request.product_dtype}; it serves {served}"
        return config_reason(request.config)

    def plan(self, call: RefineCall, device_type: str) -> str:
        _require_forward(call)
        device = torch.device(device_type)
        plan = _launch_plan(call, call.layout.max_length, device)
        where = "resident in shared memory" if plan.resident else "read again by every layer"
        return (
            f"fused CUDA kernel, {plan.units} tiles of {plan.tile_rows} rows a multiprocessor, a warp "
            f"for 16 rows, weights {where}, {call.n_rows} tokens of {call.n_sequences} sequences in "
            f"registers for all {call.max_steps} steps"
        )

    def forward(
        self, call: RefineCall, hidden: Tensor, state: Tensor | None, parameters: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        _require_forward(call)
        device = hidden.device
        if device.type == "cpu" or os.environ.get("LARES_CHECK_VALUES") == "1":
            call.check_values()
        # Packed sequences say how long they are on the device alone: this waits for it.
        longest = call.padded_length or int(call.lengths.max())
        plan = _launch_plan(call, longest, device)
        width, steps = call.config.d_model, call.max_steps
        _check_size("hidden", call.n_hidden_rows * call.rollouts * width)
        _check_size("the trajectory", call.n_sequences * steps * width)

        floats = partial(torch.empty, dtype=torch.float32, device=device)
        hidden = hidden.to(torch.float32).contiguous()
        state = None if state is None else state.to(torch.float32).contiguous()
        packed = pack(call.config, parameters, call.product_dtype)
        trajectory = floats(call.n_sequences, steps, width)
        final = floats(0)
        if call.wants_state:
            new = partial(torch.zeros, device=device) if call.padded_length else floats
            final = new(call.state_shape)
        order = None
        if call.num_steps is not None:
            order = torch.argsort(call.num_steps, descending=True, stable=True)

        most_rows = call.n_hidden_rows * call.rollouts
        tiles = most_tiles(most_rows, call.n_sequences, longest, plan.tile_rows)
        space = _Workspace(call, plan, tiles, device)
        c = lib.LaresCudaCall.from_buffer_copy(
            _template(call.config, call.dropout, call.product_dtype)
        )
        c.device = _index_of(device)
        c.n_groups, c.rollouts = call.lengths.shape[0], call.rollouts
        c.padded_length, c.n_hidden_rows = call.padded_length, call.n_hidden_rows
        c.kept_rows, c.longest, c.max_steps = call.kept_rows, longest, steps
        c.state_mode = lib.STATE_ZERO if call.zero_state else lib.STATE_DRAWN
        c.seed_low, c.seed_high = call.seed & 0xFFFFFFFF, call.seed >> 32
        c.unit_warps, c.units, c.resident = plan.unit_warps, plan.units, plan.resident
        c.shared_bytes, c.max_tiles = plan.shared_bytes, tiles
        c.blocks = min(tiles, lib.card(c.device).multiprocessors)
        if device.type == "cuda":
            c.stream = torch.cuda.current_stream(device).cuda_stream
        c.lengths = call.lengths.data_ptr()
        c.order = None if order is None else order.data_ptr()
        c.num_steps = None if call.num_steps is None else call.num_steps.data_ptr()
        c.sequence_ids = None if call.sequence_ids is None else call.sequence_ids.data_ptr()
        c.hidden = hidden.data_ptr()
        if state is not None:
            c.state_mode, c.state = lib.STATE_GIVEN, state.data_ptr()
        c.matrices, c.vectors = packed.matrices.data_ptr(), packed.vectors.data_ptr()
        space.place(c)
        c.trajectory = trajectory.data_ptr()
        c.final_state = final.data_ptr() if call.wants_state else None
        lib.run_forward(c)
        return trajectory, final, floats(0)

    def backward(
        self,
        call: RefineCall,
        hidden: Tensor,
        state: Tensor | None,
        parameters: list[Tensor],
        kept: Tensor,
        g_trajectory: Tensor | None,
        g_state: Tensor | None,
    ) -> list[Tensor]:
        raise BackendError("backward is not in the CUDA backend; use triton")


class _Workspace:
    """Memory for the tile plan, one piece."""

    def __init__(
        self, call: RefineCall, plan: LaunchPlan, tiles: int, device: torch.device
    ) -> None:
        groups, sequences = call.lengths.shape[0], call.n_sequences
        self.sizes = {
            "rows": tiles * lib.FIELDS * plan.tile_rows,
            "starts": sequences + 1,
            "hidden_starts": 0 if call.padded_length else groups + 1,
            "jumps": 2 * (sequences + 1),
            "tile_sequence": tiles + 1,
            "tile_start": tiles,
            "tile_count": 1,
        }
        self.memory = torch.empty(sum(self.sizes.values()), dtype=torch.int32, device=device)

    def place(self, c: lib.LaresCudaCall) -> None:
        """Give each part its place; those of no size stay NULL."""
        at = self.memory.data_ptr()
        for name, size in self.sizes.items():
            if size:
                setattr(c, name, at)
            at += size * self.memory.element_size()


def _require_forward(call: RefineCall) -> None:
    if call.differentiates:
        raise BackendError(
            "backend 'cuda' cannot run this call: backward is not in the CUDA backend; use triton, "
            "or torch.no_grad()"
        )


def _index_of(device: torch.device) -> int:
    if device.type == "cpu":
        return 0
    return torch.cuda.current_device() if device.index is None else device.index


def _launch_plan(call: RefineCall, longest: int, device: torch.device) -> LaunchPlan:
    """The plan of a call; :class:`BackendError` if the card cannot run it."""
    config = call.config
    attention = call.dropout and threshold_and_planes(config.attn_dropout)[1] > 0
    residual = call.dropout and threshold_and_planes(config.dropout)[1] > 0
    reason = length_reason(longest, attention)
    if reason is None:
        card = lib.card(_index_of(device))
        plan = launch_plan(shapes_of(config), longest, attention or residual, card)
        if isinstance(plan, LaunchPlan):
            return plan
        reason = plan
    raise BackendError(f"backend 'cuda' cannot run this call: {reason}; use triton")


def _check_size(what: str, numbers: int) -> None:
    if numbers >= _MOST_NUMBERS:
        raise BackendError(
            f"backend 'cuda' cannot run this call: {what} would have {numbers} numbers, "
            f"the most is {_MOST_NUMBERS - 1}; split the batch"
        )


@cache
def _template(config: CoreConfig, dropout: bool, product_dtype: torch.dtype) -> bytes:
    """The part of the C struct that depends on the core and the precision alone."""
    shapes = shapes_of(config)
    c = lib.LaresCudaCall()
    c.abi = lib.ABI
    c.d_model, c.n_heads, c.head_tiles = shapes.width, shapes.heads, shapes.head_tiles
    c.d_ff, c.n_layers = shapes.ff, shapes.layers
    c.adapter = ADAPTERS.index(config.adapter)
    c.activation = _ACTIVATIONS.index(config.activation)
    c.pre_norm = config.norm == "pre"
    c.precision = _PRECISIONS.index(product_dtype)
    c.eps = config.eps
    c.state_scale = config.state_omega * config.state_sigma
    c.score_scale = math.log2(math.e) * config.head_dim**-0.5
    for rate, to in ((config.dropout, c.residual), (config.attn_dropout, c.attention)):
        threshold, planes = threshold_and_planes(rate if dropout else 0.0)
        to.planes, to.scale = planes, 1.0 / (1.0 - threshold / (1 << planes))
        to.bits = threshold << (32 - planes) if planes else 0
    return bytes(c)
