"""What the kernels of all GPUs share on the host: memory, packing of parameters, sizes of tiles."""
