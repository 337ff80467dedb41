"""What a run says of its memory."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells a process's own peak")
def test_the_peak_is_this_processs_and_not_that_of_who_started_it() -> None:
    large = np.ones(1 << 27)  # a GiB
    program = (
        "import torch; from lares.training.memory import peak_memory_mib; "
        "print(peak_memory_mib(torch.device('cpu'))['host'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert 100 < float(done.stdout) < 1000 < large.nbytes / 2**20
