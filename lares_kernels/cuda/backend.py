"""Implement backend ``cuda``: one kernel with weights in shared memory and state in registers."""

from __future__ import annotations

import ctypes
import math
from functools import cache, partial

import torch
from torch import Tensor

from lares_kernels.binding import cuda_library as lib
from lares_kernels.binding import structs
from lares_kernels.binding.fields import same_names
from lares_kernels.common.verdicts import digest_of
from lares_kernels.cuda.device import PRECISIONS, index_of, stream_of
from lares_kernels.cuda.packing import Packed, packing, unpack_gradients
from lares_kernels.cuda.plan import (
    SERVES,
    SPLIT_WARPS,
    LaunchPlan,
    Shapes,
    carveout,
    launch_plan,
    shapes_of,
    split_plan,
)
from lares_kernels.cuda.settings import family_of, files_of_settings, settings
from lares_kernels.gpu.arrays import zeros_at_once
from lares_kernels.gpu.cards import current_card, too_old
from lares_kernels.gpu.scratch import unfilled
from lares_kernels.gpu.tiles import divided, longest_of, most_tiles, spill_bytes
from lares_kernels.registry.backends import register
from lares_kernels.registry.plan_failures import Plan, run_first
from lares_kernels.spec.call import Given, GivenBackward, RefineCall
from lares_kernels.spec.choices import Norm, StateMode
from lares_kernels.spec.config import CoreConfig
from lares_kernels.spec.errors import BackendError, PlanFailure
from lares_kernels.spec.noise import threshold_and_planes
from lares_kernels.spec.options import CallOptions

_NAME = "cuda"  # of the backend
MIN_CAPABILITY = (8, 0)
# What C calls by the specification's names.
_OF_CORE = same_names(structs.LaresCudaCall, CoreConfig.__dataclass_fields__)
_OF_CALL = same_names(structs.LaresCudaCall, CallOptions._field_defaults)
_MAX_NUMBERS = 1 << 31  # the kernels count the numbers of a tensor in 32 bits


