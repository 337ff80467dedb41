"""Tests of device code on the CPU, collected only where Triton's interpreter is on.

``tests/kernels/test_triton.py`` runs them in a process of their own: Triton decides when it is first
imported whether it interprets.
"""

import os

collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["test_*.py"]
