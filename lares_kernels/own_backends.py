"""Register this package's own backends on import; the registry imports it when first asked."""

import lares_kernels.cpu.backend
import lares_kernels.cpu.catalogue
import lares_kernels.cuda.backend
import lares_kernels.reference.backend
import lares_kernels.reference.catalogue
import lares_kernels.triton.backend
import lares_kernels.triton.catalogue  # noqa: F401