class CudaBackend:
    """Run tiles of whole sequences; a warp takes 16 rows through all steps.

    Used only if requested by name: it has not run on a card yet.
    """

    name = _NAME
    preference = 20
    automatic = False
    any_size = False
    starts_kernels = True
    serves = SERVES

    @property
    def devices(self) -> tuple[str]:
        return (lib.device_type(),)

    def availability(self) -> str | None:
        library = lib.load()
        if isinstance(library, str):
            return library
        if lib.device_type() != "cuda":
            return None
        if not torch.cuda.is_available():
            return "there is no GPU"
        number = current_card()
        try:
            found = lib.card(number)
        except BackendError as error:  # of a driver older than the runtime that is linked in, say
            return str(error)
        return too_old(number, found.capability, MIN_CAPABILITY, "the kernels need {}")

    def build(self, product_dtype: torch.dtype) -> str | None:
        return digest_of(lib.library_path(), *files_of_settings())

    def plan(self, call: RefineCall, device_type: str) -> str:
        device = torch.device(device_type)
        plan = plan_of(call, call.layout.max_length, device)
        if call.options.differentiates:
            plan_of(call, call.layout.max_length, device, backward=True)
        where = "resident in shared memory" if plan.resident else "read again by every layer"
        if plan.staged:
            where = "staged through shared memory by every layer"
        if plan.split_parts:
            return (
                f"low-latency CUDA kernel, a block for each of {call.n_sequences} sequences of up to "
                f"{plan.tile_rows} tokens, its {SPLIT_WARPS} warps share a layer's columns, weights "
                f"{where}, one launch for all {call.options.max_steps} steps"
            )
        return (
            f"fused CUDA kernel, {plan.units} tiles of {plan.tile_rows} rows a multiprocessor, a warp "
            f"for 16 rows, weights {where}, {call.n_rows} tokens of {call.n_sequences} sequences in "
            f"registers for all {call.options.max_steps} steps"
        )

    def forward(self, call: RefineCall, given: Given) -> tuple[Tensor, Tensor, Tensor]:
        plans = [_plan_named("forward", call, given.hidden.device)]
        return run_first(plans, lambda _: self._forward(call, given))

    def _forward(self, call: RefineCall, given: Given) -> tuple[Tensor, Tensor, Tensor]:
        launch, hidden = _Launch(call, given, backward=False), given.hidden
        if call.options.differentiates:  # or the caller would learn of it too late
            plan_of(call, launch.longest, hidden.device, backward=True)
        c, floats = launch.c, launch.floats
        trajectory = floats(call.n_sequences, call.options.max_steps, call.config.d_model)
        final = launch.states() if call.options.wants_state else floats(0)
        # Steps that a sequence does not take leave theirs unwritten.
        kept = torch.empty(call.kept_size, dtype=torch.float32, device=hidden.device)
        last = None if call.handover is None else floats(call.n_sequences, call.config.d_model)
        c.trajectory = trajectory.data_ptr()
        c.last = None if last is None else last.data_ptr()
        c.final_state = final.data_ptr() if call.options.wants_state else None
        c.kept = kept.data_ptr() if call.kept_size else None
        lib.run("lares_cuda_forward", c)
        if call.handover is not None:  # not before: what did not start has made nothing
            call.handover.last = last
            if launch.hands_over:
                call.handover.by, call.handover.numbers = _NAME, launch.of_plan
                call.handover.tensors = launch.hands_over
        return trajectory, final, kept

    def backward(self, call: RefineCall, given: GivenBackward) -> list[Tensor]:
        plans = [_plan_named("backward", call, given.hidden.device)]
        return run_first(plans, lambda _: self._backward(call, given))

    def _backward(self, call: RefineCall, given: GivenBackward) -> list[Tensor]:
        launch = _Launch(call, given, backward=True)
        hidden, state, _, kept, g_trajectory, g_state = given
        c, shapes, plan, floats = launch.c, launch.shapes, launch.plan, launch.floats
        width, steps = shapes.width, call.options.max_steps
        g_trajectory = None if g_trajectory is None else _floats_of(g_trajectory)
        g_state = None if g_state is None else _floats_of(g_state)
        c.kept = kept.data_ptr() if call.kept_size else None
        c.g_trajectory = None if g_trajectory is None else g_trajectory.data_ptr()
        c.g_state = None if g_state is None else g_state.data_ptr()

        warps = c.blocks * plan.units * plan.unit_warps
        room = spill_bytes(hidden.device)
        group = steps_at_once(shapes, c.max_tiles * plan.unit_warps, steps, room)
        carry = floats(call.kept_rows, width) if group < steps else None
        tiles = group * c.max_tiles * plan.unit_warps
        spill = launch.memory(tiles * shapes.layers * shapes.spill_bytes)
        concat_spill = launch.memory(tiles * shapes.concat_spill_bytes)
        scratch = launch.memory(warps * shapes.scratch_bytes(plan.unit_warps))
        ways = launch.ways
        splits = max(1, ways.product_warps * launch.card.multiprocessors // shapes.units)
        g_matrices = floats(splits, shapes.matrix_fragments, 256)
        pads = state is not None and call.padded_length > 0
        g_hidden, gradients, g_vectors, g_padded = zeros_at_once(
            hidden.device,
            (call.options.rollouts, call.n_hidden_rows, width),
            (warps, shapes.vector_size),
            (splits, shapes.vector_size),
            call.state_shape if pads else (0,),
        )
        g_first = None
        if state is not None:
            g_first = g_padded if pads else floats(call.state_shape)

        c.products_ahead = ways.products_ahead
        c.transposed = ways.sides_transposed and plan.resident
        c.carry = None if carry is None else carry.data_ptr()
        c.g_hidden = g_hidden.data_ptr()
        c.g_first = None if g_first is None else g_first.data_ptr()
        c.spill, c.scratch = spill.data_ptr(), scratch.data_ptr()
        c.concat_spill = concat_spill.data_ptr() if shapes.concat else None
        c.gradients = gradients.data_ptr()
        c.g_matrices, c.g_vectors = g_matrices.data_ptr(), g_vectors.data_ptr()
        c.scratch_bytes, c.splits = shapes.scratch_bytes(plan.unit_warps), splits
        for last_step in range(steps, 0, -group):
            c.first_step, c.last_step = max(1, last_step - group + 1), last_step
            c.begins = last_step == steps
            lib.run("lares_cuda_backward", c)
        g_parameters = unpack_gradients(call.config, g_matrices, g_vectors, gradients)
        g_rows = g_hidden[0] if call.options.rollouts == 1 else g_hidden.sum(0)
        grads = [g_rows.reshape(hidden.shape), *g_parameters]
        return grads if g_first is None else [*grads, g_first]


def steps_at_once(shapes: Shapes, warp_tiles: int, steps: int, room: int) -> int:
    """Return how many steps' spilled data fit ``room`` bytes; at least one."""
    bytes_of_step = warp_tiles * (shapes.layers * shapes.spill_bytes + shapes.concat_spill_bytes)
    return max(1, min(steps, room // bytes_of_step))


class _Launch:
    """Hold what a call's forward and backward share: the C struct and the tensors it points to."""

    def __init__(self, call: RefineCall, given: Given | GivenBackward, backward: bool) -> None:
        device = given.hidden.device
        self.longest = longest_of(call, device, _NAME)
        self.call, self.device = call, device
        self.shapes = shapes_of(call.config)
        self.card = lib.card(index_of(device))
        self.ways = settings(family_of(self.card))
        self.plan = plan = plan_of(call, self.longest, device, backward)
        self.floats = partial(unfilled, dtype=torch.float32, device=device)
        most_rows = call.n_hidden_rows * call.options.rollouts
        _check_size("hidden", most_rows * self.shapes.width)
        _check_size("the trajectory", call.n_sequences * call.options.max_steps * self.shapes.width)

        hidden = _floats_of(given.hidden)
        state = None if given.state is None else _floats_of(given.state)
        order = space = to_pack = None
        self.hands_over: tuple[Tensor, ...] = ()
        self.of_plan = of_plan = (self.longest, plan.unit_warps)
        handover = call.handover_of(_NAME) if backward else None
        planned = handover is not None and handover.numbers == of_plan
        if handover is not None and planned:
            packed = Packed(*handover.tensors[1:])
        else:
            to_pack = packing(call.config, given.parameters, call.product_dtype)
            packed = to_pack.packed
        tiles, programs, program_blocks = call.n_sequences, 0, 0
        if not plan.split_parts:
            if call.num_steps is not None and not planned:
                order = torch.argsort(call.num_steps, descending=True, stable=True)
            blocks, programs, program_blocks = divided(call.n_sequences, structs.LARES_CUDA_BLOCK)
            tiles = most_tiles(most_rows, call.n_sequences, self.longest, plan.tile_rows, blocks)
            numbers = handover.tensors[0] if handover is not None and planned else None
            space = _Workspace(call, plan, tiles, programs, device, numbers)
            self.hands_over = (space.numbers, *packed)
        elif to_pack is not None:
            to_pack.run()
        self.space = space
        self.alive = (hidden, state, packed, order, to_pack)

        self.c = c = structs.LaresCudaCall.from_buffer_copy(
            _template(call.config, call.options.dropout, call.product_dtype)
        )
        c.device = index_of(device)
        for name in _OF_CALL:
            setattr(c, name, getattr(call.options, name))
        c.n_groups, c.state_scale = call.lengths.shape[0], call.state_scale
        c.padded_length, c.n_hidden_rows = call.padded_length, call.n_hidden_rows
        c.kept_rows, c.longest = call.kept_rows, self.longest
        c.state_mode = StateMode.ZERO if call.options.zero_state else StateMode.DRAWN
        c.unit_warps, c.units = plan.unit_warps, plan.units
        c.resident, c.staged = plan.resident, plan.staged
        c.shared_bytes, c.max_tiles = plan.shared_bytes, tiles
        if self.ways.largest_cache and not plan.split_parts:
            c.carveout = carveout(plan.shared_bytes, self.card)
        c.programs, c.program_blocks, c.planned = programs, program_blocks, planned
        if to_pack is not None and space is not None:
            c.pack = ctypes.addressof(to_pack.call)
        c.blocks, c.split_parts = min(tiles, self.card.multiprocessors), plan.split_parts
        c.stream = stream_of(device)
        c.lengths = call.lengths.data_ptr()
        c.order = None if order is None else order.data_ptr()
        c.num_steps = None if call.num_steps is None else call.num_steps.data_ptr()
        c.sequence_ids = None if call.sequence_ids is None else call.sequence_ids.data_ptr()
        if isinstance(call.seed, Tensor):
            c.seed_given = call.seed_memory.data_ptr()
        else:
            c.seed_low, c.seed_high = call.seed & 0xFFFFFFFF, call.seed >> 32
        c.hidden = hidden.data_ptr()
        if state is not None:
            c.state_mode, c.state = StateMode.GIVEN, state.data_ptr()
        c.matrices, c.vectors = packed.matrices.data_ptr(), packed.vectors.data_ptr()
        if space is None:
            c.seed = call.seed_memory.data_ptr()
        else:
            space.place(c)

    def states(self) -> Tensor:
        """Allocate a tensor for states that kernels write, with zeros at padding."""
        made: Tensor = self.floats(self.call.state_shape)
        return made.zero_() if self.call.padded_length else made

    def memory(self, size: int) -> Tensor:
        """Allocate ``size`` bytes."""
        return unfilled(size, dtype=torch.uint8, device=self.device)


class _Workspace:
    """Allocate the tile plan's memory in one piece; ``numbers`` is a part that exists already."""

    def __init__(
        self,
        call: RefineCall,
        plan: LaunchPlan,
        tiles: int,
        programs: int,
        device: torch.device,
        numbers: Tensor | None = None,
    ) -> None:
        self.sizes = {
            "seed": 2,  # of 4 bytes; it comes first, since it is read in one piece
            "rows": tiles * structs.LARES_CUDA_FIELDS * plan.tile_rows,
            "sequences": structs.LARES_CUDA_SEQUENCE_FIELDS * call.n_sequences,
            "sums": structs.LARES_CUDA_PROGRAM_SUMS * programs,
            "tile_start": tiles,
            "tile_count": 1,
        }
        size = sum(self.sizes.values())
        if numbers is None:
            numbers = unfilled(size, dtype=torch.int32, device=device)
        self.numbers = numbers

    def place(self, c: structs.LaresCudaCall) -> None:
        """Give each part its place."""
        at = self.numbers.data_ptr()
        for name, size in self.sizes.items():
            setattr(c, name, at)
            at += size * self.numbers.element_size()


def _plan_named(kernel: str, call: RefineCall, device: torch.device) -> Plan:
    """Return the plan under which failures to start of ``kernel`` are recorded."""
    width, dtype = call.config.d_model, str(call.product_dtype).removeprefix("torch.")
    words = f"the CUDA kernels ({kernel}, width {width}, {dtype})"
    return Plan(
        "cuda", words, device, (kernel, call.config.key, call.product_dtype, call.options.dropout)
    )


def plan_of(
    call: RefineCall, longest: int, device: torch.device, backward: bool = False
) -> LaunchPlan:
    """Return the plan of a call's forward or backward. Raise :class:`PlanFailure` if the card
    cannot run it."""
    config = call.config
    attention = call.options.dropout and threshold_and_planes(config.attn_dropout)[1] > 0
    residual = call.options.dropout and threshold_and_planes(config.dropout)[1] > 0
    reason = SERVES.length_reason(longest, attention)
    if reason is None:
        card = lib.card(index_of(device))
        ways = settings(family_of(card))
        # Few enough for a multiprocessor each; what trains or drops is not about latency.
        few = call.n_sequences <= card.multiprocessors and not call.options.differentiates
        if few and not (attention or residual or backward):
            split = split_plan(shapes_of(config), longest, call.options.max_steps, card)
            if split is not None:
                return split
        drops = attention or residual
        plan = launch_plan(shapes_of(config), longest, drops, card, backward, ways)
        if isinstance(plan, LaunchPlan):
            return plan
        reason = plan
    raise PlanFailure(f"backend 'cuda' cannot run this call: {reason}; use triton")


def _floats_of(tensor: Tensor) -> Tensor:
    """Return ``tensor`` as contiguous float32, aligned for the kernels' loads of pairs."""
    tensor = tensor.to(torch.float32).contiguous()
    return tensor.clone() if tensor.data_ptr() % 8 else tensor


def _check_size(what: str, numbers: int) -> None:
    if numbers >= _MAX_NUMBERS:
        raise PlanFailure(
            f"backend 'cuda' cannot run this call: {what} would have {numbers} numbers, "
            f"the most is {_MAX_NUMBERS - 1}; split the batch"
        )


@cache
def _template(config: CoreConfig, dropout: bool, product_dtype: torch.dtype) -> bytes:
    """Return the part of the C struct that depends only on the core and the precision."""
    shapes = shapes_of(config)
    c = structs.LaresCudaCall()
    c.abi = structs.LARES_CUDA_ABI
    for name in _OF_CORE:
        setattr(c, name, config.number(name))
    c.d_ff, c.head_tiles = shapes.ff, shapes.head_tiles
    c.pre_norm = config.number("norm") == Norm.PRE
    c.precision = PRECISIONS[product_dtype]
    c.score_scale = math.log2(math.e) * config.head_dim**-0.5
    for rate, to in ((config.dropout, c.residual), (config.attn_dropout, c.attention)):
        threshold, planes = threshold_and_planes(rate if dropout else 0.0)
        to.planes, to.scale = planes, 1.0 / (1.0 - threshold / (1 << planes))
        to.bits = threshold << (32 - planes) if planes else 0
    return bytes(c)


register(CudaBackend())
