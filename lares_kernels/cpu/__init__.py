"""Wrap the C++ kernels of csrc/cpu as backend ``cpu``."""
