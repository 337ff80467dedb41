"""``torch.ops.lares_kernels``: definitions, fakes, checks, how they are differentiated."""
