"""Run a call on fused kernels: tensors and launches around ``kernels/``."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from lares_kernels.common.devices import on
from lares_kernels.gpu.arrays import zeros_at_once
from lares_kernels.gpu.scratch import unfilled, zeroed
from lares_kernels.gpu.tiles import spill_bytes
from lares_kernels.spec.call import Given, GivenBackward, RefineCall
from lares_kernels.triton.fused.packing import Packed, packing, unpack_gradients
from lares_kernels.triton.fused.tile_plan import TilePlan, make_plan, plan_in
from lares_kernels.triton.fused.tile_transforms import add_filter_gradient, tile_transforms
from lares_kernels.triton.launch.constants import (
    LAUNCH_OPTIONS,
    MIN_SIDE,
    Constants,
    compile_time,
    constants,
    padded,
)
from lares_kernels.triton.launch.rules import Setting
from lares_kernels.triton.launch.settings import (
    family_of,
    multiprocessors,
    requested_weights,
    setting,
    shared_memory,
)

_NAME = "triton"  # of the backend
_PRECISIONS = ("ieee", "tf32", "half")


def call_setting(
    kernel: str, call: RefineCall, precision: str, device: torch.device, longest: int
) -> Setting:
    """Return the setting of one of the kernels for sequences of up to ``longest`` tokens."""
    config = call.config
    width = padded(config.d_model)
    key = (family_of(device), kernel, precision, width, config.n_layers, config.mixer, longest)
    if kernel != "forward":
        return setting(*key)
    matrix_bytes = constants(config, MIN_SIDE, False, precision).layers_size
    matrix_bytes *= call.product_dtype.itemsize
    return setting(*key, matrix_bytes, shared_memory(device), requested_weights())


def options_of(rule: Setting) -> dict[str, int]:
    """Return the options of Triton's launch."""
    limit = {"maxnreg": rule.registers} if rule.registers else {}
    return {"num_warps": rule.warps, "num_stages": rule.stages, **limit, **LAUNCH_OPTIONS}


class Launch(NamedTuple):
    """Hold what a call's forward and backward share."""

    rule: Setting
    c: Constants
    plan: TilePlan
    packed: Packed
    transforms: Tensor | None
    programs: int
    of_plan: tuple[int, ...]  # what plan and packed parameters depend on, beside the call

    @property
    def options(self) -> dict[str, int]:
        """Return the options of Triton's launch."""
        return options_of(self.rule)


def prepare(
    kernel: str, call: RefineCall, parameters: list[Tensor], precision: str, longest: int
) -> Launch:
    """Tile plan and packed parameters for ``kernel``; backward takes those that forward left."""
    device = parameters[0].device
    rule = call_setting(kernel, call, precision, device, longest)
    c = constants(
        call.config, rule.rows, call.options.dropout, precision, rule.chunk, rule.resident
    )
    of_plan = (longest, rule.rows, _PRECISIONS.index(precision))
    handover = call.handover_of(_NAME)
    if kernel == "backward" and handover is not None and handover.numbers == of_plan:
        memory, *packed_parts = handover.tensors
        plan, packed = plan_in(memory, call, rule.rows, longest), Packed(*packed_parts)
    else:
        to_pack = packing(call.config, parameters, call.product_dtype, c.tf32)
        plan, packed = make_plan(call, rule.rows, longest, to_pack), to_pack.packed
    programs = min(plan.max_tiles, rule.programs * multiprocessors(device))
    transforms = tile_transforms(call.config, rule.rows, call.product_dtype, device, c.tf32)
    return Launch(rule, c, plan, packed, transforms, programs, of_plan)


