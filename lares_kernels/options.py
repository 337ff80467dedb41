"""Re-export a call's options from ``spec/options.py`` under their public path."""

from lares_kernels.spec.options import CallOptions, CallTensors

__all__ = ["CallOptions", "CallTensors"]
