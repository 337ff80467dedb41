"""Backend ``triton``: fused kernels for CUDA and HIP devices."""

from __future__ import annotations

import importlib.util
import os
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from lares_kernels.call import RefineCall, Request
from lares_kernels.circumstances import tf32_allowed
from lares_kernels.triton.constants import interpreted, padded
from lares_kernels.triton.fused import call_setting, fused_backward, fused_forward
from lares_kernels.triton.layered import layered_forward, layered_reason, layered_text
from lares_kernels.triton.layered_backward import layered_backward
from lares_kernels.triton.settings import (
    family_of,
    files_of_rules,
    longest_sequence,
    weights_asked_for,
)
from lares_kernels.verdicts import digest_of

_PRODUCTS = (torch.float32, torch.bfloat16, torch.float16)
_LEAST_TRITON = (3, 4)
_MOST_FUSED_WIDTH = 64


def precision_of(product_dtype: torch.dtype) -> str:
    """How products are taken: ``half``, or for float32 ``ieee`` or ``tf32`` as torch allows it."""
    if product_dtype != torch.float32:
        return "half"
    return "tf32" if tf32_allowed() and torch.version.hip is None else "ieee"


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


def cannot_multiply(product_dtype: torch.dtype) -> str | None:
    """Why the kernels' products cannot be in a type here, or None."""
    if product_dtype not in _PRODUCTS:
        served = ", ".join(str(dtype) for dtype in _PRODUCTS)
        return f"products in {product_dtype}; it serves {served}"
    if interpreted() and product_dtype == torch.bfloat16:
        return (
            "Triton's interpreter multiplies bfloat16's bits as whole numbers; float16 is as good a "
            "test of the kernels"
        )
    return None


class TritonBackend:
    """Two plans: tiles of whole sequences whose state stays in registers, and layer by layer."""

    name = "triton"
    automatic = not interpreted()  # the interpreter is for tests
    any_size = False

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
        return cannot_multiply(request.product_dtype) or layered_reason(request)

    def build(self, product_dtype: torch.dtype) -> str | None:
        return digest_of(Path(__file__).parent, *files_of_rules())

    def plan(self, call: RefineCall, device_type: str) -> str:
        device = torch.device(device_type)
        longest = call.layout.max_length
        if not self._forward_is_fused(call, device, longest):
            return layered_text(call)
        rule = call_setting("forward", call, precision_of(call.product_dtype), device, longest)
        backward = ""
        if call.differentiates and not self._is_fused("backward", call, device, longest):
            backward = "; backward layer by layer"
        return (
            f"fused Triton kernels, tiles of {rule.rows} rows with {rule.warps} warps, "
            f"weights {rule.weights}, {call.n_rows} tokens of {call.n_sequences} sequences "
            f"in registers for all {call.max_steps} steps{backward}"
        )

    def _is_fused(self, kernel: str, call: RefineCall, device: torch.device, longest: int) -> bool:
        """Whether tiles of ``kernel`` hold the call, else it is the layered plan's.

        Both plans keep the same states in the same order, so one may run backward after the other.
        """
        config = call.config
        if config.d_model % 8 or config.d_model > _MOST_FUSED_WIDTH:
            return False
        key = (family_of(device), kernel, precision_of(call.product_dtype))
        core = (padded(config.d_model), config.n_layers, config.mixer)
        return longest <= longest_sequence(*key, *core)

    def _forward_is_fused(self, call: RefineCall, device: torch.device, longest: int) -> bool:
        """Likewise of forward, which alone can be asked where its weights are."""
        fused = self._is_fused("forward", call, device, longest)
        asked = weights_asked_for()
        if not fused and asked is not None:
            raise ValueError(
                f"weights are asked to be {asked}, but the layered plan runs this call of width "
                f"{call.config.d_model} and {longest} tokens: leave use_weights out"
            )
        return fused

    def forward(
        self, call: RefineCall, hidden: Tensor, state: Tensor | None, parameters: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        longest = self._longest(call, hidden)
        precision = precision_of(call.product_dtype)
        if not self._forward_is_fused(call, hidden.device, longest):
            return layered_forward(call, hidden, state, parameters, precision)
        return fused_forward(call, hidden, state, parameters, precision, longest)

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
        tensors = (hidden, state, parameters, kept, g_trajectory, g_state)
        if not self._is_fused("backward", call, hidden.device, longest):
            return layered_backward(call, *tensors, precision)
        return fused_backward(call, *tensors, precision, longest)

    def _longest(self, call: RefineCall, hidden: Tensor) -> int:
        if hidden.device.type == "cpu" or os.environ.get("LARES_CHECK_VALUES") == "1":
            call.check_values()
        handover = call.handover_of(self.name)
        if handover is not None:
            return handover.numbers[0]
        # Packed sequences say how long they are on the device alone: this waits for it.
        longest = call.padded_length or call.max_length or int(call.lengths.max())
        if call.handover is not None:
            call.handover.by, call.handover.numbers = self.name, (longest,)
        return longest
