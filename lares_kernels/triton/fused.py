"""A call on fused kernels: tensors and launches around ``kernels/``."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import torch
from torch import Tensor

from lares_kernels.call import RefineCall
from lares_kernels.triton.constants import Constants, constants, padded
from lares_kernels.triton.packing import Packed, pack, unpack_gradients
from lares_kernels.triton.settings import Setting, family_of, multiprocessors, setting
from lares_kernels.triton.tile_plan import TilePlan, make_plan


def call_setting(
    kernel: str, call: RefineCall, precision: str, device: torch.device, longest: int
) -> Setting:
    """The setting of one of the kernels for sequences of up to ``longest`` tokens."""
    config = call.config
    width = padded(config.d_model)
    return setting(family_of(device), kernel, precision, width, config.n_layers, longest)


def forward_setting(
    call: RefineCall, precision: str, device: torch.device, longest: int
) -> Setting:
    return call_setting("forward", call, precision, device, longest)


class Launch(NamedTuple):
    """What forward and backward of a call have in common."""

    rule: Setting
    c: Constants
    plan: TilePlan
    packed: Packed
    programs: int

    @property
    def options(self) -> dict[str, int]:
        """Of Triton's launch."""
        return {"num_warps": self.rule.warps, "num_stages": self.rule.stages}


def seed_halves(seed: int) -> tuple[int, int]:
    """A 64-bit seed as two signed 32-bit numbers, low half first."""
    low, high = seed & 0xFFFFFFFF, seed >> 32
    return low - (low >> 31 << 32), high - (high >> 31 << 32)


def on(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Launches inside go to ``device``."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def prepare(
    kernel: str,
    call: RefineCall,
    parameters: list[Tensor],
    precision: str,
    longest: int,
) -> Launch:
    """Tile plan and packed parameters for ``kernel``."""
    device = parameters[0].device
    rule = call_setting(kernel, call, precision, device, longest)
    c = constants(call.config, rule.rows, call.dropout, precision)
    plan = make_plan(call, rule.rows, longest)
    packed = pack(call.config, parameters, call.product_dtype)
    programs = min(plan.max_tiles, rule.programs * multiprocessors(device))
    return Launch(rule, c, plan, packed, programs)


def fused_forward(
    call: RefineCall,
    hidden: Tensor,
    state: Tensor | None,
    parameters: list[Tensor],
    precision: str,
    longest: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Forward of :class:`lares_kernels.backends.Backend`."""
    from lares_kernels.triton.kernels.forward import forward_kernel

    config = call.config
    hidden = hidden.contiguous()
    state = None if state is None else state.contiguous()
    with on(hidden.device):
        launch = prepare("forward", call, parameters, precision, longest)
        float32 = {"dtype": torch.float32, "device": hidden.device}
        trajectory = torch.empty(call.n_sequences, call.max_steps, config.d_model, **float32)
        final = torch.empty(0, **float32)
        if call.wants_state:
            new = torch.zeros if call.padded_length else torch.empty
            final = new(call.state_shape, **float32)
        kept = torch.empty(call.kept_size, **float32)
        plan = launch.plan
        forward_kernel[(launch.programs,)](
            hidden,
            state,
            *launch.packed,
            plan.rows,
            plan.tile_start,
            plan.tile_count,
            trajectory,
            final if call.wants_state else None,
            kept if call.kept_size else None,
            *seed_halves(call.seed),
            config.state_omega * config.state_sigma,
            call.max_steps,
            call.kept_rows,
            DRAWN=not call.zero_state,
            C=launch.c,
            **launch.options,
        )
    return trajectory, final, kept


def fused_backward(
    call: RefineCall,
    hidden: Tensor,
    state: Tensor | None,
    parameters: list[Tensor],
    kept: Tensor,
    g_trajectory: Tensor | None,
    g_state: Tensor | None,
    precision: str,
    longest: int,
) -> list[Tensor]:
    raise NotImplementedError
