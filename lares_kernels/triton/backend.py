"""Implement backend ``triton`` with fused kernels for CUDA and HIP devices."""

from __future__ import annotations

import importlib.util
from collections.abc import Hashable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lares_kernels.common.devices import tf32_allowed
from lares_kernels.common.verdicts import digest_of
from lares_kernels.gpu.cards import current_card, too_old
from lares_kernels.gpu.tiles import longest_of
from lares_kernels.own_kernels import served_by
from lares_kernels.registry.backends import register
from lares_kernels.registry.plan_failures import by_name_alone, first_left, run_first
from lares_kernels.spec.call import Given, GivenBackward, RefineCall
from lares_kernels.spec.serves import ServesCores
from lares_kernels.triton.fused.launch import call_setting, fused_backward, fused_forward
from lares_kernels.triton.launch.constants import interpreted, padded
from lares_kernels.triton.launch.rules import Setting
from lares_kernels.triton.launch.settings import (
    family_of,
    files_of_rules,
    longest_sequence,
    requested_weights,
    use_weights,
)
from lares_kernels.triton.layered.backward import layered_backward
from lares_kernels.triton.layered.forward import layered_forward, layered_text

_PRODUCTS = (torch.float32, torch.bfloat16, torch.float16)
_MIN_TRITON = (3, 4)
_MIN_CAPABILITY = (8, 0)
_MAX_FUSED_WIDTH = 64


def precision_of(product_dtype: torch.dtype) -> str:
    """Return the precision of products: ``half``; for float32 ``ieee``, or ``tf32`` if allowed."""
    if product_dtype != torch.float32:
        return "half"
    return "tf32" if tf32_allowed() and torch.version.hip is None else "ieee"


@cache
def _missing() -> str | None:
    """Return the reason why Triton cannot be used, or None."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    import triton

    version = tuple(int(part) for part in triton.__version__.split(".")[:2])
    if version < _MIN_TRITON:
        least = ".".join(str(part) for part in _MIN_TRITON)
        return f"Triton is {triton.__version__}; it needs {least}"
    return None


def product_types() -> tuple[torch.dtype, ...]:
    """Return the types that the kernels multiply in here.

    Triton's interpreter multiplies bfloat16's bits as whole numbers; float16 is as good a test.
    """
    return tuple(each for each in _PRODUCTS if not (interpreted() and each == torch.bfloat16))


class TritonPlan(NamedTuple):
    """Extend ``Plan`` of registry/plan_failures.py by its tiles' rule; None: layer by layer."""

    backend: str
    words: str
    device: torch.device
    code: tuple[Hashable, ...]
    rule: Setting | None


class TritonKernels:
    """Tell what backend ``triton`` is, of both ops."""

    name = "triton"
    preference = 10
    automatic = not interpreted()  # the interpreter is for tests
    any_size = False
    starts_kernels = True

    @property
    def devices(self) -> tuple[str, ...] | None:
        return None if interpreted() else ("cuda",)

    def availability(self) -> str | None:
        reason = _missing()
        if reason is not None or interpreted():
            return reason
        if not torch.cuda.is_available():
            return "there is no GPU"
        if torch.version.hip is not None:
            return None  # Triton names no cards that it leaves out: the first launch says it
        number = current_card()
        capability = torch.cuda.get_device_capability(number)
        return too_old(number, capability, _MIN_CAPABILITY, "Triton compiles for {} and later")

    def build(self, product_dtype: torch.dtype) -> str | None:
        return digest_of(Path(__file__).parent, *files_of_rules())


class TritonBackend(TritonKernels):
    """Run tiles of whole sequences with the state in registers, or else layer by layer."""

    @property
    def serves(self) -> ServesCores:
        return ServesCores(
            widths=dict.fromkeys(product_types(), range(1, 1024 + 1)),
            widest_head=256,
            **served_by("triton"),
        )

    def plan(self, call: RefineCall, device_type: str) -> str:
        device = torch.device(device_type)
        longest = call.layout.max_length
        rule = first_left(self._plans("forward", call, device, longest)).rule
        if rule is None:
            return layered_text(call)
        backward = ""
        if call.options.differentiates:
            tiles = first_left(self._plans("backward", call, device, longest)).rule
            backward = "; backward layer by layer" if tiles is None else ""
        return (
            f"fused Triton kernels, tiles of {rule.rows} rows with {rule.warps} warps, "
            f"weights {rule.weights}, {call.n_rows} tokens of {call.n_sequences} sequences "
            f"in registers for all {call.options.max_steps} steps{backward}"
        )

    def _plans(
        self, kernel: str, call: RefineCall, device: torch.device, longest: int
    ) -> list[TritonPlan]:
        """Return the plans for ``kernel``, ``forward`` or ``backward``, the preferred one first.

        All of forward keep the same states in the same order, so any of backward may run after it.
        """
        asked = requested_weights() if kernel == "forward" else None
        precision = precision_of(call.product_dtype)
        code = (kernel, precision, call.config.key, call.options.dropout)

        def fused(rule: Setting) -> TritonPlan:
            where = f", weights {rule.weights}" if kernel == "forward" else ""
            words = f"fused {precision} kernels ({kernel}, tiles of {rule.rows} rows{where})"
            return TritonPlan(self.name, words, device, (*code, rule), rule)

        found: list[TritonPlan] = []
        if self._is_fused(kernel, call, device, longest):
            rule = call_setting(kernel, call, precision, device, longest)
            found.append(fused(rule))
            if rule.resident and asked is None:
                with use_weights("streamed"):
                    found.append(fused(call_setting(kernel, call, precision, device, longest)))
        elif asked is not None:
            raise ValueError(
                f"weights are asked to be {asked}, but the layered plan runs this call of width "
                f"{call.config.d_model} and {longest} tokens: leave use_weights out"
            )
        if asked is None:
            words = f"{precision} kernels layer by layer ({kernel})"
            found.append(TritonPlan(self.name, words, device, (*code, "layered"), None))
        return found

    def _is_fused(self, kernel: str, call: RefineCall, device: torch.device, longest: int) -> bool:
        """Return True if tiles of ``kernel`` hold the call, else it is the layered plan's."""
        config = call.config
        if config.d_model % 8 or config.d_model > _MAX_FUSED_WIDTH:
            return False
        key = (family_of(device), kernel, precision_of(call.product_dtype))
        core = (padded(config.d_model), config.n_layers, config.mixer)
        return longest <= longest_sequence(*key, *core)

    def forward(self, call: RefineCall, given: Given) -> tuple[Tensor, Tensor, Tensor]:
        longest = longest_of(call, given.hidden.device, self.name)
        precision = precision_of(call.product_dtype)

        def run(plan: TritonPlan) -> tuple[Tensor, Tensor, Tensor]:
            if plan.rule is None:
                return layered_forward(call, given, precision)
            with use_weights(plan.rule.weights):
                return fused_forward(call, given, precision, longest)

        plans = self._plans("forward", call, given.hidden.device, longest)
        if requested_weights() is None:
            return run_first(plans, run)
        return by_name_alone(lambda: run_first(plans, run))

    def backward(self, call: RefineCall, given: GivenBackward) -> list[Tensor]:
        longest = longest_of(call, given.hidden.device, self.name)
        precision = precision_of(call.product_dtype)

        def run(plan: TritonPlan) -> list[Tensor]:
            if plan.rule is None:
                return layered_backward(call, given, precision)
            return fused_backward(call, given, precision, longest)

        return run_first(self._plans("backward", call, given.hidden.device, longest), run)


register(TritonBackend())
