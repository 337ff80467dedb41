"""Implement backend ``cpu`` of the recurrence with the fused C++ kernel of csrc/cpu."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from operator import itemgetter
from typing import NamedTuple

import torch
from torch import Tensor

from lares_kernels.binding import cpu_library as lib
from lares_kernels.binding.fields import same_names
from lares_kernels.cpu.tensors import Addressed, empty_like, empty_tensor, float32_addresses
from lares_kernels.own_kernels import served_by
from lares_kernels.registry.backends import register
from lares_kernels.spec.call import Given, GivenBackward, RefineCall
from lares_kernels.spec.choices import Code, DropoutOf, Precision, StateMode
from lares_kernels.spec.config import DROPOUT_LEVELS, CoreConfig
from lares_kernels.spec.errors import BackendError
from lares_kernels.spec.options import CallOptions
from lares_kernels.spec.parameters import PLACES, parameter_shapes, parameters_of
from lares_kernels.spec.serves import ServesCores

PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16"}
# What C calls by the specification's names.
_OF_CORE = same_names(lib.LaresCall, CoreConfig.__dataclass_fields__)
_OF_CALL = same_names(lib.LaresCall, CallOptions._field_defaults)
_BAD_VALUES = (Code.BAD_LENGTH, Code.BAD_STEPS, Code.BAD_ID)


class CpuKernels:
    """Tell what backend ``cpu`` is, of both ops."""

    name = "cpu"
    preference = 30
    automatic = True
    any_size = True
    starts_kernels = False  # they are compiled already
    devices = ("cpu",)

    def availability(self) -> str | None:
        library = lib.load()
        return library if isinstance(library, str) else None

    def build(self, product_dtype: torch.dtype) -> str | None:
        return lib.build(PRECISIONS[product_dtype])


class CpuBackend(CpuKernels):
    """Run a call as one kernel: state, activations and weights stay in cache over all steps."""

    serves = ServesCores(widths=dict.fromkeys(PRECISIONS, range(1, 512 + 1)), **served_by("cpu"))

    def plan(self, call: RefineCall, device_type: str) -> str:
        used = lib.instruction_set_in_use(PRECISIONS[call.product_dtype])
        return (
            f"fused C++ kernel ({used}), {call.n_rows} packed tokens of "
            f"{call.n_sequences} sequences in cache for all {call.options.max_steps} steps"
        )

    def forward(self, call: RefineCall, given: Given) -> tuple[Tensor, Tensor, Tensor]:
        inputs = _Inputs(call, given)
        trajectory = empty_tensor(call.n_sequences, call.options.max_steps, call.config.d_model)
        final = empty_tensor(*call.state_shape) if call.options.wants_state else empty_tensor(0)
        kept = empty_tensor(call.kept_size if call.options.differentiates else 0)
        c = inputs.c
        c.trajectory = trajectory.data_ptr()
        if call.options.wants_state:
            c.final_state = final.data_ptr()
        if call.options.differentiates:
            inputs.place_kept(kept)
        inputs.run("lares_refine_forward")
        return trajectory, final, kept

    def backward(self, call: RefineCall, given: GivenBackward) -> list[Tensor]:
        hidden, state, parameters, kept, g_trajectory, g_state = given
        inputs = _Inputs(call, given)
        c = inputs.c
        inputs.place_kept(kept)
        if g_trajectory is not None:
            c.g_trajectory = inputs.address(g_trajectory)
        if g_state is not None:
            c.g_state = inputs.address(g_state)
        grads = [empty_like(tensor) for tensor in (hidden, *parameters)]
        c.g_hidden = grads[0].data_ptr()
        addresses = (grad.data_ptr() for grad in grads[1:])
        c.g_parameters[:] = template_of(call).reorder((*addresses, None))
        if state is not None:
            grads.append(empty_tensor(*call.state_shape))
            c.g_first_state = grads[-1].data_ptr()
        inputs.run("lares_refine_backward")
        return grads


class CallTemplate(NamedTuple):
    """Hold what all calls of one core share.

    Attributes:
        struct: bytes of the C struct with the core's fields filled in.
        reorder: maps one value of each parameter, and a None after them, to the struct's order.
    """

    struct: bytes
    reorder: Callable[[tuple[int | None, ...]], tuple[int | None, ...]]


@cache
def _call_template(key: str, dropout: bool, product_dtype: torch.dtype) -> CallTemplate:
    """Return the template of calls of the core whose configuration has that ``key``."""
    config = CoreConfig.from_key(key)
    c = lib.LaresCall()
    c.abi = lib.ABI
    for name in _OF_CORE:
        setattr(c, name, config.number(name))
    c.precision = Precision.of(PRECISIONS[product_dtype])
    if dropout:
        c.dropout_level = round(DROPOUT_LEVELS * config.dropout)
        c.attn_dropout_level = round(DROPOUT_LEVELS * config.attn_dropout)
        c.inner_dropout_level = round(DROPOUT_LEVELS * config.inner_dropout)
    c.spares_attention = config.number("dropout_of") == DropoutOf.FEED_FORWARD
    return CallTemplate(bytes(c), itemgetter(*order_of(config)))


def order_of(config: CoreConfig) -> list[int]:
    """Return which parameter goes to each of the struct's places; to the others the None after them."""
    at = {parameter.place: i for i, parameter in enumerate(parameters_of(config))}
    return [at.get(place, len(at)) for place in range(PLACES)]


