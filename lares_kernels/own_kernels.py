"""Tabulate which choices and options of a call this package's kernels have code for.

What is not here is refused by a backend, with the reason: a choice or an option that joins the
specification later is served once its kernels, and a line here, say so. csrc/cpu, csrc/cuda and
lares_kernels/triton hold the code, and refuse what they have none for on their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lares_kernels.spec.choices import Activation, Adapter, DropoutOf, Mixer, Norm, Padding

_ALL = ("cpu", "triton", "cuda")
_BUT_CUDA = ("cpu", "triton")
# By field of ServesCores: the backends that have code for each.
_BACKENDS: Mapping[str, Mapping[Any, tuple[str, ...]]] = {
    "adapters": dict.fromkeys((Adapter.ADD, Adapter.GATE, Adapter.CONCAT, Adapter.NONE), _ALL),
    "activations": dict.fromkeys(
        (Activation.GELU, Activation.GELU_TANH, Activation.RELU, Activation.SILU), _ALL
    ),
    "norms": {Norm.POST: _ALL, Norm.PRE: _ALL, Norm.QUERY: _BUT_CUDA},
    "mixers": {Mixer.ATTENTION: _ALL, Mixer.FILTER: _BUT_CUDA, Mixer.BSAREC: _BUT_CUDA},
    "paddings": {Padding.RIGHT: _ALL, Padding.LEFT: _BUT_CUDA, Padding.LEFT_ZEROS: _BUT_CUDA},
    "dropout_of": {DropoutOf.BOTH: _ALL, DropoutOf.FEED_FORWARD: _BUT_CUDA},
    "options": dict.fromkeys(
        (
            *("rollouts", "max_steps", "steps_done", "dropout", "zero_state", "wants_state"),
            *("differentiates", "keeps_padding", "max_length"),
        ),
        _ALL,
    ),
}


def served_by(backend: str) -> dict[str, Any]:
    """Return arguments of ``ServesCores``: what the kernels of a backend have code for."""
    return {
        field: tuple(each for each, backends in served.items() if backend in backends)
        for field, served in _BACKENDS.items()
    }
