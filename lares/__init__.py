"""LARES: latent reasoning for sequential recommendation (arXiv 2505.16865)."""

from lares.config import LaresConfig
from lares.encoder import LaresEncoder
from lares.model import LaresModel

__version__ = "0.1.0"
__all__ = ["LaresConfig", "LaresEncoder", "LaresModel"]
