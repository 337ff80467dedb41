"""Backend ``cpu``: the fused C++ kernel of csrc/cpu."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from lares_kernels import cpu_library as lib
from lares_kernels.backward import RefineGradients
from lares_kernels.call import RefineCall
from lares_kernels.config import ADAPTERS, DROPOUT_LEVELS, NORMS
from lares_kernels.equations import Parameters, RefineResult
from lares_kernels.errors import BackendError
from lares_kernels.parameters import parameter_shapes

_ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "silu")
_MOST_WIDTH = 512


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _floats(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.float32).contiguous()


class CpuBackend:
    """One call is one kernel: state, activations and weights stay in cache over all steps."""

    name = "cpu"
    automatic = True

    def availability(self) -> str | None:
        library = lib.load()
        return library if isinstance(library, str) else None

    def verify(self, call: RefineCall, device_type: str) -> str | None:
        config = call.config
        if device_type != "cpu":
            return f"tensors are on {device_type}"
        if call.product_dtype != torch.float32:
            return f"products in {call.product_dtype}; it serves torch.float32"
        if config.d_model % 8 or config.d_model > _MOST_WIDTH:
            return f"d_model is {config.d_model}; it serves multiples of 8 up to {_MOST_WIDTH}"
        return None

    def plan(self, call: RefineCall, device_type: str) -> str:
        return (
            f"fused C++ kernel ({lib.instruction_sets()[0]}), {call.layout.n_rows} packed tokens of "
            f"{call.layout.n_sequences} sequences in cache for all {call.max_steps} steps"
        )

    def forward(
        self, call: RefineCall, hidden: Tensor, state: Tensor | None, parameters: Parameters
    ) -> tuple[RefineResult, Tensor]:
        inputs = _Inputs(call, hidden, state, parameters)
        d, rows, sequences = call.config.d_model, call.layout.n_rows, call.layout.n_sequences
        trajectory = torch.empty(sequences, call.max_steps, d)
        final = torch.empty(rows if call.wants_state else 0, d)
        kept = torch.empty(self._kept_size(call))
        c = inputs.c
        c.trajectory = trajectory.data_ptr()
        c.final_state = final.data_ptr() if call.wants_state else None
        self._place_kept(inputs, call, kept)
        inputs.run("lares_refine_forward")
        return RefineResult(trajectory, final), kept

    def backward(
        self,
        call: RefineCall,
        hidden: Tensor,
        state: Tensor | None,
        parameters: Parameters,
        kept: Tensor,
        g_trajectory: Tensor | None,
        g_state: Tensor | None,
    ) -> RefineGradients:
        inputs = _Inputs(call, hidden, state, parameters)
        c = inputs.c
        rows, d = call.layout.n_rows, call.config.d_model
        self._place_kept(inputs, call, kept)
        g_trajectory = None if g_trajectory is None else _floats(g_trajectory)
        g_state = None if g_state is None else _floats(g_state)
        c.g_trajectory, c.g_state = _address(g_trajectory), _address(g_state)
        g_hidden = torch.empty(hidden.shape)
        g_first = None if state is None else torch.empty(rows, d)
        grads = {name: torch.empty(value.shape) for name, value in parameters.items()}
        c.g_hidden, c.g_first_state = g_hidden.data_ptr(), _address(g_first)
        for i, name in enumerate(parameter_shapes(call.config)):
            c.g_parameters[i] = grads[name].data_ptr()
        inputs.run("lares_refine_backward")
        return RefineGradients(g_hidden, g_first, grads)

    @staticmethod
    def _kept_size(call: RefineCall) -> int:
        """A normalised state and its inverse deviation for every row and step."""
        if not (call.differentiates and call.config.is_recurrent):
            return 0
        return call.max_steps * call.layout.n_rows * (call.config.d_model + 1)

    @staticmethod
    def _place_kept(inputs: _Inputs, call: RefineCall, kept: Tensor) -> None:
        if len(kept):
            inputs.c.kept = kept.data_ptr()
            states = call.max_steps * call.layout.n_rows * call.config.d_model
            inputs.c.kept_rstd = kept.data_ptr() + kept.element_size() * states


class _Inputs:
    """The C struct of a call, and what its addresses point to."""

    def __init__(
        self, call: RefineCall, hidden: Tensor, state: Tensor | None, parameters: Parameters
    ) -> None:
        config, layout = call.config, call.layout
        self.kept_alive: list[Tensor] = []
        c = self.c = lib.LaresCall()
        c.abi = lib.ABI
        c.d_model, c.n_heads, c.d_ff = config.d_model, config.n_heads, config.d_ff
        c.n_layers = config.n_layers
        c.adapter = ADAPTERS.index(config.adapter)
        c.activation = _ACTIVATIONS.index(config.activation)
        c.norm = NORMS.index(config.norm)
        if call.dropout:
            c.dropout_level = round(DROPOUT_LEVELS * config.dropout)
            c.attn_dropout_level = round(DROPOUT_LEVELS * config.attn_dropout)
        c.eps = config.eps
        c.state_scale = config.state_omega * config.state_sigma
        g = call.rollouts
        c.n_sequences = layout.n_sequences // g
        c.rollouts = g
        c.n_rows = layout.n_rows // g
        c.max_steps = call.max_steps
        c.state_mode = lib.STATE_ZERO if call.zero_state else lib.STATE_DRAWN
        c.seed = call.seed if call.seed < 2**63 else call.seed - 2**64
        c.threads = torch.get_num_threads()
        c.lengths = self.keep(layout.lengths[::g].contiguous())
        c.sequence_ids = self.keep((layout.streams[::g] & 0xFFFFFF).contiguous())
        if call.num_steps is not None:
            c.steps = self.keep(call.num_steps.contiguous())
        c.hidden = self.keep(_floats(hidden))
        if state is not None:
            c.state_mode = lib.STATE_GIVEN
            c.state = self.keep(_floats(state))
        for i, name in enumerate(parameter_shapes(config)):
            c.parameters[i] = self.keep(_floats(parameters[name]))

    def keep(self, tensor: Tensor) -> int:
        self.kept_alive.append(tensor)
        return tensor.data_ptr()

    def run(self, name: str) -> None:
        code = getattr(lib.loaded(), name)(ctypes.byref(self.c))
        if code == lib.NO_MEMORY:
            raise MemoryError(f"{name}: no memory for the kernel's buffers")
        if code != lib.OK:
            raise BackendError(f"{name} refused the call with code {code}")
