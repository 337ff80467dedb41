"""Backend ``cpu``: tensors and calls around the C++ kernels of csrc/cpu."""