def template_of(call: RefineCall) -> CallTemplate:
    """Return the template of the calls of this call's core."""
    return _call_template(call.config.key, call.options.dropout, call.product_dtype)


def struct_without_tensors(call: RefineCall) -> lib.LaresCall:
    """Return the C struct of a call without its tensors, seed and thread count."""
    c = lib.LaresCall.from_buffer_copy(template_of(call).struct)
    for name in _OF_CALL:
        setattr(c, name, getattr(call.options, name))
    c.n_sequences = call.lengths.shape[0]
    c.padded_length = call.padded_length
    c.n_rows = call.n_hidden_rows
    c.state_scale = call.state_scale
    c.state_mode = StateMode.ZERO if call.options.zero_state else StateMode.DRAWN
    return c


class _Inputs(Addressed):
    """Hold a call's C struct and the tensors that its addresses point to."""

    def __init__(self, call: RefineCall, given: Given | GivenBackward) -> None:
        self.call = call
        hidden, state, parameters = given[:3]
        super().__init__()
        c = self.c = struct_without_tensors(call)
        c.seed = call.seed if call.seed < 1 << 63 else call.seed - (1 << 64)
        c.threads = torch.get_num_threads()
        c.lengths = self.address(call.lengths, torch.int64)
        if call.sequence_ids is not None:
            c.sequence_ids = self.address(call.sequence_ids, torch.int64)
        if call.num_steps is not None:
            c.steps = self.address(call.num_steps, torch.int64)
        c.hidden = self.address(hidden)
        if state is not None:
            c.state_mode, c.state = StateMode.GIVEN, self.address(state)
        addresses = float32_addresses(parameters)
        if addresses is None or 0 in addresses:
            named = zip(parameter_shapes(call.config), parameters, strict=True)
            addresses = [self.address(p, name=f"parameter {name}") for name, p in named]
        c.parameters[:] = template_of(call).reorder((*addresses, None))

    def place_kept(self, kept: Tensor) -> None:
        """Write the addresses of the saved tensors: states, then inverse standard deviations."""
        if kept.shape[0]:
            self.c.kept = self.address(kept)
            states = self.call.options.max_steps * self.call.kept_rows * self.call.config.d_model
            self.c.kept_rstd = self.c.kept + torch.float32.itemsize * states

    def run(self, name: str) -> None:
        """Call the library; errors become exceptions."""
        code = getattr(lib.loaded(), name)(self.c)
        if code == Code.OK:
            return
        if code in _BAD_VALUES:
            self.call.check_values()
        if code == Code.NO_MEMORY:
            raise MemoryError(f"{name}: no memory for the kernel's buffers")
        raise BackendError(f"{name} refused the call with code {code}")


register(CpuBackend())
