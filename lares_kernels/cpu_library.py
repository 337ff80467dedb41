"""Re-export the CPU's C library from ``binding/cpu_library.py`` under its public path."""

from lares_kernels.binding.cpu_library import (
    cpu_peak,
    instruction_set_in_use,
    instruction_sets,
    load,
    use_instruction_set,
)

__all__ = ["cpu_peak", "instruction_set_in_use", "instruction_sets", "load", "use_instruction_set"]
