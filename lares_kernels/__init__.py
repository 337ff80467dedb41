"""Provide LARES's latent reasoning as one differentiable op (arXiv 2505.16865).

``refine`` runs ``s_t = Layers(LayerNorm(adapter(s_{t-1}, H)))`` for ``T`` steps over packed or padded
sequences; ``RecurrentCore`` owns its parameters. Nothing here knows what a recommender is.

Importing the package does not import torch: names that do not need it (``spec``'s cores and
parameters, ``binding``) are available at once. Every other name is defined, and
``torch.ops.lares_kernels`` registered, once torch is imported, by anyone and in any order. A name that
is accessed earlier imports torch if it needs it.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from lares_kernels.after_torch import after_torch
from lares_kernels.binding.built import FOLDER, say_once

if TYPE_CHECKING:
    from lares_kernels.binding.cpu_library import cpu_peak
    from lares_kernels.catalogue import (
        CatalogueFunction,
        LogProbability,
        TopK,
        catalogue_cross_entropy,
        catalogue_log_probability,
        catalogue_ranks,
        catalogue_top_k,
    )
    from lares_kernels.explain import Explanation, explain
    from lares_kernels.function import RefineFunction, refine
    from lares_kernels.interop.from_torch import TorchEncoder, from_torch
    from lares_kernels.interop.parts import UnsupportedModuleError
    from lares_kernels.module import RecurrentCore
    from lares_kernels.registry.backends import available_backends, use_backend
    from lares_kernels.spec.call import RefineOutput
    from lares_kernels.spec.config import CoreConfig
    from lares_kernels.spec.errors import BackendError
    from lares_kernels.token_states import refine_states
    from lares_kernels.warmup import warmup

__all__ = [
    "BackendError",
    "CatalogueFunction",
    "CoreConfig",
    "Explanation",
    "LogProbability",
    "RecurrentCore",
    "RefineFunction",
    "RefineOutput",
    "TopK",
    "TorchEncoder",
    "UnsupportedModuleError",
    "available_backends",
    "catalogue_cross_entropy",
    "catalogue_log_probability",
    "catalogue_ranks",
    "catalogue_top_k",
    "cpu_peak",
    "explain",
    "from_torch",
    "refine",
    "refine_states",
    "use_backend",
    "warmup",
]

_HOMES = {
    "BackendError": "spec.errors",
    "CatalogueFunction": "catalogue",
    "CoreConfig": "spec.config",
    "Explanation": "explain",
    "LogProbability": "catalogue",
    "RecurrentCore": "module",
    "RefineFunction": "function",
    "RefineOutput": "spec.call",
    "TopK": "catalogue",
    "TorchEncoder": "interop.from_torch",
    "UnsupportedModuleError": "interop.parts",
    "available_backends": "registry.backends",
    "catalogue_cross_entropy": "catalogue",
    "catalogue_log_probability": "catalogue",
    "catalogue_ranks": "catalogue",
    "catalogue_top_k": "catalogue",
    "cpu_peak": "binding.cpu_library",
    "explain": "explain",
    "from_torch": "interop.from_torch",
    "refine": "function",
    "refine_states": "token_states",
    "use_backend": "registry.backends",
    "warmup": "warmup",
}


def _load(name: str) -> Any:
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def _load_all() -> None:
    for name in _HOMES:
        _load(name)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = _load(name)
    if "torch" in sys.modules:  # this name has brought it
        _load_all()
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


for _library in ("liblares_cpu.so", "liblares_cuda.so"):
    say_once(FOLDER / _library)
after_torch(_load_all)
