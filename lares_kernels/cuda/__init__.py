"""Backend ``cuda``: hand-written kernels for NVIDIA cards (csrc/cuda)."""
