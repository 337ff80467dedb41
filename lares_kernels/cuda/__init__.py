"""Wrap the hand-written kernels for NVIDIA cards (csrc/cuda) as backend ``cuda``."""
