"""Importing this registers this package's own backends; the registry does so when it is first asked."""

import lares_kernels.catalogue.cpu
import lares_kernels.catalogue.reference
import lares_kernels.cpu
import lares_kernels.cuda.backend
import lares_kernels.reference
import lares_kernels.triton.backend
import lares_kernels.triton.catalogue  # noqa: F401
