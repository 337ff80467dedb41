"""Backend ``triton``: fused kernels for CUDA and HIP devices."""

from __future__ import annotations

import importlib.util
import os
from functools import cache

import torch
from torch import Tensor

from lares_kernels.call import RefineCall, Request
from lares_kernels.errors import BackendError
from lares_kernels.triton.constants import interpreted, padded
from lares_kernels.triton.fused import call_setting, fused_backward, fused_forward
from lares_kernels.triton.settings import family_of, longest_sequence

_PRODUCTS = (torch.float32, torch.bfloat16, torch.float16)
_LEAST_TRITON = (3, 4)
_MOST_WIDTH = 64


def precision_of(product_dtype: torch.dtype) -> str:
    """How products are taken: ``half``, or for float32 ``ieee`` or ``tf32`` as torch allows it."""
    if product_dtype != torch.float32:
        return "half"
    if torch.get_float32_matmul_precision() == "highest" or torch.version.hip is not None:
        return "ieee"
    return "tf32"


@cache
def _missing() -> str | None:
    """Why Triton cannot be used, or None."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    import triton

    version = tuple(int(part) for part in triton.__version__.split(".")[:2])
    if version < _LEAST_TRITON:
        least = ".".join(str(part) for part in _LEAST_TRITON)
        return f"Triton is {triton.__version__}; it needs {least}"
    return None


class TritonBackend:
    """Tiles of whole sequences run through all steps in one launch, their state in registers."""

    name = "triton"
    automatic = not interpreted()  # the interpreter is for tests

    def availability(self) -> str | None:
        reason = _missing()
        if reason is not None:
            return reason
        if not (torch.cuda.is_available() or interpreted()):
            return "there is no GPU"
        return None

    def verify(self, request: Request) -> str | None:
        if request.device_type != "cuda" and not interpreted():
            return f"tensors are on {request.device_type}"
        if request.product_dtype not in _PRODUCTS:
            served = ", ".join(str(dtype) for dtype in _PRODUCTS)
            return f"products in {request.product_dtype}; it serves {served}"
        width = request.config.d_model
        if width % 8 or width > _MOST_WIDTH:
            return f"d_model is {width}; it serves multiples of 8 up to {_MOST_WIDTH}"
        return None

    def plan(self, call: RefineCall, device_type: str) -> str:
        device = torch.device(device_type)
        longest = call.layout.max_length
        self._check_length(call, device, longest)
        precision = precision_of(call.product_dtype)
        rule = call_setting("forward", call, precision, device, longest)
        return (
            f"fused Triton kernels, tiles of {rule.rows} rows with {rule.warps} warps, "
            f"{call.n_rows} tokens of {call.n_sequences} sequences in registers for all "
            f"{call.max_steps} steps"
        )

    def _check_length(self, call: RefineCall, device: torch.device, longest: int) -> None:
        precision = precision_of(call.product_dtype)
        config = call.config
        most = longest_sequence(
            family_of(device), precision, padded(config.d_model), config.n_layers
        )
        if longest > most:
            raise BackendError(
                f"backend 'triton' serves sequences of up to {most} tokens here; "
                f"the longest has {longest}: use_backend('reference')"
            )

    def forward(
        self, call: RefineCall, hidden: Tensor, state: Tensor | None, parameters: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        longest = self._longest(call, hidden)
        return fused_forward(
            call, hidden, state, parameters, precision_of(call.product_dtype), longest
        )

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
        longest = self._longest(call, hidden)
        precision = precision_of(call.product_dtype)
        return fused_backward(
            call, hidden, state, parameters, kept, g_trajectory, g_state, precision, longest
        )

    def _longest(self, call: RefineCall, hidden: Tensor) -> int:
        if hidden.device.type == "cpu" or os.environ.get("LARES_CHECK_VALUES") == "1":
            call.check_values()
        # Packed sequences say how long they are on the device alone: this waits for it.
        longest = call.padded_length or int(call.lengths.max())
        self._check_length(call, hidden.device, longest)
        return longest
