"""Public path of a core's options, which ``spec/config.py`` has."""

from lares_kernels.spec.config import CoreConfig

__all__ = ["CoreConfig"]
