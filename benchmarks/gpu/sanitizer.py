"""The CUDA kernels under NVIDIA's compute-sanitizer: small calls, every kind of kernel once.

``python -m benchmarks.gpu.sanitizer`` makes the calls; :func:`watch` runs that under each tool.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.core.process import run_here
from lares_kernels import CoreConfig, RecurrentCore, available_backends, use_backend
from lares_kernels.binding import cuda_library as library
from lares_kernels.cuda.settings import Settings, family_of, use_settings

TOOLS = ("memcheck", "racecheck")
_CONFIG = CoreConfig(n_layers=2)
_CORES = (
    _CONFIG,
    replace(_CONFIG, dropout=0.5, attn_dropout=0.5, norm="pre"),
    replace(_CONFIG, d_model=32, adapter="concat"),
    replace(_CONFIG, d_model=128, adapter="gate", n_layers=1, dropout=0.5, attn_dropout=0.5),
)
_STAGED = Settings("streamed", "streamed", forward_staged=True, backward_staged=True)


def watch(out: Path, seconds: float, device: str, say: Callable[[str], None]) -> list[str]:
    """Make the calls under each tool, where there is one and kernels; why they failed, a line each.

    What the tools print goes to ``out``.
    """
    if available_backends()["cuda"] != "usable" or shutil.which("compute-sanitizer") is None:
        return []
    wrong = []
    for tool in TOOLS if device == "cuda" else ():
        command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9"]
        command += ["--kernel-regex", "kns=lares", sys.executable, "-m", "benchmarks.gpu.sanitizer"]
        found = run_here(command, seconds / len(TOOLS))
        wrong += found.told(tool, out / f"sanitizer-{tool}.txt", say)
    return wrong


def main() -> None:
    """The calls."""
    lengths = torch.tensor([20, 1, 9, 33, 7, 16], device="cuda")
    family = family_of(library.card(torch.cuda.current_device()))
    for config in _CORES:
        core = RecurrentCore(config, "cuda")
        hidden = torch.randn(len(lengths), 33, config.d_model, device="cuda")
        with use_backend("cuda"):
            for precision in ("bf16", "fp16"):
                with torch.no_grad():
                    core.eval()(hidden, lengths, num_steps=2, precision=precision)  # a block each
                    core.train()(hidden, lengths, num_steps=2, precision=precision)
                core(hidden, lengths, num_steps=2, precision=precision).last.sum().backward()
            with use_settings(family, _STAGED):
                core(hidden, lengths, num_steps=2, precision="bf16").last.sum().backward()
    torch.cuda.synchronize()


if __name__ == "__main__":
    main()