def fused_forward(
    call: RefineCall, given: Given, precision: str, longest: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Run forward of :class:`lares_kernels.registry.backends.Backend`."""
    from lares_kernels.triton.fused.kernels.forward import forward_kernel

    config = call.config
    hidden = given.hidden.contiguous()
    state = None if given.state is None else given.state.contiguous()
    with on(hidden.device):
        launch = prepare("forward", call, given.parameters, precision, longest)
        floats = partial(unfilled, dtype=torch.float32, device=hidden.device)
        zeros = partial(zeroed, dtype=torch.float32, device=hidden.device)
        trajectory = floats(call.n_sequences, call.options.max_steps, config.d_model)
        final = floats(0)
        if call.options.wants_state:
            new = zeros if call.padded_length else floats
            final = new(call.state_shape)
        # Steps that a sequence does not take leave theirs unwritten.
        kept = torch.empty(call.kept_size, dtype=torch.float32, device=hidden.device)
        plan = launch.plan
        last = None if call.handover is None else floats(call.n_sequences, config.d_model)
        forward_kernel[(launch.programs,)](
            hidden,
            state,
            *launch.packed,
            launch.transforms,
            plan.rows,
            plan.totals,
            trajectory,
            last,
            final if call.options.wants_state else None,
            kept if call.kept_size else None,
            plan.seed,
            call.state_scale,
            call.options.max_steps,
            call.options.steps_done,
            call.kept_rows,
            DRAWN=not call.options.zero_state,
            C=compile_time(launch.c),
            **launch.options,
        )
        if call.handover is not None:  # not before: what did not start has made nothing
            call.handover.by, call.handover.numbers = _NAME, launch.of_plan
            call.handover.tensors, call.handover.last = (plan.memory, *launch.packed), last
    return trajectory, final, kept


def steps_at_once(c: Constants, kept_rows: int, steps: int, itemsize: int, room: int) -> int:
    """Return how many steps' units and sides fit ``room`` bytes; at least one."""
    numbers = c.layers * (c.layer_rows + c.sides * c.d) + (3 * c.d if c.concat else 0)
    return max(1, min(steps, room // (numbers * kept_rows * itemsize)))


def fused_backward(
    call: RefineCall, given: GivenBackward, precision: str, longest: int
) -> list[Tensor]:
    """Run backward of :class:`lares_kernels.registry.backends.Backend`.

    Steps run in groups, from the last: a group's launch leaves the rows that weights' gradients are
    products of, a second kernel multiplies them.
    """
    from lares_kernels.triton.fused.kernels.backward import backward_kernel

    config, steps, kept_rows = call.config, call.options.max_steps, call.kept_rows
    hidden = given.hidden.contiguous()
    g_outputs = [
        None if g is None else g.float().contiguous() for g in (given.g_trajectory, given.g_state)
    ]
    with on(hidden.device):
        launch = prepare("backward", call, given.parameters, precision, longest)
        c, plan, programs = launch.c, launch.plan, launch.programs
        room = spill_bytes(hidden.device)
        group = steps_at_once(c, kept_rows, steps, call.product_dtype.itemsize, room)
        floats = partial(unfilled, dtype=torch.float32, device=hidden.device)
        products = partial(unfilled, dtype=call.product_dtype, device=hidden.device)
        spilled = (
            products(group * c.layers * kept_rows * c.layer_rows),
            products(group * c.layers * kept_rows * c.sides * c.d),
            products(group * kept_rows * 3 * c.d) if c.concat else None,
        )
        carry = floats(kept_rows, c.width) if group < steps else None
        scratch = floats(programs * (c.tapes * c.layers + 1) * c.rows * c.d)
        products_of = WeightGradients(call, launch, precision)
        pads = given.state is not None and call.padded_length > 0
        g_hidden, gradients, products_of.vectors, g_padded = zeros_at_once(
            hidden.device,
            (call.options.rollouts, call.n_hidden_rows, c.width),
            (programs, c.gradient_size),
            (products_of.splits, c.vector_size),
            call.state_shape if pads else (0,),
        )
        g_first = None
        if given.state is not None:
            g_first = g_padded if pads else floats(call.state_shape)
        for last_step in range(steps, 0, -group):
            first_step = max(1, last_step - group + 1)
            backward_kernel[(programs,)](
                hidden,
                *launch.packed,
                launch.transforms,
                plan.rows,
                plan.tile_start,
                plan.totals,
                given.kept,
                *g_outputs,
                *(carry, g_hidden, g_first),
                *spilled,
                scratch,
                gradients,
                plan.seed,
                steps,
                call.options.steps_done,
                kept_rows,
                call.n_hidden_rows,
                first_step,
                last_step,
                C=compile_time(c),
                **launch.options,
            )
            products_of.add(*spilled, first_step, last_step)
        if c.filters:
            gradients = gradients.sum(0, keepdim=True)
            of_program = gradients[0]
            add_filter_gradient(c, of_program[c.vector_size :], of_program[: c.vector_size])
        g_parameters = unpack_gradients(
            config, c, products_of.matrices, products_of.vectors, gradients
        )
        g_rows = g_hidden[0] if call.options.rollouts == 1 else g_hidden.sum(0)
    grads = [g_rows.reshape(hidden.shape), *g_parameters]
    return grads if g_first is None else [*grads, g_first]


class WeightGradients:
    """Hold gradients of the packed matrices, and of the biases among the packed vectors."""

    def __init__(self, call: RefineCall, launch: Launch, precision: str) -> None:
        c, device = launch.c, launch.packed.vectors.device
        self.c, self.plan, self.call = c, launch.plan, call
        self.rule = call_setting("weights", call, precision, device, 0)
        self.blocks = c.layer_rows // c.row_block
        wanted = self.rule.programs * multiprocessors(device)
        most = call.options.max_steps * -(-call.kept_rows // self.rule.rows)
        self.splits = max(1, min(wanted // (self.blocks * c.layers), most))
        self.matrices = unfilled(
            self.splits, c.matrix_rows, c.d, dtype=torch.float32, device=device
        )
        self.vectors: Tensor  # (splits, vector_size), zeros to begin with
        self.begins = 1

    def add(
        self,
        units: Tensor,
        sides: Tensor,
        concat_rows: Tensor | None,
        first_step: int,
        last_step: int,
    ) -> None:
        """Add the products of steps ``first_step .. last_step``."""
        from lares_kernels.triton.fused.kernels.weight_gradients import weights_kernel

        c = self.c

        def launch(
            units: Tensor, sides: Tensor, blocks: int, layers: int, block: int, concat: bool
        ) -> None:
            weights_kernel[(blocks, layers, self.splits)](
                units,
                sides,
                self.plan.row_depth,
                self.plan.totals,
                self.matrices,
                self.vectors,
                self.call.kept_rows,
                last_step - first_step + 1,
                first_step,
                self.splits,
                self.begins,
                CONCAT=concat,
                BLOCK=block,
                TOKENS=self.rule.rows,
                C=compile_time(c),
                **options_of(self.rule),
            )

        launch(units, sides, self.blocks, c.layers, c.row_block, False)
        if concat_rows is not None:
            blocks = 2 * c.d // c.concat_block
            launch(concat_rows, concat_rows, blocks, 1, c.concat_block, True)
        self.begins = 0
