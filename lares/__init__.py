"""LARES: latent reasoning for sequential recommendation (arXiv 2505.16865)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lares.config import LaresConfig
    from lares.encoder import LaresEncoder
    from lares.model import LaresModel

__version__ = "0.1.0"
__all__ = ["LaresConfig", "LaresEncoder", "LaresModel", "integrations"]

# Loaded on first use: reading data and printing help must not wait for torch.
_HOMES = {
    "LaresConfig": "lares.config",
    "LaresEncoder": "lares.encoder",
    "LaresModel": "lares.model",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name == "integrations":
        return importlib.import_module("lares.integrations")
    raise AttributeError(f"module 'lares' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
