"""Latent reasoning for sequential recommendation as one differentiable op (arXiv 2505.16865).

``refine`` runs ``s_t = Layers(LayerNorm(adapter(s_{t-1}, H)))`` for ``T`` steps over packed or padded
sequences; ``RecurrentCore`` owns its parameters. Nothing here knows what a recommender is.

Importing the package imports no torch: what needs none (``config``, ``parameters``, ``errors``, the C
binding ``cpu_library``) answers at once. All else comes with torch, whoever imports that and in
whichever order: from then on every name is here and ``torch.ops.lares_kernels`` is registered. A name
that is asked for earlier brings torch if it needs it.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from lares_kernels.after_torch import after_torch
from lares_kernels.built import FOLDER, say_once

if TYPE_CHECKING:
    from lares_kernels.backends import available_backends, use_backend
    from lares_kernels.call import RefineOutput
    from lares_kernels.catalogue.functions import (
        CatalogueFunction,
        LogProbability,
        TopK,
        catalogue_cross_entropy,
        catalogue_log_probability,
        catalogue_ranks,
        catalogue_top_k,
    )
    from lares_kernels.config import CoreConfig
    from lares_kernels.cpu_library import cpu_peak
    from lares_kernels.errors import BackendError
    from lares_kernels.explain import Explanation, explain
    from lares_kernels.from_torch import TorchEncoder, from_torch
    from lares_kernels.function import RefineFunction, refine
    from lares_kernels.module import RecurrentCore
    from lares_kernels.parts import UnsupportedModuleError
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
    "BackendError": "errors",
    "CatalogueFunction": "catalogue.functions",
    "CoreConfig": "config",
    "Explanation": "explain",
    "LogProbability": "catalogue.functions",
    "RecurrentCore": "module",
    "RefineFunction": "function",
    "RefineOutput": "call",
    "TopK": "catalogue.functions",
    "TorchEncoder": "from_torch",
    "UnsupportedModuleError": "parts",
    "available_backends": "backends",
    "catalogue_cross_entropy": "catalogue.functions",
    "catalogue_log_probability": "catalogue.functions",
    "catalogue_ranks": "catalogue.functions",
    "catalogue_top_k": "catalogue.functions",
    "cpu_peak": "cpu_library",
    "explain": "explain",
    "from_torch": "from_torch",
    "refine": "function",
    "refine_states": "token_states",
    "use_backend": "backends",
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
