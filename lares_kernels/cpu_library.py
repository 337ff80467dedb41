"""Public path of the C library of the CPU, which ``binding/cpu_library.py`` has."""

from lares_kernels.binding.cpu_library import (
    cpu_peak,
    instruction_set_in_use,
    instruction_sets,
    load,
    use_instruction_set,
)

__all__ = ["cpu_peak", "instruction_set_in_use", "instruction_sets", "load", "use_instruction_set"]
