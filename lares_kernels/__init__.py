"""Latent reasoning for sequential recommendation as one differentiable op (arXiv 2505.16865).

``refine`` runs ``s_t = Layers(LayerNorm(adapter(s_{t-1}, H)))`` for ``T`` steps over packed or padded
sequences; ``RecurrentCore`` owns its parameters. Nothing here knows what a recommender is.
"""

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
from lares_kernels.token_states import refine_states
from lares_kernels.torch_layers import UnsupportedModuleError
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
