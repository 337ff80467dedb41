"""LARES: latent reasoning for sequential recommendation (arXiv 2505.16865)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lares.on_first_use import on_first_use

if TYPE_CHECKING:
    from lares.model import LaresConfig, LaresEncoder, LaresModel
    from lares.recommender import Recommender

__version__ = "0.1.0"
__all__ = ["LaresConfig", "LaresEncoder", "LaresModel", "Recommender", "integrations"]

_HOMES = dict.fromkeys(("LaresConfig", "LaresEncoder", "LaresModel"), "lares.model")
_HOMES["Recommender"] = "lares.recommender"
__getattr__, __dir__ = on_first_use(__name__, {**_HOMES, "integrations": __name__})
