"""Tests of device code on the CPU, collected only where Triton's interpreter is on.

``tests/kernels/triton/test_triton.py`` runs them in a process of their own: Triton decides when it is
first imported whether it interprets.
"""

from __future__ import annotations

import os

INTERPRETS = os.environ.get("TRITON_INTERPRET") == "1"
collect_ignore_glob = [] if INTERPRETS else ["test_*.py"]

if INTERPRETS:
    from tests.kernels.triton.interpreted.quicker import spare_time

    spare_time()
