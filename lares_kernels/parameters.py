"""Re-export names and shapes of parameters from ``spec/parameters.py`` under their public path."""

from lares_kernels.spec.parameters import parameter_shapes

__all__ = ["parameter_shapes"]
