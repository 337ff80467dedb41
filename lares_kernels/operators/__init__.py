"""Define ``torch.ops.lares_kernels``: schemas, fakes, checks, differentiation."""
