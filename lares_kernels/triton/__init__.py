"""Run the recurrence in a GPU's registers and shared memory through Triton: backend ``triton``.

``fused/`` and ``layered/`` are its two plans, ``launch/`` is what both know of a launch. Folders
``kernels/`` are device code and import Triton; all else is host code and imports without it.
Everything here reads like the equations of ``reference/equations.py``.
"""
