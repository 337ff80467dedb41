"""What ran the benchmark: the machine, the versions, the revision."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import torch

import lares_kernels
from benchmarks.core.settings import ROOT
from lares_kernels.binding import cpu_library


def processor() -> str:
    """Model of the processor, with family and model number where the name is a general one."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(
        (part.strip() for part in line.split(":", 1)) for line in text.splitlines() if ":" in line
    )
    name = fields.get("model name", platform.machine())
    if "cpu family" in fields and "model" in fields:
        name += f" (family {fields['cpu family']} model {fields['model']})"
    return name


def usable_cpus() -> int:
    """Processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine_name() -> str:
    """Processor, number of cores, and the vector instructions that torch uses."""
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{processor()} {os.cpu_count()} cores {capability}"


def revision() -> str:
    """Short git revision, ``+dirty`` where code differs from it; ``unknown`` outside a checkout."""
    try:
        head = _git("rev-parse", "--short", "HEAD")
        changed = _git("status", "--porcelain", "--", ".", ":!benchmarks/results", ":!docs")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}+dirty" if changed else head


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, errors="replace", check=True
    )
    return done.stdout.strip()


def instruction_sets() -> list[str]:
    """Those that the CPU kernel can run on here, best first; none where there is no kernel."""
    if lares_kernels.available_backends()["cpu"] != "usable":
        return []
    return cpu_library.instruction_sets()
