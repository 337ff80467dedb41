"""Public path of names and shapes of parameters, which ``spec/parameters.py`` has."""

from lares_kernels.spec.parameters import parameter_shapes

__all__ = ["parameter_shapes"]
