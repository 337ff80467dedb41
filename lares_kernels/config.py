"""Re-export a core's options from ``spec/config.py`` under their public path."""

from lares_kernels.spec.config import CoreConfig

__all__ = ["CoreConfig"]
