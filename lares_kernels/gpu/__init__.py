"""Share host code among the kernels of all GPUs: memory, packing of parameters, sizes of tiles."""
