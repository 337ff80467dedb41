"""Importing this registers this package's own backends; the registry does so when it is first asked."""

import lares_kernels.cpu.backend
import lares_kernels.cpu.catalogue
import lares_kernels.cuda.backend
import lares_kernels.reference.backend
import lares_kernels.reference.catalogue
import lares_kernels.triton.backend
import lares_kernels.triton.catalogue  # noqa: F401
