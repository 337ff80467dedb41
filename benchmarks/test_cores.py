"""Time of the cores that mix the whole window, beside plain PyTorch with its Fourier transforms."""

from __future__ import annotations

import pytest
import torch

from benchmarks.cases.op import Case, core_cases
from benchmarks.core.settings import EFFORT, QUICK
from benchmarks.report.recorder import Recorder
from benchmarks.test_cpu import time_case

pytestmark = pytest.mark.skipif(EFFORT is QUICK, reason="no case of a quick run")


@pytest.mark.parametrize("case", core_cases(), ids=str)
@pytest.mark.usefixtures("same_threads_afterwards")
def test_time(benchmark, cores_recorder: Recorder, case: Case) -> None:
    torch.set_num_threads(case.threads)
    time_case(benchmark, cores_recorder, case)
