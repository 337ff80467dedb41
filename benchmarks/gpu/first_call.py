"""How long a fresh process waits for its first call, forward and backward, of the published core.

``python -m benchmarks.gpu.first_call`` prints the seconds. Importing and reaching the device come
before its clock starts: every program pays those. :func:`first_call` runs it twice, since the first
process may have to compile what the second then finds on disk.
"""

from __future__ import annotations

import argparse
import sys
import time

import torch

from benchmarks.cases.implementations import PREFERRED
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
    command = [sys.executable, "-m", "benchmarks.gpu.first_call"]
    command += ["--backend", backend, "--device", device, "--precision", precision]
    for _ in range(2):
        printed = printed_by(command, max(0.0, ends - time.monotonic()))
    return float(printed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=PREFERRED, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    given = parser.parse_args()

    def finish() -> None:
        if given.device == "cuda":
            torch.cuda.synchronize()

    config = CoreConfig(n_layers=2, dropout=0.5, attn_dropout=0.5)
    core = RecurrentCore(config, given.device)
    lengths = torch.tensor(LENGTHS, device=given.device)
    hidden = torch.randn(len(LENGTHS), max(LENGTHS), config.d_model, device=given.device)
    finish()
    began = time.perf_counter()
    with use_backend(given.backend):
        core(hidden, lengths, num_steps=STEPS, precision=given.precision).last.sum().backward()
    finish()
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main()
