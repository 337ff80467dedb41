"""Public path of options of a call, which ``spec/options.py`` has."""

from lares_kernels.spec.options import CallOptions, CallTensors

__all__ = ["CallOptions", "CallTensors"]
