"""Backend ``triton``: the recurrence in a GPU's registers and shared memory, through Triton.

``backend.py`` and its neighbours are host code and import without Triton; ``kernels/`` is device code
and imports Triton. Everything here reads like the equations of ``lares_kernels/equations.py``.
"""
