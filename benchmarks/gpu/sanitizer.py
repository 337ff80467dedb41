"""The CUDA kernels under NVIDIA's compute-sanitizer: small calls, every kind of kernel once.

``python -m benchmarks.gpu.sanitizer`` makes the calls; :func:`watch` runs that under each tool.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.core.settings import ROOT
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


def available() -> bool:
    """Whether there are kernels to watch, and the tool."""
    return (
        available_backends()["cuda"] == "usable" and shutil.which("compute-sanitizer") is not None
    )


def watch(out: Path, seconds: float) -> dict[str, str | None]:
    """What each tool says: None if nothing is wrong. Its output goes to ``out``."""
    found: dict[str, str | None] = {}
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
    for tool in TOOLS:
        command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9"]
        command += ["--kernel-regex", "kns=lares", sys.executable, "-m", "benchmarks.gpu.sanitizer"]
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=seconds / len(TOOLS),
                check=False,
            )
        except subprocess.TimeoutExpired:
            found[tool] = "stopped: out of time"
            continue
        text = done.stdout + done.stderr
        (out / f"sanitizer-{tool}.txt").write_text(text, encoding="utf-8")
        lines = [line for line in text.splitlines() if line.strip()] or ["no output"]
        found[tool] = None if done.returncode == 0 else lines[-1]
    return found


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
