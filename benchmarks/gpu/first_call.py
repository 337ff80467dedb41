"""How long a fresh process waits for its first call, forward and backward, of the published core.

Importing and reaching the device come before the clock of :func:`seconds_here` starts: every program
pays those. :func:`first_call` runs it twice, since the first process may have to compile what the
second then finds on disk.
"""

from __future__ import annotations

import sys
import time

import torch

from benchmarks.core.process import printed_by
from lares_kernels import CoreConfig, RecurrentCore, use_backend

LENGTHS, STEPS = [20, 7, 1], 4


def first_call(backend: str, device: str, precision: str, seconds: float) -> float:
    """Seconds of a second process's first call, all that compiles being on disk by then.

    Raises:
        subprocess.TimeoutExpired: both together would take longer than ``seconds``.
        subprocess.CalledProcessError: the call failed.
    """
    ends = time.monotonic() + seconds
    given = (backend, device, precision)
    command = [sys.executable, "-c", f"from {__name__} import seconds_here; seconds_here{given}"]
    for _ in range(2):
        printed = printed_by(command, max(0.0, ends - time.monotonic()))
    return float(printed)


def seconds_here(backend: str, device: str, precision: str) -> None:
    """Print the seconds of the first call of this process."""
    config = CoreConfig(n_layers=2, dropout=0.5, attn_dropout=0.5)
    core = RecurrentCore(config, device)
    lengths = torch.tensor(LENGTHS, device=device)
    hidden = torch.randn(len(LENGTHS), max(LENGTHS), config.d_model, device=device)
    finish = torch.cuda.synchronize if device == "cuda" else lambda: None
    finish()
    began = time.perf_counter()
    with use_backend(backend):
        core(hidden, lengths, num_steps=STEPS, precision=precision).last.sum().backward()
    finish()
    print(time.perf_counter() - began)
