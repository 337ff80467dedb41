"""Say in a line what the machine is, and which kernels run on it."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import torch

import lares_kernels as lk
from lares.model.model import LaresModel
from lares_kernels.machine import instruction_sets


def machine_line() -> str:
    """Return processor, cores, threads, the kernels' instruction set and torch's version."""
    sets = instruction_sets().get("cpu in fp32", "").partition(" ")[0]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    kernels = f"CPU kernels for {sets}" if sets else "no CPU kernels"
    threads = torch.get_num_threads()
    return (
        f"{_processor()}, {cores} {'core' if cores == 1 else 'cores'}, {kernels}, "
        f"{threads} {'thread' if threads == 1 else 'threads'}, torch {torch.__version__}"
    )


def why_not_the_kernels(model: LaresModel) -> str | None:
    """Return why a model's training on the CPU does not run on the CPU kernels; None where it does.

    Raises:
        BackendError: the backend that was asked for cannot serve it.
    """
    block = model.encoder.core or model.encoder.pre
    assert block is not None  # a model has one of them
    how = lk.explain(block.config, [model.config.max_length], training=True)
    if how.backend == "cpu":
        return None
    asked = f"LARES_BACKEND={os.environ.get('LARES_BACKEND')}"
    reason = how.passed_over.get("cpu", asked)
    return f"not the CPU kernels but backend {how.backend} runs here ({reason})"


def _processor() -> str:
    """Return the processor's model."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+?)\s*$", text, re.MULTILINE)
    return found.group(1) if found else platform.processor() or platform.machine()
